//! The measured speed and capacity of one backend.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::balancer::health::ProbeOutcome;
use crate::balancer::policy::{BackendLoad, MonotonicClock, ReportedLoad, Throughput};
use crate::load_report::{LoadReport, MOST_COUNTED};

/// The decay time of response times: after this time, a measurement has 1/e of its weight.
const RESPONSE_TIME_MEMORY: Duration = Duration::from_secs(10);

/// The decay time of load reports while the server is busy.
const CAPACITY_MEMORY: Duration = Duration::from_mins(1);

/// The part of the time in which a server is idle that counts for the decay. The measurement of a slow server that is rarely used
/// must stay valid until the next use, or each use would be a mistake.
const IDLE_PART: f64 = 0.1;

/// The largest accepted rate in bytes or requests per second; 800 Gbit/s.
const FASTEST: f64 = 1e11;

/// A report counts at most this multiple of the rate of the earlier reports. The effect of one wrong report so ends
/// within two minutes, and a few probes suffice for a server that has become faster.
const MOST_SUDDEN: f64 = 32.0;

/// The number of busy seconds after which the rate of a server is known.
const ENOUGH_SEEN: f64 = 1.0;

/// A report that stays unchanged while this number of clients is sent is stale.
const MOST_UNNOTICED: u64 = 20;

/// An address at which the same server has answered for this time is not shared.
const SHARED_ADDRESS_MEMORY: Duration = Duration::from_mins(1);

/// The longest remembered response time. Probes end far earlier.
const LONGEST_RESPONSE: Duration = Duration::from_hours(1);

/// All measurements of one backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Estimate {
    response_time: Option<ResponseTime>,
    capacity: Option<Capacity>,
    staleness: StaleReportDetector,
    sharing: SharedAddressDetector,
}

/// The parts of an [`Estimate`] that survive a restart. Times are ages when it was stored.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct RememberedEstimate {
    response_time: Option<Duration>,
    capacity: Option<RememberedCapacity>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct RememberedCapacity {
    last: LoadReport,
    age: Duration,
    busy_seconds: f64,
    requests: f64,
    bytes: f64,
    booked: f64,
}

impl RememberedEstimate {
    /// The estimate before the first probe of this run. Ages refer to `stored_at`; `redirects` is the restored number.
    pub(crate) fn restore(self, stored_at: Instant, redirects: u64) -> Estimate {
        let count = |count: f64| count.clamp(0.0, MOST_COUNTED as f64);
        Estimate {
            response_time: self
                .response_time
                .map(|time| ResponseTime::new(time.min(LONGEST_RESPONSE), stored_at)),
            capacity: self.capacity.map(|capacity| Capacity {
                last: capacity.last,
                at: stored_at.checked_sub(capacity.age).unwrap_or(stored_at),
                busy_seconds: count(capacity.busy_seconds),
                requests: count(capacity.requests),
                bytes: count(capacity.bytes),
                booked_then: 0,
                booked: count(capacity.booked),
            }),
            staleness: StaleReportDetector { moved: redirects, latest: redirects, unnoticed: 0 },
            sharing: SharedAddressDetector::default(),
        }
    }
}

impl Estimate {
    /// The parts that survive a restart.
    pub(crate) fn remember(&self, now: Instant) -> RememberedEstimate {
        RememberedEstimate {
            response_time: self.response_time(),
            capacity: self.capacity.map(|capacity| RememberedCapacity {
                last: capacity.last,
                age: now.saturating_duration_since(capacity.at),
                busy_seconds: capacity.busy_seconds,
                requests: capacity.requests,
                bytes: capacity.bytes,
                booked: capacity.booked,
            }),
        }
    }

