//! The sources of backends: files, DNS, HTTP servers and registrations in an engine, any number at once.
//!
//! Each source keeps its last good answer: a failed, empty or truncated answer never shrinks the list. [`merge`] holds
//! these rules; the readers in the other modules only read.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use futures_util::stream::{self, LocalBoxStream, SelectAll};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

mod address;
mod dns;
mod http;
mod merge;
mod registry;

use address::RemoteAddress;
pub(crate) use address::{SourceAddress, SourceAddressError};

use super::backends::watch::{Follower, ListError};
use super::backends::{Backend, BackendId, list};
use crate::engine::{Backoff, EngineClient, EngineError, FleetSettings};
use crate::http::client::{HttpClient, Resolver, TransportError, TransportSettings, Trust};
use crate::telemetry::chain;
use dns::DnsReader;
use http::HttpReader;
use merge::{AnswerKind, SourceAnswer, SourceState, merge};
use registry::RegistryReader;

/// The largest number of sources.
pub(crate) const MAX_SOURCES: usize = 16;
/// The time limit of the first answers of all sources, for which the start of the program waits.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

/// A source cannot be read, or its answer is not usable.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(
        "the look-up failed: {0}; check the name, and the DNS server in /etc/resolv.conf or balancer.dns_server"
    )]
    Dns(String),
    #[error(transparent)]
    Http(#[from] TransportError),
    #[error("the server answered with the status {0}; check the URL")]
    Status(u16),
    #[error("the answer is larger than 16 MiB")]
    TooLarge,
    #[error("the answer is neither a list of servers nor a list of targets in JSON: {0}")]
    Garbage(String),
    #[error("the answer has no servers; to remove the last one, remove the source")]
    Empty,
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the source panicked; the log has the reason")]
    Panicked,
}

/// The settings of all sources.
#[derive(Debug, Clone)]
pub(crate) struct SourceSettings {
    /// The sources; the first one that has a backend sets its attributes.
    pub addresses: Vec<SourceAddress>,
    /// The shortest time between two requests to a source in DNS or HTTP.
    pub interval: Duration,
    /// The time for which a backend stays that the answers of DNS or an engine lack.
    pub hold: Duration,
    /// The DNS server; `None` for those of the system.
    pub dns_server: Option<SocketAddr>,
    /// The authorities of https sources.
    pub trust: Trust,
}

/// The shared settings of all remote sources.
struct RemoteSettings {
    sources: SourceSettings,
    fleet: FleetSettings,
    resolver: Resolver,
}

/// The sources of a balancer, before they are followed.
pub(crate) struct SourceSet {
    list: SourceList,
    /// The sources that can change, with their index in the list.
    readers: Vec<(usize, ReaderPlan)>,
}

/// A source that can change. Its reader belongs to one thread, so each thread makes its own.
enum ReaderPlan {
    File(Box<Follower>),
    Remote(RemoteAddress, Arc<RemoteSettings>),
}

impl SourceSet {
    /// A list that never changes.
    #[must_use]
    pub(crate) fn fixed(backends: Vec<Backend>) -> Self {
        let mut set = Self { list: SourceList::default(), readers: Vec::new() };
        let index = set.list.add("code", AnswerKind::Change);
        set.list.apply(index, Ok(Some(SourceAnswer { backends, ..SourceAnswer::default() })));
        set
    }

    /// One list of servers.
    pub(crate) fn file(path: PathBuf) -> Result<Self, ListError> {
        let mut set = Self { list: SourceList::default(), readers: Vec::new() };
        set.add_file(path)?;
        Ok(set)
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), ListError> {
        let name = SourceAddress::File(path.clone()).to_string();
        let follower = Follower::open(path)?;
        let backends = follower.backends().to_vec();
        let index = self.list.add(name, AnswerKind::Change);
        self.list.apply(index, Ok(Some(SourceAnswer { backends, ..SourceAnswer::default() })));
        self.readers.push((index, ReaderPlan::File(Box::new(follower))));
        Ok(())
    }

    /// Opens the files among the sources. An unusable file is an error, because no earlier list exists.
    pub(crate) fn open(sources: SourceSettings, fleet: FleetSettings) -> Result<Self, ListError> {
        let mut set = Self { list: SourceList::default(), readers: Vec::new() };
        let settings = Arc::new(RemoteSettings { sources, fleet, resolver: Resolver::default() });
        for address in &settings.sources.addresses {
            match address {
                SourceAddress::File(path) => set.add_file(path.clone())?,
                SourceAddress::Remote(address) => {
                    let kind = match address {
                        RemoteAddress::Http(_) => AnswerKind::Complete,
                        _ => AnswerKind::Partial(settings.sources.hold),
                    };
                    let index = set.list.add(address.to_string(), kind);
                    let reader = ReaderPlan::Remote(address.clone(), Arc::clone(&settings));
                    set.readers.push((index, reader));
                }
            }
        }
        Ok(set)
    }

