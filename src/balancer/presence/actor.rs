//! The `PresenceActor`: follows the catalogue, asks mirrors for their proofs, and checks files of recent redirects. It is the
//! only writer of the current generation.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Supervised, WrapFuture};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use prometheus_client::metrics::counter::Counter;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout};
use url::Url;

use super::checks::{Check, CheckResult, Checks, Lack, MOST_EXCEPTIONS};
use super::generation::{Generation, Location};
use super::index::{IndexFull, MOST_MIRRORS, OLD, SetInterner};
use super::proofs::{ProofHistory, ProofMatch, proven_age};
use super::snapshot::{self, Knowledge, SeenProof};
use super::source::{self, CatalogueSource, CatalogueSourceError, FileVersion, ReadList};
use super::tree::{self, TreeDigests};
use super::{CheckOffer, MirrorProof, Presence, ProofState};
use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::catalogue::{self, CatalogueContent};
use crate::balancer::metrics::PresenceMetrics;
use crate::balancer::ranking::publisher::TablePublisher;
use crate::balancer::ranking::table::BackendEntry;
use crate::balancer::state_folder::StateFolder;
use crate::http::client::{HttpClient, Method, Request, Resolver, TransportError, TransportSettings};
use crate::http::tls::Trust;
use crate::telemetry::chain;

/// The time between two rounds of checks.
const ROUND: Duration = Duration::from_millis(10);

/// The time between two looks at the list of mirrors, the due proofs and the file of the catalogue.
const TICK: Duration = Duration::from_millis(250);

/// The time between two downloads of a catalogue.
const FETCH_INTERVAL: Duration = Duration::from_mins(1);

/// The least time between two writes of the knowledge.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// The least time between two scans of a folder.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);

/// The least time between two rebuilds of an index without room.
const REBUILD_INTERVAL: Duration = Duration::from_mins(10);

/// The time limit of a check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The time for which a mirror keeps its proven generation after its proof has changed to unknown content: it may have received
/// a release before the catalogue was read.
const UNKNOWN_TIME: Duration = Duration::from_mins(2);

/// The time limit of a proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest proof in bytes.
const LARGEST_PROOF: usize = 16 << 20;

/// The redirects of a mirror that a check follows.
const MOST_HOPS: usize = 3;

/// The files of a folder that are checked after the first missing one of a proven mirror.
const NEIGHBOURS: usize = 8;

/// The missing files of a folder after which a proven mirror is suspected to lack the whole folder.
const MOST_MISSING: u32 = 2;

/// The largest number of folders with missing files.
const MOST_FOLDERS: usize = 100_000;

/// Bytes of a path that a URL must encode.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

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
    /// The addresses and proofs of mirrors of the earlier run.
    earlier: HashMap<u32, (String, Option<SeenProof>)>,
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

/// The progress of following the list.
#[derive(Default)]
struct ListState {
    /// Whether a job runs.
    is_busy: bool,
    /// The state of the file that was read.
    read: Option<FileVersion>,
    /// The latest state. A file is read once it has stopped changing.
    seen: Option<FileVersion>,
    /// The entity tag of the latest answer.
    tag: Option<String>,
    /// The time of the next download or scan.
    due: Option<Instant>,
    /// The digests of the scanned folder.
    tree: TreeDigests,
}

/// A mirror of the list.
struct PresenceMirror {
    id: BackendId,
    proof: Option<Arc<str>>,
    is_origin: bool,
    /// The digest of its proof; zeros if it has no such file.
    digest: Option<SeenProof>,
    /// The time since which its proof has unknown content.
    unknown_since: Option<Instant>,
    due: Instant,
    is_asked: bool,
}

/// The result of a job.
enum Built {
    /// The list has not changed.
    Unchanged(ListVersion),
    /// A new generation, and the state of its list.
    Generation(Box<Generation>, ListVersion),
    /// The list cannot be used.
    Failed(CatalogueSourceError, ListVersion),
    /// The index cannot hold it.
    Full(IndexFull),
}

