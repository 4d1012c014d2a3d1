//! Download of one file, from the given address to the final name on the disk.
//!
//! The [`DownloadPlan`](super::plan::DownloadPlan) decides and the engine acts: it sends the requests, judges whether an
//! answer is the same file, passes bytes to the [`Writer`](super::sink::Writer), and finally compares the
//! digest.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use super::address::Credentials;
use super::checksum::Checksum;
use super::error::DownloadError;
use super::event::{Event, Observer};
use super::identity::{Authority, ContentIdentity};
use super::limit::RateLimiter;
use super::plan::PlanSettings;
use super::reserved_paths::ReservedPaths;
use super::sink::{Destination, Durability, GroupCommit, Pieces, SinkError, destination, release_reader};
use crate::http::client::HttpClient;

mod answers;
mod complete;
mod countdown;
mod engine;
mod fetch;
mod finish;
mod metalink;
mod query;
mod refetch;
mod repair;
mod resume;
mod runs;
mod sources;
mod target_state;

use complete::{is_complete, is_identical, within};
use engine::Engine;
use fetch::Fetcher;
pub(super) use finish::FinishedTransfer;
use finish::PendingRename;
pub(super) use sources::SourceReport;
use target_state::TargetState;

/// Destination of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// This path, by way of a part file beside it.
    File(PathBuf),
    /// A file in this folder, named by the address, or by `Content-Disposition` if [`Naming::Server`] is set.
    Folder(PathBuf),
    /// An inherited descriptor, written as bytes arrive; 1 is standard output.
    Descriptor(i32),
}

/// Origin of the file.
#[derive(Debug, Clone)]
pub(super) enum FileOrigin {
    /// The address of a balancer or a server.
    Address(Url),
    /// Several servers that have the file, best first, and the known properties of the file.
    Mirrors {
        /// The relative path that the Metalink gives the file.
        name: PathBuf,
        /// The addresses of the servers.
        urls: Vec<Url>,
        /// Size and digest from the Metalink, as far as it has them.
        identity: ContentIdentity,
        /// Digests of the pieces of the file.
        pieces: Option<Pieces>,
        /// The kinds of digests in the Metalink, if all of them are unsupported.
        unchecked: Option<String>,
    },
}

/// One file to download.
#[derive(Debug, Clone)]
pub(super) struct DownloadJob {
    /// Origin of the file.
    pub origin: FileOrigin,
    /// Destination of the file.
    pub output: Output,
    /// The digest given by the user.
    pub checksum: Option<Checksum>,
    /// User names and passwords that were removed from the addresses.
    pub credentials: Rc<[Credentials]>,
}

impl DownloadJob {
    /// The path of the file, if it is known before a server names it; `None` for standard output.
    #[must_use]
    pub(super) fn name(&self) -> Option<PathBuf> {
        let name = match (&self.output, &self.origin) {
            (Output::File(path), _) => Some(path.clone()),
            (Output::Folder(folder), FileOrigin::Address(url)) => {
                Some(folder.join(super::naming::from_url(url)))
            }
            (Output::Folder(folder), FileOrigin::Mirrors { name, .. }) => Some(folder.join(name)),
            (Output::Descriptor(_), _) => None,
        };
        // The target of a link is replaced, not the link.
        name.map(|name| match destination(&name) {
            Destination::Path(path) => path,
            Destination::Descriptor(_) => name,
        })
    }

    /// Whether a server may name the file. If so, its path is not reserved before a server has answered.
    #[must_use]
    pub(super) fn is_named_later(&self, naming: Naming) -> bool {
        let is_open = matches!((&self.output, &self.origin), (Output::Folder(_), FileOrigin::Address(_)));
        naming == Naming::Server && is_open
    }
}

/// Whether the bytes of an earlier run are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Resume {
    /// If they are proven to be of the same file.
    #[default]
    Yes,
    /// Never.
    No,
}

/// What happens if the file exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Clobber {
    /// Another version replaces it, once complete.
    #[default]
    Replace,
    /// The file stays, and nothing is downloaded.
    Never,
}

