//! Time on the request path, in a form that an atomic integer holds.

use tokio::time::Instant;

/// Nanoseconds since the origin of a [`Clock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Tick(pub u64);

/// Converts instants to nanoseconds. One process uses one clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts at `origin`.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin }
    }

    /// Nanoseconds from the origin to `instant`; 0 for an instant before the origin.
    #[must_use]
    pub fn tick(&self, instant: Instant) -> Tick {
        let nanoseconds = instant.saturating_duration_since(self.origin).as_nanos();
        Tick(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}
