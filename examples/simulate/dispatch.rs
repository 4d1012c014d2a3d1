//! Chooses a server for each job: the balancer's own policies, and algorithms to compare them with.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::internals::estimate::Estimate;
use fingerpost::internals::health::ProbeOutcome;
use fingerpost::internals::health::{State, Traffic};
use fingerpost::internals::load_report::LoadReport;
use fingerpost::internals::policy::{
    self, BackendLoad, Candidate, LoadSlab, MonotonicClock, PickRequest, Picks, Policy, PolicyName,
    ReportedLoad, Timestamp, identity,
};
use fingerpost::internals::shared::{
    Counts, Delivery, FleetRecord, Observation, Observers, Outbox, Publisher,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::model::{Idea, Model};
use crate::order::Ordered;
use crate::prequal::Prequal;
use crate::scenario::{Job, PROBE_INTERVAL, Scenario};
use crate::server::Server;

/// The size of an average job in the load reports, in bytes.
const BYTES: f64 = 1e6;

/// The shortest time between two tables in seconds, as in the balancer.
const TABLE_INTERVAL: f64 = 0.25;

/// An algorithm of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// One of the balancer's policies.
    Ours(PolicyName),
    /// Weighted random by the inverse of the response time to probes.
    InverseResponseTime,
    /// Round robin with the true capacities as weights.
    TrueWeights,
    /// Prequal with three probes for each job, which are too many for a redirect balancer.
    Prequal,
    /// Knows the present queue of every server and minimizes (in flight + 1) / capacity.
    Oracle,
    /// Knows the rest of every download and minimizes the time that the new one takes at an equal share.
    SizeOracle,
    /// A model of one idea, which compares all servers.
    Idea(Idea),
}

/// The contenders in the order of the table columns.
pub(crate) const CONTENDERS: [Contender; 10] = [
    Contender::Ours(PolicyName::Random),
    Contender::Ours(PolicyName::RoundRobin),
    Contender::Ours(PolicyName::Ranked),
    Contender::InverseResponseTime,
    Contender::Ours(PolicyName::TwoChoices),
    Contender::TrueWeights,
    Contender::Ours(PolicyName::Adaptive),
    Contender::Prequal,
    Contender::Oracle,
    Contender::SizeOracle,
];

/// The contenders of the tables with heavy tails.
pub(crate) const SIZE_CONTENDERS: [Contender; 5] = [
    Contender::Ours(PolicyName::RoundRobin),
    Contender::Ours(PolicyName::Adaptive),
    Contender::Prequal,
    Contender::Oracle,
    Contender::SizeOracle,
];

/// The contenders of the table of sharing balancers.
pub(crate) const SHARING_CONTENDERS: [Contender; 2] =
    [Contender::Ours(PolicyName::Adaptive), Contender::Oracle];

/// The contenders of the table of ideas.
pub(crate) const IDEAS: [Contender; 7] = [
    Contender::Idea(Idea::Counts),
    Contender::Idea(Idea::BytesInReports),
    Contender::Idea(Idea::SumOfWork),
    Contender::Idea(Idea::WorkBefore),
    Contender::Ours(PolicyName::Adaptive),
    Contender::Oracle,
    Contender::SizeOracle,
];

impl Contender {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Ours(name) => name.as_str(),
            Self::InverseResponseTime => "1/RTT",
            Self::TrueWeights => "true weights",
            Self::Prequal => "Prequal",
            Self::Oracle => "oracle",
            Self::SizeOracle => "size oracle",
            Self::Idea(idea) => idea.label(),
        }
    }

    pub(crate) fn dispatcher(self, scenario: &Scenario, seed: u64) -> Dispatcher {
        match self {
            Self::Ours(name) => {
                Dispatcher::Table(Box::new(Table::new(name, Weighing::Equal, scenario, seed)))
            }
            Self::InverseResponseTime => Dispatcher::Table(Box::new(Table::new(
                PolicyName::Random,
                Weighing::InverseResponseTime,
                scenario,
                seed,
            ))),
            Self::TrueWeights => Dispatcher::Table(Box::new(Table::new(
                PolicyName::RoundRobin,
                Weighing::Capacity,
                scenario,
                seed,
            ))),
            Self::Prequal => Dispatcher::Prequal(Prequal::new(seed)),
            Self::Oracle | Self::SizeOracle => Dispatcher::Oracle {
                knows_sizes: self == Self::SizeOracle,
                random: SmallRng::seed_from_u64(seed),
            },
            Self::Idea(idea) => Dispatcher::Model(Model::new(idea, scenario, seed)),
        }
    }
}

