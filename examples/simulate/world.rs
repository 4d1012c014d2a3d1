//! Runs one scenario with one contender.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fingerpost::internals::shared::FleetRecord;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::dispatch::{Contender, Dispatcher};
use crate::order::Ordered;
use crate::scenario::{PROBE_INTERVAL, Probes, Scenario};
use crate::server::Server;

/// The time between two records of a balancer in seconds, as in the balancer.
const PERIOD: f64 = 1.0;

/// The time between two reads of a balancer in seconds, as in the balancer.
const READ_INTERVAL: f64 = 0.25;

/// In place of the number of a record: the balancer publishes one.
const PUBLICATION: usize = usize::MAX;

/// The share of the jobs that only fills the servers and is not measured.
const WARM_UP: f64 = 0.3;

/// The result of one run. Times are in service times of an average server.
pub(crate) struct Outcome {
    /// The time from arrival to end of each measured job.
    pub(crate) times: Vec<f64>,
    pub(crate) most_in_flight: usize,
}

struct World<'a> {
    scenario: &'a Scenario,
    servers: Vec<Server>,
    balancers: Vec<Dispatcher>,
    finishes: BinaryHeap<Reverse<(Ordered, usize, u64)>>,
    probes: BinaryHeap<Reverse<(Ordered, usize, usize)>>,
    /// The times at which balancers publish, and at which the records of others reach them.
    exchanges: BinaryHeap<Reverse<(Ordered, usize, usize)>>,
    records: Vec<FleetRecord>,
    random: SmallRng,
    times: Vec<f64>,
    measured_from: f64,
}

pub(crate) fn play(scenario: &Scenario, contender: Contender, seed: u64) -> Outcome {
    let jobs = scenario.jobs(seed);
    let warm = (jobs.len() as f64 * WARM_UP) as usize;
    let mut world = World::new(scenario, contender, seed, jobs[warm].at);
    for job in &jobs {
        world.run_until(job.at);
        let balancer = world.random.random_range(0..world.balancers.len());
        let chosen = world.balancers[balancer].choose(job, &world.servers);
        world.servers[chosen].accept(job.at, job.size);
        world.schedule_finish(chosen);
    }
    // All measured jobs must end, or the longest ones would be missing from the result.
    world.run_until(f64::INFINITY);
    let unit = scenario.service_time();
    Outcome {
        times: world.times.iter().map(|time| time / unit).collect(),
        most_in_flight: world.servers.iter().map(|server| server.most_in_flight).max().unwrap_or(0),
    }
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, contender: Contender, seed: u64, measured_from: f64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0x5EED);
        let servers: Vec<Server> = scenario
            .capacities()
            .into_iter()
            .map(|capacity| Server::new(capacity, capacity / scenario.slow_clients))
            .collect();
        let balancers =
            (0..scenario.balancers).map(|number| contender.dispatcher(scenario, seed + 1000 * number as u64));
        let mut probes = BinaryHeap::new();
        for balancer in 0..scenario.balancers {
            let phase = random.random::<f64>() * PROBE_INTERVAL;
            for server in 0..scenario.servers {
                let at = match scenario.probes {
                    Probes::Staggered => random.random::<f64>() * PROBE_INTERVAL,
                    Probes::Synchronous => phase,
                };
                probes.push(Reverse((Ordered(at), balancer, server)));
            }
        }
        let is_shared = scenario.is_shared && scenario.balancers > 1;
        let publications = (0..if is_shared { scenario.balancers } else { 0 })
            .map(|balancer| Reverse((Ordered(random.random()), balancer, PUBLICATION)))
            .collect();
        Self {
            scenario,
            exchanges: publications,
            records: Vec::new(),
            balancers: balancers.collect(),
            servers,
            finishes: BinaryHeap::new(),
            probes,
            random,
            times: Vec::new(),
            measured_from,
        }
    }

    /// Processes ends of jobs and probes up to `until`; if it is infinite, only the ends of running jobs.
    fn run_until(&mut self, until: f64) {
        loop {
            let finish = self.finishes.peek().map_or(f64::INFINITY, |Reverse((at, ..))| at.0);
            let probe = match self.probes.peek() {
                Some(Reverse((at, ..))) if until.is_finite() => at.0,
                _ => f64::INFINITY,
            };
            let exchange = match self.exchanges.peek() {
                Some(Reverse((at, ..))) if until.is_finite() => at.0,
                _ => f64::INFINITY,
            };
            let next = finish.min(probe).min(exchange);
            if next > until || next.is_infinite() {
                return;
            }
            if exchange <= finish.min(probe) {
                self.exchange();
            } else if finish <= probe {
                self.finish();
            } else {
                self.probe();
            }
        }
    }

    fn finish(&mut self) {
        let Some(Reverse((at, index, version))) = self.finishes.pop() else { return };
        if self.servers[index].version != version {
            return;
        }
        if let Some(arrival) = self.servers[index].finish(at.0)
            && arrival >= self.measured_from
        {
            self.times.push(at.0 - arrival);
        }
        self.schedule_finish(index);
    }

    fn probe(&mut self) {
        let Some(Reverse((at, balancer, index))) = self.probes.pop() else { return };
        self.servers[index].advance(at.0);
        self.balancers[balancer].probed(at.0, index, &self.servers[index], self.scenario);
        // `advance` does not change the order of jobs, so the scheduled event stays valid.
        let jitter = match self.scenario.probes {
            Probes::Staggered => 0.9 + 0.2 * self.random.random::<f64>(),
            Probes::Synchronous => 1.0,
        };
        let pause = self.balancers[balancer].pause(index) * jitter;
        self.probes.push(Reverse((Ordered(at.0 + pause), balancer, index)));
    }

    /// A balancer publishes its record, or the record of another one reaches it.
    fn exchange(&mut self) {
        let Some(Reverse((at, balancer, record))) = self.exchanges.pop() else { return };
        if record != PUBLICATION {
            return self.balancers[balancer].receive(&self.records[record], at.0);
        }
        self.exchanges.push(Reverse((Ordered(at.0 + PERIOD), balancer, PUBLICATION)));
        let Some(record) = self.balancers[balancer].publish(at.0) else { return };
        self.records.push(record);
        for other in (0..self.balancers.len()).filter(|other| *other != balancer) {
            let read_at = at.0 + READ_INTERVAL * self.random.random::<f64>();
            self.exchanges.push(Reverse((Ordered(read_at), other, self.records.len() - 1)));
        }
    }

    fn schedule_finish(&mut self, index: usize) {
        let server = &self.servers[index];
        if let Some(at) = server.next_finish() {
            self.finishes.push(Reverse((Ordered(at), index, server.version)));
        }
    }
}
