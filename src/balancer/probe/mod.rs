//! `ProbeActor`, one for each backend: sends a probe, sends the result to the `RankingActor`, and waits for the delay in
//! the reply. [`prober`] has the probe itself, [`schedule`] the budget of all probes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, Recipient, SpawnHandle,
    Supervised, WrapFuture,
};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::expectation::Expectation;
use crate::balancer::health::ProbeOutcome;
use crate::balancer::metrics::ReportMetrics;
use crate::http::client::Resolver;
use crate::http::tls::Trust;

pub(crate) mod prober;
pub(crate) mod schedule;

use prober::Prober;

/// The settings of all probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProbeSettings {
    /// The requested path, below the base path of each backend.
    pub path: String,
    /// The time limit of one probe.
    pub timeout: Duration,
    /// The expected content of the file, unless the line of a backend names another.
    pub expectation: Option<Arc<Expectation>>,
    /// The delay after a probe whose result was lost.
    pub interval: Duration,
    /// The limit of concurrent probes over all backends.
    pub concurrency: usize,
    /// The authorities of the certificates of https backends.
    pub trust: Trust,
}

/// The settings and resources of all probes.
#[derive(Debug)]
pub(crate) struct ProbePlan {
    settings: ProbeSettings,
    /// Limits the concurrent probes over all backends.
    slots: Semaphore,
    resources: ProbeResources,
}

/// The resources of all probes.
#[derive(Debug, Clone)]
pub(crate) struct ProbeResources {
    /// Resolves the names of backends.
    pub resolver: Resolver,
    /// Counters of invalid load reports.
    pub reports: ReportMetrics,
    /// Counts the results that the ranking did not process.
    pub results_lost: Counter,
}

impl ProbePlan {
    /// A plan with these settings.
    pub(crate) fn new(settings: ProbeSettings, resources: ProbeResources) -> Self {
        Self { slots: Semaphore::new(settings.concurrency), settings, resources }
    }

    /// The settings.
    pub(crate) fn settings(&self) -> &ProbeSettings {
        &self.settings
    }

    /// The same resources with other settings.
    pub(crate) fn with(&self, settings: ProbeSettings) -> Self {
        Self::new(settings, self.resources.clone())
    }
}

/// The message that replaces the plan of a `ProbeActor`. The next probe starts after `pause`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ProbePlanChanged {
    /// The plan from now on.
    pub plan: Arc<ProbePlan>,
    /// The delay of the next probe, unless a probe is running.
    pub pause: Duration,
}

/// The result of one probe. The reply of the ranking is the time of the next probe.
#[derive(Debug, Message)]
#[rtype(result = "NextProbe")]
pub(crate) struct ProbeResult {
    /// The probed backend.
    pub backend: BackendId,
    /// The end of the probe.
    pub ended_at: Instant,
    /// The outcome of the probe.
    pub outcome: ProbeOutcome,
}

/// The time of the next probe.
#[derive(Debug)]
pub(crate) struct NextProbe {
    /// The delay, measured from the end of the last probe.
    pub pause: Duration,
    /// Replaces the rest of the delay by another one. The sender may be dropped.
    pub sooner: Option<oneshot::Receiver<Duration>>,
}

impl NextProbe {
    /// A probe after this delay.
    pub(crate) fn after(pause: Duration) -> Self {
        Self { pause, sooner: None }
    }

    async fn wait(self) {
        let Some(sooner) = self.sooner else { return tokio::time::sleep(self.pause).await };
        let until = Instant::now() + self.pause;
        if let Ok(Ok(pause)) = tokio::time::timeout_at(until, sooner).await {
            tokio::time::sleep_until(until.min(Instant::now() + pause)).await;
        } else {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Probes one backend until the last address of the actor is dropped.
pub(crate) struct ProbeActor {
    backend: BackendId,
    /// The expectation in the line of the backend.
    expectation: Option<Arc<Expectation>>,
    plan: Arc<ProbePlan>,
    ranking: Recipient<ProbeResult>,
    first_pause: Duration,
    /// Created for the first probe, and again after a panic or a change of the plan.
    prober: Option<Rc<Prober>>,
    /// The timer of the next probe; `None` while a probe is running.
    timer: Option<SpawnHandle>,
}

impl ProbeActor {
    /// An actor that sends the first probe of `backend` after `first_pause`.
    pub(crate) fn new(
        backend: &Backend,
        plan: Arc<ProbePlan>,
        ranking: Recipient<ProbeResult>,
        first_pause: Duration,
    ) -> Self {
        let (backend, expectation) = (backend.id().clone(), backend.expectation().cloned());
        Self { backend, expectation, plan, ranking, first_pause, prober: None, timer: None }
    }

    fn schedule(&mut self, next: NextProbe, ctx: &mut Context<Self>) {
        let wait = next.wait().into_actor(self).map(|(), actor, ctx| actor.probe(ctx));
        self.timer = Some(ctx.spawn(wait));
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        self.timer = None;
        if !ctx.connected() {
            ctx.stop();
            return;
        }
        let plan = &self.plan;
        let prober = self.prober.get_or_insert_with(|| {
            let expectation = self.expectation.as_ref().or(plan.settings.expectation.as_ref());
            Rc::new(Prober::new(&self.backend, plan, expectation.cloned()))
        });
        let (prober, plan) = (Rc::clone(prober), Arc::clone(&self.plan));
        let (backend, ranking) = (self.backend.clone(), self.ranking.clone());
        let probing = async move {
            // `acquire` fails only on a closed semaphore, and this one is never closed.
            let slot = plan.slots.acquire().await;
            let outcome = prober.probe().await;
            drop(slot);
            let result = ProbeResult { backend: backend.clone(), ended_at: Instant::now(), outcome };
            ranking.send(result).await.unwrap_or_else(|error| {
                // The ranking panicked on this result. The next probe replaces it.
                tracing::debug!(%backend, %error, "probe result lost");
                plan.resources.results_lost.inc();
                NextProbe::after(plan.settings.interval)
            })
        };
        ctx.spawn(probing.into_actor(self).map(|next, actor, ctx| actor.schedule(next, ctx)));
    }
}

impl Actor for ProbeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.schedule(NextProbe::after(self.first_pause), ctx);
    }
}

impl Handler<ProbePlanChanged> for ProbeActor {
    type Result = ();

    fn handle(&mut self, ProbePlanChanged { plan, pause }: ProbePlanChanged, ctx: &mut Context<Self>) {
        self.plan = plan;
        self.prober = None;
        if let Some(timer) = self.timer.take() {
            ctx.cancel_future(timer);
            self.schedule(NextProbe::after(pause), ctx);
        }
    }
}

impl Supervised for ProbeActor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.prober = None;
    }
}
