//! The routing table, from which every HTTP worker chooses backends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::Rng;
use tokio::time::Instant;

use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::fleet::observers::FleetReport;
use crate::balancer::health::{
    Health, HealthCheckConfig, ProbeOutcome, SharedEvidence, State, Traffic, Transition,
};
use crate::balancer::history::{Change, History};
use crate::balancer::orders::{self, BackendOrders, Override};
use crate::balancer::policy::{
    self, BackendLoad, Candidate, LoadSlab, MonotonicClock, Policy, PolicyName, RememberedLoad, Timestamp,
};
use crate::balancer::ranking::estimate::{Continuity, Estimate};
use crate::balancer::ranking::selection::{self, Eligibility, Mode};

mod candidates;

use candidates::{CandidateSet, RestrictedPolicy, candidate, restrict};

/// The properties of a backend that a client needs to reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs(u8);

impl Needs {
    const HTTPS: u8 = 1;
    const IPV4: u8 = 2;

    /// The needs of a client that uses https (browsers block downloads over http from https pages), or that uses IPv4 (it may
    /// have no IPv6).
    pub(crate) fn new(https: bool, ipv4: bool) -> Self {
        Self((u8::from(https) * Self::HTTPS) | (u8::from(ipv4) * Self::IPV4))
    }

    /// The needs that `backend` meets. A host name may have addresses of both families.
    fn met_by(backend: &Backend) -> Self {
        Self::new(backend.id().is_https(), !backend.id().authority().starts_with('['))
    }

    fn are_met_by(self, has: Self) -> bool {
        self.0 & !has.0 == 0
    }
}

/// A backend of the list and its state in the ranking.
#[derive(Debug, Clone)]
pub struct BackendEntry {
    /// The line of the list.
    pub backend: Backend,
    /// Its redirects and reported load. All tables share it as long as the backend is in the list.
    pub load: Arc<BackendLoad>,
    /// A digest of its whole address, equal on every balancer.
    pub(crate) address: u64,
    /// Its tier, and within a tier first the backends in the zone of the balancer.
    pub(super) tier: u32,
    /// The observations of other balancers.
    pub shared: SharedEvidence,
    /// The needs of clients that it meets.
    has: Needs,
    /// Its health.
    pub health: Health,
    /// Its measured speed and capacity.
    pub estimate: Estimate,
    /// The phases of the latest successful probe.
    pub latest: Option<Timings>,
    /// Whether it is a candidate in the latest table.
    pub eligibility: Eligibility,
    /// Whether its load report was usable for the latest table.
    pub had_usable_report: bool,
    /// The orders of operators for it.
    pub(crate) orders: Option<BackendOrders>,
    /// Its state changes. All tables share it between two changes.
    pub(crate) history: Arc<History>,
    /// The number of redirects to it at its latest probe.
    redirects: u64,
    /// The time of the latest probe at which this number had grown.
    used_at: Option<Instant>,
}

/// The phases of one probe, each measured from its start.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// The time until the connection was established.
    pub connect: Duration,
    /// The time until the head of the answer arrived.
    pub first_byte: Duration,
    /// The time until the last byte arrived.
    pub total: Duration,
}

impl BackendEntry {
    /// The entry of a backend before its first probe, with a new load cell of `slab`.
    #[must_use]
    pub fn new(backend: Backend, slab: &mut LoadSlab, now: Instant) -> Self {
        Self {
            load: slab.allocate(policy::identity(backend.id().authority())),
            address: policy::digest(backend.id().as_str().as_bytes()),
            tier: u32::from(backend.tier()) * 2,
            shared: SharedEvidence::default(),
            has: Needs::met_by(&backend),
            redirects: 0,
            used_at: None,
            backend,
            health: Health::new(now),
            estimate: Estimate::default(),
            latest: None,
            eligibility: Eligibility::Out,
            had_usable_report: false,
            orders: None,
            history: Arc::default(),
        }
    }

    /// Replaces the attributes by those of another line for the same address. `zone` is the zone of the balancer.
    pub(crate) fn list_as(&mut self, backend: &Backend, zone: Option<&str>) {
        self.backend = backend.clone();
        self.tier = u32::from(backend.tier()) * 2 + u32::from(zone.is_some() && backend.zone() != zone);
    }

    /// Its response time; the one of another balancer if this one has not measured any.
    pub(super) fn response_time(&self) -> Option<Duration> {
        self.estimate.response_time().or(self.shared.response_time)
    }

    /// Applies the outcome of one probe; `Some` if the state changed.
    pub fn observe(
        &mut self,
        outcome: &ProbeOutcome,
        health_check: &HealthCheckConfig,
        clock: &MonotonicClock,
        now: Instant,
    ) -> Option<Transition> {
        let transition = self.health.observe(outcome, health_check, now);
        if let ProbeOutcome::Success { connect, first_byte, total, .. } = outcome {
            self.latest = Some(Timings { connect: *connect, first_byte: *first_byte, total: *total });
        }
        if self.estimate.observe(outcome, &self.load, clock, now) == Continuity::Restarted {
            self.health.restarted(now);
        }
        transition
    }

