//! What this balancer sent to one backend: the state of a policy that survives the table.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
#[derive(Debug, Default)]
pub struct Ledger {
    redirects: AtomicU64,
}

impl Ledger {
    /// How many clients were sent there since the balancer started.
    #[must_use]
    pub fn redirects(&self) -> u64 {
        self.redirects.load(Relaxed)
    }

    /// Notes that one more client was sent there.
    pub(super) fn redirected(&self) {
        self.redirects.fetch_add(1, Relaxed);
    }
}
