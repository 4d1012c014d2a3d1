//! What one request costs each backend: measured where its load reports tell, guessed where they do not.

use std::time::Duration;

use crate::balancer::policy::ledger::Cost;
use crate::balancer::policy::{Candidate, Throughput};

/// What is assumed of one request while no backend tells anything.
const UNKNOWN_SERVICE: Duration = Duration::from_millis(1);

/// This many requests at the usual rate are mixed into each measurement: little seen means little believed.
const PRIOR_REQUESTS: f64 = 5.0;

/// No measurement makes a backend this many times better or worse than usual.
const MOST_UNLIKE: f64 = 32.0;

/// A backend that reports nothing and takes long to answer a probe gets at least this part of the usual share ...
const LEAST_QUICK: f64 = 1.0 / 32.0;

/// ... and one that answers at once at most so many times as much.
const MOST_QUICK: f64 = 4.0;

/// The share of the measured rate that is planned with: a server that is believed a little slower than it is does
/// well, one that is believed faster is flooded.
const PRUDENCE: f64 = 0.8;

/// A request takes at least this long and at most that long, whatever the reports say.
const SERVICE_LIMITS: (Duration, Duration) = (Duration::from_micros(1), Duration::from_hours(1));

/// No weight makes a request delay a backend longer, in nanoseconds: about two weeks.
const LONGEST_DELAY: f64 = 1e15;

/// No sum of a minute's or an hour's work comes near to this.
const MOST_SEEN: f64 = 1e18;

/// The cost for each candidate.
pub(super) fn costs(candidates: &[Candidate]) -> Vec<Cost> {
    let usual = Usual::of(candidates);
    let cost = |candidate: &Candidate| {
        let (rate, quickness) = match reported(candidate) {
            Some(throughput) => (usual.rate(throughput), 1.0),
            None => (usual.rate, usual.quickness(candidate)),
        };
        let (shortest, longest) = SERVICE_LIMITS;
        let service = (1.0 / rate).clamp(shortest.as_secs_f64(), longest.as_secs_f64()) * 1e9 / PRUDENCE;
        let share = candidate.weight * quickness;
        let delay = (service / share).clamp(1.0, LONGEST_DELAY);
        Cost { service: service as f32, delay: delay as f32 }
    };
    candidates.iter().map(cost).collect()
}

/// What is usual among the candidates.
struct Usual {
    /// Requests a busy second, the median of those that report.
    rate: f64,
    /// Bytes a request, the median of those that report; 0 if none counts them.
    size: f64,
    /// The median of the response times of those that do not report.
    time: Option<f64>,
}

impl Usual {
    fn of(candidates: &[Candidate]) -> Self {
        let reporting = || candidates.iter().filter_map(reported);
        // Medians, since one that lies moves a mean as far as it likes.
        let size =
            median(reporting().map(|throughput| throughput.bytes / throughput.requests)).unwrap_or(0.0);
        let rate = median(reporting().map(|throughput| done(throughput, size) / throughput.busy_seconds));
        let silent = candidates.iter().filter(|candidate| reported(candidate).is_none());
        let time = median(silent.filter_map(|candidate| Some(candidate.response_time?.as_secs_f64())));
        Self { rate: rate.unwrap_or(1.0 / UNKNOWN_SERVICE.as_secs_f64()), size, time }
    }

    /// The rate to believe in: the measured one, drawn towards the usual one the more the less was seen.
    fn rate(&self, measured: Throughput) -> f64 {
        let rate = (done(measured, self.size) + PRIOR_REQUESTS)
            / (measured.busy_seconds + PRIOR_REQUESTS / self.rate);
        rate.clamp(self.rate / MOST_UNLIKE, self.rate * MOST_UNLIKE)
    }

    /// The share of a backend that tells nothing, by its response time: the inverse, within limits, since a short way
    /// does not make a server as much stronger as it makes its answers faster.
    fn quickness(&self, candidate: &Candidate) -> f64 {
        match (candidate.response_time, self.time) {
            (Some(time), Some(usual)) => (usual / time.as_secs_f64()).clamp(LEAST_QUICK, MOST_QUICK),
            _ => 1.0,
        }
    }
}

/// What the candidate reported, if it makes sense.
fn reported(candidate: &Candidate) -> Option<Throughput> {
    candidate.throughput.filter(|throughput| {
        let Throughput { requests, bytes, busy_seconds } = *throughput;
        [requests, bytes, busy_seconds].into_iter().all(|figure| (0.0..MOST_SEEN).contains(&figure))
            && busy_seconds > 0.0
    })
}

/// Requests done. Bytes, if they are counted, tell it sooner and more evenly than completed requests do: a request
/// of the usual size counts as one.
fn done(throughput: Throughput, size: f64) -> f64 {
    if size > 0.0 && throughput.bytes > 0.0 { throughput.bytes / size } else { throughput.requests }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite() && *value > 0.0).collect();
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f64::total_cmp).1)
}
