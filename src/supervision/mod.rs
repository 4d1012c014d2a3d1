//! Supervision: an actor that panics is restarted in place.
//!
//! `actix::Supervisor` restarts an actor that stops itself, but a panic ends the task in which it polls the actor. A
//! [`Supervisor`] polls the actor inside `catch_unwind` and restarts it with actix's own means
//! ([`actix::Supervised`], [`ContextFut::restart`]): the actor keeps its address, its mailbox and the messages that
//! wait there; its timers and futures are dropped, and `restarting` and `started` run again. Only the message that
//! caused the panic is lost.
//!
//! An actor must therefore restore a consistent state in `restarting`: a panic can interrupt it at any point.
//!
//! Invariant: `panic = "abort"` must stay off in every profile.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::dev::ContextFut;
use actix::{Actor, ActorContext, Addr, Context, Supervised};
use futures_util::FutureExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::telemetry::metric::registered;

mod kind;
#[cfg(test)]
mod tests;

pub(crate) use kind::{ActorKind, UnknownActor};

/// The delays and the limit of restarts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RestartPolicy {
    /// The delay of the first restart; doubles with each further panic within `window`.
    pub first_delay: Duration,
    /// The longest delay of a restart.
    pub longest_delay: Duration,
    /// The supervisor gives up after this number of panics of one actor within `window`.
    pub most_panics: usize,
    /// The time after which a panic no longer counts.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(20),
            longest_delay: Duration::from_secs(5),
            most_panics: 10,
            window: Duration::from_mins(1),
        }
    }
}

impl RestartPolicy {
    /// The delay of the restart after `panics` panics within the window; `None` if the supervisor gives up.
    fn delay(&self, panics: usize) -> Option<Duration> {
        if panics >= self.most_panics {
            return None;
        }
        let doublings = u32::try_from(panics.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        Some(self.first_delay.saturating_mul(1 << doublings).min(self.longest_delay))
    }
}

/// A failure that restarts cannot repair. The process should end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SupervisionFailure {
    /// An actor panicked too often.
    #[error("{kind} {name} panicked {panics} times within {window:?}; the log above has the reasons")]
    TooManyPanics {
        /// The kind of actor.
        kind: ActorKind,
        /// The name of the actor.
        name: Arc<str>,
        /// The number of panics within `window`.
        panics: usize,
        /// See [`RestartPolicy::window`].
        window: Duration,
    },
    /// A task that cannot be restarted panicked.
    #[error("the task for {0} panicked; the log above has the reason")]
    Task(&'static str),
}

/// Counters of restarts.
#[derive(Debug, Clone, Default)]
pub(crate) struct SupervisionMetrics {
    restarts: Family<ActorLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActorLabels {
    actor: ActorKind,
}

impl SupervisionMetrics {
    /// Creates the metrics and adds them to `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let help = "Actors restarted after a panic, by kind";
        let restarts: Family<ActorLabels, Counter> = registered(registry, "actor_restarts", help);
        for actor in ActorKind::ALL {
            drop(restarts.get_or_create(&ActorLabels { actor }));
        }
        Self { restarts }
    }
}

/// Starts actors and restarts them after a panic. All clones share one state.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor(Arc<SupervisorState>);

#[derive(Debug)]
struct SupervisorState {
    policy: RestartPolicy,
    metrics: SupervisionMetrics,
    failure: watch::Sender<Option<SupervisionFailure>>,
    /// Requests to panic, one for each kind of actor, in the order of the kinds.
    panic_requests: [Notify; ActorKind::ALL.len()],
}

impl SupervisorState {
    fn panic_request_of(&self, kind: ActorKind) -> &Notify {
        let [first, ..] = &self.panic_requests;
        self.panic_requests.get(kind as usize).unwrap_or(first)
    }
}

impl Supervisor {
    /// A supervisor without actors.
    pub(crate) fn new(policy: RestartPolicy, metrics: SupervisionMetrics) -> Self {
        let (failure, panic_requests) = (watch::Sender::new(None), Default::default());
        Self(Arc::new(SupervisorState { policy, metrics, failure, panic_requests }))
    }

    /// Starts an actor on the arbiter of the current thread. The actor ends when it stops itself, or when its last address
    /// is dropped and it has no pending work.
    ///
    /// # Panics
    /// Outside of an actix arbiter.
    pub(crate) fn start<A>(&self, kind: ActorKind, name: impl Into<Arc<str>>, actor: A) -> Addr<A>
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let actor = Context::new().into_future(actor);
        let address = actor.address();
        actix_rt::spawn(self.clone().run(kind, name.into(), actor));
        address
    }

    /// Polls an actor until it ends, and restarts it after each panic.
    async fn run<A>(self, kind: ActorKind, name: Arc<str>, mut actor: ContextFut<A, Context<A>>)
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let SupervisorState { policy, metrics, failure, .. } = &*self.0;
        let mut panics: VecDeque<Instant> = VecDeque::new();
        loop {
            let is_restart = !panics.is_empty();
            let life = async {
                // `restart` returns false if no address of the actor is left.
                if is_restart && !actor.restart() {
                    return;
                }
                tokio::select! {
                    biased;
                    () = self.0.panic_request_of(kind).notified() => panic_on_request(),
                    () = &mut actor => {}
                }
            };
            // `restarting` repairs the state that the panic left.
            if AssertUnwindSafe(life).catch_unwind().await.is_ok() {
                return;
            }
            let now = Instant::now();
            panics.push_back(now);
            panics.retain(|at| now.duration_since(*at) <= policy.window);
            tracing::error!(actor = %kind, %name, panics = panics.len(), "actor panicked");
            let Some(delay) = policy.delay(panics.len()) else {
                actor.ctx().terminate();
                let (panics, window) = (panics.len(), policy.window);
                failure.send_replace(Some(SupervisionFailure::TooManyPanics { kind, name, panics, window }));
                return;
            };
            sleep(delay).await;
            metrics.restarts.get_or_create(&ActorLabels { actor: kind }).inc();
            tracing::warn!(actor = %kind, %name, "actor restarted");
        }
    }

    /// Runs a task that cannot be restarted. Its panic is a [`SupervisionFailure`].
    pub(crate) async fn guard(self, name: &'static str, task: impl Future<Output = ()>) {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            self.0.failure.send_replace(Some(SupervisionFailure::Task(name)));
        }
    }

    /// Waits for a failure without a time limit.
    pub(crate) async fn failed(&self) -> SupervisionFailure {
        let mut failures = self.0.failure.subscribe();
        match failures.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(failure)) => failure.clone(),
            // Cannot happen: `self` holds the sender.
            _ => std::future::pending().await,
        }
    }

    /// Makes every running actor of this kind panic, so that an operator or a test can observe the restart.
    pub(crate) fn inject_panic(&self, kind: ActorKind) {
        self.0.panic_request_of(kind).notify_waiters();
    }
}

#[expect(clippy::panic, reason = "the caller requests a panic")]
fn panic_on_request() -> ! {
    panic!("panic on request, as a drill of the restart")
}