    /// Applies the orders for it; `true` if they differ from the previous ones. A backend that becomes disabled is unknown afterwards, because its probes end.
    pub(crate) fn obey(&mut self, orders: Option<&BackendOrders>, now: Instant, wall: SystemTime) -> bool {
        if self.orders.as_ref() == orders {
            return false;
        }
        Arc::make_mut(&mut self.history).count(self.health.state(), wall);
        let was_disabled = self.withdrawal() == Some(Override::Disable);
        self.orders = orders.cloned();
        if self.withdrawal() == Some(Override::Disable) && !was_disabled {
            self.health = Health::new(now);
        }
        true
    }

    /// Continues the load of an earlier run, remembered `age` ago.
    pub(crate) fn restore_load(&mut self, load: &RememberedLoad, age: Duration, now: Timestamp) {
        self.load.restore(load, age, now);
        self.redirects = load.redirects;
    }

    /// Adds a change of state to the history. The list has `backends` backends.
    pub(crate) fn record(&mut self, Transition { from, to }: Transition, wall: SystemTime, backends: usize) {
        let cause = self.health.reason().to_string();
        let history = Arc::make_mut(&mut self.history);
        history.count(from, wall);
        history.record(wall, Change::State { from, to }, &cause, backends);
    }

    /// Adds the orders in force to the history, after a change.
    pub(crate) fn record_orders(&mut self, wall: SystemTime, backends: usize) {
        let orders = self.orders.as_deref().unwrap_or_default();
        let texts: Vec<String> = orders.iter().map(ToString::to_string).collect();
        let latest = orders.iter().max_by_key(|order| order.given_at);
        let cause =
            latest.map_or("the last order ended".to_owned(), |order| format!("by {}", order.given_by));
        let change = Change::Orders { orders: texts.join("; ") };
        Arc::make_mut(&mut self.history).record(wall, change, &cause, backends);
    }

    /// The order that excludes it from the selection.
    pub(crate) fn withdrawal(&self) -> Option<Override> {
        orders::withdrawal(self.orders.as_deref()?)
    }

    /// Its weight: the one of an order, else the one of the list.
    pub(crate) fn weight(&self) -> u32 {
        let ordered = self.orders.as_deref().and_then(orders::weight);
        ordered.unwrap_or(self.backend.weight())
    }

    /// Whether clients are redirected to it. Must be called once per probe.
    pub fn traffic(&mut self, interval: Duration, now: Instant) -> Traffic {
        let redirects = self.load.redirects();
        if redirects != self.redirects {
            (self.redirects, self.used_at) = (redirects, Some(now));
        }
        let unused = self.used_at.map(|used_at| now.saturating_duration_since(used_at));
        Traffic::after(unused, interval)
    }
}

/// A routing table. Each table is complete, so a worker that misses one continues correctly with the next.
#[derive(Debug)]
pub struct RoutingTable {
    /// The number of the table; grows by one with each table.
    pub generation: u64,
    /// The time at which it was made.
    pub built_at: Instant,
    /// The rule that selected the candidates.
    pub mode: Mode,
    /// The other balancers; `None` if the balancer is not in a fleet.
    pub(crate) fleet: Option<Arc<FleetReport>>,
    /// All backends in the order of the list. Policies refer to a backend by its index here.
    pub entries: Vec<BackendEntry>,
    /// Chooses among the candidates.
    pub policy: Box<dyn Policy>,
    /// The choice for each combination of needs.
    restricted: [RestrictedPolicy; 4],
}

impl RoutingTable {
    /// Makes a table from the current entries. Updates the eligibility of each entry.
    #[must_use]
    pub fn build(
        generation: u64,
        entries: &mut [BackendEntry],
        name: PolicyName,
        health_check: &HealthCheckConfig,
        clock: &MonotonicClock,
        now: Instant,
        random: &mut dyn Rng,
    ) -> Self {
        let table = Self::from_entries(generation, entries.to_vec(), name, health_check, clock, now, random);
        for (entry, selected) in entries.iter_mut().zip(&table.entries) {
            entry.eligibility = selected.eligibility;
            entry.had_usable_report = selected.had_usable_report;
        }
        table
    }

