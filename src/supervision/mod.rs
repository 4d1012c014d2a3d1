//! Actors that come back.
//!
//! `actix::Supervisor` restarts an actor that stops itself, but not one that panics: its mailbox is closed and the
//! actor is gone. So every long-lived actor here holds a [`Lifeline`]. It is dropped with the actor, in a panic too,
//! and tells the [`Guardian`], which starts a new actor after a back-off, counts it, and gives up loudly when the
//! same actor keeps dying. Others reach the actor through a [`Seat`], which outlives it.
//!
//! Invariant: `panic = "abort"` must stay off in every profile; it would take this away.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::Instant;

mod kind;
mod seat;
#[cfg(test)]
mod tests;

pub use kind::{ActorKind, UnknownActor};
pub use seat::{Outlet, Seat, Undelivered};

/// How patient the guardian is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The wait before the first restart; it doubles with each further death within `window`.
    pub first_delay: Duration,
    /// The longest wait before a restart.
    pub longest_delay: Duration,
    /// Deaths of one actor within `window` after which the guardian gives up.
    pub most_deaths: usize,
    /// How long a death counts.
    pub window: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(20),
            longest_delay: Duration::from_secs(5),
            most_deaths: 10,
            window: Duration::from_mins(1),
        }
    }
}

impl Patience {
    /// The wait before the restart that follows the `deaths`th death within the window; `None`: give up.
    fn delay(&self, deaths: usize) -> Option<Duration> {
        if deaths >= self.most_deaths {
            return None;
        }
        let doublings = u32::try_from(deaths.saturating_sub(1)).unwrap_or(u32::MAX).min(20);
        Some(self.first_delay.saturating_mul(1 << doublings).min(self.longest_delay))
    }
}

/// One actor died too often; the process should end.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name} died {deaths} times within {window:?}, the log above says why; giving up")]
pub struct GaveUp {
    /// What kind of actor it was.
    pub kind: ActorKind,
    /// Which one.
    pub name: Arc<str>,
    /// How often it died.
    pub deaths: usize,
    /// Within what time.
    pub window: Duration,
}

/// Makes an actor panic, so that an operator and the tests can see it come back.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Panic;

impl Panic {
    /// Says that somebody asked for it, and panics.
    ///
    /// # Panics
    ///
    /// Always.
    #[expect(clippy::panic, reason = "a panic is what was asked for")]
    pub fn now() -> ! {
        panic!("asked to panic, to show that the actor comes back")
    }
}

/// Held by an actor; its end is the actor's end.
#[derive(Debug)]
pub struct Lifeline {
    ward: WardId,
    news: mpsc::UnboundedSender<News>,
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let end = if std::thread::panicking() { End::Panicked } else { End::Stopped };
        // The guardian is gone only when the process ends.
        let _ = self.news.send(News::Ended(self.ward, end));
    }
}

type WardId = u64;

#[derive(Debug, Clone, Copy)]
enum End {
    Panicked,
    Stopped,
}

enum News {
    Watch(WardId, Ward),
    Forget(WardId),
    Ended(WardId, End),
    Drill(ActorKind),
}

/// An actor under watch.
struct Ward {
    kind: ActorKind,
    name: Arc<str>,
    start: Box<dyn FnMut(Lifeline) + Send>,
    drill: Outlet<Panic>,
    deaths: VecDeque<Instant>,
}

/// As long as it is held, the actor is recreated when it dies. Dropping it does not end the actor.
#[derive(Debug)]
#[must_use = "an actor whose leash is dropped is no longer recreated"]
pub struct Leash {
    ward: WardId,
    news: mpsc::UnboundedSender<News>,
}

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = self.news.send(News::Forget(self.ward));
    }
}

/// Counts what happened to actors.
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
        for actor in [ActorKind::Probe, ActorKind::Ranking, ActorKind::Redirect] {
            drop(metrics.restarts.get_or_create(&ActorLabels { actor }));
        }
        registry.register(
            "actor_restarts",
            "Actors recreated after they died, by kind",
            metrics.restarts.clone(),
        );
        metrics
    }
}

/// Where actors are put under watch. The news queue holds one entry for each start, end and removal of an actor, so
/// the number of backends bounds it.
#[derive(Debug, Clone)]
pub struct Guardian {
    news: mpsc::UnboundedSender<News>,
    next_ward: Arc<AtomicU64>,
}

