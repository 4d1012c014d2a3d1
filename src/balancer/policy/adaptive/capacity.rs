//! The cost of a byte on each backend: measured from load reports, or estimated without them.

use std::time::Duration;

use crate::balancer::policy::load_cell::ByteCost;
use crate::balancer::policy::{Candidate, DEFAULT_SIZE, Throughput};

/// The service time that is assumed while no backend sends reports.
const DEFAULT_SERVICE_TIME: Duration = Duration::from_millis(1);

/// The number of requests at the median rate that are mixed into each measurement, so that a short measurement has
/// little influence.
const PRIOR_REQUESTS: f64 = 2.0;

/// A measured rate is at most this many times above or below the median.
const MAX_DEVIATION: f64 = 32.0;

/// The smallest share of a backend without reports that answers probes slowly, relative to the median.
const MIN_QUICKNESS: f64 = 1.0 / 32.0;

/// The largest share of a backend without reports that answers probes fast, relative to the median.
const MAX_QUICKNESS: f64 = 4.0;

/// The part of the measured rate that is used. An underestimated backend still does well; an overestimated one is
/// overloaded.
const SAFETY_FACTOR: f64 = 0.95;

/// The shortest and the longest service time, whatever the reports contain.
const SERVICE_TIME_LIMITS: (Duration, Duration) = (Duration::from_micros(1), Duration::from_hours(1));

/// The largest increment of a virtual finish time, in nanoseconds (about two weeks), whatever the weight.
const MAX_INCREMENT: f64 = 1e15;

/// The largest typical size of a download in bytes.
const LARGEST_MEAN: f64 = 1e12;

/// The smallest share of the booked bytes that is assumed to reach the servers.
const LEAST_ARRIVING: f64 = 0.05;

/// Larger figures cannot be the work of hours.
const MAX_PLAUSIBLE: f64 = 1e18;

/// The measurements of a fleet that a policy uses.
pub(super) struct FleetCosts {
    /// The cost of a byte on each candidate.
    pub(super) costs: Vec<ByteCost>,
    /// The typical size of a download in bytes.
    pub(super) mean_size: f32,
    /// The share of the booked bytes that reach the servers.
    pub(super) arriving: f32,
}

/// The cost of a byte on each candidate.
pub(super) fn costs(candidates: &[Candidate]) -> FleetCosts {
    let medians = Medians::of(candidates);
    let cost = |candidate: &Candidate| {
        let throughput = plausible_throughput(candidate);
        let (rate, quickness) = match throughput {
            Some(throughput) => (medians.rate_of(throughput), 1.0),
            None => (medians.rate, medians.quickness(candidate)),
        };
        let (shortest, longest) = SERVICE_TIME_LIMITS;
        let seconds = (medians.size / rate).clamp(shortest.as_secs_f64(), longest.as_secs_f64());
        let service_time = seconds * 1e9 / SAFETY_FACTOR;
        let share = candidate.weight * quickness;
        let weighted = (service_time / share).clamp(1.0, MAX_INCREMENT) / medians.size;
        let idle = service_time / medians.size;
        ByteCost { idle: idle as f32, weighted: weighted as f32, by_size: candidate.reports }
    };
    FleetCosts {
        costs: candidates.iter().map(cost).collect(),
        mean_size: medians.size as f32,
        arriving: medians.arriving as f32,
    }
}

/// Medians over the candidates. A single backend with false figures would distort a mean without limit.
struct Medians {
    /// Bytes per busy second, over the backends with reports.
    rate: f64,
    /// Bytes per request, over the backends with reports.
    size: f64,
    /// Bytes sent for each booked byte, over the backends with reports; at most 1.
    arriving: f64,
    /// The response time in seconds, over the backends without reports.
    response_time: Option<f64>,
}

impl Medians {
    fn of(candidates: &[Candidate]) -> Self {
        let reporting = || candidates.iter().filter_map(plausible_throughput);
        let size = median(reporting().map(|throughput| throughput.bytes / throughput.requests));
        let size = size.unwrap_or(DEFAULT_SIZE.into()).clamp(1.0, LARGEST_MEAN);
        let rate = median(reporting().map(|throughput| sent(throughput, size) / throughput.busy_seconds));
        let booked = reporting().filter(|throughput| throughput.booked >= PRIOR_REQUESTS * size);
        let arriving = median(booked.map(|throughput| throughput.bytes / throughput.booked));
        let others = candidates.iter().filter(|candidate| plausible_throughput(candidate).is_none());
        let response_time =
            median(others.filter_map(|candidate| Some(candidate.response_time?.as_secs_f64())));
        Self {
            rate: rate.unwrap_or(size / DEFAULT_SERVICE_TIME.as_secs_f64()),
            size,
            arriving: arriving.unwrap_or(1.0).clamp(LEAST_ARRIVING, 1.0),
            response_time,
        }
    }

    /// The measured rate in bytes per second, drawn towards the median: the shorter the measurement, the more.
    fn rate_of(&self, measured: Throughput) -> f64 {
        let prior = PRIOR_REQUESTS * self.size;
        let rate = (sent(measured, self.size) + prior) / (measured.busy_seconds + prior / self.rate);
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
        let Throughput { requests, bytes, busy_seconds, booked } = *throughput;
        [requests, bytes, busy_seconds, booked]
            .into_iter()
            .all(|figure| (0.0..MAX_PLAUSIBLE).contains(&figure))
            && busy_seconds > 0.0
    })
}

/// Sent bytes, computed from the completed requests if the server does not count bytes: bytes grow during a download, and a
/// completed request shows only at its end.
fn sent(throughput: Throughput, size: f64) -> f64 {
    if throughput.bytes > 0.0 { throughput.bytes } else { throughput.requests * size }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite() && *value > 0.0).collect();
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