    /// The same from entries that only the table needs.
    pub(crate) fn from_entries(
        generation: u64,
        mut entries: Vec<BackendEntry>,
        name: PolicyName,
        health_check: &HealthCheckConfig,
        clock: &MonotonicClock,
        now: Instant,
        random: &mut dyn Rng,
    ) -> Self {
        let selection = selection::select(&entries, health_check, now);
        let mut candidates: Vec<Candidate> = Vec::new();
        for ((index, entry), eligibility) in (0..).zip(entries.iter_mut()).zip(selection.eligibilities) {
            let before = std::mem::replace(&mut entry.eligibility, eligibility);
            let had_usable_report =
                std::mem::replace(&mut entry.had_usable_report, entry.estimate.has_usable_report());
            // A backend without a usable report joins like a new one: no later report would correct its last reported load.
            let joins =
                !matches!(before, Eligibility::Chosen(_)) || (had_usable_report && !entry.had_usable_report);
            candidates.extend(candidate(index, entry, joins));
        }
        let needs = [0, 1, 2, 3].map(Needs);
        let meeting = needs.map(|needs| entries.iter().filter(|entry| needs.are_met_by(entry.has)).count());
        let is_mixed = meeting.iter().any(|count| (1..entries.len()).contains(count));
        let all = if is_mixed { candidates.clone() } else { Vec::new() };
        // Must be built first, because it prepares the load cells.
        let policy = policy::build(name, candidates, clock.timestamp(now), random);
        let restricted = needs.map(|needs| match meeting.get(usize::from(needs.0)) {
            Some(0) => RestrictedPolicy::Unmet,
            Some(count) if *count < entries.len() => restrict(needs, &entries, &all, |part| match part {
                CandidateSet::Subset(candidates) => policy::build_part(name, candidates, random),
                CandidateSet::Spare(candidates) => {
                    policy::build(name, candidates, clock.timestamp(now), random)
                }
            }),
            _ => RestrictedPolicy::Same,
        });
        Self { generation, built_at: now, mode: selection.mode, fleet: None, entries, policy, restricted }
    }

    /// Chooses among the backends that meet `needs`, or among all candidates if no usable backend does.
    pub(crate) fn policy_for(&self, needs: Needs) -> &dyn Policy {
        self.restricted_policy(needs).map_or(&*self.policy, |(_, policy)| policy)
    }

    /// Whether the needs of a client exclude a backend.
    pub(crate) fn is_excluded_by(&self, needs: Needs, entry: &BackendEntry) -> bool {
        self.restricted_policy(needs).is_some_and(|(needs, _)| !needs.are_met_by(entry.has))
    }

    /// The needs that restrict the choice, and the choice among the backends that meet them; `None` for all candidates.
    fn restricted_policy(&self, needs: Needs) -> Option<(Needs, &dyn Policy)> {
        // If no backend meets both needs, the address family precedes the scheme: an unreachable server is worse than one of
        // another scheme.
        for needs in [needs.0, needs.0 & Needs::IPV4, needs.0 & Needs::HTTPS] {
            match self.restricted.get(usize::from(needs)) {
                Some(RestrictedPolicy::Part(policy)) => return Some((Needs(needs), &**policy)),
                Some(RestrictedPolicy::Unmet) => {}
                Some(RestrictedPolicy::Same) | None => break,
            }
        }
        None
    }

    /// The best usable backend that `accepts` accepts, also one that is not a candidate: first one that meets the needs, then a
    /// candidate, then the lowest tier, then the one with the fewest requests in flight.
    pub(crate) fn best_of(&self, needs: Needs, accepts: impl Fn(&BackendEntry) -> bool) -> Option<u32> {
        let usable = (0..).zip(&self.entries).filter(|(_, entry)| {
            !matches!(entry.eligibility, Eligibility::Out | Eligibility::Withdrawn) && accepts(entry)
        });
        let best = usable.min_by_key(|(_, entry)| {
            let is_candidate = matches!(entry.eligibility, Eligibility::Chosen(_));
            (!needs.are_met_by(entry.has), !is_candidate, entry.tier, entry.load.outstanding())
        });
        best.map(|(index, _)| index)
    }

    /// The usable backends that `accepts` accepts, at most `most`: those that meet the needs first, then candidates, then by tier
    /// and response time.
    pub(crate) fn ranked(
        &self,
        needs: Needs,
        most: usize,
        accepts: impl Fn(&BackendEntry) -> bool,
    ) -> Vec<&BackendId> {
        let is_usable =
            |entry: &&BackendEntry| !matches!(entry.eligibility, Eligibility::Out | Eligibility::Withdrawn);
        let mut usable: Vec<&BackendEntry> =
            self.entries.iter().filter(is_usable).filter(|entry| accepts(entry)).collect();
        usable.sort_by_key(|entry| {
            let is_candidate = matches!(entry.eligibility, Eligibility::Chosen(_));
            let time = entry.response_time().unwrap_or(Duration::MAX);
            (!needs.are_met_by(entry.has), !is_candidate, entry.tier, time)
        });
        usable.iter().take(most).map(|entry| entry.backend.id()).collect()
    }

    /// Whether every backend has been probed at least once, by this balancer or another one, except disabled ones.
    pub(crate) fn are_all_probed(&self) -> bool {
        let is_disabled = |entry: &BackendEntry| entry.withdrawal() == Some(Override::Disable);
        self.entries
            .iter()
            .all(|entry| entry.shared.state(entry.health.state()) != State::Unknown || is_disabled(entry))
    }
}

#[cfg(test)]
mod tests;
