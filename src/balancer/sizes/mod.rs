//! The sizes of files, which the policy weighs: learned from HEAD requests to the backends.
//!
//! The request path looks up each path in the [`SizeTable`]. A path that is requested for the second time is offered to the
//! `SizeActor` through a short queue. The actor asks one backend for the size, at a limited rate. A failed look-up affects
//! neither the health of the backend nor the request.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Supervised, WrapFuture};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::balancer::backends::BackendId;
use crate::balancer::health::State;
use crate::balancer::metrics::SizeMetrics;
use crate::balancer::policy::{MonotonicClock, Timestamp};
use crate::balancer::ranking::publisher::TablePublisher;
use crate::balancer::ranking::selection::Eligibility;
use crate::balancer::ranking::table::RoutingTable;
use crate::http::client::{HttpClient, Method, Request, Resolver, TransportSettings};
use crate::http::tls::Trust;

mod table;
#[cfg(test)]
mod tests;

pub use table::{ExpectedSize, FoundSize, SizeTable};
use table::{SizeLookup, tag_digest};

/// The number of paths that may wait for a look-up.
const QUEUE: usize = 1024;

/// The time between two rounds of look-ups. In each round, a backend gets at most one request.
const ROUND: Duration = Duration::from_millis(100);

/// The number of look-ups in a round: at most 100 per second.
const PER_ROUND: usize = 10;

/// The longest path that is looked up. Longer ones would fill the queue with megabytes.
const LONGEST_PATH: usize = 2048;

/// The time limit of a look-up.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A path to look up.
struct WantedPath {
    path: Box<str>,
    hash: u64,
}

/// The sizes as the request path sees them.
pub(crate) struct Sizes {
    table: Arc<SizeTable>,
    offers: SyncSender<WantedPath>,
    metrics: SizeMetrics,
}

impl Sizes {
    /// An empty table, and the actor that fills it.
    pub(crate) fn new(
        publisher: Arc<TablePublisher>,
        clock: MonotonicClock,
        resolver: Resolver,
        trust: Trust,
        metrics: SizeMetrics,
    ) -> (Self, SizePlan) {
        let (offers, receiver) = sync_channel(QUEUE);
        let table = Arc::<SizeTable>::default();
        let connect = Box::new(move || head_requests(resolver.clone(), trust.clone()));
        let plan = SizePlan { table: Arc::clone(&table), receiver, publisher, clock, connect, metrics };
        (Self { table, offers, metrics: plan.metrics.clone() }, plan)
    }

    /// The expected size of the file in bytes; `None` if it is unknown. `hash` is the digest of the path, and `tag` the entity
    /// tag of the client's copy.
    pub(crate) fn expect(&self, path: &[u8], hash: u64, tag: Option<&[u8]>, now: Timestamp) -> Option<f32> {
        let SizeLookup { size, is_wanted } = self.table.look_up(path, hash, tag, now);
        if is_wanted {
            self.offer(path, hash, now);
        }
        size.map(ExpectedSize::bytes)
    }

    /// The same without an effect on later look-ups.
    pub(crate) fn known(&self, path: &[u8], hash: u64) -> Option<ExpectedSize> {
        self.table.expected(path, hash)
    }

    #[cold]
    fn offer(&self, path: &[u8], hash: u64, now: Timestamp) {
        let Ok(text) = str::from_utf8(path) else { return };
        if path.len() > LONGEST_PATH {
            return;
        }
        // The actor polls the queue, so an offer wakes no thread.
        match self.offers.try_send(WantedPath { path: text.into(), hash }) {
            Ok(()) => self.table.mark_offered(hash, now),
            Err(_) => {
                self.metrics.dropped.inc();
            }
        }
    }
}

/// The resources of a `SizeActor`.
pub(crate) struct SizePlan {
    table: Arc<SizeTable>,
    receiver: Receiver<WantedPath>,
    publisher: Arc<TablePublisher>,
    clock: MonotonicClock,
    connect: Box<dyn Fn() -> SizeSource + Send>,
    metrics: SizeMetrics,
}

/// Looks up the sizes of offered paths.
pub(crate) struct SizeActor {
    plan: SizePlan,
    rounds: Rounds,
    /// Created for the first look-up, and again after a panic.
    source: Option<SizeSource>,
    /// Its own address: an actor without an address is not restarted.
    own: Option<Addr<Self>>,
}

