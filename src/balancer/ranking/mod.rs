//! `RankingActor`: updates the entry of a backend with each probe result, and publishes routing tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, AsyncContext, Context, Handler, Message, MessageResult, Supervised};
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::fleet::{FleetExchange, FleetIdentity};
use crate::balancer::health::{HealthCheckConfig, State, Transition};
use crate::balancer::metrics::RankingMetrics;
use crate::balancer::orders::{OrderBook, Override};
use crate::balancer::policy::{LoadSlab, MonotonicClock, PolicyName};
use crate::balancer::probe::schedule::ProbeBudget;
use crate::balancer::probe::{NextProbe, ProbeResult};

pub(crate) mod estimate;
pub(crate) mod publisher;
pub(crate) mod selection;
mod sharing;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use estimate::Estimate;
use publisher::TablePublisher;
use selection::Mode;
use sharing::Sharing;
use table::{BackendEntry, RoutingTable};

/// The shortest time between two tables after a change of state.
const TRANSITION_PACE: Duration = Duration::from_millis(50);

/// The shortest time between two tables after a change of estimates.
const ESTIMATE_PACE: Duration = Duration::from_millis(250);

/// The longest time between two tables. Some rules depend only on time, such as the slow start.
const LONGEST_PACE: Duration = Duration::from_secs(1);

/// The number of probe results that may wait. A budget of 2 000 probes per second fills the mailbox in 8 s.
const MAILBOX: usize = 16_384;

/// The message that activates a list and the orders for its backends. The reply follows the table with both.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ListChanged {
    /// All backends.
    pub backends: Arc<[Backend]>,
    /// All orders.
    pub orders: Arc<OrderBook>,
}

/// The settings of a `RankingActor`. As a message, they replace those in force; the reply follows the table with them.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct RankingSettings {
    /// The rule for the choice of a backend.
    pub policy: PolicyName,
    /// The rules for states and probe intervals.
    pub health_check: HealthCheckConfig,
    /// The limit of probes per second over all backends; it can stretch the interval.
    pub probe_budget: ProbeBudget,
}

/// The settings and resources of a `RankingActor`.
pub(crate) struct RankingPlan {
    /// Receives the tables; already has the first one.
    pub publisher: Arc<TablePublisher>,
    /// The settings.
    pub settings: RankingSettings,
    /// The clock of the load cells, shared with the request path.
    pub clock: MonotonicClock,
    /// The metrics.
    pub metrics: RankingMetrics,
    /// The zone of the balancer, whose backends come first in each tier.
    pub zone: Option<Arc<str>>,
    /// The identity in a fleet; `None` for a balancer that works alone.
    pub fleet: Option<FleetIdentity>,
}

/// Updates the entries with probe results and publishes tables.
pub(crate) struct RankingActor {
    plan: RankingPlan,
    /// The active list.
    listed: Arc<[Backend]>,
    orders: Arc<OrderBook>,
    slab: LoadSlab,
    entries: Vec<BackendEntry>,
    indexes: HashMap<BackendId, usize>,
    generation: u64,
    mode: Mode,
    published_at: Instant,
    due: Option<Instant>,
    random: SmallRng,
    sharing: Option<Sharing>,
}

impl RankingActor {
    /// An actor that starts from the latest published table. `list` has the backends and orders of this table, and `slab`
    /// holds the loads of its backends.
    pub(crate) fn new(plan: RankingPlan, list: ListChanged, slab: LoadSlab, random: SmallRng) -> Self {
        let published_at = plan.publisher.latest().built_at;
        let mut actor = Self {
            plan,
            listed: list.backends,
            orders: list.orders,
            slab,
            entries: Vec::new(),
            indexes: HashMap::new(),
            generation: 0,
            mode: Mode::Start,
            published_at,
            due: None,
            random,
            sharing: None,
        };
        actor.recover();
        actor
    }

