//! `--limit-rate`: a rate limit over all connections.

use std::time::Duration;

use tokio::time::Instant;

/// Computes the delay after each read. Pure.
#[derive(Debug)]
pub(super) struct RateLimiter {
    bytes_per_second: u64,
    /// Time at which the next read is allowed.
    paid_at: Option<Instant>,
}

impl RateLimiter {
    /// A limiter to `bytes_per_second`; 0 counts as 1.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: None }
    }

    /// Maximum size of one read in bytes, small enough for an even rate.
    pub(super) fn read_size(&self) -> usize {
        usize::try_from(self.bytes_per_second / 16).unwrap_or(usize::MAX).max(512)
    }

    /// Records a read of `bytes` at `now`. Returns the time of the next read.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        // Idle time is not saved up.
        let from = self.paid_at.filter(|&at| at > now).unwrap_or(now);
        let paid = from.checked_add(cost).unwrap_or(from);
        self.paid_at = Some(paid);
        paid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_and_idle_time_is_not_saved_up() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(1000);
        assert_eq!(limiter.take(500, start), start + Duration::from_millis(500));
        assert_eq!(limiter.take(500, start), start + Duration::from_secs(1));
        let later = start + Duration::from_mins(1);
        assert_eq!(limiter.take(100, later), later + Duration::from_millis(100));
    }
}
