//! The cost of one request on each backend: measured from load reports, or estimated without them.

use std::time::Duration;

use crate::balancer::policy::load::RequestCost;
use crate::balancer::policy::{Candidate, Throughput};

/// The service time that is assumed while no backend sends reports.
const DEFAULT_SERVICE_TIME: Duration = Duration::from_millis(1);

/// The number of requests at the median rate that are mixed into each measurement, so that a short measurement has
/// little influence.
const PRIOR_REQUESTS: f64 = 5.0;

/// A measured rate is at most this many times above or below the median.
const MAX_DEVIATION: f64 = 32.0;

/// The smallest share of a backend without reports that answers probes slowly, relative to the median.
const MIN_QUICKNESS: f64 = 1.0 / 32.0;

/// The largest share of a backend without reports that answers probes fast, relative to the median.
const MAX_QUICKNESS: f64 = 4.0;

/// The part of the measured rate that is used. An underestimated backend still does well; an overestimated one is
/// flooded.
const SAFETY_FACTOR: f64 = 0.8;

/// The shortest and the longest service time, whatever the reports contain.
const SERVICE_TIME_LIMITS: (Duration, Duration) = (Duration::from_micros(1), Duration::from_hours(1));

/// The largest increment of a virtual finish time, in nanoseconds (about two weeks), whatever the weight.
const MAX_INCREMENT: f64 = 1e15;

/// Larger figures cannot be the work of hours.
const MAX_PLAUSIBLE: f64 = 1e18;

/// The cost of a request on each candidate.
pub(super) fn costs(candidates: &[Candidate]) -> Vec<RequestCost> {
    let medians = Medians::of(candidates);
    let cost = |candidate: &Candidate| {
        let (rate, quickness) = match plausible_throughput(candidate) {
            Some(throughput) => (medians.rate_of(throughput), 1.0),
            None => (medians.rate, medians.quickness(candidate)),
        };
        let (shortest, longest) = SERVICE_TIME_LIMITS;
        let seconds = (1.0 / rate).clamp(shortest.as_secs_f64(), longest.as_secs_f64());
        let service_time = seconds * 1e9 / SAFETY_FACTOR;
        let share = candidate.weight * quickness;
        let increment = (service_time / share).clamp(1.0, MAX_INCREMENT);
        RequestCost { service_time: service_time as f32, increment: increment as f32 }
    };
    candidates.iter().map(cost).collect()
}

/// Medians over the candidates. A single backend with false figures would distort a mean without limit.
struct Medians {
    /// Requests per busy second, over the backends with reports.
    rate: f64,
    /// Bytes per request, over the backends with reports; 0 if no backend counts bytes.
    size: f64,
    /// The response time in seconds, over the backends without reports.
    response_time: Option<f64>,
}

impl Medians {
    fn of(candidates: &[Candidate]) -> Self {
        let reporting = || candidates.iter().filter_map(plausible_throughput);
        let size =
            median(reporting().map(|throughput| throughput.bytes / throughput.requests)).unwrap_or(0.0);
        let rate =
            median(reporting().map(|throughput| completed(throughput, size) / throughput.busy_seconds));
        let others = candidates.iter().filter(|candidate| plausible_throughput(candidate).is_none());
        let response_time =
            median(others.filter_map(|candidate| Some(candidate.response_time?.as_secs_f64())));
        Self { rate: rate.unwrap_or(1.0 / DEFAULT_SERVICE_TIME.as_secs_f64()), size, response_time }
    }

    /// The measured rate in requests per second, drawn towards the median: the shorter the measurement, the more.
    fn rate_of(&self, measured: Throughput) -> f64 {
        let rate = (completed(measured, self.size) + PRIOR_REQUESTS)
            / (measured.busy_seconds + PRIOR_REQUESTS / self.rate);
        rate.clamp(self.rate / MAX_DEVIATION, self.rate * MAX_DEVIATION)
    }

    /// The share of a backend without reports: the inverse of its response time, relative to the median. The limits
    /// exist because a short network path improves the response time more than the capacity.
    fn quickness(&self, candidate: &Candidate) -> f64 {
        match (candidate.response_time, self.response_time) {
            (Some(time), Some(median)) => (median / time.as_secs_f64()).clamp(MIN_QUICKNESS, MAX_QUICKNESS),
            _ => 1.0,
        }
    }
}

/// The throughput of the candidate, unless its figures are impossible.
fn plausible_throughput(candidate: &Candidate) -> Option<Throughput> {
    candidate.throughput.filter(|throughput| {
        let Throughput { requests, bytes, busy_seconds } = *throughput;
        [requests, bytes, busy_seconds].into_iter().all(|figure| (0.0..MAX_PLAUSIBLE).contains(&figure))
            && busy_seconds > 0.0
    })
}

/// Completed requests, computed from bytes if the server counts them: bytes grow during a download, and a completed
/// request shows only at its end.
fn completed(throughput: Throughput, size: f64) -> f64 {
    if size > 0.0 && throughput.bytes > 0.0 { throughput.bytes / size } else { throughput.requests }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite() && *value > 0.0).collect();
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
