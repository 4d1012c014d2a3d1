//! What is measured of one backend: how fast it answers and how much it can carry.

use std::time::Duration;

use tokio::time::Instant;

use crate::balancer::health::ProbeOutcome;
use crate::balancer::load_report::LoadReport;
use crate::balancer::policy::{BackendLoad, MonotonicClock, Throughput};

/// How long a measurement counts: after this time it weighs 1/e of what it did.
const RESPONSE_TIME_MEMORY: Duration = Duration::from_secs(10);

/// How long a load report counts.
const CAPACITY_MEMORY: Duration = Duration::from_mins(1);

/// No server sends more bytes or completes more requests in a second; 800 Gbit/s.
const FASTEST: f64 = 1e11;

/// No report makes a server this many times faster than those before it have shown. So what one report claims wrongly
/// is outweighed in a minute or two, and a server that has become faster is believed in a few probes.
const MOST_SUDDEN: f64 = 32.0;

/// So many busy seconds show how fast a server is.
const ENOUGH_SEEN: f64 = 1.0;

/// A report that does not move while so many clients are sent is not of the server that they are sent to.
const MOST_UNNOTICED: u64 = 20;

/// An address at which one and the same server has answered for so long is that server's.
const TURNS_MEMORY: Duration = Duration::from_mins(1);

/// All that is measured of one backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Estimate {
    response_time: Option<ResponseTime>,
    capacity: Option<Capacity>,
    movement: Movement,
    turns: Turns,
}

impl Estimate {
    /// Takes in the outcome of a probe, and settles the ledger with what it says of the load. A failure measures
    /// nothing, and a report that is stuck, or of one of several servers, says nothing.
    pub fn observe(
        &mut self,
        outcome: &ProbeOutcome,
        ledger: &BackendLoad,
        clock: &MonotonicClock,
        now: Instant,
    ) -> Continuity {
        let ProbeOutcome::Success { total, report, .. } = outcome else {
            self.turns.has_failed = true;
            return Continuity::Same;
        };
        // Each probe opens a connection, as a new client would, so connecting counts.
        match &mut self.response_time {
            Some(time) => time.observe(*total, now),
            None => self.response_time = Some(ResponseTime::new(*total, now)),
        }
        let last = self.capacity.map(|capacity| capacity.last);
        self.movement = match report {
            Some(report) => self.movement.after(last, report, ledger.redirects()),
            None => Movement::default(),
        };
        let continuity = match (report, &mut self.capacity) {
            (Some(report), Some(capacity)) => capacity.observe(report, now),
            (Some(report), None) => {
                self.capacity = Some(Capacity::new(report, now));
                Continuity::Same
            }
            // A server that has stopped telling is one that never did: what it said grows stale.
            (None, _) => {
                self.capacity = None;
                Continuity::Same
            }
        };
        self.turns = self.turns.after(continuity, now);
        let believed = report.filter(|_| self.is_believed());
        ledger.record_probe(believed.map(|report| report.in_flight), *total, clock.timestamp(now));
        if self.is_shared() { Continuity::Same } else { continuity }
    }

    /// How long it takes to answer a probe, connecting included; `None` before the first answer.
    #[must_use]
    pub fn response_time(&self) -> Option<Duration> {
        self.response_time.map(|time| time.get())
    }

    /// What it was seen to carry; `None` if it sends no load reports, they count no work, or they are not
    /// believed.
    #[must_use]
    pub fn throughput(&self) -> Option<Throughput> {
        let capacity = self.capacity.filter(|_| self.is_believed());
        capacity.map(|capacity| capacity.throughput()).filter(|seen| seen.busy_seconds > 0.0)
    }

    /// Whether its latest probe answer carried a load report.
    #[must_use]
    pub fn reports(&self) -> bool {
        self.capacity.is_some()
    }

    /// Whether its load reports have stayed as they were although clients were sent, so that they are not believed.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.movement.is_stuck()
    }

    /// Whether several servers seem to take turns behind its address, so that no report speaks for all of them.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.turns.is_shared
    }

    /// Whether its latest probe answer carried a load report that is believed, so that its ledger was set right.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.reports() && self.is_believed()
    }

    fn is_believed(&self) -> bool {
        !self.is_stuck() && !self.is_shared()
    }
}

/// A moving average of response times that rises fast and falls slowly (peak EWMA), since a server that has become
/// slow is believed sooner than one that has become fast.
///
/// It rises half of the way at once rather than the whole: one late answer on a busy machine does not throw the
/// order of the backends over.
#[derive(Debug, Clone, Copy)]
pub struct ResponseTime {
    estimate: Duration,
    at: Instant,
}

impl ResponseTime {
    /// Begins with a first measurement.
    #[must_use]
    pub fn new(measured: Duration, now: Instant) -> Self {
        Self { estimate: measured, at: now }
    }

    /// Takes in a measurement.
    pub fn observe(&mut self, measured: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let (old, new) = (self.estimate.as_secs_f64(), measured.as_secs_f64());
        let kept = if new > old { 0.5 } else { decay(passed, RESPONSE_TIME_MEMORY) };
        self.estimate = Duration::from_secs_f64(old * kept + new * (1.0 - kept));
        self.at = now;
    }

    /// The estimate. It does not change between measurements: silence makes nobody faster.
    #[must_use]
    pub fn get(&self) -> Duration {
        self.estimate
    }
}