/// What happens while a balancer has no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Unavailable {
    /// The download fails.
    #[default]
    Fail,
    /// The download waits for the balancer's `Retry-After`, and asks again.
    Wait,
}

/// Whether a digest is computed even if no digest is known to compare it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Reporting {
    /// Only if there is a digest to compare it with.
    #[default]
    Compare,
    /// Always, for the report.
    Always,
}

/// Options common to all downloads of one run.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Timeouts and limits for choosing, hedging and dropping sources.
    pub plan: PlanSettings,
    /// Maximum number of redirects.
    pub max_redirects: usize,
    /// Additional headers for every request.
    pub headers: Vec<(String, String)>,
    /// Whether the bytes of an earlier run are used.
    pub resume: Resume,
    /// What happens if the file exists already.
    pub clobber: Clobber,
    /// What happens while a balancer has no server.
    pub unavailable: Unavailable,
    /// Whether the very first request is retried after a temporary failure.
    pub retry_first: bool,
    /// Time after the start of the download after which nothing is retried.
    pub retry_until: Option<Duration>,
    /// Maximum duration of the whole download.
    pub max_time: Option<Duration>,
    /// Interval between checkpoints, which sync received bytes and record them in the journal.
    pub checkpoint_every: Duration,
    /// Which crashes a finished download survives.
    pub durability: Durability,
    /// Whether a digest is always computed.
    pub reporting: Reporting,
    /// What determines the name of the file.
    pub naming: Naming,
}

/// What determines the name of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Naming {
    /// The address.
    #[default]
    Address,
    /// The sanitised `Content-Disposition`, if the server sends one.
    Server,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plan: PlanSettings::default(),
            max_redirects: super::redirect::DEFAULT_MAX_REDIRECTS,
            headers: Vec::new(),
            resume: Resume::Yes,
            clobber: Clobber::Replace,
            unavailable: Unavailable::Fail,
            retry_first: false,
            retry_until: None,
            max_time: None,
            checkpoint_every: Duration::from_secs(2),
            durability: Durability::Synced,
            reporting: Reporting::Compare,
            naming: Naming::Address,
        }
    }
}

/// State shared by all downloads of one run.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// The HTTP client.
    pub transport: HttpClient,
    /// Options of all downloads.
    pub options: Rc<Options>,
    /// Rate limit of all downloads together.
    pub limiter: Option<Rc<RefCell<RateLimiter>>>,
    /// Finishes small files.
    pub group_commit: GroupCommit,
    /// The paths reserved by downloads of this run.
    pub reserved_paths: ReservedPaths,
    /// Becomes true if the user interrupts the run.
    pub stop: watch::Receiver<bool>,
}

/// Report of one download.
#[derive(Debug)]
pub(super) struct DownloadReport {
    /// The requested address.
    pub address: String,
    /// The path of the file; `None` for standard output, or if the name is still unknown.
    pub target: Option<PathBuf>,
    /// The size in bytes, if known.
    pub size: Option<u64>,
    /// The digest, if it was computed.
    pub digest: Option<Checksum>,
    /// Sources that were asked, with the bytes received from each.
    pub sources: Vec<SourceReport>,
    /// Duration of the download.
    pub elapsed: Duration,
    /// Result of the download.
    pub outcome: Result<DownloadSuccess, DownloadError>,
}

/// How a download succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DownloadSuccess {
    /// The file was downloaded.
    Downloaded,
    /// The complete file existed before.
    AlreadyThere,
}

impl DownloadReport {
    /// The report of a download that failed before its start.
    #[must_use]
    pub(super) fn of_failure(address: String, error: DownloadError) -> Self {
        Self { outcome: Err(error), ..Self::begun(address, None) }
    }

    fn begun(address: String, target: Option<PathBuf>) -> Self {
        Self {
            address,
            target,
            size: None,
            digest: None,
            sources: Vec::new(),
            elapsed: Duration::ZERO,
            outcome: Ok(DownloadSuccess::AlreadyThere),
        }
    }
}