/// Requests the size of a path from a backend.
type SizeSource =
    Box<dyn Fn(BackendId, &str) -> LocalBoxFuture<'static, Result<Option<FoundSize>, LookUpFailed>>>;

impl SizeActor {
    /// An actor that takes the offers of `plan`.
    pub(crate) fn new(plan: SizePlan) -> Self {
        Self { plan, rounds: Rounds::default(), source: None, own: None }
    }

    fn round(&mut self, ctx: &mut Context<Self>) {
        let table = self.plan.publisher.latest();
        for backend in self.rounds.next(&table) {
            match self.plan.receiver.try_recv() {
                Ok(offer) => self.look_up(backend, offer, ctx),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn look_up(&mut self, backend: BackendId, offer: WantedPath, ctx: &mut Context<Self>) {
        let source = self.source.get_or_insert_with(|| (self.plan.connect)());
        let found = timeout(TIMEOUT, source(backend.clone(), &offer.path));
        self.rounds.begin(backend.clone());
        ctx.spawn(found.into_actor(self).map(move |found, actor, _| {
            actor.rounds.end(&backend);
            let outcome = match found {
                Ok(Ok(Some(found))) => {
                    let now = actor.plan.clock.timestamp(Instant::now());
                    actor.plan.table.learn(offer.path.as_bytes(), offer.hash, found, now);
                    "learned"
                }
                Ok(Ok(None)) => "no_size",
                Ok(Err(LookUpFailed)) | Err(_) => "failed",
            };
            actor.plan.metrics.looked_up(outcome);
        }));
    }
}

/// No answer arrived.
struct LookUpFailed;

/// Requests sizes with HEAD.
fn head_requests(resolver: Resolver, trust: Trust) -> SizeSource {
    let settings = TransportSettings { connect_timeout: TIMEOUT, trust, ..TransportSettings::default() };
    let client = HttpClient::with_resolver(settings, resolver);
    Box::new(move |backend, path| {
        let (client, path) = (client.clone(), path.to_owned());
        async move { ask(&client, &backend, &path).await }.boxed_local()
    })
}

/// Requests the size of a file; `None` if the answer has no size.
async fn ask(
    client: &HttpClient,
    backend: &BackendId,
    path: &str,
) -> Result<Option<FoundSize>, LookUpFailed> {
    let url = Url::parse(&format!("{backend}{path}")).map_err(|_| LookUpFailed)?;
    let request = Request { method: Method::Head, ..Request::get(url) }
        .with("User-Agent", concat!("fingerpost/", env!("CARGO_PKG_VERSION")));
    let answer = client.send(&request).await.map_err(|error| {
        tracing::debug!(%backend, path, %error, "size unknown");
        LookUpFailed
    })?;
    let header = |name| answer.head.header(name).filter(|_| answer.head.status == 200);
    let tag = header("etag").map_or(0, |tag| tag_digest(tag.as_bytes()));
    let length = header("content-length").and_then(|length| length.parse().ok());
    Ok(length.map(|bytes| FoundSize { bytes, tag }))
}

impl Actor for SizeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.own = Some(ctx.address());
        ctx.run_interval(ROUND, Self::round);
    }
}

impl Supervised for SizeActor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.source = None;
        self.rounds = Rounds::default();
    }
}

/// Distributes look-ups over the backends: one at a time for each, in turn.
#[derive(Debug, Default)]
struct Rounds {
    asked: HashSet<BackendId>,
    next: usize,
}

impl Rounds {
    /// The backends of one round: at most [`PER_ROUND`], without those that have not answered yet.
    fn next(&mut self, table: &RoutingTable) -> Vec<BackendId> {
        let start = self.next % table.entries.len().max(1);
        let (before, from) = table.entries.split_at_checked(start).unwrap_or_default();
        let mut chosen = Vec::new();
        for entry in from.iter().chain(before) {
            if chosen.len() == PER_ROUND {
                break;
            }
            self.next = self.next.wrapping_add(1);
            let id = entry.backend.id();
            let is_usable =
                entry.health.state() == State::Up && matches!(entry.eligibility, Eligibility::Chosen(_));
            if is_usable && !self.asked.contains(id) {
                chosen.push(id.clone());
            }
        }
        chosen
    }

    fn begin(&mut self, backend: BackendId) {
        self.asked.insert(backend);
    }

    fn end(&mut self, backend: &BackendId) {
        self.asked.remove(backend);
    }
}