    /// Reads each remote source once, at most for [`FIRST_ANSWERS`]. A failure is logged; the source is then followed
    /// from an empty answer. Must be called on an actix arbiter.
    pub(crate) async fn read_once(&mut self) {
        let remote = self.readers.iter().filter_map(|(index, plan)| match plan {
            ReaderPlan::File(_) => None,
            ReaderPlan::Remote(address, settings) => Some((*index, SourceReader::remote(address, settings))),
        });
        let answers = join_all(remote.map(async |(index, mut reader)| {
            let read = timeout(FIRST_ANSWERS, reader.read()).await;
            (index, read.unwrap_or(Err(SourceError::TimedOut(FIRST_ANSWERS))))
        }));
        for (index, read) in answers.await {
            self.list.apply(index, read.map(|(answer, _)| answer));
        }
    }

    /// Gives each remote source without an answer the backends of its last good answer in an earlier run.
    pub(crate) fn restore(&mut self, remembered: &HashMap<String, Vec<String>>) {
        let states = self.list.states.iter_mut();
        for state in states.filter(|state| state.is_remote() && state.answered_at.is_none()) {
            if let Some(lines) = remembered.get(&*state.name) {
                state.restore(list::parse(lines.join("\n").as_bytes()).backends);
                warn!(source = %state.name, servers = state.backends().len(), "a source has not answered; the servers of its last good answer in the state folder are used");
            }
        }
        self.list.report(true);
    }

    /// Reads the files at each request of `reloads`; see [`Follower::reload_at`].
    pub(crate) fn reload_at(&mut self, reloads: &watch::Receiver<()>) {
        for (_, reader) in &mut self.readers {
            if let ReaderPlan::File(follower) = reader {
                follower.reload_at(reloads.clone());
            }
        }
    }

    /// The merged list.
    #[must_use]
    pub(crate) fn backends(&self) -> Arc<[Backend]> {
        Arc::clone(&self.list.backends)
    }

    /// The sources for operators, also while they are followed.
    #[must_use]
    pub(crate) fn report(&self) -> SourcesReport {
        self.list.report.clone()
    }

    /// Follows the sources on this arbiter.
    pub(crate) fn follow(self) -> Sources {
        let readers = self.readers.into_iter().map(|(index, plan)| match plan {
            ReaderPlan::File(follower) => readings(index, SourceReader::File(follower)),
            ReaderPlan::Remote(address, settings) => {
                readings(index, SourceReader::remote(&address, &settings))
            }
        });
        Sources { readings: readers.collect(), list: self.list }
    }
}

/// The followed sources.
pub(crate) struct Sources {
    list: SourceList,
    readings: SelectAll<LocalBoxStream<'static, (usize, Reading)>>,
}

impl Sources {
    /// Waits until the merged list changes, and returns it. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Arc<[Backend]> {
        while let Some((index, reading)) = self.readings.next().await {
            if self.list.apply(index, reading) {
                return Arc::clone(&self.list.backends);
            }
        }
        std::future::pending().await
    }
}

/// An answer, or `None` if the last one is confirmed.
type Reading = Result<Option<SourceAnswer>, SourceError>;

enum SourceReader {
    File(Box<Follower>),
    Dns(DnsReader, Duration),
    Http(HttpReader, Duration),
    Registry(RegistryReader),
}

impl SourceReader {
    fn remote(address: &RemoteAddress, settings: &RemoteSettings) -> Self {
        let RemoteSettings { sources: settings, fleet, resolver } = settings;
        let dns = |name: &String, port| {
            Self::Dns(DnsReader::new(name.clone(), port, settings.dns_server), settings.interval)
        };
        match address {
            RemoteAddress::Dns { name, port } => dns(name, Some(*port)),
            RemoteAddress::DnsService(name) => dns(name, None),
            RemoteAddress::Http(url) => {
                let transport =
                    TransportSettings { trust: settings.trust.clone(), ..TransportSettings::default() };
                let client = HttpClient::with_resolver(transport, resolver.clone());
                Self::Http(HttpReader::new(url.clone(), client), settings.interval)
            }
            RemoteAddress::Engine(address) => {
                let engine = EngineClient::new(fleet.at(address.clone()), resolver.clone());
                Self::Registry(RegistryReader::new(engine))
            }
        }
    }

    /// Returns the answer, and the pause before the next call. A file has changed when its call returns.
    async fn read(&mut self) -> Result<(Option<SourceAnswer>, Duration), SourceError> {
        match self {
            Self::File(follower) => {
                let backends = follower.changed().await.to_vec();
                Ok((Some(SourceAnswer { backends, ..SourceAnswer::default() }), Duration::ZERO))
            }
            Self::Dns(reader, interval) => {
                reader.read().await.map(|(answer, ttl)| (Some(answer), ttl.max(*interval)))
            }
            Self::Http(reader, interval) => reader.read().await.map(|answer| (answer, *interval)),
            Self::Registry(reader) => reader.read().await,
        }
    }
}

