//! Time on the request path, in a form that an atomic integer holds.

use tokio::time::Instant;

/// Nanoseconds since the origin of a [`MonotonicClock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

/// Converts instants to nanoseconds. One process uses one clock.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// A clock that starts at `origin`.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin }
    }

    /// Nanoseconds from the origin to `instant`; 0 for an instant before the origin.
    #[must_use]
    pub fn timestamp(&self, instant: Instant) -> Timestamp {
        let nanoseconds = instant.saturating_duration_since(self.origin).as_nanos();
        Timestamp(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}
