//! What this balancer sent to each backend: the state of the policies that survives the table.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

mod book;

pub use book::Book;
pub(super) use book::{Cost, Line, PAGE, Page, Place};

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
#[derive(Debug)]
pub struct Ledger {
    /// Where its line is, which a pick reads and writes.
    place: Place,
    identity: u32,
    /// Of the redirects, those that the latest report accounts for.
    reported: AtomicU64,
    /// What the latest report said to be in flight, the probe aside.
    in_flight: AtomicU64,
    /// When the latest probe was answered.
    settled_at: AtomicU64,
    /// The redirects at that time.
    settled: AtomicU64,
}

/// The longest backlog believed.
const LONGEST_BACKLOG: Duration = Duration::from_hours(1);

impl Ledger {
    /// Begins a line that nobody else uses.
    fn new(place: Place, identity: u32) -> Self {
        place.line().begin();
        Self {
            place,
            identity,
            reported: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            settled_at: AtomicU64::new(0),
            settled: AtomicU64::new(0),
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn line(&self) -> &Line {
        self.place.line()
    }

    /// The number that stands for the backend in [`super::Avoid`].
    #[must_use]
    pub fn identity(&self) -> u32 {
        self.identity
    }

    /// Notes that one more client is sent there, without a pick.
    pub fn redirected(&self, now: Tick) {
        self.line().postpone(now);
        self.line().redirected();
    }

    /// How many clients were sent there since the balancer started.
    #[must_use]
    pub fn redirects(&self) -> u64 {
        self.line().redirects()
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
        let work = in_flight.saturating_add(unseen) as f64 * f64::from(self.line().delay());
        self.line().drain(work.min(LONGEST_BACKLOG.as_nanos() as f64) as u64, now);
    }
}
