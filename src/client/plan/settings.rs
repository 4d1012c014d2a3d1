//! Timeouts and limits of the plan.

use std::time::Duration;

/// When to add a second source, how many bytes to assign, and when to drop a failing source.
#[derive(Debug, Clone)]
pub(crate) struct PlanSettings {
    /// Maximum number of sources used at once.
    pub max_sources: usize,
    /// Files above this many bytes use several sources if [`parallel_time`](Self::parallel_time) remains.
    pub parallel_size: u64,
    /// Minimum remaining time for which a second source is added.
    pub parallel_time: Duration,
    /// The same for files of at most [`parallel_size`](Self::parallel_size) bytes.
    pub parallel_time_small: Duration,
    /// Minimum duration of a transfer before its rate is used.
    pub sample_time: Duration,
    /// Size of an assignment, as time at the source's rate.
    pub lease_time: Duration,
    /// Minimum size of an assignment in bytes; also the first assignment of a source of unknown rate.
    pub lease_min: u64,
    /// Runs shorter than this many bytes are not split.
    pub split_min: u64,
    /// Maximum time until the head, and then until the first byte, before a second source is started; at
    /// least three round trips.
    pub head_after: Duration,
    /// Maximum silence of a sending source before a second source is started.
    pub hedge_after: Duration,
    /// Maximum silence of any source before it is dropped.
    pub drop_after: Duration,
    /// Failures of one source in a row, without progress, after which it is excluded. Also the maximum number
    /// of fruitless queries to the balancer in a row.
    pub max_failures: u32,
    /// Back-off after the first failure; doubles after each further failure.
    pub backoff_base: Duration,
    /// Maximum back-off.
    pub backoff_max: Duration,
    /// Back-off of a source that is much slower than the others, or lost a race.
    pub cool_down: Duration,
}

/// Factor on [`PlanSettings::drop_after`] for the only source: five minutes by default.
const LONE_TIMEOUT_FACTOR: u32 = 20;

impl PlanSettings {
    /// Maximum silence of the only source before it is dropped, if a new request would only repeat its work.
    pub(crate) fn drop_lone_after(&self) -> Duration {
        self.drop_after.saturating_mul(LONE_TIMEOUT_FACTOR)
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