/// One balancer.
pub(crate) enum Dispatcher {
    Table(Box<Table>),
    Prequal(Prequal),
    Oracle { knows_sizes: bool, random: SmallRng },
    Model(Model),
}

impl Dispatcher {
    pub(crate) fn choose(&mut self, job: &Job, servers: &[Server]) -> usize {
        match self {
            Self::Table(table) => table.choose(job),
            Self::Prequal(prequal) => prequal.choose(job.at, servers),
            Self::Oracle { knows_sizes: false, random } => least(servers.len(), random, |index| {
                (servers[index].in_flight() + 1) as f64 / servers[index].capacity
            }),
            Self::Oracle { knows_sizes: true, random } => least(servers.len(), random, |index| {
                servers[index].work_before(job.at, job.size) / servers[index].capacity
            }),
            Self::Model(model) => model.choose(job),
        }
    }

    /// The record of this balancer, if it shares observations.
    pub(crate) fn publish(&mut self, now: f64) -> Option<FleetRecord> {
        match self {
            Self::Table(table) => table.publish(now),
            _ => None,
        }
    }

    /// Takes over the record of another balancer.
    pub(crate) fn receive(&mut self, record: &FleetRecord, now: f64) {
        if let Self::Table(table) = self {
            table.receive(record, now);
        }
    }

    /// The time to the next probe of this server, without jitter.
    pub(crate) fn pause(&self, index: usize) -> f64 {
        let Self::Table(table) = self else { return PROBE_INTERVAL };
        let interval = Duration::from_secs_f64(PROBE_INTERVAL);
        let pause = |sharing: &Sharing| {
            sharing.observers.pause(index as u64, interval, Traffic::Active).as_secs_f64()
        };
        table.sharing.as_ref().map_or(PROBE_INTERVAL, pause)
    }

    /// A probe of this server succeeded.
    pub(crate) fn probed(&mut self, now: f64, index: usize, server: &Server, scenario: &Scenario) {
        match self {
            Self::Table(table) => table.probed(now, index, server, scenario),
            Self::Model(model) => model.probed(now, index, server),
            Self::Prequal(_) | Self::Oracle { .. } => {}
        }
    }
}

/// The server with the least cost; a random one of equals.
pub(crate) fn least(servers: usize, random: &mut SmallRng, cost: impl Fn(usize) -> f64) -> usize {
    let first = random.random_range(0..servers);
    let order = (first..servers).chain(0..first);
    order
        .map(|index| (Ordered(cost(index)), index))
        .min_by_key(|(cost, _)| *cost)
        .map_or(first, |(_, index)| index)
}

/// The source of the candidates' weights.
enum Weighing {
    Equal,
    InverseResponseTime,
    Capacity,
}

/// A balancer that rebuilds its table at most every [`TABLE_INTERVAL`], like the real one.
pub(crate) struct Table {
    name: PolicyName,
    weighing: Weighing,
    capacities: Vec<f64>,
    loads: Vec<Arc<BackendLoad>>,
    estimates: Vec<Estimate>,
    policy: Box<dyn Policy>,
    origin: Instant,
    clock: MonotonicClock,
    built_at: f64,
    stale: bool,
    random: SmallRng,
    /// The work of an average download.
    service_time: f64,
    sharing: Option<Sharing>,
}

/// The part of a balancer in a fleet.
struct Sharing {
    name: String,
    number: u64,
    observers: Observers,
    outbox: Outbox,
}

impl Table {
    fn new(name: PolicyName, weighing: Weighing, scenario: &Scenario, seed: u64) -> Self {
        let origin = Instant::now();
        let mut random = SmallRng::seed_from_u64(seed);
        let mut slab = LoadSlab::default();
        let loads: Vec<Arc<BackendLoad>> = (0..scenario.servers)
            .map(|server| slab.allocate(identity(&format!("server{server}:80"))))
            .collect();
        let mut table = Self {
            name,
            weighing,
            capacities: scenario.capacities(),
            estimates: vec![Estimate::default(); scenario.servers],
            loads,
            policy: policy::build(name, Vec::new(), Timestamp::default(), &mut random),
            origin,
            clock: MonotonicClock::new(origin),
            built_at: 0.0,
            stale: true,
            random,
            service_time: scenario.service_time(),
            sharing: (scenario.is_shared && scenario.balancers > 1).then(|| {
                let name = format!("balancer{seed}");
                let (observers, outbox) = (Observers::new(&name, 0, 2, origin), Outbox::new(origin));
                Sharing { name, number: 0, observers, outbox }
            }),
        };
        table.build(0.0);
        table
    }