/// Downloads one file, up to the point at which only disk work remains.
pub(super) async fn fetch(context: &Context, job: &DownloadJob, observer: &dyn Observer) -> FinishedTransfer {
    let started = Instant::now();
    let address = match &job.origin {
        FileOrigin::Address(url) => url.to_string(),
        FileOrigin::Mirrors { urls, .. } => urls.first().map(Url::to_string).unwrap_or_default(),
    };
    let mut report = DownloadReport::begun(address, job.name());
    let obtained = obtain(context, job, observer, started, &mut report).await;
    let (outcome, unnamed) = match obtained {
        Ok((completion, unnamed)) => (Ok(completion), unnamed),
        Err(error) => (Err(error), None),
    };
    if let (Err(error), Some(path)) = (&outcome, job.name())
        && !matches!(error, DownloadError::IsMetalink { .. })
    {
        // A pipe that was not opened yet still has a waiting reader.
        release_reader(&path);
    }
    report.outcome = outcome;
    FinishedTransfer { report, unnamed, started }
}

/// Implements [`fetch`]. Fills `report`, except for its outcome.
async fn obtain(
    context: &Context,
    job: &DownloadJob,
    observer: &dyn Observer,
    started: Instant,
    report: &mut DownloadReport,
) -> Result<(DownloadSuccess, Option<PendingRename>), DownloadError> {
    if *context.stop.borrow() {
        return Err(DownloadError::Interrupted);
    }
    let home = match &job.origin {
        FileOrigin::Address(url) => Some(url.origin()),
        FileOrigin::Mirrors { .. } => None,
    };
    let fetcher = Fetcher {
        transport: context.transport.clone(),
        headers: context.options.headers.clone(),
        home,
        credentials: Rc::clone(&job.credentials),
    };
    make_folders(job)?;
    let already_complete = |target: &Path| {
        observer.notice(&Event::AlreadyThere { target });
        Ok((DownloadSuccess::AlreadyThere, None))
    };
    let target_state = TargetState::of(report.target.as_deref())?;
    if target_state == TargetState::Taken
        && let Some(path) = report.target.clone()
        // A file that another download of this run has written is not a file from before the run.
        && !(job.is_named_later(context.options.naming) && context.reserved_paths.has(&path))
        && within(context, started, is_complete(context, job, &fetcher, &path, report)).await?
    {
        return already_complete(&path);
    }
    let mut engine =
        Engine::new(context, job, observer, fetcher, report.target.clone(), target_state, started);
    let outcome = engine.run().await;
    let outcome = engine.conclude(outcome).await;
    engine.fill(report);
    match outcome {
        Ok(unnamed) => Ok((DownloadSuccess::Downloaded, unnamed)),
        Err(DownloadError::NameTaken { path }) => {
            let is_there = is_identical(context, &engine.identity, &path, report);
            if within(context, started, is_there).await? {
                return already_complete(&path);
            }
            Err(DownloadError::NameTaken { path })
        }
        Err(DownloadError::IsMetalink { url, .. }) => {
            let answer = engine.metalink.take().ok_or(DownloadError::NoSource)?;
            engine.release_name();
            let text = within(context, started, metalink::read(&url, answer)).await??;
            Err(DownloadError::IsMetalink { url, text })
        }
        Err(error) => Err(error),
    }
}

/// Creates the folders that a Metalink names for a file, inside the user's folder, which must exist.
fn make_folders(job: &DownloadJob) -> Result<(), SinkError> {
    let (Output::Folder(folder), FileOrigin::Mirrors { name, .. }) = (&job.output, &job.origin) else {
        return Ok(());
    };
    let inner = name.parent().filter(|inner| !inner.as_os_str().is_empty());
    let is_there = folder.as_os_str().is_empty() || folder.is_dir();
    let Some(inner) = inner.filter(|_| is_there) else { return Ok(()) };
    let path = folder.join(inner);
    std::fs::create_dir_all(&path).map_err(|source| SinkError::Io { action: "create", path, source })
}

/// The properties of the file that are known before the first request.
fn known(job: &DownloadJob) -> ContentIdentity {
    let mut identity = match &job.origin {
        FileOrigin::Mirrors { identity, .. } => identity.clone(),
        FileOrigin::Address(_) => ContentIdentity::default(),
    };
    if let Some(digest) = job.checksum {
        identity.digest = Some((digest, Authority::Given));
    }
    identity
}