/// The version of a list that was read.
enum ListVersion {
    File(Option<FileVersion>),
    Tag(Option<String>),
    /// The digests of a folder, and the time that the scan took.
    Tree(TreeDigests, Duration),
    /// The file has this state now. It is read once it has stopped changing.
    Seen(Option<FileVersion>),
    /// The same list as before.
    Same,
}

impl PresenceActor {
    /// An actor that maintains the knowledge of `plan`.
    #[must_use]
    pub(crate) fn new(mut plan: PresencePlan) -> Self {
        let list = ListState { read: plan.version, seen: plan.version, ..ListState::default() };
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
                .map(|(number, mirror)| (*number, (mirror.id.to_string(), mirror.digest)))
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

    // Mirrors.

    /// Adds new backends of the latest table and removes others.
    fn take_list(&mut self) {
        let table = self.plan.publisher.latest();
        let is_known = |entry: &BackendEntry| {
            self.mirrors.get(&entry.load.number()).is_some_and(|known| known.is_of(&entry.backend))
        };
        if table.entries.len() == self.mirrors.len() && table.entries.iter().all(is_known) {
            return;
        }
        let listed: BTreeMap<u32, Backend> =
            table.entries.iter().map(|entry| (entry.load.number(), entry.backend.clone())).collect();
        let gone: Vec<u32> = self
            .mirrors
            .iter()
            .filter(|(number, mirror)| listed.get(number).is_none_or(|backend| !mirror.is_of(backend)))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.remove(number);
        }
        for (number, backend) in listed {
            if self.mirrors.contains_key(&number) {
                continue;
            }
            // Spread, so that many mirrors are not asked at once.
            let spread = self.plan.proof_interval.min(Duration::from_secs(2)) * (number % 32) / 32;
            let earlier = self.earlier.remove(&number).filter(|(id, _)| id == backend.id().as_str());
            let mirror = PresenceMirror {
                id: backend.id().clone(),
                proof: backend.proof().cloned(),
                is_origin: backend.is_origin(),
                digest: earlier.and_then(|(_, proof)| proof),
                unknown_since: None,
                due: Instant::now() + spread,
                is_asked: false,
            };
            self.mirrors.insert(number, mirror);
            if backend.is_origin() {
                self.forget_exceptions(number);
            }
        }
        self.judge();
    }

    fn remove(&mut self, number: u32) {
        self.mirrors.remove(&number);
        self.checks.remove(number);
        self.missing.retain(|(mirror, _), _| *mirror != number);
        self.plan.presence.mirrors.pin().remove(&number);
        self.forget_exceptions(number);
        if let Some(generation) = self.current() {
            // As for a number that was never used: the next backend with it has not proven new files.
            generation.set_proven_age(number, OLD);
        }
    }

    /// Assumes that a mirror has every file.
    fn forget_exceptions(&mut self, number: u32) {
        self.plan.presence.exceptions.pin().retain(|(_, mirror), _| *mirror != number);
        self.changes.retain(|(_, mirror, _)| *mirror != number);
        if let (Some(generation), Some(interner)) = (self.current(), &mut self.interner) {
            interner.forget(&generation.index, number);
        }
        self.count();
    }

    /// Applies the latest proofs to the current generation.
    fn judge(&mut self) {
        let Some(generation) = self.current() else { return };
        self.history.observe(&generation, self.mirrors.values().filter_map(|mirror| mirror.proof.as_ref()));
        let known = self.plan.presence.mirrors.pin();
        for (number, mirror) in &self.mirrors {
            let proof = mirror.judge(&self.history, generation.number);
            generation.set_proven_age(*number, proof.age);
            let before = known.insert(*number, proof.clone());
            if before.is_none_or(|before| *before != proof) {
                let (mirror, state) = (&mirror.id, &proof.state);
                match state {
                    ProofState::OtherContent { .. } | ProofState::NoReference => {
                        tracing::warn!(%mirror, %state, "the files of a mirror");
                    }
                    ProofState::Proven { .. } => tracing::info!(%mirror, %state, "the files of a mirror"),
                    _ => tracing::debug!(%mirror, %state, "the files of a mirror"),
                }
            }
        }
    }

