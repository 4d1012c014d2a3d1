//! A source: its address, its rate, its latency, and whether it may be used.

use std::time::Duration;

use tokio::time::Instant;

use url::Url;

use super::PlanSettings;
use crate::client::redirect::RedirectChain;

/// Maximum number of reported failures of one source.
const MAX_ERRORS: usize = 16;

/// Time constant of the exponentially weighted rate.
const RATE_MEMORY: Duration = Duration::from_secs(1);

/// Minimum duration of one sample of the rate.
const RATE_SAMPLE: Duration = Duration::from_millis(40);

/// A run with this many missing bytes is progress and resets the failure count.
const PROGRESS_BYTES: u64 = 16 * 1024;

/// Assumed latency of a source before its first answer.
const UNKNOWN_LATENCY: Duration = Duration::from_millis(50);

/// Whether a source may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Availability {
    /// At once.
    Ready,
    /// Not before this time.
    BackingOff(Instant),
    /// Not any more.
    Excluded,
}

/// Whether a source supports range requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeSupport {
    /// No range was requested yet, or a request for a range succeeded.
    Likely,
    /// The source answered a request for a range with the whole file.
    Refused,
}

/// Kind of failure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunFailure {
    /// Temporary; a retry may succeed, but not before `retry_after`.
    Passing { retry_after: Option<Duration> },
    /// The source answered a request for a range with the whole file, and will do so again.
    NoRanges,
    /// The server does not have this file, or has another version.
    Final,
}

/// Report of one source.
#[derive(Debug, Clone)]
pub(crate) struct SourceReport {
    /// The address of the source.
    pub url: Url,
    /// Received bytes that were kept.
    pub bytes: u64,
    /// Time from the first request to the head of its answer.
    pub first_byte: Option<Duration>,
    /// Failures, in order.
    pub errors: Vec<String>,
}

/// A server with the file: its address, the version that it has, its speed, and its failures.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The redirects that lead to the source, including its own.
    pub(crate) chain: RedirectChain,
    /// The [resource](crate::client::identity::resource) of the source.
    pub(super) resource: String,
    /// The strong `ETag` of the file at this source.
    pub(super) etag: Option<String>,
    /// The validator for `If-Range`, once the source has answered.
    pub(super) validator: Option<String>,
    /// Time from the first request to the head of its answer.
    pub(super) first_byte: Option<Duration>,
    /// Whether the source answered 404 or 410.
    pub(super) is_missing: bool,
    /// The reasons of its failures, in order.
    pub(super) errors: Vec<String>,
    pub(super) availability: Availability,
    pub(super) ranges: RangeSupport,
    pub(super) failures: u32,
    latency: Option<Duration>,
    /// Bytes per second, exponentially weighted.
    rate: Option<f64>,
    sample_bytes: u64,
    sample_since: Option<Instant>,
}

impl Source {
    pub(super) fn new(chain: RedirectChain, resource: String) -> Self {
        Self {
            chain,
            resource,
            etag: None,
            validator: None,
            first_byte: None,
            is_missing: false,
            errors: Vec::new(),
            availability: Availability::Ready,
            ranges: RangeSupport::Likely,
            failures: 0,
            latency: None,
            rate: None,
            sample_bytes: 0,
            sample_since: None,
        }
    }

    /// Forgets everything about the version that the source had, except for the report.
    pub(super) fn reset(&mut self, availability: Availability) {
        *self = Self {
            first_byte: self.first_byte,
            is_missing: self.is_missing,
            errors: std::mem::take(&mut self.errors),
            availability,
            ..Self::new(self.chain.clone(), std::mem::take(&mut self.resource))
        };
    }

    /// The address of the source.
    pub(crate) fn url(&self) -> &Url {
        self.chain.end()
    }

    /// The host and port of the source, for `Fingerpost-Avoid`.
    pub(super) fn authority(&self) -> Option<String> {
        Some(format!("{}:{}", self.url().host_str()?, self.url().port_or_known_default()?))
    }