    /// Applies the outcome of a probe, and updates `load` with its load report. Ignores failures, stale reports, and reports
    /// of shared addresses.
    pub fn observe(
        &mut self,
        outcome: &ProbeOutcome,
        load: &BackendLoad,
        clock: &MonotonicClock,
        now: Instant,
    ) -> Continuity {
        let ProbeOutcome::Success { total, report, .. } = outcome else {
            self.sharing.has_failed = true;
            return Continuity::Same;
        };
        // Each probe opens a connection, like a new client, so the response time includes connecting.
        match &mut self.response_time {
            Some(time) => time.observe(*total, now),
            None => self.response_time = Some(ResponseTime::new(*total, now)),
        }
        let last = self.capacity.map(|capacity| capacity.last);
        self.staleness = match report {
            Some(report) => self.staleness.after(last, report, load.redirects()),
            None => StaleReportDetector::default(),
        };
        let continuity = match (report, &mut self.capacity) {
            (Some(report), Some(capacity)) => capacity.observe(report, load.booked(), now),
            (Some(report), None) => {
                self.capacity = Some(Capacity::new(report, load.booked(), now));
                Continuity::Same
            }
            // Without a new report, the last one becomes outdated. The server is treated as one that never sent any.
            (None, _) => {
                self.capacity = None;
                Continuity::Same
            }
        };
        self.sharing = self.sharing.after(continuity, now);
        let usable = report.filter(|_| self.are_reports_usable());
        let reported = |LoadReport { in_flight, unsent_bytes, .. }| ReportedLoad { in_flight, unsent_bytes };
        load.record_probe(usable.map(reported), *total, clock.timestamp(now));
        if self.is_shared() { Continuity::Same } else { continuity }
    }

    /// The response time of a probe with connecting; `None` before the first answer.
    #[must_use]
    pub fn response_time(&self) -> Option<Duration> {
        self.response_time.map(|time| time.get())
    }

    /// The measured throughput; `None` if the backend sends no load reports, if they count no work, or if they are not
    /// usable.
    #[must_use]
    pub fn throughput(&self) -> Option<Throughput> {
        let capacity = self.capacity.filter(|_| self.are_reports_usable());
        capacity.map(|capacity| capacity.throughput()).filter(|seen| seen.busy_seconds > 0.0)
    }

    /// Whether its latest probe answer carried a load report.
    #[must_use]
    pub fn reports(&self) -> bool {
        self.capacity.is_some()
    }

    /// Whether its load reports are ignored because they stayed unchanged although clients were sent.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.staleness.is_stuck()
    }

    /// Whether its load reports are ignored because several servers seem to share its address.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.sharing.is_shared
    }

    /// Whether its latest probe answer carried a usable load report.
    pub(crate) fn has_usable_report(&self) -> bool {
        self.reports() && self.are_reports_usable()
    }

    fn are_reports_usable(&self) -> bool {
        !self.is_stuck() && !self.is_shared()
    }
}

/// A moving average of response times that rises fast and falls slowly (peak EWMA): a slow answer has a larger effect
/// than a fast one.
///
/// A slower measurement raises the average by half of the difference, so that one late answer on a busy machine does not
/// change the order of the backends.
#[derive(Debug, Clone, Copy)]
struct ResponseTime {
    estimate: Duration,
    at: Instant,
}

impl ResponseTime {
    /// The average of a first measurement.
    fn new(measured: Duration, now: Instant) -> Self {
        Self { estimate: measured, at: now }
    }

    /// Adds a measurement.
    fn observe(&mut self, measured: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let (old, new) = (self.estimate.as_secs_f64(), measured.as_secs_f64());
        let kept = if new > old { 0.5 } else { decay(passed, RESPONSE_TIME_MEMORY) };
        self.estimate = Duration::from_secs_f64(old * kept + new * (1.0 - kept));
        self.at = now;
    }

    /// The average. It does not change between measurements, so a backend without answers does not become faster.
    fn get(&self) -> Duration {
        self.estimate
    }
}

/// The throughput of a server, derived from the counts of its load reports: requests and bytes in its busy time. All
/// decay with age.
#[derive(Debug, Clone, Copy)]
struct Capacity {
    last: LoadReport,
    at: Instant,
    busy_seconds: f64,
    requests: f64,
    bytes: f64,
    /// The booked bytes of the backend at `at`.
    booked_then: u64,
    booked: f64,
}

/// Whether a report continues the counts of the previous one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continuity {
    /// It does.
    Same,
    /// Another server process answers: its counts started from zero. The measured throughput stays valid.
    Restarted,
}