    // Proofs.

    fn ask_for_proofs(&mut self, ctx: &mut Context<Self>) {
        let Some(current) = self.current() else { return };
        let (now, client) = (Instant::now(), self.client());
        let interval = self.plan.proof_interval;
        let mut due = Vec::new();
        for (number, mirror) in &mut self.mirrors {
            let Some(proof) = mirror.proof.clone().filter(|_| mirror.due <= now && !mirror.is_asked) else {
                continue;
            };
            // A mirror that may receive a release now is asked twice as often.
            let is_behind = mirror.judge(&self.history, current.number).age > 0;
            mirror.due = now + if is_behind { interval / 2 } else { interval };
            mirror.is_asked = true;
            due.push((*number, format!("{}{proof}", mirror.id), proof));
        }
        for (number, url, proof) in due {
            let client = client.clone();
            let asking = async move { digest_of(&client, &url).await };
            ctx.spawn(
                asking.into_actor(self).map(move |result, actor, _| actor.proven(number, &proof, result)),
            );
        }
    }

    fn proven(&mut self, number: u32, proof: &Arc<str>, result: Result<[u8; 32], String>) {
        let Some(mirror) = self.mirrors.get_mut(&number) else { return };
        mirror.is_asked = false;
        if mirror.proof.as_ref() != Some(proof) {
            return;
        }
        let digest = match result {
            Ok(digest) => digest,
            Err(reason) => {
                self.plan.metrics.proven("failed");
                tracing::debug!(mirror = %mirror.id, %proof, reason, "no proof");
                return;
            }
        };
        self.plan.metrics.proven("received");
        if mirror.digest.is_some_and(|(known, _)| known == digest) {
            mirror.unknown_since = None;
            return;
        }
        let is_known =
            |digest: &[u8; 32]| matches!(self.history.compare(proof, digest), ProofMatch::Generation(_));
        if !is_known(&digest)
            && mirror.digest.is_some_and(|(known, _)| is_known(&known))
            && mirror.unknown_since.get_or_insert_with(Instant::now).elapsed() < UNKNOWN_TIME
        {
            return;
        }
        mirror.unknown_since = None;
        mirror.digest = Some((digest, SystemTime::now()));
        self.saving.is_changed = true;
        if mirror.is_origin {
            self.history.learn(proof, digest);
        }
        self.history.recognise(proof, &digest);
        self.judge();
        // After a new release, missing files may have arrived.
        let lacking: Vec<u64> = {
            let exceptions = self.plan.presence.exceptions.pin();
            exceptions.keys().filter(|(_, mirror)| *mirror == number).map(|(key, _)| *key).collect()
        };
        for key in lacking {
            self.checks.queue(number, key);
        }
    }

    // The catalogue.

    fn follow(&mut self, ctx: &mut Context<Self>) {
        if self.list.is_busy {
            return;
        }
        let most = self.mirrors.keys().copied().filter(|number| (*number as usize) < MOST_MIRRORS).max();
        let room = most.map_or(1, |number| number as usize + 1);
        let current = self.current();
        if let (Some(current), Some(number)) = (&current, most)
            && current.lacks_room_for(number)
        {
            return self.rebuild(ctx);
        }
        match self.plan.source.clone() {
            CatalogueSource::File(path) => self.follow_file(path, current, room, ctx),
            CatalogueSource::Url(url) => self.follow_url(url, current, room, ctx),
            CatalogueSource::Folder(path) => self.follow_folder(path, current, room, ctx),
        }
    }

    fn follow_file(
        &mut self,
        path: PathBuf,
        current: Option<Arc<Generation>>,
        room: usize,
        ctx: &mut Context<Self>,
    ) {
        let (read, seen) = (self.list.read, self.list.seen);
        // Even the state of the file is read on a blocking thread: its disk may not answer.
        self.run(ctx, async move {
            blocking(move || {
                let state = FileVersion::now(&path);
                if state == read || state != seen {
                    return Built::Unchanged(ListVersion::Seen(state));
                }
                match source::read(&path) {
                    Ok((list, version)) => {
                        next(current.as_deref(), list, room, ListVersion::File(Some(version)))
                    }
                    Err(error) => Built::Failed(error, ListVersion::File(state)),
                }
            })
            .await
        });
    }