/// How much a server carries, learnt from the counts of its load reports: requests and bytes done in the time during
/// which it had something to do, both decaying with age.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    last: LoadReport,
    at: Instant,
    busy_seconds: f64,
    requests: f64,
    bytes: f64,
}

/// Whether a report continues the count of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// It does.
    Same,
    /// Another server process answers now; what was learnt of the machine is kept, the counts start anew.
    Restarted,
}

impl Capacity {
    /// Begins with a first report, which only sets the marks from which later ones count.
    #[must_use]
    pub fn new(report: &LoadReport, now: Instant) -> Self {
        Self { last: *report, at: now, busy_seconds: 0.0, requests: 0.0, bytes: 0.0 }
    }

    /// Takes in a report.
    ///
    /// What a server claims to have been busy beyond the time that has passed is not believed, nor what it claims to
    /// have done in that time beyond all likelihood.
    pub fn observe(&mut self, report: &LoadReport, now: Instant) -> Continuity {
        let passed = now.saturating_duration_since(self.at);
        let last = std::mem::replace(&mut self.last, *report);
        self.at = now;
        if last.boot != report.boot || report.completed < last.completed || report.busy < last.busy {
            return Continuity::Restarted;
        }
        let kept = decay(passed, CAPACITY_MEMORY);
        self.busy_seconds *= kept;
        self.requests *= kept;
        self.bytes *= kept;
        if let (Some(before), Some(after)) = (last.busy, report.busy) {
            let seconds = after.saturating_sub(before).min(passed).as_secs_f64();
            self.requests += self.likely(grown(last.completed, report.completed), self.requests, seconds);
            self.bytes += self.likely(grown(last.sent_bytes, report.sent_bytes), self.bytes, seconds);
            self.busy_seconds += seconds;
        }
        Continuity::Same
    }

    /// What is believed of a count that has `grown` in so many busy seconds, after it came to `seen` in those before.
    fn likely(&self, grown: f64, seen: f64, seconds: f64) -> f64 {
        let fastest = if self.busy_seconds >= ENOUGH_SEEN && seen > 0.0 {
            (seen / self.busy_seconds * MOST_SUDDEN).min(FASTEST)
        } else {
            FASTEST
        };
        grown.min(fastest * seconds)
    }

    /// What was seen so far.
    #[must_use]
    pub fn throughput(&self) -> Throughput {
        Throughput { requests: self.requests, bytes: self.bytes, busy_seconds: self.busy_seconds }
    }
}

/// Whether the counts of a server's reports grow when clients are sent there. Where they do not, something in between
/// keeps an old report, or the server makes one up.
#[derive(Debug, Clone, Copy, Default)]
struct Movement {
    /// What had been sent when the counts were last seen to move.
    moved: u64,
    /// What had been sent at the latest report: those clients must have come by the next.
    latest: u64,
    /// Sent since the counts moved, and early enough to be counted.
    unnoticed: u64,
}

impl Movement {
    /// What is known after a report that follows `last`, so many clients having been sent.
    fn after(self, last: Option<LoadReport>, report: &LoadReport, redirects: u64) -> Self {
        let counts =
            |report: &LoadReport| (report.in_flight, report.completed, report.sent_bytes, report.busy);
        let has_counts = report.completed.is_some() || report.sent_bytes.is_some() || report.busy.is_some();
        let has_moved = !has_counts || last.is_none_or(|last| counts(&last) != counts(report));
        let moved = if has_moved { redirects } else { self.moved };
        Self { moved, latest: redirects, unnoticed: self.latest.saturating_sub(moved) }
    }

    fn is_stuck(&self) -> bool {
        self.unnoticed >= MOST_UNNOTICED
    }
}

/// Who answers at an address: one server, which may start anew now and then, or several that take turns.
#[derive(Debug, Clone, Copy, Default)]
struct Turns {
    /// When another process than before was last found to answer.
    changed: Option<Instant>,
    latest: Option<Instant>,
    /// Whether a probe has failed since the latest report, so that a server that starts anew is no wonder.
    has_failed: bool,
    is_shared: bool,
}

impl Turns {
    /// What is known after one more report. A server that answers every probe and starts anew all the same does so
    /// seldom: a second change within [`TURNS_MEMORY`], or at the very next report, is one of another server.
    fn after(self, continuity: Continuity, now: Instant) -> Self {
        let changed_lately = self
            .changed
            .is_some_and(|at| self.latest == Some(at) || now.saturating_duration_since(at) <= TURNS_MEMORY);
        let latest = Some(now);
        match continuity {
            Continuity::Restarted => Self {
                changed: latest,
                latest,
                has_failed: false,
                is_shared: changed_lately && (self.is_shared || !self.has_failed),
            },
            Continuity::Same => {
                Self { latest, has_failed: false, is_shared: changed_lately && self.is_shared, ..self }
            }
        }
    }
}

/// How much weighs what is `passed` old.
fn decay(passed: Duration, memory: Duration) -> f64 {
    (-passed.as_secs_f64() / memory.as_secs_f64()).exp()
}

fn grown(before: Option<u64>, after: Option<u64>) -> f64 {
    after.unwrap_or(0).saturating_sub(before.unwrap_or(0)) as f64
}
