//! Supervision: an actor that panics is restarted in place.
//!
//! `actix::Supervisor` restarts an actor that stops itself, but a panic ends the task in which it polls the actor. A
//! [`Supervisor`] polls the actor inside `catch_unwind` and restarts it with actix's own means
//! ([`actix::Supervised`], [`ContextFut::restart`]): the actor keeps its address, its mailbox and the messages that
//! wait there; its timers and futures are dropped, and `restarting` and `started` run again. Only the message that
//! caused the panic is lost.
//!
//! An actor must therefore put its state in order in `restarting`: a panic can interrupt it at any point.
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

mod kind;
#[cfg(test)]
mod tests;

pub use kind::{ActorKind, UnknownActor};

/// When an actor is restarted, and when its supervisor gives up.
#[derive(Debug, Clone, Copy)]
pub struct RestartPolicy {
    /// The wait before the first restart; it doubles with each further panic within `window`.
    pub first_delay: Duration,
    /// The longest wait before a restart.
    pub longest_delay: Duration,
    /// Panics of one actor within `window` after which the supervisor gives up.
    pub most_panics: usize,
    /// How long a panic counts.
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
    /// The wait before the restart that follows this many panics within the window; `None`: give up.
    fn delay(&self, panics: usize) -> Option<Duration> {
        if panics >= self.most_panics {
            return None;
        }
        let doublings = u32::try_from(panics.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        Some(self.first_delay.saturating_mul(1 << doublings).min(self.longest_delay))
    }
}

/// A part of the program failed for good; the process should end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// One actor panicked too often.
    #[error("{kind} {name} panicked {panics} times within {window:?}; the log above has the reasons")]
    TooManyPanics {
        /// The kind of actor.
        kind: ActorKind,
        /// Its name among its kind.
        name: Arc<str>,
        /// Its panics within `window`.
        panics: usize,
        /// See [`RestartPolicy::window`].
        window: Duration,
    },
    /// A task that cannot be restarted panicked.
    #[error("the task for {0} panicked; the log above has the reason")]
    Task(&'static str),
}

/// Counts restarts.
#[derive(Debug, Clone, Default)]
pub struct SupervisionMetrics {
    restarts: Family<ActorLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActorLabels {
    actor: ActorKind,
}

impl SupervisionMetrics {
    /// Metrics that `registry` shows.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for actor in ActorKind::ALL {
            drop(metrics.restarts.get_or_create(&ActorLabels { actor }));
        }
        registry.register(
            "actor_restarts",
            "Actors restarted after a panic, by kind",
            metrics.restarts.clone(),
        );
        metrics
    }
}

/// Starts actors and restarts them after a panic. Clones share one state.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    policy: RestartPolicy,
    metrics: SupervisionMetrics,
    failure: watch::Sender<Option<Failure>>,
    /// One for each kind of actor, in their order.
    drills: [Notify; ActorKind::ALL.len()],
}

impl Shared {
    fn drill_of(&self, kind: ActorKind) -> &Notify {
        let [probe, ranking, redirect] = &self.drills;
        match kind {
            ActorKind::Probe => probe,
            ActorKind::Ranking => ranking,
            ActorKind::Redirect => redirect,
        }
    }
}

impl Supervisor {
    /// A supervisor without actors.
    #[must_use]
    pub fn new(policy: RestartPolicy, metrics: SupervisionMetrics) -> Self {
        let (failure, drills) = (watch::Sender::new(None), Default::default());
        Self(Arc::new(Shared { policy, metrics, failure, drills }))
    }

    /// Starts an actor on the arbiter of the current thread. It ends when it stops itself, or when its last address
    /// is dropped and it has nothing left to do.
    ///
    /// # Panics
    /// Outside of an actix arbiter.
    pub fn start<A>(&self, kind: ActorKind, name: impl Into<Arc<str>>, actor: A) -> Addr<A>
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let actor = Context::new().into_future(actor);
        let address = actor.address();
        actix_rt::spawn(self.clone().run(kind, name.into(), actor));
        address
    }

    /// Polls an actor until it ends, restarting it after each panic.
    async fn run<A>(self, kind: ActorKind, name: Arc<str>, mut actor: ContextFut<A, Context<A>>)
    where
        A: Actor<Context = Context<A>> + Supervised,
    {
        let Shared { policy, metrics, failure, .. } = &*self.0;
        let mut panics: VecDeque<Instant> = VecDeque::new();
        loop {
            let is_restart = !panics.is_empty();
            let life = async {
                // Nothing is restarted that has no address any more.
                if is_restart && !actor.restart() {
                    return;
                }
                tokio::select! {
                    biased;
                    () = self.0.drill_of(kind).notified() => panic_on_request(),
                    () = &mut actor => {}
                }
            };
            // Whatever the panic left half done is put in order by `restarting`.
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
                failure.send_replace(Some(Failure::TooManyPanics { kind, name, panics, window }));
                return;
            };
            sleep(delay).await;
            metrics.restarts.get_or_create(&ActorLabels { actor: kind }).inc();
            tracing::warn!(actor = %kind, %name, "actor restarted");
        }
    }

    /// Runs a task that cannot be restarted; its panic is a failure of the program.
    pub async fn guard(self, name: &'static str, task: impl Future<Output = ()>) {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            self.0.failure.send_replace(Some(Failure::Task(name)));
        }
    }

    /// Waits for a failure, if necessary for ever.
    pub async fn failed(&self) -> Failure {
        let mut failures = self.0.failure.subscribe();
        match failures.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(failure)) => failure.clone(),
            // The sender lives in `self`.
            _ => std::future::pending().await,
        }
    }

    /// Makes every running actor of this kind panic, so that an operator or a test can watch its restart.
    pub fn drill(&self, kind: ActorKind) {
        self.0.drill_of(kind).notify_waiters();
    }
}

#[expect(clippy::panic, reason = "a panic was asked for")]
fn panic_on_request() -> ! {
    panic!("asked to panic, to show the restart of the actor")
}