    fn follow_url(
        &mut self,
        url: Url,
        current: Option<Arc<Generation>>,
        room: usize,
        ctx: &mut Context<Self>,
    ) {
        let now = Instant::now();
        if self.list.due.is_some_and(|due| due > now) {
            return;
        }
        self.list.due = Some(now + FETCH_INTERVAL);
        let (client, tag) = (self.client(), self.list.tag.clone());
        self.run(ctx, async move {
            match source::fetch(&client, &url, tag.clone()).await {
                Ok(None) => Some(Built::Unchanged(ListVersion::Same)),
                Ok(Some((text, tag))) => {
                    blocking(move || match ReadList::parse(&text, &url) {
                        Ok(list) => next(current.as_deref(), list, room, ListVersion::Tag(tag)),
                        Err(error) => Built::Failed(error, ListVersion::Tag(tag)),
                    })
                    .await
                }
                Err(error) => Some(Built::Failed(error, ListVersion::Tag(tag))),
            }
        });
    }

    fn follow_folder(
        &mut self,
        path: PathBuf,
        current: Option<Arc<Generation>>,
        room: usize,
        ctx: &mut Context<Self>,
    ) {
        if self.list.due.is_some_and(|due| due > Instant::now()) {
            return;
        }
        let known = std::mem::take(&mut self.list.tree);
        self.run(ctx, async move {
            blocking(move || {
                let start = Instant::now();
                match tree::scan(&path, &known, SystemTime::now()) {
                    Ok((list, found)) => {
                        next(current.as_deref(), list, room, ListVersion::Tree(found, start.elapsed()))
                    }
                    Err(error) => Built::Failed(error, ListVersion::Tree(known, start.elapsed())),
                }
            })
            .await
        });
    }

    /// Makes room for more mirrors or sets.
    fn rebuild(&mut self, ctx: &mut Context<Self>) {
        let Some(current) = self.current().filter(|_| !self.list.is_busy) else { return };
        let room = self.mirrors.keys().max().map_or(1, |number| *number as usize + 1);
        self.run(ctx, async move {
            blocking(move || match current.rebuilt(room) {
                Ok(generation) => Built::Generation(Box::new(generation), ListVersion::Same),
                Err(error) => Built::Full(error),
            })
            .await
        });
    }

    fn run(&mut self, ctx: &mut Context<Self>, job: impl Future<Output = Option<Built>> + 'static) {
        self.list.is_busy = true;
        self.changes.clear();
        ctx.spawn(job.into_actor(self).map(|built, actor, _| {
            actor.list.is_busy = false;
            if let Some(built) = built {
                actor.finish(built);
            }
        }));
    }

    fn finish(&mut self, built: Built) {
        match built {
            Built::Unchanged(version) => self.keep(version),
            Built::Generation(generation, version) => {
                self.keep(version);
                self.install(*generation);
            }
            Built::Failed(error, version) => {
                self.keep(version);
                self.plan.metrics.catalogue_errors.inc();
                let error = chain(&error);
                tracing::error!(error, "the catalogue is not usable; the last good one stays in force");
            }
            Built::Full(error) => {
                self.plan.metrics.catalogue_errors.inc();
                tracing::error!(%error, "the catalogue does not fit");
            }
        }
    }

    fn keep(&mut self, version: ListVersion) {
        match version {
            ListVersion::File(version) => self.list.read = version,
            ListVersion::Tag(tag) => self.list.tag = tag,
            ListVersion::Tree(tree, took) => {
                self.list.tree = tree;
                self.list.due = Some(Instant::now() + SCAN_INTERVAL.max(took * 10));
            }
            ListVersion::Seen(seen) => self.list.seen = seen,
            ListVersion::Same => {}
        }
    }

