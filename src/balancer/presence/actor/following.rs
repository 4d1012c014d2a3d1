//! The catalogue: its list is followed, and each new state makes the next generation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::time::Instant;
use url::Url;

use super::PresenceActor;
use crate::balancer::presence::checks::Lack;
use crate::balancer::presence::generation::{Generation, Location};
use crate::balancer::presence::index::{IndexFull, MOST_MIRRORS, SetInterner};
use crate::balancer::presence::source::{self, CatalogueSource, CatalogueSourceError, FileVersion, ReadList};
use crate::balancer::presence::tree::{self, TreeDigests};
use crate::telemetry::chain;

/// The time between two downloads of a catalogue.
const FETCH_INTERVAL: Duration = Duration::from_mins(1);

/// The least time between two readings of a folder.
const FOLDER_INTERVAL: Duration = Duration::from_secs(2);

/// The progress of following the list.
#[derive(Default)]
pub(super) struct ListState {
    /// Whether a job runs.
    pub(super) is_busy: bool,
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

impl ListState {
    /// The state after `read` was read.
    pub(super) fn new(read: Option<FileVersion>) -> Self {
        Self { read, seen: read, ..Self::default() }
    }
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

/// The basis of the next generation.
struct Basis {
    current: Option<Arc<Generation>>,
    /// The limit of the numbers of mirrors.
    room: usize,
    /// The mirrors whose evidence is a scan, which does not include new files.
    scanned: Vec<u32>,
}

impl Basis {
    /// The generation of a list that was read.
    fn next(&self, list: ReadList, version: ListVersion) -> Built {
        let current = self.current.as_deref();
        if current.is_some_and(|current| current.source == list.digest) {
            return Built::Unchanged(version);
        }
        let now = SystemTime::now();
        match Generation::next(current, list.catalogue, list.digest, self.room, &self.scanned, now) {
            Ok(generation) => Built::Generation(Box::new(generation), version),
            Err(error) => Built::Full(error),
        }
    }
}

impl PresenceActor {
    pub(super) fn follow(&mut self, ctx: &mut Context<Self>) {
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
        let scanned = self.mirrors.iter().filter(|(_, mirror)| mirror.is_only_scanned());
        let basis = Basis { current, room, scanned: scanned.map(|(number, _)| *number).collect() };
        match self.plan.source.clone() {
            CatalogueSource::File(path) => self.follow_file(path, basis, ctx),
            CatalogueSource::Url(url) => self.follow_url(url, basis, ctx),
            CatalogueSource::Folder(path) => self.follow_folder(path, basis, ctx),
        }
    }

    fn follow_file(&mut self, path: PathBuf, basis: Basis, ctx: &mut Context<Self>) {
        let (read, seen) = (self.list.read, self.list.seen);
        // Even the state of the file is read on a blocking thread: its disk may not answer.
        self.run(ctx, async move {
            blocking(move || {
                let state = FileVersion::now(&path);
                if state == read || state != seen {
                    return Built::Unchanged(ListVersion::Seen(state));
                }
                match source::read(&path) {
                    Ok((list, version)) => basis.next(list, ListVersion::File(Some(version))),
                    Err(error) => Built::Failed(error, ListVersion::File(state)),
                }
            })
            .await
        });
    }

    fn follow_url(&mut self, url: Url, basis: Basis, ctx: &mut Context<Self>) {
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
                        Ok(list) => basis.next(list, ListVersion::Tag(tag)),
                        Err(error) => Built::Failed(error, ListVersion::Tag(tag)),
                    })
                    .await
                }
                Err(error) => Some(Built::Failed(error, ListVersion::Tag(tag))),
            }
        });
    }

    fn follow_folder(&mut self, path: PathBuf, basis: Basis, ctx: &mut Context<Self>) {
        if self.list.due.is_some_and(|due| due > Instant::now()) {
            return;
        }
        let known = std::mem::take(&mut self.list.tree);
        self.run(ctx, async move {
            blocking(move || {
                let start = Instant::now();
                match tree::scan(&path, &known, SystemTime::now()) {
                    Ok((list, found)) => basis.next(list, ListVersion::Tree(found, start.elapsed())),
                    Err(error) => Built::Failed(error, ListVersion::Tree(known, start.elapsed())),
                }
            })
            .await
        });
    }

    /// Makes room for more mirrors or sets.
    pub(super) fn rebuild(&mut self, ctx: &mut Context<Self>) {
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
                self.list.due = Some(Instant::now() + FOLDER_INTERVAL.max(took * 10));
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
    pub(super) fn adopt(&mut self, generation: &Generation) {
        if self.interner.is_none() {
            self.interner = Some(SetInterner::new(generation.index.sets()));
        }
        self.plan.metrics.catalogue(generation.catalogue.files(), generation.number, generation.made_at);
        self.count();
    }
}

/// Runs `job` on a blocking thread; `None` if it panics.
async fn blocking(job: impl FnOnce() -> Built + Send + 'static) -> Option<Built> {
    actix_rt::task::spawn_blocking(job).await.inspect_err(|error| tracing::error!(%error, "a catalogue")).ok()
}