impl Guardian {
    /// A guardian and its work, which has to be polled for actors to come back; it resolves when it gives up.
    pub fn new(
        patience: Patience,
        metrics: SupervisionMetrics,
    ) -> (Self, impl Future<Output = GaveUp> + 'static) {
        let (news, inbox) = mpsc::unbounded_channel();
        let guardian = Self { news: news.clone(), next_ward: Arc::default() };
        let watch = Watch { patience, metrics, news, wards: HashMap::new(), restarts: BTreeSet::new() };
        (guardian, watch.until_it_gives_up(inbox))
    }

    /// Starts an actor, seats it, and does so again whenever it has died.
    ///
    /// `start` must create the actor with the lifeline inside it. It runs on the guardian's thread and must not block.
    /// An actor that cannot be started drops the lifeline, which counts as a death.
    pub fn supervise<A>(
        &self,
        kind: ActorKind,
        name: Arc<str>,
        seat: &Seat<A>,
        mut start: impl FnMut(Lifeline) -> Addr<A> + Send + 'static,
    ) -> Leash
    where
        A: Actor + Handler<Panic>,
        A::Context: ToEnvelope<A, Panic>,
    {
        let id = self.next_ward.fetch_add(1, Ordering::Relaxed);
        let occupant = seat.clone();
        let ward = Ward {
            kind,
            name,
            start: Box::new(move |lifeline| occupant.take(start(lifeline))),
            drill: seat.outlet(),
            deaths: VecDeque::new(),
        };
        let _ = self.news.send(News::Watch(id, ward));
        Leash { ward: id, news: self.news.clone() }
    }

    /// Has every actor of this kind panic, so that its recovery can be watched.
    pub fn drill(&self, kind: ActorKind) {
        let _ = self.news.send(News::Drill(kind));
    }
}

/// The guardian's work: waits for deaths and for restarts that are due.
struct Watch {
    patience: Patience,
    metrics: SupervisionMetrics,
    news: mpsc::UnboundedSender<News>,
    wards: HashMap<WardId, Ward>,
    restarts: BTreeSet<(Instant, WardId)>,
}

impl Watch {
    async fn until_it_gives_up(mut self, mut inbox: mpsc::UnboundedReceiver<News>) -> GaveUp {
        loop {
            let next = self.restarts.first().copied();
            let alarm = async {
                match next {
                    Some((at, _)) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // `self.news` keeps the queue open.
                Some(news) = inbox.recv() => if let Some(end) = self.hear(news, Instant::now()) { return end },
                () = alarm => if let Some(restart) = next { self.restart(restart) },
            }
        }
    }

    fn hear(&mut self, news: News, now: Instant) -> Option<GaveUp> {
        match news {
            News::Watch(id, mut ward) => {
                (ward.start)(self.lifeline(id));
                self.wards.insert(id, ward);
                None
            }
            News::Forget(id) => {
                self.wards.remove(&id);
                None
            }
            News::Ended(id, end) => self.mourn(id, end, now),
            News::Drill(kind) => {
                for ward in self.wards.values().filter(|ward| ward.kind == kind) {
                    // An actor that is dead already needs no drill.
                    let _ = (ward.drill)(Panic);
                }
                None
            }
        }
    }

    fn mourn(&mut self, id: WardId, end: End, now: Instant) -> Option<GaveUp> {
        let window = self.patience.window;
        let ward = self.wards.get_mut(&id)?;
        ward.deaths.push_back(now);
        while ward.deaths.front().is_some_and(|&at| now.duration_since(at) > window) {
            ward.deaths.pop_front();
        }
        let deaths = ward.deaths.len();
        tracing::error!(actor = %ward.kind, name = %ward.name, ?end, deaths, "actor died");
        match self.patience.delay(deaths) {
            Some(delay) => {
                self.restarts.insert((now + delay, id));
                None
            }
            None => Some(GaveUp { kind: ward.kind, name: Arc::clone(&ward.name), deaths, window }),
        }
    }

    fn restart(&mut self, restart: (Instant, WardId)) {
        self.restarts.remove(&restart);
        let lifeline = self.lifeline(restart.1);
        if let Some(ward) = self.wards.get_mut(&restart.1) {
            self.metrics.restarts.get_or_create(&ActorLabels { actor: ward.kind }).inc();
            tracing::warn!(actor = %ward.kind, name = %ward.name, "actor restarted");
            (ward.start)(lifeline);
        }
    }

    fn lifeline(&self, ward: WardId) -> Lifeline {
        Lifeline { ward, news: self.news.clone() }
    }
}
