//! `ProbeActor`: one for each backend. It owns the time between probes; what a probe is stands in [`prober`], when
//! the next one is due in [`schedule`].

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use rand::rngs::SmallRng;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::balancer::admin::metrics::ReportMetrics;
use crate::balancer::backends::BackendId;
use crate::balancer::health::{Health, ProbeOutcome, Thresholds, Traffic};
use crate::balancer::policy::BackendLoad;
use crate::balancer::ranking::table::Member;
use crate::supervision::{Lifeline, Outlet, Panic};

pub mod prober;
pub mod schedule;

use prober::Prober;
use schedule::ProbeBudget;

/// What all probes share.
#[derive(Debug)]
pub struct ProbePlan {
    /// The path that is fetched, below each backend's base path.
    pub path: String,
    /// How long one probe may take in all.
    pub timeout: Duration,
    /// When a backend's state changes and how often it is looked at.
    pub thresholds: Thresholds,
    /// What all backends share; it can stretch the interval.
    pub budget: ProbeBudget,
    /// Bounds the probes under way at once, over all backends.
    pub slots: Semaphore,
    /// How many backends share the budget now.
    pub backends: AtomicUsize,
    /// What was wrong with load reports.
    pub reports: ReportMetrics,
}

/// The end of one probe, on its way to the ranking.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ProbeResult {
    /// Which backend was probed.
    pub backend: BackendId,
    /// When it ended.
    pub ended_at: Instant,
    /// How it ended.
    pub outcome: ProbeOutcome,
}

/// Kept by whoever keeps the list, for as long as a backend stands in it: once it is dropped, the backend's
/// `ProbeActor` ends instead of probing again.
#[derive(Debug, Default)]
pub struct Tenure(Arc<()>);

impl Tenure {
    /// What the actor looks at.
    #[must_use]
    pub fn watch(&self) -> Weak<()> {
        Arc::downgrade(&self.0)
    }
}

/// Probes one backend for as long as it stands in the list.
pub struct ProbeActor {
    backend: BackendId,
    tenure: Weak<()>,
    plan: Arc<ProbePlan>,
    prober: Rc<Prober>,
    /// This actor's own view, for the pauses between probes; what clients see is decided by the ranking.
    health: Health,
    ledger: Arc<BackendLoad>,
    redirects_seen: u64,
    /// When `redirects_seen` was last found to have grown.
    used_at: Option<Instant>,
    results: Outlet<ProbeResult>,
    random: SmallRng,
    _lifeline: Lifeline,
}

impl ProbeActor {
    /// An actor that probes the member and sends each result to `results`.
    ///
    /// Must be called on the thread where it is to run, since its HTTP client stays there.
    #[must_use]
    pub fn new(
        member: &Member,
        tenure: Weak<()>,
        plan: Arc<ProbePlan>,
        results: Outlet<ProbeResult>,
        random: SmallRng,
        lifeline: Lifeline,
    ) -> Self {
        let prober = Rc::new(Prober::new(member.backend.id(), &plan));
        Self {
            backend: member.backend.id().clone(),
            tenure,
            plan,
            prober,
            health: Health::new(Instant::now()),
            redirects_seen: member.ledger.redirects(),
            used_at: None,
            ledger: Arc::clone(&member.ledger),
            results,
            random,
            _lifeline: lifeline,
        }
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        if self.tenure.strong_count() == 0 {
            ctx.stop();
            return;
        }
        let plan = Arc::clone(&self.plan);
        let prober = Rc::clone(&self.prober);
        let probing = async move {
            // The semaphore is never closed; without a slot the probe would still be right, only not bounded.
            let _slot = plan.slots.acquire().await;
            prober.probe().await
        };
        ctx.spawn(probing.into_actor(self).map(|outcome, actor, ctx| actor.conclude(outcome, ctx)));
    }

    fn conclude(&mut self, outcome: ProbeOutcome, ctx: &mut Context<Self>) {
        let backends = self.plan.backends.load(Ordering::Relaxed);
        let plan = &self.plan;
        let thresholds = plan.budget.stretch(&plan.thresholds, backends);
        let ended_at = Instant::now();
        self.health.observe(&outcome, &thresholds, ended_at);
        let redirects = self.ledger.redirects();
        if redirects != self.redirects_seen {
            (self.redirects_seen, self.used_at) = (redirects, Some(ended_at));
        }
        let unused = self.used_at.map(|used_at| ended_at.saturating_duration_since(used_at));
        let traffic = Traffic::after(unused, thresholds.interval);
        // Backends in use or in doubt are looked at more often, but never beyond the budget.
        let pause =
            self.health.next_probe(&thresholds, traffic, &mut self.random).max(plan.budget.sweep(backends));
        let result = ProbeResult { backend: self.backend.clone(), ended_at, outcome };
        if let Err(reason) = (self.results)(result) {
            // The next probe heals it; the ranking counts what it could not take.
            tracing::debug!(backend = %self.backend, ?reason, "probe result lost");
        }
        ctx.run_later(pause, Self::probe);
    }
}

impl Actor for ProbeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let backends = self.plan.backends.load(Ordering::Relaxed);
        ctx.run_later(self.plan.budget.first_pause(&self.backend, backends), Self::probe);
    }
}

impl Handler<Panic> for ProbeActor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Context<Self>) {
        Panic::now();
    }
}
