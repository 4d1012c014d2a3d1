//! The cells of the grid: servers, arrivals, and probe intervals.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The time between two probes of one server, in seconds: the balancer's default.
pub(crate) const PROBE_INTERVAL: f64 = 2.0;

/// The relative speeds of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    Equal,
    /// One at a tenth of the speed.
    OneSlow,
    /// One at ten times the speed.
    OneFast,
    /// Half of them at a quarter of the speed.
    HalfSlow,
}

impl Mix {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::OneSlow => "one slow",
            Self::OneFast => "one fast",
            Self::HalfSlow => "half slow",
        }
    }

    pub(crate) fn title(self, servers: usize) -> String {
        let mix = match self {
            Self::Equal => "equal",
            Self::OneSlow => "one at a tenth of the speed",
            Self::OneFast => "one at ten times the speed",
            Self::HalfSlow => "half at a quarter of the speed",
        };
        format!("{servers} servers, {mix}")
    }
}

/// The distribution of download sizes. The mean is always one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sizes {
    Exponential,
    /// Bounded Pareto with this shape.
    Pareto(f64),
}

impl Sizes {
    pub(crate) fn label(self) -> String {
        match self {
            Self::Exponential => "exponential".to_owned(),
            Self::Pareto(shape) => format!("Pareto {shape}"),
        }
    }
}

/// The sizes as the balancers know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Knowledge {
    Exact,
    /// One size in five is unknown.
    Most,
    /// Rounded to powers of two.
    Classes,
    /// No size is known.
    Nothing,
}

/// A download.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    /// Its arrival in seconds.
    pub(crate) at: f64,
    /// The work in seconds of an average server.
    pub(crate) size: f64,
    /// The size that the balancers know.
    pub(crate) known: Option<f64>,
}

/// The times of the probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probes {
    /// Each server at a random time.
    Staggered,
    /// All servers at the same time.
    Synchronous,
}

/// One cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) servers: usize,
    pub(crate) mix: Mix,
    pub(crate) load: f64,
    /// Probe interval in service times of a server of average speed.
    pub(crate) interval: f64,
    pub(crate) sizes: Sizes,
    pub(crate) knowledge: Knowledge,
    pub(crate) probes: Probes,
    pub(crate) balancers: usize,
    /// Whether the balancers share observations.
    pub(crate) is_shared: bool,
    /// The number of clients that a server can serve at their full speed: a client uses at most the inverse of it as a
    /// share of the capacity.
    pub(crate) slow_clients: f64,
    /// Whether the servers report their load.
    pub(crate) reports: bool,
}

/// The smallest number of jobs in a run.
const FEWEST: usize = 30_000;

/// The smallest number of probes of each server in a run.
const PROBES: f64 = 30.0;

impl Scenario {
    pub(crate) fn new(servers: usize, mix: Mix, load: f64, interval: f64) -> Self {
        Self {
            servers,
            mix,
            load,
            interval,
            sizes: Sizes::Exponential,
            knowledge: Knowledge::Exact,
            probes: Probes::Staggered,
            balancers: 1,
            is_shared: false,
            slow_clients: 1.0,
            reports: true,
        }
    }

    /// The number of jobs: at least [`FEWEST`], and enough for [`PROBES`] probes of each server.
    fn count(&self) -> usize {
        FEWEST.max((self.arrivals_per_second() * PROBES * PROBE_INTERVAL) as usize)
    }

    fn arrivals_per_second(&self) -> f64 {
        self.load * self.servers as f64 / self.service_time()
    }

    /// A description for the summary.
    pub(crate) fn describe(&self) -> String {
        let Self { load, interval, .. } = self;
        format!("{}, load {load}, probes every {interval} service times", self.mix.title(self.servers))
    }

    /// The time of an average job on an idle server of average speed, in seconds.
    pub(crate) fn service_time(&self) -> f64 {
        PROBE_INTERVAL / self.interval
    }

    /// The work per second of each server. The unit of work is one second of an average server.
    pub(crate) fn capacities(&self) -> Vec<f64> {
        let relative: Vec<f64> = (0..self.servers)
            .map(|server| match self.mix {
                Mix::OneSlow if server == 0 => 0.1,
                Mix::OneFast if server == 0 => 10.0,
                Mix::HalfSlow if server % 2 == 0 => 0.25,
                _ => 1.0,
            })
            .collect();
        let mean = relative.iter().sum::<f64>() / self.servers as f64;
        relative.into_iter().map(|speed| speed / mean).collect()
    }

    /// The downloads, the same for every policy.
    pub(crate) fn jobs(&self, seed: u64) -> Vec<Job> {
        let mut rng = SmallRng::seed_from_u64(seed);
        // Sizes and arrivals must not depend on the knowledge.
        let mut unknown = SmallRng::seed_from_u64(!seed);
        let rate = self.arrivals_per_second();
        let mut now = 0.0;
        (0..self.count())
            .map(|_| {
                now += -(1.0 - rng.random::<f64>()).ln() / rate;
                let uniform = 1.0 - rng.random::<f64>();
                let size = match self.sizes {
                    Sizes::Exponential => -uniform.ln(),
                    Sizes::Pareto(shape) => bounded_pareto(shape, uniform),
                };
                let known = match self.knowledge {
                    Knowledge::Nothing => None,
                    Knowledge::Most if unknown.random_bool(0.2) => None,
                    Knowledge::Exact | Knowledge::Most => Some(size),
                    Knowledge::Classes => Some(size.log2().round().exp2()),
                };
                let unit = self.service_time();
                Job { at: now, size: size * unit, known: known.map(|size| size * unit) }
            })
            .collect()
    }
}

/// A size with mean 1; the largest is a thousand times the smallest.
fn bounded_pareto(shape: f64, uniform: f64) -> f64 {
    const RANGE: f64 = 1000.0;
    let tail = RANGE.powf(-shape);
    let mean = shape / (shape - 1.0) * (1.0 - RANGE.powf(1.0 - shape)) / (1.0 - tail);
    (1.0 - uniform * (1.0 - tail)).powf(-1.0 / shape) / mean
}
