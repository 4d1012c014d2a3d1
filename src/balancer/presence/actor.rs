//! The `PresenceActor`: follows the catalogue, asks mirrors for their proofs, scans them, and checks files of recent redirects. It
//! is the only writer of the current generation.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Supervised, WrapFuture};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::checks::Checks;
use super::generation::Generation;
use super::index::SetInterner;
use super::proofs::ProofHistory;
use super::requests::CHECK_TIMEOUT;
use super::snapshot::{self, Knowledge, KnownMirror};
use super::source::{CatalogueSource, FileVersion};
use super::{CheckOffer, Presence};
use crate::balancer::metrics::PresenceMetrics;
use crate::balancer::ranking::publisher::TablePublisher;
use crate::balancer::state_folder::StateFolder;
use crate::http::client::{HttpClient, Resolver, TransportSettings};
use crate::http::tls::Trust;

mod checking;
mod following;
mod mirrors;
mod scanning;

use following::ListState;
use mirrors::PresenceMirror;
use scanning::MirrorScan;

/// The time between two rounds of checks.
const ROUND: Duration = Duration::from_millis(10);

/// The time between two looks at the list of mirrors, the due proofs and the file of the catalogue.
const TICK: Duration = Duration::from_millis(250);

/// The least time between two writes of the knowledge.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// The settings and resources of a `PresenceActor`.
pub(crate) struct PresencePlan {
    /// The shared knowledge.
    pub(crate) presence: Arc<Presence>,
    /// The redirects to check.
    pub(crate) offers: Receiver<CheckOffer>,
    /// The list of the catalogue.
    pub(crate) source: CatalogueSource,
    /// The state of the file that was read at the start.
    pub(crate) version: Option<FileVersion>,
    /// The knowledge at the start.
    pub(crate) start: Option<Knowledge>,
    /// The folder for the knowledge of the next run.
    pub(crate) state: Option<Arc<StateFolder>>,
    /// Counts the writes that failed.
    pub(crate) state_writes_failed: Counter,
    /// The list of mirrors.
    pub(crate) publisher: Arc<TablePublisher>,
    /// Resolves the names of mirrors.
    pub(crate) resolver: Resolver,
    /// The authorities of https mirrors.
    pub(crate) trust: Trust,
    /// The time between two proofs of a mirror.
    pub(crate) proof_interval: Duration,
    /// The time between the end of a scan of a mirror and the next one.
    pub(crate) scan_interval: Duration,
    /// The largest number of mirrors with separate metrics.
    pub(crate) metrics_backends: usize,
    /// The metrics.
    pub(crate) metrics: PresenceMetrics,
}

/// Maintains the knowledge about the files of mirrors.
pub(crate) struct PresenceActor {
    plan: PresencePlan,
    /// Created for the first request, and again after a panic.
    client: Option<HttpClient>,
    /// Writes the sets of the current generation.
    interner: Option<SetInterner>,
    mirrors: BTreeMap<u32, PresenceMirror>,
    /// The mirrors of the earlier run.
    earlier: HashMap<u32, KnownMirror>,
    history: ProofHistory,
    checks: Checks,
    /// The number of missing files by mirror and folder.
    missing: HashMap<(u32, u64), u32>,
    list: ListState,
    /// The changes since the start of a job, which the new generation does not have yet.
    changes: Vec<(u64, u32, bool)>,
    saving: SavingState,
    /// The time of the latest rebuild for lack of room.
    rebuilt_at: Option<Instant>,
}

/// The progress of saving.
struct SavingState {
    is_changed: bool,
    is_running: bool,
    due: Instant,
}

impl PresenceActor {
    /// An actor that maintains the knowledge of `plan`.
    #[must_use]
    pub(crate) fn new(mut plan: PresencePlan) -> Self {
        let list = ListState::new(plan.version);
        let mut checks = Checks::default();
        let (mut earlier, mut history) = (HashMap::new(), ProofHistory::default());
        if let Some(start) = plan.start.take() {
            for ((key, mirror), _) in start.exceptions {
                checks.queue(mirror, key);
            }
            (earlier, history) = (start.mirrors, start.history);
        }
        let mut actor = Self {
            plan,
            client: None,
            interner: None,
            mirrors: BTreeMap::new(),
            earlier,
            history,
            checks,
            missing: HashMap::new(),
            list,
            changes: Vec::new(),
            saving: SavingState { is_changed: true, is_running: false, due: Instant::now() },
            rebuilt_at: None,
        };
        if let Some(generation) = actor.current() {
            actor.adopt(&generation);
        }
        actor
    }

    fn current(&self) -> Option<Arc<Generation>> {
        self.plan.presence.current.load_full()
    }

    fn client(&mut self) -> HttpClient {
        let (resolver, trust) = (&self.plan.resolver, &self.plan.trust);
        let settings = || TransportSettings {
            connect_timeout: CHECK_TIMEOUT,
            trust: trust.clone(),
            ..TransportSettings::default()
        };
        self.client.get_or_insert_with(|| HttpClient::with_resolver(settings(), resolver.clone())).clone()
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.take_list();
        self.ask_for_proofs(ctx);
        self.start_scans(ctx);
        self.follow(ctx);
        self.save(ctx);
    }

    /// Writes the knowledge for the next run, if it has changed.
    fn save(&mut self, ctx: &mut Context<Self>) {
        let (Some(folder), Some(generation)) = (&self.plan.state, self.current()) else { return };
        let start = Instant::now();
        if !self.saving.is_changed
            || self.saving.is_running
            || start < self.saving.due
            || folder.is_released()
        {
            return;
        }
        self.saving.is_changed = false;
        self.saving.is_running = true;
        let mirrors = self.mirrors.iter();
        let exceptions = self.plan.presence.exceptions.pin();
        let knowledge = Knowledge {
            generation,
            mirrors: mirrors
                .map(|(number, mirror)| {
                    let scan = mirror.scan.as_ref().and_then(MirrorScan::seen);
                    (*number, KnownMirror { id: mirror.id.to_string(), proof: mirror.digest, scan })
                })
                .collect(),
            history: self.history.clone(),
            exceptions: exceptions.iter().map(|(place, lack)| (*place, *lack)).collect(),
        };
        let folder = Arc::clone(folder);
        let writing = actix_rt::task::spawn_blocking(move || snapshot::save(&folder, &knowledge));
        ctx.spawn(writing.into_actor(self).map(move |result, actor, _| {
            actor.saving.is_running = false;
            // A large catalogue is written less often.
            actor.saving.due = Instant::now() + SAVE_INTERVAL.max(start.elapsed() * 20);
            if let Ok(Err(error)) = result {
                actor.saving.is_changed = true;
                actor.plan.state_writes_failed.inc();
                tracing::error!(%error, "the knowledge about the files of mirrors cannot be written");
            }
        }));
    }

    fn count(&self) {
        self.plan.metrics.lacking(self.plan.presence.exceptions.len());
    }
}

impl Actor for PresenceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.tick(ctx);
        ctx.run_interval(TICK, Self::tick);
        ctx.run_interval(ROUND, Self::round);
    }
}

impl Supervised for PresenceActor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.client = None;
        self.list.is_busy = false;
        self.saving.is_running = false;
        self.checks.restart();
        for mirror in self.mirrors.values_mut() {
            mirror.is_asked = false;
            if let Some(scan) = &mut mirror.scan {
                scan.restart();
            }
        }
        // The panic may have interrupted a change of the sets.
        self.interner = self.current().map(|generation| SetInterner::new(generation.index.sets()));
    }
}