/// Reads a source for ever. A panic counts as a failure.
fn readings(index: usize, reader: SourceReader) -> LocalBoxStream<'static, (usize, Reading)> {
    let start = (reader, Backoff::default(), Instant::now());
    let next = move |(mut reader, mut backoff, due): (SourceReader, Backoff, Instant)| async move {
        sleep_until(due).await;
        let read = AssertUnwindSafe(reader.read()).catch_unwind().await.unwrap_or(Err(SourceError::Panicked));
        let (reading, pause) = match read {
            Ok((answer, pause)) => {
                backoff.reset();
                (Ok(answer), pause)
            }
            Err(error) => (Err(error), backoff.next(rand::random())),
        };
        Some(((index, reading), (reader, backoff, Instant::now() + pause)))
    };
    stream::unfold(start, next).boxed_local()
}

/// The state of all sources, and the list that results from it.
#[derive(Default)]
struct SourceList {
    states: Vec<SourceState>,
    backends: Arc<[Backend]>,
    report: SourcesReport,
}

impl SourceList {
    /// Adds a source; returns its index.
    fn add(&mut self, name: impl Into<Arc<str>>, kind: AnswerKind) -> usize {
        self.states.push(SourceState::new(name, kind));
        self.states.len() - 1
    }

    /// Applies a reading of the source at `index`. Returns whether the merged list changed.
    fn apply(&mut self, index: usize, reading: Reading) -> bool {
        let Some(state) = self.states.get_mut(index) else { return false };
        let (had_failed, skipped) = (state.error.is_some(), state.skipped);
        let changed = match reading {
            Ok(answer) => state.answered(answer, Instant::now()),
            Err(error) => {
                let reason = chain(&error);
                if state.failed(reason.clone()) {
                    let servers = state.backends().len();
                    warn!(source = %state.name, reason, servers, "cannot read a source of servers; its last good answer stays active");
                }
                false
            }
        };
        if had_failed && state.error.is_none() {
            info!(source = %state.name, "the source of servers is usable again");
        }
        if state.skipped > 0 && state.skipped != skipped {
            warn!(source = %state.name, skipped = state.skipped, "records of a source are skipped: they are invalid, or too many");
        }
        // The follower of a file logs its changes.
        if changed && state.answered_at.is_some() {
            info!(source = %state.name, servers = state.backends().len(), "servers of a source changed");
        }
        self.report(changed);
        changed
    }

    /// Updates the report, and the merged list if the backends of a source changed.
    fn report(&mut self, changed: bool) {
        let last = self.report.0.load();
        let (origins, ignored) = if changed {
            let merged = merge(&self.states);
            self.backends = merged.backends.into();
            (Arc::new(merged.origins), merged.ignored)
        } else {
            (Arc::clone(&last.origins), last.ignored)
        };
        let sources = self.states.iter().map(ReportedSource::from).collect();
        self.report.0.store(Arc::new(ReportedSources { sources, ignored, origins }));
    }
}

/// The sources for operators. Clones share their content.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourcesReport(Arc<ArcSwap<ReportedSources>>);

impl SourcesReport {
    /// The current content.
    #[must_use]
    pub(crate) fn latest(&self) -> Arc<ReportedSources> {
        self.0.load_full()
    }
}

/// The content of a [`SourcesReport`].
#[derive(Debug, Default)]
pub(crate) struct ReportedSources {
    /// All sources, in the order of their precedence.
    pub sources: Vec<ReportedSource>,
    /// The number of backends beyond the largest number.
    pub ignored: usize,
    origins: Arc<HashMap<BackendId, u16>>,
}

impl ReportedSources {
    /// The lists of the remote sources, by name, for [`SourceSet::restore`].
    pub(crate) fn remember(&self) -> HashMap<String, Vec<String>> {
        let remote = self.sources.iter().filter(|source| source.is_remote);
        let lines = |source: &ReportedSource| source.backends.iter().map(ToString::to_string).collect();
        remote.map(|source| (source.name.to_string(), lines(source))).collect()
    }

    /// The names of the sources of a backend.
    pub(crate) fn of(&self, backend: &BackendId) -> impl Iterator<Item = &str> {
        let origins = self.origins.get(backend).copied().unwrap_or_default();
        let sources = self.sources.iter().zip(0_u32..);
        sources.filter(move |(_, bit)| origins >> bit & 1 == 1).map(|(source, _)| &*source.name)
    }
}

/// One source for operators.
#[derive(Debug, Clone)]
pub(crate) struct ReportedSource {
    /// The source as the operator wrote it, without secrets.
    pub name: Arc<str>,
    /// Its backends.
    pub backends: Arc<[Backend]>,
    is_remote: bool,
    /// See [`Self::age`].
    answered_at: Option<Instant>,
    /// The reason why the latest answer is not usable.
    pub error: Option<String>,
    /// The number of failures since the start.
    pub failures: u64,
    /// The number of invalid records of the last good answer.
    pub skipped: usize,
}

impl ReportedSource {
    /// The age of the last good answer. `None` before the first one, and for a file, which reports only changes.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.answered_at.map(|at| now.saturating_duration_since(at))
    }
}

impl From<&SourceState> for ReportedSource {
    fn from(state: &SourceState) -> Self {
        Self {
            name: Arc::clone(&state.name),
            backends: Arc::clone(state.backends()),
            is_remote: state.is_remote(),
            answered_at: state.answered_at,
            error: state.error.clone(),
            failures: state.failures,
            skipped: state.skipped,
        }
    }
}