    fn install(&mut self, generation: Generation) {
        let is_new = self.current().is_none_or(|current| current.number != generation.number);
        let mut interner = SetInterner::new(generation.index.sets());
        for (key, mirror, lacks) in std::mem::take(&mut self.changes) {
            // A file of the old catalogue may be gone, and a changed one has no exceptions.
            let is_old = matches!(generation.at(key), Some(Location::File(file)) if file.age > 0);
            if (is_old || !is_new) && interner.set(&generation.index, key, mirror, lacks).is_err() {
                self.plan.metrics.exceptions_dropped.inc();
            }
        }
        let generation = Arc::new(generation);
        let is_lacking = |(key, mirror): &(u64, u32), _: &Lack| generation.lacks(*key, *mirror);
        self.plan.presence.exceptions.pin().retain(is_lacking);
        self.missing.clear();
        self.interner = Some(interner);
        // The proofs must be in force before the first request.
        self.history.observe(&generation, self.mirrors.values().filter_map(|mirror| mirror.proof.as_ref()));
        for (number, mirror) in &mut self.mirrors {
            let proof = mirror.judge(&self.history, generation.number);
            generation.set_proven_age(*number, proof.age);
            if proof.age > 0 {
                mirror.due = mirror.due.min(Instant::now() + self.plan.proof_interval / 2);
            }
        }
        self.plan.presence.current.store(Some(Arc::clone(&generation)));
        self.judge();
        self.adopt(&generation);
        if is_new {
            (self.saving.is_changed, self.saving.due) = (true, Instant::now());
            let (number, files) = (generation.number, generation.catalogue.files());
            tracing::info!(generation = number, files, "a catalogue is in force");
        }
    }

    /// Shows a generation in the metrics, and becomes its writer.
    fn adopt(&mut self, generation: &Generation) {
        if self.interner.is_none() {
            self.interner = Some(SetInterner::new(generation.index.sets()));
        }
        self.plan.metrics.catalogue(generation.catalogue.files(), generation.number, generation.made_at);
        self.count();
    }

    fn count(&self) {
        self.plan.metrics.lacking(self.plan.presence.exceptions.len());
    }

    // Checks.

    fn round(&mut self, ctx: &mut Context<Self>) {
        let Some(generation) = self.current() else { return };
        let now = Instant::now();
        while let Ok(CheckOffer { key, mirror, cause }) = self.plan.offers.try_recv() {
            if let Some(Location::File(file)) = generation.at(key) {
                let folder = catalogue::key(catalogue::parent(file.path));
                self.checks.sample(mirror, key, folder, cause, now);
            }
        }
        for check in self.checks.next(now) {
            let Check { mirror, key, .. } = check;
            let known = self.mirrors.get(&mirror).filter(|mirror| !mirror.is_origin);
            let (Some(known), Some(Location::File(file))) = (known, generation.at(key)) else {
                self.checks.end(mirror);
                continue;
            };
            let url = format!("{}{}", known.id, percent_encode(file.path, NOT_IN_PATHS));
            let (content, id, client) = (file.content, known.id.clone(), self.client());
            let checking = async move { look(&client, &url, content).await };
            ctx.spawn(checking.into_actor(self).map(move |result, actor, ctx| {
                actor.checks.end(mirror);
                // Another backend may have the number by now.
                if actor.mirrors.get(&mirror).is_some_and(|known| known.id == id) {
                    actor.checked(check, result, ctx);
                }
            }));
        }
    }

    fn checked(&mut self, check: Check, result: CheckResult, ctx: &mut Context<Self>) {
        let Check { mirror, key, is_sample } = check;
        let known = self.plan.presence.exceptions.pin().get(&(key, mirror)).copied();
        match result {
            CheckResult::Has => {
                self.plan.metrics.checked("has");
                self.checks.forget(mirror, key);
                if known.is_some() {
                    self.set(key, mirror, None, ctx);
                }
            }
            CheckResult::Lacks(lack) => {
                self.plan.metrics.checked("lacks");
                if is_sample && known.is_none() {
                    self.plan.metrics.missing_redirects.inc();
                }
                self.checks.retry_later(mirror, key, Instant::now());
                let is_set = self.set(key, mirror, Some(lack), ctx);
                if is_set && known.is_none_or(|known| known == Lack::Suspended) {
                    self.lost(key, mirror, lack, ctx);
                }
            }
            CheckResult::Unknown => {
                self.plan.metrics.checked("failed");
                if known.is_some() {
                    self.checks.retry_later(mirror, key, Instant::now());
                }
            }
        }
    }

