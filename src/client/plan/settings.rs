//! The numbers that planning goes by.

use std::time::Duration;

/// When a second source is asked, how much it gets, and how long a failing one is put up with.
#[derive(Debug, Clone)]
pub struct PlanSettings {
    /// The most sources that send at once.
    pub max_sources: usize,
    /// Files above this many bytes are taken from several sources where time is saved.
    pub parallel_size: u64,
    /// The time that must be left for a second source to be worth it.
    pub parallel_time: Duration,
    /// The same for files of at most [`parallel_size`](Self::parallel_size) bytes.
    pub parallel_time_small: Duration,
    /// How long a source must have been sending for its rate to be believed.
    pub sample_time: Duration,
    /// How much a source is given at once, in time at its own rate.
    pub lease_time: Duration,
    /// The least it is given, in bytes, and the first run of a source whose rate is unknown.
    pub lease_min: u64,
    /// Runs shorter than this many bytes are not split.
    pub split_min: u64,
    /// How long a head, and then a first byte, may take before a second source is asked beside the first; at least three
    /// round trips.
    pub head_after: Duration,
    /// How long a sending source may be silent before a second one is asked beside it.
    pub hedge_after: Duration,
    /// How long any source may be silent before it is given up.
    pub drop_after: Duration,
    /// Failures of one source in a row, without progress, after which it is out; as many times the balancer is asked.
    pub max_failures: u32,
    /// The rest after the first failure; it doubles with each further one.
    pub backoff_base: Duration,
    /// The longest rest.
    pub backoff_max: Duration,
    /// How long a source rests that others are far ahead of, or that lost a race.
    pub cool_down: Duration,
}

/// The only source may be silent for this many times as long: five minutes by default.
const LONE_PATIENCE: u32 = 20;

impl PlanSettings {
    /// How long the only source may be silent before it is given up, if a new request would only begin its work again.
    #[must_use]
    pub fn drop_lone_after(&self) -> Duration {
        self.drop_after.saturating_mul(LONE_PATIENCE)
    }
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self {
            max_sources: 4,
            parallel_size: 8 << 20,
            parallel_time: Duration::from_secs(2),
            parallel_time_small: Duration::from_secs(10),
            sample_time: Duration::from_millis(50),
            lease_time: Duration::from_secs(3),
            lease_min: 1 << 20,
            split_min: 256 << 10,
            head_after: Duration::from_secs(1),
            hedge_after: Duration::from_secs(5),
            drop_after: Duration::from_secs(15),
            max_failures: 5,
            backoff_base: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            cool_down: Duration::from_secs(30),
        }
    }
}
