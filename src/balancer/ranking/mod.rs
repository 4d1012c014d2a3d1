//! `RankingActor`: folds probe results into what is known of each backend and publishes routing tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use arc_swap::ArcSwap;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::balancer::admin::metrics::RankingMetrics;
use crate::balancer::backends::BackendId;
use crate::balancer::health::fleet::Mode;
use crate::balancer::health::{State, Thresholds, Transition};
use crate::balancer::policy::{MonotonicClock, PolicyName};
use crate::balancer::probe::ProbeResult;
use crate::balancer::probe::schedule::ProbeBudget;
use crate::supervision::{Lifeline, Panic};

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

/// The backends of the list in force, all of them; replaced as a whole.
pub type Members = Arc<ArcSwap<Vec<Member>>>;

/// Another list is in force.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ListChanged;

/// What a `RankingActor` is given, the same after each restart.
#[derive(Clone)]
pub struct RankingPlan {
    /// The list in force.
    pub members: Members,
    /// Where tables go.
    pub publication: Arc<Publication>,
    /// How a backend is chosen.
    pub policy: PolicyName,
    /// When a backend's state changes.
    pub thresholds: Thresholds,
    /// What the probes of all backends share; it can stretch the interval.
    pub probe_budget: ProbeBudget,
    /// The clock of the ledgers, which the request path uses too.
    pub clock: MonotonicClock,
    /// What is counted.
    pub metrics: RankingMetrics,
}

/// Folds probe results, publishes tables.
pub struct RankingActor {
    plan: RankingPlan,
    /// The list that `entries` were made from.
    listed: Arc<Vec<Member>>,
    entries: Vec<Entry>,
    places: HashMap<BackendId, usize>,
    generation: u64,
    mode: Mode,
    published_at: Instant,
    due: Option<Instant>,
    random: SmallRng,
    _lifeline: Lifeline,
}

impl RankingActor {
    /// Starts from the latest table published, so that a restart forgets nothing.
    #[must_use]
    pub fn new(plan: RankingPlan, random: SmallRng, lifeline: Lifeline) -> Self {
        let latest = plan.publication.latest();
        let mut actor = Self {
            plan,
            listed: Arc::default(),
            entries: latest.entries.clone(),
            places: HashMap::new(),
            generation: latest.generation,
            mode: latest.mode,
            published_at: latest.built_at,
            due: None,
            random,
            _lifeline: lifeline,
        };
        actor.index();
        actor
    }

    fn index(&mut self) {
        let ids = self.entries.iter().map(|entry| entry.member.backend.id().clone());
        self.places = ids.zip(0..).collect();
    }

    /// Takes over the list in force if it is another one; what is known of backends that stay is kept.
    fn take_list(&mut self) {
        let members = self.plan.members.load_full();
        if Arc::ptr_eq(&members, &self.listed) {
            return;
        }
        let now = Instant::now();
        let known = self.entries.drain(..).map(|entry| (entry.member.backend.id().clone(), entry));
        let mut known: HashMap<BackendId, Entry> = known.collect();
        let entry = |member: &Member| match known.remove(member.backend.id()) {
            Some(entry) => Entry { member: member.clone(), ..entry },
            None => Entry::new(member.clone(), now),
        };
        self.entries = members.iter().map(entry).collect();
        self.listed = members;
        self.index();
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
        let thresholds = self.plan.probe_budget.stretch(&self.plan.thresholds, self.entries.len());
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
        self.take_list();
        ctx.run_interval(LONGEST_PACE, |actor, _| {
            actor.take_list();
            let now = Instant::now();
            if now.saturating_duration_since(actor.published_at) >= LONGEST_PACE {
                actor.publish(now);
            }
        });
    }
}

impl Handler<ProbeResult> for RankingActor {
    type Result = ();

    fn handle(&mut self, result: ProbeResult, ctx: &mut Context<Self>) {
        let now = Instant::now();
        self.plan.metrics.probed(&result.outcome);
        self.plan.metrics.mailbox_age.set(now.saturating_duration_since(result.ended_at).as_secs_f64());
        // A backend that has left the list may still have had a probe under way.
        let Some(entry) = self.places.get(&result.backend).and_then(|&place| self.entries.get_mut(place))
        else {
            return;
        };
        let before = entry.estimate;
        let transition = entry.observe(&result.outcome, &self.plan.thresholds, &self.plan.clock, now);
        if let Some(transition) = transition {
            log(entry, transition);
        }
        log_reports(entry, &before);
        self.publish_soon(transition.map_or(ESTIMATE_PACE, |_| TRANSITION_PACE), ctx);
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
            "the load report does not change though clients are sent; left out until it does"
        ),
        (true, false) => tracing::info!(%backend, "the load report changes again, or is gone"),
        _ => {}
    }
    match (before.is_shared(), now.is_shared()) {
        (false, true) => tracing::warn!(
            %backend,
            "several servers seem to take turns at this address; their load reports are left out"
        ),
        (true, false) => tracing::info!(%backend, "one server alone seems to answer at this address now"),
        _ => {}
    }
}

impl Handler<ListChanged> for RankingActor {
    type Result = ();

    fn handle(&mut self, _: ListChanged, ctx: &mut Context<Self>) {
        self.take_list();
        self.publish_soon(Duration::ZERO, ctx);
    }
}

impl Handler<Panic> for RankingActor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Context<Self>) {
        Panic::now();
    }
}
