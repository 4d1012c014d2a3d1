//! The rate limit of a server, in bytes per second over all its connections and workers.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The time slice of one connection: it may send the bytes of this time before the next connection is scheduled.
const TURN: Duration = Duration::from_millis(10);

/// The longest idle time whose unused bytes may be sent later in a burst.
const BURST: Duration = Duration::from_millis(20);

/// The smallest and the largest number of bytes of one time slice.
const PORTION: std::ops::RangeInclusive<u64> = 2 << 10..=256 << 10;

/// A token bucket as a virtual schedule (GCRA, ITU-T I.371): one timestamp is the time from which bytes may be sent, and each
/// reservation moves it forward. Connections that wait are served in the order of their reservations.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: NonZeroU64,
    started: Instant,
    /// The time from which bytes may be sent, in nanoseconds after the start.
    free_at: AtomicU64,
}

/// The permission to send up to `bytes` bytes after a delay of `wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leave {
    pub(super) bytes: usize,
    pub(super) wait: Duration,
}

impl Pace {
    pub(super) fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, started: Instant::now(), free_at: AtomicU64::new(0) }
    }

    /// Reserves a time slice for at most `wanted` bytes.
    pub(super) fn ask(&self, wanted: usize, now: Instant) -> Leave {
        let rate = u128::from(self.bytes_per_second.get());
        let portion = (rate * TURN.as_nanos() / 1_000_000_000) as u64;
        let bytes = portion.clamp(*PORTION.start(), *PORTION.end()).min(wanted as u64);
        let cost = u64::try_from(u128::from(bytes) * 1_000_000_000 / rate).unwrap_or(u64::MAX);
        let now = now.saturating_duration_since(self.started).as_nanos() as u64;
        let earliest = now.saturating_sub(BURST.as_nanos() as u64);
        let mut free_at = self.free_at.load(Ordering::Relaxed);
        loop {
            let next = free_at.max(earliest).saturating_add(cost);
            match self.free_at.compare_exchange_weak(free_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(changed) => free_at = changed,
            }
        }
        Leave { bytes: bytes as usize, wait: Duration::from_nanos(free_at.saturating_sub(now)) }
    }
}

#[cfg(test)]
mod tests;
