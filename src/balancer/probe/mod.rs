//! `ProbeActor`: one for each backend. It probes, reports to the `RankingActor`, and waits for the time in the answer.
//! [`prober`] has the probe itself, [`schedule`] the budget of all probes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Message, Supervised, WrapFuture,
};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::balancer::admin::metrics::ReportMetrics;
use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::expectation::Expectation;
use crate::balancer::health::ProbeOutcome;
use crate::balancer::ranking::RankingActor;
use crate::http::client::Resolver;

pub mod prober;
pub mod schedule;

use prober::Prober;

/// What all probes share.
#[derive(Debug)]
pub struct ProbePlan {
    /// The path that is fetched, below each backend's base path.
    pub path: String,
    /// How long one probe may take in all.
    pub timeout: Duration,
    /// The expected content of the file, unless a backend's line names another.
    pub expectation: Option<Arc<Expectation>>,
    /// The pause after a probe whose result the ranking could not take.
    pub interval: Duration,
    /// Bounds the probes under way at once, over all backends.
    pub slots: Semaphore,
    /// The addresses of backends that have names.
    pub resolver: Resolver,
    /// What was wrong with load reports.
    pub reports: ReportMetrics,
    /// Counts results that the ranking could not take.
    pub results_lost: Counter,
}

/// The end of one probe. The answer of the ranking is the pause before the next one.
#[derive(Debug, Message)]
#[rtype(result = "Duration")]
pub struct ProbeResult {
    /// Which backend was probed.
    pub backend: BackendId,
    /// When it ended.
    pub ended_at: Instant,
    /// How it ended.
    pub outcome: ProbeOutcome,
}

/// Probes one backend until its last address is dropped.
pub struct ProbeActor {
    backend: BackendId,
    expectation: Option<Arc<Expectation>>,
    plan: Arc<ProbePlan>,
    ranking: Addr<RankingActor>,
    first_pause: Duration,
    /// Made for the first probe, and again after a panic.
    prober: Option<Rc<Prober>>,
}

impl ProbeActor {
    /// An actor that probes `backend` for the first time after `first_pause`.
    #[must_use]
    pub fn new(
        backend: &Backend,
        plan: Arc<ProbePlan>,
        ranking: Addr<RankingActor>,
        first_pause: Duration,
    ) -> Self {
        let expectation = backend.expectation().or(plan.expectation.as_ref()).cloned();
        Self { backend: backend.id().clone(), expectation, plan, ranking, first_pause, prober: None }
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        if !ctx.connected() {
            ctx.stop();
            return;
        }
        let (plan, expectation) = (&self.plan, &self.expectation);
        let prober =
            self.prober.get_or_insert_with(|| Rc::new(Prober::new(&self.backend, plan, expectation.clone())));
        let (prober, plan) = (Rc::clone(prober), Arc::clone(&self.plan));
        let (backend, ranking) = (self.backend.clone(), self.ranking.clone());
        let probing = async move {
            // The semaphore is never closed; without a slot the probe would still be right, only not bounded.
            let slot = plan.slots.acquire().await;
            let outcome = prober.probe().await;
            drop(slot);
            let result = ProbeResult { backend: backend.clone(), ended_at: Instant::now(), outcome };
            ranking.send(result).await.unwrap_or_else(|error| {
                // The ranking panicked over it. The next probe makes up for it.
                tracing::debug!(%backend, %error, "probe result lost");
                plan.results_lost.inc();
                plan.interval
            })
        };
        ctx.spawn(probing.into_actor(self).map(|pause, _, ctx| {
            ctx.run_later(pause, Self::probe);
        }));
    }
}

impl Actor for ProbeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(self.first_pause, Self::probe);
    }
}

impl Supervised for ProbeActor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.prober = None;
    }
}
