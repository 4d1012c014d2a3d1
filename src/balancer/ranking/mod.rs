//! `RankingActor`: folds probe results into what is known of each backend and publishes routing tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, MessageResult, Supervised};
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::balancer::admin::metrics::RankingMetrics;
use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::health::fleet::Mode;
use crate::balancer::health::{State, Thresholds, Transition};
use crate::balancer::policy::{LoadSlab, MonotonicClock, PolicyName};
use crate::balancer::probe::ProbeResult;
use crate::balancer::probe::schedule::ProbeBudget;

pub mod estimate;
pub mod publication;
pub mod table;
#[cfg(test)]
mod tests;

use estimate::Estimate;
use publication::Publication;
use table::{Entry, Member, RoutingTable};

/// The shortest time between two tables after a state changed.
const TRANSITION_PACE: Duration = Duration::from_millis(50);

/// The shortest time between two tables when only estimates changed.
const ESTIMATE_PACE: Duration = Duration::from_millis(250);

/// A table is made this often whatever happens, for the rules that depend on time alone, such as the slow start.
const LONGEST_PACE: Duration = Duration::from_secs(1);

/// Probe results that may wait; a budget of 2 000 a second fills it in 8 s.
const MAILBOX: usize = 16_384;

/// Another list is in force: all of its backends.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ListChanged(pub Arc<[Backend]>);

/// What a `RankingActor` works with.
pub struct RankingPlan {
    /// Where tables go; the first one has been published already.
    pub publication: Arc<Publication>,
    /// How a backend is chosen.
    pub policy: PolicyName,
    /// When a backend's state changes.
    pub thresholds: Thresholds,
    /// What the probes of all backends share; it can stretch the interval.
    pub probe_budget: ProbeBudget,
    /// The clock of the ledgers, which the request path uses too.
    pub clock: MonotonicClock,
    /// The counters.
    pub metrics: RankingMetrics,
}

/// Folds probe results, publishes tables.
pub struct RankingActor {
    plan: RankingPlan,
    /// The list in force.
    listed: Arc<[Backend]>,
    book: LoadSlab,
    entries: Vec<Entry>,
    places: HashMap<BackendId, usize>,
    generation: u64,
    mode: Mode,
    published_at: Instant,
    due: Option<Instant>,
    random: SmallRng,
}

impl RankingActor {
    /// Starts from the latest published table. `listed` is the list it was made from, with ledgers of `book`.
    #[must_use]
    pub fn new(plan: RankingPlan, listed: Arc<[Backend]>, book: LoadSlab, random: SmallRng) -> Self {
        let published_at = plan.publication.latest().built_at;
        let mut actor = Self {
            plan,
            listed,
            book,
            entries: Vec::new(),
            places: HashMap::new(),
            generation: 0,
            mode: Mode::Start,
            published_at,
            due: None,
            random,
        };
        actor.recover();
        actor
    }

    /// Returns to the latest published table. The list may have changed since.
    fn recover(&mut self) {
        let latest = self.plan.publication.latest();
        self.entries.clone_from(&latest.entries);
        self.generation = latest.generation;
        self.mode = latest.mode;
        self.published_at = latest.built_at;
        self.due = None;
        self.take_list();
    }

    /// Makes the entries those of the list in force. Entries of backends that stay keep everything but the attributes.
    fn take_list(&mut self) {
        let now = Instant::now();
        let known = self.entries.drain(..).map(|entry| (entry.member.backend.id().clone(), entry));
        let mut known: HashMap<BackendId, Entry> = known.collect();
        let book = &mut self.book;
        let entry = |backend: &Backend| match known.remove(backend.id()) {
            Some(mut entry) => {
                entry.member.backend = backend.clone();
                entry
            }
            None => Entry::new(Member::new(backend.clone(), book), now),
        };
        self.entries = self.listed.iter().map(entry).collect();
        let ids = self.entries.iter().map(|entry| entry.member.backend.id().clone());
        self.places = ids.zip(0..).collect();
    }

    /// The thresholds, with the interval that the probe budget allows.
    fn stretched(&self) -> Thresholds {
        self.plan.probe_budget.stretch(&self.plan.thresholds, self.entries.len())
    }

    /// Has a table made no sooner than `pace` after the last one, and no later than was asked for before.
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
        let thresholds = self.stretched();
        let table = RoutingTable::build(
            self.generation,
            &mut self.entries,
            self.plan.policy,
            &thresholds,
            &self.plan.clock,
            now,
            &mut self.random,
        );
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
        self.plan.publication.publish(&Arc::new(table));
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
        let thresholds = self.stretched();
        self.plan.metrics.probed(&result.outcome);
        self.plan.metrics.mailbox_age.set(now.saturating_duration_since(result.ended_at).as_secs_f64());
        // A probe of a backend that has left the list may still have been under way.
        let Some(entry) = self.places.get(&result.backend).and_then(|&place| self.entries.get_mut(place))
        else {
            return MessageResult(thresholds.interval);
        };
        let before = entry.estimate;
        let transition = entry.observe(&result.outcome, &thresholds, &self.plan.clock, now);
        if let Some(transition) = transition {
            log(entry, transition);
        }
        log_reports(entry, &before);
        // Backends in use or in doubt are probed more often, but never beyond the budget.
        let traffic = entry.traffic(thresholds.interval, now);
        let pause = entry.health.next_probe(&thresholds, traffic, &mut self.random);
        let pause = pause.max(self.plan.probe_budget.sweep(self.entries.len()));
        self.publish_soon(transition.map_or(ESTIMATE_PACE, |_| TRANSITION_PACE), ctx);
        MessageResult(pause)
    }
}

fn log(entry: &Entry, Transition { from, to }: Transition) {
    let backend = entry.member.backend.id();
    let reason = entry.health.reason();
    match to {
        State::Up | State::Unknown => tracing::info!(%backend, %from, %to, %reason, "backend changed"),
        State::Suspect | State::Down => tracing::warn!(%backend, %from, %to, %reason, "backend changed"),
    }
}

fn log_reports(entry: &Entry, before: &Estimate) {
    let (backend, now) = (entry.member.backend.id(), &entry.estimate);
    match (before.is_stuck(), now.is_stuck()) {
        (false, true) => tracing::warn!(
            %backend,
            "the load report stays the same although clients are sent; it is ignored until it changes"
        ),
        (true, false) => tracing::info!(%backend, "the load report changes again, or is missing"),
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

impl Handler<ListChanged> for RankingActor {
    type Result = ();

    fn handle(&mut self, ListChanged(backends): ListChanged, ctx: &mut Context<Self>) {
        // First of all: `recover` uses it if anything below panics.
        self.listed = backends;
        self.take_list();
        self.publish_soon(Duration::ZERO, ctx);
    }
}
