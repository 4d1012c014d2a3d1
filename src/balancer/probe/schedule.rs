//! The budget that the probes of all backends share. Pure. The delay of the next probe of one backend comes from its
//! [`Health`](crate::balancer::health::Health).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::balancer::health::HealthCheckConfig;

/// The limit of probes per second over all backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeBudget {
    /// Probes per second; 0 counts as 1.
    pub per_second: u32,
}

impl ProbeBudget {
    /// The time in which the budget allows one probe of each of `backends` backends.
    pub(crate) fn sweep(self, backends: usize) -> Duration {
        Duration::from_secs_f64(backends as f64 / f64::from(self.per_second.max(1)))
    }

    /// The interval at which `backends` backends stay within the budget; never shorter than `interval`.
    pub(crate) fn stretched(self, interval: Duration, backends: usize) -> Duration {
        interval.max(self.sweep(backends))
    }

    /// The configuration with the stretched interval for `backends` backends.
    pub(crate) fn stretch(self, health_check: &HealthCheckConfig, backends: usize) -> HealthCheckConfig {
        HealthCheckConfig { interval: self.stretched(health_check.interval, backends), ..*health_check }
    }

    /// The delay before the first probe of a backend. The delays of all backends are spread over one sweep by a hash of the
    /// identity: a list of thousands causes no burst, and the probes of a short list start at once.
    pub(crate) fn first_pause(self, identity: &impl Hash, backends: usize) -> Duration {
        self.sweep(backends).mul_f64(fraction(identity))
    }
}

/// A number from 0 to 1 that depends only on the identity.
fn fraction(identity: &impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: ProbeBudget = ProbeBudget { per_second: 2000 };

    #[test]
    fn many_backends_stretch_the_interval() {
        let interval = Duration::from_secs(2);
        assert_eq!(BUDGET.stretched(interval, 0), interval);
        assert_eq!(BUDGET.stretched(interval, 4000), interval);
        assert_eq!(BUDGET.stretched(interval, 10_000), Duration::from_secs(5));
    }

    #[test]
    fn a_start_of_thousands_is_spread_evenly_over_one_sweep() {
        let mut of_second = [0_u32; 5];
        for backend in 0..10_000 {
            let pause = BUDGET.first_pause(&backend, 10_000);
            of_second[usize::try_from(pause.as_secs()).unwrap()] += 1;
        }
        assert!(of_second.iter().all(|count| (1800..2200).contains(count)), "{of_second:?}");
    }
}
