//! Prequal (Wydrowski and others, NSDI 2024) as its authors describe it, with three new probes for each job.

use std::collections::VecDeque;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::order::Ordered;
use crate::server::Server;

const POOL: usize = 16;
const PROBES_PER_JOB: usize = 3;
const OLDEST_SECONDS: f64 = 1.0;
const HOT_QUANTILE: f64 = 0.84;
/// The number of recent probes that determine the quantile.
const RECENT: usize = 128;

struct Probe {
    server: usize,
    in_flight: usize,
    latency: f64,
    at: f64,
    uses: usize,
}

/// Divides the probed servers into hot and cold: a server is hot if its requests in flight exceed the quantile. Chooses
/// the cold server with the lowest latency; if all are hot, the one with the fewest requests in flight. A probe is used
/// a limited number of times.
pub(crate) struct Prequal {
    pool: VecDeque<Probe>,
    recent: VecDeque<usize>,
    remove_worst: bool,
    random: SmallRng,
}

impl Prequal {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            pool: VecDeque::new(),
            recent: VecDeque::new(),
            remove_worst: false,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    pub(crate) fn choose(&mut self, now: f64, servers: &[Server]) -> usize {
        self.pool.retain(|probe| now - probe.at <= OLDEST_SECONDS);
        let chosen = self.best().map(|index| self.take(index, servers.len()));
        let chosen = chosen.unwrap_or_else(|| self.random.random_range(0..servers.len()));
        self.drop_one();
        for _ in 0..PROBES_PER_JOB.min(servers.len()) {
            let server = self.random.random_range(0..servers.len());
            self.probe(now, server, &servers[server], server == chosen);
        }
        chosen
    }

    fn hot_limit(&self) -> usize {
        let mut sorted: Vec<usize> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let index = (sorted.len() as f64 * HOT_QUANTILE) as usize;
        sorted.get(index).copied().unwrap_or(usize::MAX)
    }

    fn best(&self) -> Option<usize> {
        if self.pool.len() < 2 {
            return None;
        }
        let limit = self.hot_limit();
        let pool = || self.pool.iter().enumerate();
        pool()
            .filter(|(_, probe)| probe.in_flight <= limit)
            .min_by_key(|(_, probe)| Ordered(probe.latency))
            .or_else(|| pool().min_by_key(|(_, probe)| probe.in_flight))
            .map(|(index, _)| index)
    }

    /// Uses the probe and adds the new job to its requests in flight.
    fn take(&mut self, index: usize, servers: usize) -> usize {
        let per_job = PROBES_PER_JOB as f64;
        let reuse = 2.0 / ((1.0 - (POOL as f64 / servers as f64)) * per_job - 1.0);
        let reuse = if reuse > 0.0 { reuse.ceil().max(1.0) as usize } else { usize::MAX };
        let probe = &mut self.pool[index];
        probe.in_flight += 1;
        probe.uses += 1;
        let server = probe.server;
        if probe.uses >= reuse {
            self.pool.remove(index);
        }
        server
    }

    /// Removes a probe: alternately the oldest and the worst.
    fn drop_one(&mut self) {
        self.remove_worst = !self.remove_worst;
        if !self.remove_worst {
            self.pool.pop_front();
            return;
        }
        let limit = self.hot_limit();
        let worst = self.pool.iter().enumerate().max_by_key(|(_, probe)| {
            if probe.in_flight > limit {
                (1, Ordered(probe.in_flight as f64))
            } else {
                (0, Ordered(probe.latency))
            }
        });
        if let Some((index, _)) = worst {
            self.pool.remove(index);
        }
    }

    fn probe(&mut self, now: f64, index: usize, server: &Server, just_chosen: bool) {
        let in_flight = server.in_flight() + usize::from(just_chosen);
        let latency = (in_flight + 1) as f64 / server.capacity;
        if self.pool.len() >= POOL {
            self.pool.pop_front();
        }
        self.pool.push_back(Probe { server: index, in_flight, latency, at: now, uses: 0 });
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(in_flight);
    }
}
