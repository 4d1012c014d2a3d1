//! Balancers that model every download that they redirected: one for each idea behind the weighing of `adaptive`.
//!
//! They show the contribution of each idea without the limits of a real balancer: they compare all servers for each
//! download, and keep every download in memory.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::dispatch::least;
use crate::scenario::{Job, Scenario};
use crate::server::Server;

/// The part of the knowledge that a model uses. Each adds to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idea {
    /// Requests in flight according to the report, and redirects since.
    Counts,
    /// Work according to the report, and redirects since, each with the mean size.
    BytesInReports,
    /// Work according to the report, and redirects since, each with its size.
    SumOfWork,
    /// The work that is done before the new download ends: of each other one at most the size of the new one.
    WorkBefore,
}

impl Idea {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Counts => "counts only",
            Self::BytesInReports => "reports in bytes",
            Self::SumOfWork => "sum of work",
            Self::WorkBefore => "min(remaining, s)",
        }
    }
}

/// The downloads of one server as the balancer knows them.
struct Known {
    /// The rest of each download.
    rests: Vec<f64>,
    at: f64,
    /// The reported work and busy time, of which the capacity follows.
    work_done: f64,
    busy_seconds: f64,
}

pub(crate) struct Model {
    idea: Idea,
    mean: f64,
    known: Vec<Known>,
    random: SmallRng,
}

impl Known {
    /// The measured capacity, with a little of the assumed one.
    fn capacity(&self, mean: f64) -> f64 {
        (self.work_done + 5.0 * mean) / (self.busy_seconds + 5.0 * mean)
    }

    /// Divides the capacity evenly among the downloads until `now`.
    fn drain(&mut self, now: f64, mean: f64) {
        let mut work = (now - self.at) * self.capacity(mean);
        self.at = now;
        self.rests.sort_unstable_by(|left, right| right.total_cmp(left));
        let mut attained = 0.0;
        while let Some(least) = self.rests.last() {
            let needed = (least - attained) * self.rests.len() as f64;
            if needed > work {
                attained += work / self.rests.len() as f64;
                break;
            }
            work -= needed;
            attained = *least;
            self.rests.pop();
        }
        for rest in &mut self.rests {
            *rest -= attained;
        }
    }
}

impl Model {
    pub(crate) fn new(idea: Idea, scenario: &Scenario, seed: u64) -> Self {
        let known = || Known { rests: Vec::new(), at: 0.0, work_done: 0.0, busy_seconds: 0.0 };
        Self {
            idea,
            mean: scenario.service_time(),
            known: (0..scenario.servers).map(|_| known()).collect(),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    pub(crate) fn choose(&mut self, job: &Job) -> usize {
        let size = match self.idea {
            Idea::Counts | Idea::BytesInReports => self.mean,
            Idea::SumOfWork | Idea::WorkBefore => job.known.unwrap_or(self.mean),
        };
        for known in &mut self.known {
            known.drain(job.at, self.mean);
        }
        let limit = if self.idea == Idea::WorkBefore { size } else { f64::INFINITY };
        let chosen = least(self.known.len(), &mut self.random, |index| {
            let known = &self.known[index];
            let before: f64 = known.rests.iter().map(|rest| rest.min(limit)).sum();
            (before + size) / known.capacity(self.mean)
        });
        self.known[chosen].rests.push(size);
        chosen
    }

    /// Scales the known downloads to the report. Downloads of other balancers have the mean size.
    pub(crate) fn probed(&mut self, now: f64, index: usize, server: &Server) {
        let known = &mut self.known[index];
        known.drain(now, self.mean);
        (known.work_done, known.busy_seconds) = (server.work_done, server.busy_seconds);
        let count = server.in_flight();
        // Downloads that the model has ended too late are the smallest ones, which are last.
        known.rests.truncate(count);
        known.rests.resize(count, self.mean);
        let unsent = if self.idea == Idea::Counts { count as f64 * self.mean } else { server.unsent() };
        let scale = unsent / known.rests.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        for rest in &mut known.rests {
            *rest *= scale;
        }
    }
}
