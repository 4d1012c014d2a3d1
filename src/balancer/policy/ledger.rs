//! What this balancer sent to one backend: the state of a policy that survives the table.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// A moment on the request path: nanoseconds since the clock's origin, which an atomic can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(pub u64);

/// Turns instants into ticks. One for the whole process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose tick 0 is `origin`.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin }
    }

    /// The tick of an instant; 0 for one before the origin.
    #[must_use]
    pub fn tick(&self, instant: Instant) -> Tick {
        let nanoseconds = instant.saturating_duration_since(self.origin).as_nanos();
        Tick(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// What one backend was sent, updated by every HTTP worker and read by the ranking.
///
/// It combines what the server last said of itself with what it was sent since: either alone misleads.
/// One cache line, so that backends do not disturb each other.
#[derive(Debug)]
#[repr(align(64))]
pub struct Ledger {
    identity: u32,
    redirects: AtomicU64,
    /// Of `redirects`, those that the latest report accounts for.
    reported: AtomicU64,
    /// What the latest report said to be in flight, the probe aside.
    in_flight: AtomicU64,
    /// The tick at which the work known of will be done, if nothing more is sent (a virtual finish time).
    drained_at: AtomicU64,
    /// Nanoseconds by which one request delays `drained_at`.
    cost: AtomicU64,
    /// When the latest probe was answered.
    settled_at: AtomicU64,
    /// `redirects` at that time.
    settled: AtomicU64,
}

/// The longest backlog believed.
const LONGEST_BACKLOG: Duration = Duration::from_hours(1);

impl Ledger {
    /// The ledger of a backend that was sent nothing; `identity` is [`super::identity`] of its authority.
    #[must_use]
    pub fn new(identity: u32) -> Self {
        Self {
            identity,
            redirects: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            drained_at: AtomicU64::new(0),
            cost: AtomicU64::new(0),
            settled_at: AtomicU64::new(0),
            settled: AtomicU64::new(0),
        }
    }

    /// The number that stands for the backend in [`super::Avoid`].
    #[must_use]
    pub fn identity(&self) -> u32 {
        self.identity
    }

    /// How many clients were sent there since the balancer started.
    #[must_use]
    pub fn redirects(&self) -> u64 {
        self.redirects.load(Relaxed)
    }

    /// Requests that are probably in flight there: those of the latest report, and those sent that it cannot show.
    ///
    /// Of a server that makes no reports, those sent since its latest probe.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        let unreported = self.redirects().saturating_sub(self.reported.load(Relaxed));
        self.in_flight.load(Relaxed).saturating_add(unreported)
    }

    /// Notes that a probe was answered just now, `took` after it was sent, and what the answer said to be in flight
    /// (the probe included), if it said so.
    ///
    /// Clients sent while the probe was on its way, or so shortly before that they had not arrived when it did,
    /// cannot be in the report. They are added to it, at the rate of sending since the probe before.
    pub fn settle(&self, in_flight: Option<u32>, took: Duration, now: Tick) {
        let redirects = self.redirects();
        let sent = redirects.saturating_sub(self.settled.swap(redirects, Relaxed)) as f64;
        let passed = now.0.saturating_sub(self.settled_at.swap(now.0, Relaxed)).max(1) as f64;
        let Some(in_flight) = in_flight else {
            self.in_flight.store(0, Relaxed);
            self.reported.store(redirects, Relaxed);
            return;
        };
        let on_the_way = 2.0 * took.as_nanos() as f64;
        let unseen = (sent * (on_the_way / passed).min(1.0)).round() as u64;
        let in_flight = u64::from(in_flight.saturating_sub(1));
        self.in_flight.store(in_flight, Relaxed);
        self.reported.store(redirects.saturating_sub(unseen), Relaxed);
        let backlog = in_flight
            .saturating_add(unseen)
            .saturating_mul(self.cost.load(Relaxed))
            .min(LONGEST_BACKLOG.as_nanos() as u64);
        if backlog == 0 {
            self.drained_at.fetch_min(now.0, Relaxed);
        } else {
            self.drained_at.store(now.0.saturating_add(backlog), Relaxed);
        }
    }

    /// Notes that one more client was sent there.
    pub(super) fn redirected(&self) {
        self.redirects.fetch_add(1, Relaxed);
    }

    pub(super) fn drained_at(&self) -> Tick {
        Tick(self.drained_at.load(Relaxed))
    }

    /// Nanoseconds by which one request delays [`Ledger::drained_at`].
    pub(super) fn cost(&self) -> u64 {
        self.cost.load(Relaxed)
    }

    pub(super) fn set_cost(&self, nanoseconds: u64) {
        self.cost.store(nanoseconds, Relaxed);
    }

    /// Puts one more request behind the work known of.
    pub(super) fn delay(&self, now: Tick) {
        let cost = self.cost();
        let mut current = self.drained_at.load(Relaxed);
        // Each failed exchange means that another worker made one. After a few the exact start matters less than the
        // time lost.
        for _ in 0..3 {
            let later = current.max(now.0).saturating_add(cost);
            match self.drained_at.compare_exchange_weak(current, later, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(actual) => current = actual,
            }
        }
        self.drained_at.fetch_add(cost, Relaxed);
    }
}