    pub(super) fn refuse_ranges_if(&mut self, refuses: bool) {
        if refuses {
            self.ranges = RangeSupport::Refused;
        }
    }

    pub(super) fn note_error(&mut self, error: String) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }

    /// Whether the source may be used at `now`.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        match self.availability {
            Availability::Ready => true,
            Availability::BackingOff(until) => until <= now,
            Availability::Excluded => false,
        }
    }

    /// Bytes per second; `None` before the first sample.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Time from the request to the head of the answer.
    pub(super) fn latency(&self) -> Duration {
        self.latency.unwrap_or(UNKNOWN_LATENCY)
    }

    /// Maximum time until the next head before the source counts as stalled.
    pub(super) fn head_timeout(&self, settings: &PlanSettings) -> Duration {
        settings.head_after.max(self.latency.unwrap_or_default().saturating_mul(3))
    }

    pub(super) fn on_response_head(&mut self, latency: Duration, now: Instant) {
        self.latency = Some(latency);
        self.sample_bytes = 0;
        self.sample_since = Some(now);
    }

    pub(super) fn on_bytes(&mut self, count: u64, now: Instant) {
        self.sample_bytes = self.sample_bytes.saturating_add(count);
        if let Some(since) = self.sample_since
            && now.duration_since(since) >= RATE_SAMPLE
        {
            self.take_sample(now);
        }
    }

    /// Handles the end of a run: its last bytes are a sample, however short.
    pub(super) fn run_ended(&mut self, now: Instant) {
        if self.rate.is_none() && self.sample_bytes > PROGRESS_BYTES {
            self.take_sample(now);
        }
        self.sample_since = None;
    }

    fn take_sample(&mut self, now: Instant) {
        let Some(since) = self.sample_since.replace(now) else { return };
        let elapsed = now.duration_since(since).as_secs_f64().max(0.000_1);
        let sample = self.sample_bytes as f64 / elapsed;
        self.sample_bytes = 0;
        let weight = 1.0 - (-elapsed / RATE_MEMORY.as_secs_f64()).exp();
        self.rate = Some(self.rate.map_or(sample, |rate| rate + weight * (sample - rate)));
    }

    /// Records a failure after a run with `kept` missing bytes; `jitter` in 0..1 spreads the retries of many
    /// clients.
    pub(super) fn failed(
        &mut self,
        failure: RunFailure,
        kept: u64,
        settings: &PlanSettings,
        jitter: f64,
        now: Instant,
    ) {
        let made_progress = kept >= PROGRESS_BYTES;
        self.failures = if made_progress { 1 } else { self.failures.saturating_add(1) };
        self.availability = match failure {
            RunFailure::Final => Availability::Excluded,
            RunFailure::NoRanges if self.ranges == RangeSupport::Refused => Availability::Excluded,
            RunFailure::NoRanges => {
                self.ranges = RangeSupport::Refused;
                Availability::Ready
            }
            RunFailure::Passing { .. } if self.failures > settings.max_failures => Availability::Excluded,
            RunFailure::Passing { retry_after: Some(delay) } => backing_off(now, delay),
            RunFailure::Passing { retry_after: None } if made_progress => Availability::Ready,
            RunFailure::Passing { retry_after: None } => {
                backing_off(now, backoff(settings, self.failures, jitter))
            }
        };
    }

    /// Backs off without recording a failure.
    pub(super) fn back_off(&mut self, delay: Duration, now: Instant) {
        if self.availability != Availability::Excluded {
            self.availability = backing_off(now, delay);
        }
    }
}

fn backing_off(now: Instant, delay: Duration) -> Availability {
    // A back-off beyond the range of the clock never ends.
    now.checked_add(delay).map_or(Availability::Excluded, Availability::BackingOff)
}

/// Back-off after `failures` failures in a row: doubles with each, and is between half and all of that, by
/// `jitter`.
pub(super) fn backoff(settings: &PlanSettings, failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = settings.backoff_base.saturating_mul(1 << doublings).min(settings.backoff_max);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests;