    /// Checks the folder of a missing file, or excludes the mirror from all its files until they are checked.
    fn lost(&mut self, key: u64, mirror: u32, lack: Lack, ctx: &mut Context<Self>) {
        let Some(generation) = self.current() else { return };
        let (Some(Location::File(file)), Some(known)) = (generation.at(key), self.mirrors.get(&mirror))
        else {
            return;
        };
        let folder = catalogue::parent(file.path);
        let path = String::from_utf8_lossy(file.path);
        let is_proven =
            matches!(known.judge(&self.history, generation.number).state, ProofState::Proven { .. });
        if self.missing.len() >= MOST_FOLDERS {
            self.missing.clear();
        }
        let missing = self.missing.entry((mirror, catalogue::key(folder))).or_default();
        *missing += 1;
        let is_first = *missing == 1;
        let suspends = *missing == if is_proven { MOST_MISSING } else { 1 };
        if is_first {
            tracing::info!(mirror = %known.id, %path, reason = %lack, "a mirror lacks a file; its folder is checked");
        } else {
            tracing::debug!(mirror = %known.id, %path, reason = %lack, "a mirror lacks a file");
        }
        if !is_first && !suspends {
            return;
        }
        let others = generation.catalogue.files_of(folder).map(|entry| catalogue::key(entry.path));
        let others = others
            .filter(|other| *other != key)
            .filter(|other| self.plan.presence.exceptions.pin().get(&(*other, mirror)).is_none());
        if suspends {
            let others: Vec<u64> = others.collect();
            for other in others {
                if !self.checks.queue(mirror, other) || !self.set(other, mirror, Some(Lack::Suspended), ctx) {
                    break;
                }
            }
        } else {
            let others: Vec<u64> = others.take(NEIGHBOURS).collect();
            for other in others {
                self.checks.queue_first(mirror, other);
            }
        }
    }

    /// Records that a mirror lacks a file, or has it; `false` if there is no room.
    fn set(&mut self, key: u64, mirror: u32, lack: Option<Lack>, ctx: &mut Context<Self>) -> bool {
        let (Some(generation), Some(interner)) = (self.current(), &mut self.interner) else { return false };
        {
            let exceptions = self.plan.presence.exceptions.pin();
            match lack {
                Some(_) if exceptions.len() >= MOST_EXCEPTIONS => {
                    self.plan.metrics.exceptions_dropped.inc();
                    return false;
                }
                Some(lack) => drop(exceptions.insert((key, mirror), lack)),
                None => drop(exceptions.remove(&(key, mirror))),
            }
        }
        self.saving.is_changed = true;
        if self.list.is_busy {
            self.changes.push((key, mirror, lack.is_some()));
        }
        let is_set = match interner.set(&generation.index, key, mirror, lack.is_some()) {
            Ok(is_set) => is_set,
            Err(error) => {
                tracing::warn!(%error, "a missing file stays in use");
                self.plan.metrics.exceptions_dropped.inc();
                self.plan.presence.exceptions.pin().remove(&(key, mirror));
                let now = Instant::now();
                if self.rebuilt_at.is_none_or(|at| now.saturating_duration_since(at) > REBUILD_INTERVAL) {
                    self.rebuilt_at = Some(now);
                    self.rebuild(ctx);
                }
                false
            }
        };
        self.count();
        is_set
    }
}

impl PresenceMirror {
    fn is_of(&self, backend: &Backend) -> bool {
        let (proof, is_origin) = (self.proof.as_ref(), self.is_origin);
        self.id == *backend.id() && (proof, is_origin) == (backend.proof(), backend.is_origin())
    }