    /// Restores the state of the latest published table, then applies the active list, which may be newer.
    fn recover(&mut self) {
        let latest = self.plan.publisher.latest();
        self.entries.clone_from(&latest.entries);
        self.generation = latest.generation;
        self.mode = latest.mode;
        self.published_at = latest.built_at;
        self.due = None;
        self.sharing = self.plan.fleet.as_ref().map(|identity| Sharing::new(identity, Instant::now()));
        self.take_list();
    }

    /// Replaces the entries by those of the active list. Entries of known backends keep everything but the attributes.
    fn take_list(&mut self) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let known = self.entries.drain(..).map(|entry| (entry.backend.id().clone(), entry));
        let mut known: HashMap<BackendId, BackendEntry> = known.collect();
        let slab = &mut self.slab;
        let (orders, backends) = (&self.orders, self.listed.len());
        let zone = self.plan.zone.as_deref();
        let entry = |backend: &Backend| {
            let known = known.remove(backend.id());
            let mut entry = known.unwrap_or_else(|| BackendEntry::new(backend.clone(), slab, now));
            entry.list_as(backend, zone);
            if entry.obey(orders.of(backend.id()), now, wall) {
                entry.record_orders(wall, backends);
            }
            entry
        };
        self.entries = self.listed.iter().map(entry).collect();
        let ids = self.entries.iter().map(|entry| entry.backend.id().clone());
        self.indexes = ids.zip(0..).collect();
        if let Some(sharing) = &mut self.sharing {
            sharing.list(&self.entries);
        }
    }

    /// The health check configuration with the interval that the probe budget allows.
    fn stretched(&self) -> HealthCheckConfig {
        let RankingSettings { probe_budget, health_check, .. } = &self.plan.settings;
        probe_budget.stretch(health_check, self.probed())
    }

    /// The number of backends that this balancer probes, of those that it shares only a part.
    fn probed(&self) -> usize {
        self.sharing.as_ref().map_or(self.entries.len(), Sharing::probed)
    }

    /// Schedules a table at `pace` after the last one, unless an earlier one is already scheduled.
    fn publish_soon(&mut self, pace: Duration, ctx: &mut Context<Self>) {
        let at = self.published_at + pace;
        if self.due.is_none_or(|due| at < due) {
            self.due = Some(at);
            ctx.run_later(at.saturating_duration_since(Instant::now()), move |actor, _| {
                if actor.due == Some(at) {
                    actor.publish(Instant::now());
                }
            });
        }
    }

    fn publish(&mut self, now: Instant) {
        self.due = None;
        self.published_at = now;
        self.generation += 1;
        let health_check = self.stretched();
        let fleet = self
            .sharing
            .as_mut()
            .map(|sharing| Arc::new(sharing.combine(&mut self.entries, health_check.interval, now)));
        let mut table = RoutingTable::build(
            self.generation,
            &mut self.entries,
            self.plan.settings.policy,
            &health_check,
            &self.plan.clock,
            now,
            &mut self.random,
        );
        table.fleet = fleet;
        if table.mode != self.mode {
            let backends = table.entries.len();
            match table.mode {
                Mode::Normal | Mode::Start => {
                    tracing::info!(mode = %table.mode, backends, "selection changed");
                }
                _ => tracing::warn!(mode = %table.mode, backends, "selection changed"),
            }
            self.mode = table.mode;
        }
        self.plan.publisher.publish(&Arc::new(table));
    }
}

impl Actor for RankingActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(LONGEST_PACE, |actor, _| {
            let now = Instant::now();
            if now.saturating_duration_since(actor.published_at) >= LONGEST_PACE {
                actor.publish(now);
            }
        });
    }
}

impl Supervised for RankingActor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.recover();
    }
}

impl Handler<ProbeResult> for RankingActor {
    type Result = MessageResult<ProbeResult>;