    fn instant(&self, now: f64) -> Instant {
        self.origin + Duration::from_secs_f64(now)
    }

    fn build(&mut self, now: f64) {
        let now = self.clock.timestamp(self.instant(now));
        let candidates = self
            .loads
            .iter()
            .zip(&self.estimates)
            .zip(&self.capacities)
            .zip(0..)
            .map(|(((load, estimate), capacity), backend)| Candidate {
                backend,
                weight: match (&self.weighing, estimate.response_time()) {
                    (Weighing::InverseResponseTime, Some(time)) => 1.0 / time.as_secs_f64(),
                    (Weighing::Capacity, _) => *capacity,
                    _ => 1.0,
                },
                response_time: estimate.response_time(),
                throughput: estimate.throughput(),
                reports: estimate.reports(),
                joins: false,
                address: backend.into(),
                load: Arc::clone(load),
            })
            .collect();
        self.policy = policy::build(self.name, candidates, now, &mut self.random);
        self.stale = false;
    }

    fn choose(&mut self, job: &Job) -> usize {
        let now = job.at;
        if self.stale && now >= self.built_at + TABLE_INTERVAL {
            self.build(now);
            self.built_at = now;
        }
        let mut picks = Picks::new(0);
        let tick = self.clock.timestamp(self.instant(now));
        let size = job.known.map(|size| (size / self.service_time * BYTES) as f32);
        let request = PickRequest { size, ..PickRequest::default() };
        self.policy.pick(&request, tick, &mut self.random, &mut picks);
        picks.chosen().expect("every table has candidates") as usize
    }

    fn probed(&mut self, now: f64, index: usize, server: &Server, scenario: &Scenario) {
        let share = (server.in_flight() + 1) as f64 / server.capacity;
        let total = Duration::from_secs_f64(0.001 + 0.01 * scenario.service_time() * share);
        let report = scenario.reports.then(|| LoadReport {
            in_flight: server.in_flight() as u32 + 1,
            completed: Some(server.completed),
            busy: Some(Duration::from_secs_f64(server.busy_seconds)),
            sent_bytes: Some((server.work_done / scenario.service_time() * BYTES) as u64),
            unsent_bytes: Some((server.unsent() / scenario.service_time() * BYTES) as u64),
            ..LoadReport::default()
        });
        let outcome = ProbeOutcome::Success { connect: Duration::ZERO, first_byte: total, total, report };
        let instant = self.instant(now);
        self.estimates[index].observe(&outcome, &self.loads[index], &self.clock, instant);
        self.stale = true;
        let Some(sharing) = &mut self.sharing else { return };
        let observation = Observation {
            state: State::Up,
            age: 0,
            pause: (PROBE_INTERVAL * 1000.0) as u32,
            response_time: Some(total.as_micros() as u32),
            in_flight: report.map(|report| report.in_flight),
            unsent_bytes: report.and_then(|report| report.unsent_bytes),
        };
        sharing.outbox.observed(index as u64, observation, false, instant);
    }

    fn publish(&mut self, now: f64) -> Option<FleetRecord> {
        let now = self.instant(now);
        let sharing = self.sharing.as_mut()?;
        let counts = self.loads.iter().zip(0..).map(|(load, backend)| Counts {
            backend,
            redirects: load.redirects(),
            bytes: load.own_bytes(),
        });
        let (period, backends) = sharing.outbox.take(counts.collect(), now);
        sharing.number += 1;
        Some(FleetRecord {
            balancer: Publisher { name: sharing.name.clone(), zone: String::new(), version: String::new() },
            boot: 1,
            number: sharing.number,
            uptime: (now - self.origin).as_millis() as u64,
            period: period.as_millis() as u32,
            list: 0,
            orders: 0,
            backends,
        })
    }

    fn receive(&mut self, record: &FleetRecord, now: f64) {
        let instant = self.instant(now);
        let tick = self.clock.timestamp(instant);
        let Some(sharing) = &mut self.sharing else { return };
        for news in sharing.observers.apply(record, Delivery::Live, instant) {
            let load = &self.loads[news.backend as usize];
            if let Some((observation, at)) = news.observation
                && let Some(in_flight) = observation.in_flight
            {
                let report = ReportedLoad { in_flight, unsent_bytes: observation.unsent_bytes };
                load.record_shared_report(report, self.clock.timestamp(at), tick);
            }
            let (from, to) = news.period;
            let period = (self.clock.timestamp(from), self.clock.timestamp(to));
            load.record_others(news.redirects.0, news.redirects.1, period);
        }
        sharing.observers.refresh(&Ok(()), instant);
        self.stale = true;
    }
}