    fn judge(&self, history: &ProofHistory, current: u64) -> MirrorProof {
        let (age, state) = match (&self.proof, self.digest) {
            _ if self.is_origin => (0, ProofState::Origin),
            (None, _) => (0, ProofState::NotAsked),
            (Some(_), None) => (OLD, ProofState::Waiting),
            (Some(proof), Some((digest, at))) => match history.compare(proof, &digest) {
                ProofMatch::Generation(generation) => {
                    (proven_age(current, generation), ProofState::Proven { generation, at })
                }
                ProofMatch::Other => (OLD + 1, ProofState::OtherContent { at }),
                ProofMatch::NoReference => (OLD, ProofState::NoReference),
            },
        };
        MirrorProof { age, state }
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
        self.mirrors.values_mut().for_each(|mirror| mirror.is_asked = false);
        // The panic may have interrupted a change of the sets.
        self.interner = self.current().map(|generation| SetInterner::new(generation.index.sets()));
    }
}

/// The generation of a list that was read.
fn next(current: Option<&Generation>, list: ReadList, mirrors: usize, version: ListVersion) -> Built {
    if current.is_some_and(|current| current.source == list.digest) {
        return Built::Unchanged(version);
    }
    match Generation::next(current, list.catalogue, list.digest, mirrors, SystemTime::now()) {
        Ok(generation) => Built::Generation(Box::new(generation), version),
        Err(error) => Built::Full(error),
    }
}

/// Runs `job` on a blocking thread; `None` if it panics.
async fn blocking(job: impl FnOnce() -> Built + Send + 'static) -> Option<Built> {
    actix_rt::task::spawn_blocking(job).await.inspect_err(|error| tracing::error!(%error, "a catalogue")).ok()
}

/// Requests a file and computes its digest; zeros if the server does not have the file.
async fn digest_of(client: &HttpClient, url: &str) -> Result<[u8; 32], String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let request = Request::get(url).with("User-Agent", concat!("fingerpost/", env!("CARGO_PKG_VERSION")));
    let asking = async {
        let mut answer = client.send(&request).await.map_err(|error| chain(&error))?;
        match answer.head.status {
            200 => {}
            404 | 410 => return Ok([0; 32]),
            status => return Err(format!("status {status}")),
        }
        let (mut digest, mut read) = (Sha256::new(), 0_usize);
        while let Some(bytes) = answer.chunk().await.map_err(|error| chain(&error))? {
            read = read.saturating_add(bytes.len());
            if read > LARGEST_PROOF {
                return Err(format!("more than {LARGEST_PROOF} bytes"));
            }
            digest.update(&bytes);
        }
        Ok(digest.finalize().into())
    };
    timeout(PROOF_TIMEOUT, asking).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// Requests the head of a file, also after a few redirects.
async fn look(client: &HttpClient, url: &str, content: CatalogueContent) -> CheckResult {
    let Ok(mut url) = Url::parse(url) else { return CheckResult::Unknown };
    let looking = async {
        for _ in 0..=MOST_HOPS {
            let request = Request { method: Method::Head, ..Request::get(url.clone()) }
                .with("User-Agent", concat!("fingerpost/", env!("CARGO_PKG_VERSION")));
            let answer = client.send(&request).await?;
            let length = answer.head.header("content-length").and_then(|length| length.parse().ok());
            match answer.head.status {
                200 => {
                    return Ok(match (content.size, length) {
                        (Some(expected), Some(found)) if expected != found => {
                            CheckResult::Lacks(Lack::OtherSize { found, expected })
                        }
                        _ => CheckResult::Has,
                    });
                }
                status @ (404 | 410) => return Ok(CheckResult::Lacks(Lack::Status(status))),
                301 | 302 | 303 | 307 | 308 => {
                    match answer.head.header("location").and_then(|location| url.join(location).ok()) {
                        Some(target) => url = target,
                        None => return Ok(CheckResult::Unknown),
                    }
                }
                _ => return Ok(CheckResult::Unknown),
            }
        }
        Ok::<_, TransportError>(CheckResult::Unknown)
    };
    match timeout(CHECK_TIMEOUT, looking).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => CheckResult::Unknown,
    }
}