impl Capacity {
    /// Starts with a first report, which only provides the base of the next one.
    fn new(report: &LoadReport, booked: u64, now: Instant) -> Self {
        Self {
            last: *report,
            at: now,
            busy_seconds: 0.0,
            requests: 0.0,
            bytes: 0.0,
            booked_then: booked,
            booked: 0.0,
        }
    }

    /// Adds a report.
    ///
    /// The busy time is limited to the elapsed time, and the counts to plausible rates.
    fn observe(&mut self, report: &LoadReport, booked: u64, now: Instant) -> Continuity {
        let passed = now.saturating_duration_since(self.at);
        let last = std::mem::replace(&mut self.last, *report);
        self.at = now;
        let newly_booked = booked.saturating_sub(std::mem::replace(&mut self.booked_then, booked));
        if last.boot != report.boot || report.completed < last.completed || report.busy < last.busy {
            return Continuity::Restarted;
        }
        let busy = report.busy.zip(last.busy).map(|(after, before)| after.saturating_sub(before).min(passed));
        let idle = passed.saturating_sub(busy.unwrap_or(passed));
        let kept = decay(passed.saturating_sub(idle.mul_f64(1.0 - IDLE_PART)), CAPACITY_MEMORY);
        self.busy_seconds *= kept;
        self.requests *= kept;
        self.bytes *= kept;
        self.booked = self.booked * kept + newly_booked as f64;
        if let Some(busy) = busy {
            let seconds = busy.as_secs_f64();
            self.requests += self.plausible(grown(last.completed, report.completed), self.requests, seconds);
            self.bytes += self.plausible(grown(last.sent_bytes, report.sent_bytes), self.bytes, seconds);
            self.busy_seconds += seconds;
        }
        Continuity::Same
    }

    /// Limits the increase `grown` of a count within `seconds` busy seconds to a plausible rate. `seen` is the decayed count
    /// of the earlier busy seconds.
    fn plausible(&self, grown: f64, seen: f64, seconds: f64) -> f64 {
        let fastest = if self.busy_seconds >= ENOUGH_SEEN && seen > 0.0 {
            (seen / self.busy_seconds * MOST_SUDDEN).min(FASTEST)
        } else {
            FASTEST
        };
        grown.min(fastest * seconds)
    }

    /// The measured throughput.
    fn throughput(&self) -> Throughput {
        let Self { requests, bytes, busy_seconds, booked, .. } = *self;
        Throughput { requests, bytes, busy_seconds, booked }
    }
}

/// Detects reports whose counts do not grow although clients are sent: a cache between server and balancer repeats an
/// old report, or the server reports constants.
#[derive(Debug, Clone, Copy, Default)]
struct StaleReportDetector {
    /// The redirects at the last change of the counts.
    moved: u64,
    /// The redirects at the latest report. These clients must appear in the next report.
    latest: u64,
    /// The redirects since the last change of the counts that the latest report should contain.
    unnoticed: u64,
}

impl StaleReportDetector {
    /// The state after a report that follows `last`, at this number of redirects.
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

/// Detects an address that several servers share, as opposed to one server that restarts now and then.
#[derive(Debug, Clone, Copy, Default)]
struct SharedAddressDetector {
    /// The time of the last change of the server process.
    changed: Option<Instant>,
    latest: Option<Instant>,
    /// Whether a probe has failed since the latest report, so that a restart is plausible.
    has_failed: bool,
    is_shared: bool,
}

impl SharedAddressDetector {
    /// The state after one more report. A server that answers every probe restarts rarely: a second change of the process
    /// within [`SHARED_ADDRESS_MEMORY`], or at the next report, indicates another server.
    fn after(self, continuity: Continuity, now: Instant) -> Self {
        let changed_lately = self.changed.is_some_and(|at| {
            self.latest == Some(at) || now.saturating_duration_since(at) <= SHARED_ADDRESS_MEMORY
        });
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

/// The weight of a measurement of the age `passed`.
fn decay(passed: Duration, memory: Duration) -> f64 {
    (-passed.as_secs_f64() / memory.as_secs_f64()).exp()
}

fn grown(before: Option<u64>, after: Option<u64>) -> f64 {
    after.unwrap_or(0).saturating_sub(before.unwrap_or(0)) as f64
}