    fn handle(&mut self, result: ProbeResult, ctx: &mut Context<Self>) -> Self::Result {
        let now = Instant::now();
        let (health_check, sweep) = (self.stretched(), self.plan.settings.probe_budget.sweep(self.probed()));
        self.plan.metrics.probed(&result.outcome);
        self.plan.metrics.mailbox_age.set(now.saturating_duration_since(result.ended_at).as_secs_f64());
        // The backend may have been removed from the list during the probe.
        let Some(entry) = self.indexes.get(&result.backend).and_then(|&index| self.entries.get_mut(index))
        else {
            return MessageResult(NextProbe::after(health_check.interval));
        };
        // The probe began before the order.
        if entry.withdrawal() == Some(Override::Disable) {
            return MessageResult(NextProbe::after(health_check.interval));
        }
        let before = entry.estimate;
        let transition = entry.observe(&result.outcome, &health_check, &self.plan.clock, now);
        if let Some(transition) = transition {
            entry.record(transition, SystemTime::now(), self.indexes.len());
            log(entry, transition);
        }
        log_reports(entry, &before);
        // Active and suspect backends are probed more often, but never beyond the budget.
        let traffic = entry.traffic(health_check.interval, now);
        let pause = entry.health.next_probe(&health_check, traffic, &mut self.random);
        let pause = pause.max(sweep);
        let next = match &mut self.sharing {
            Some(sharing) => {
                sharing.observed(entry, &result.outcome, transition.is_some(), pause, traffic, now)
            }
            None => NextProbe::after(pause),
        };
        self.publish_soon(transition.map_or(ESTIMATE_PACE, |_| TRANSITION_PACE), ctx);
        MessageResult(next)
    }
}

fn log(entry: &BackendEntry, Transition { from, to }: Transition) {
    let backend = entry.backend.id();
    let reason = entry.health.reason();
    match to {
        State::Up | State::Unknown => tracing::info!(%backend, %from, %to, %reason, "backend changed"),
        State::Suspect | State::Down => tracing::warn!(%backend, %from, %to, %reason, "backend changed"),
    }
}

fn log_reports(entry: &BackendEntry, before: &Estimate) {
    let (backend, now) = (entry.backend.id(), &entry.estimate);
    match (before.is_stuck(), now.is_stuck()) {
        (false, true) => tracing::warn!(
            %backend,
            "the load report stays the same although clients are sent; it is ignored until it changes"
        ),
        (true, false) => {
            tracing::info!(%backend, "the load report changes again, or the server no longer sends one");
        }
        _ => {}
    }
    match (before.is_shared(), now.is_shared()) {
        (false, true) => tracing::warn!(
            %backend,
            "several servers seem to share this address; their load reports are ignored"
        ),
        (true, false) => tracing::info!(%backend, "only one server seems to use this address now"),
        _ => {}
    }
}

impl Handler<FleetExchange> for RankingActor {
    type Result = MessageResult<FleetExchange>;

    fn handle(&mut self, exchange: FleetExchange, ctx: &mut Context<Self>) -> Self::Result {
        let now = Instant::now();
        let Some(sharing) = &mut self.sharing else { return MessageResult(None) };
        let (clock, budget, asks) = (&self.plan.clock, self.plan.settings.probe_budget, exchange.asks);
        if let Some(pace) = sharing.exchange(&exchange, &mut self.entries, clock, budget, now) {
            self.publish_soon(pace, ctx);
        }
        let sharing = self.sharing.as_mut().filter(|_| asks);
        MessageResult(sharing.and_then(|sharing| sharing.news(&self.entries, now)))
    }
}

impl Handler<ListChanged> for RankingActor {
    type Result = ();

    fn handle(&mut self, ListChanged { backends, orders }: ListChanged, _: &mut Context<Self>) {
        // Must be first: `recover` uses both if one of the next calls panics.
        (self.listed, self.orders) = (backends, orders);
        self.take_list();
        self.publish(Instant::now());
    }
}

impl Handler<RankingSettings> for RankingActor {
    type Result = ();

    fn handle(&mut self, settings: RankingSettings, _: &mut Context<Self>) {
        self.plan.settings = settings;
        self.publish(Instant::now());
    }
}
