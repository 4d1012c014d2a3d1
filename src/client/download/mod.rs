//! Download of one file, from the given address to the final name on the disk.
//!
//! The [`DownloadPlan`](super::plan::DownloadPlan) decides and the engine acts: it sends the requests, passes bytes to the
//! [`Writer`](super::sink::Writer), and reports to the plan.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use super::address::{Credentials, shown};
use super::checksum::{Checksum, Pieces};
use super::error::DownloadError;
use super::event::{Event, Observer};
use super::identity::{Authority, ContentIdentity};
use super::limit::RateLimiter;
use super::metalink::{MAX_BYTES, MetalinkError};
use super::plan::{BalancerPresence, DownloadPlan, SourceReport};
use super::redirect::RedirectChain;
use super::reserved_paths::ReservedPaths;
use super::sink::{Destination, SinkError, Storage, destination, release_reader};

mod complete;
mod countdown;
mod engine;
mod fetch;
mod finish;
mod options;
mod output;
mod query;
mod target_state;
#[cfg(test)]
mod tests;
mod transfers;

use complete::{is_complete, is_identical, within};
use engine::Engine;
use fetch::{Fetcher, Response};
use finish::{Ending, Transferred};
use target_state::TargetState;

pub(super) use fetch::SendRequest;
pub(super) use finish::FinishedTransfer;
pub(super) use options::{Clobber, Naming, Options, Reporting, Resume, Unavailable};

/// Timeout for the body of a Metalink.
const METALINK_TIMEOUT: Duration = Duration::from_mins(1);

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

    /// The properties of the file that are known before the first request.
    fn known(&self) -> ContentIdentity {
        let mut identity = match &self.origin {
            FileOrigin::Mirrors { identity, .. } => identity.clone(),
            FileOrigin::Address(_) => ContentIdentity::default(),
        };
        if let Some(digest) = self.checksum {
            identity.digest = Some((digest, Authority::Given));
        }
        identity
    }

    /// A plan for the file, with the mirrors that are known.
    fn plan(&self, options: &Options, is_sequential: bool) -> DownloadPlan {
        let mut settings = options.plan.clone();
        if is_sequential {
            // An output without positions takes bytes in order, so only one run may be active.
            settings.max_sources = 1;
        }
        match &self.origin {
            FileOrigin::Address(_) => {
                DownloadPlan::new(settings, self.known(), None, BalancerPresence::Present)
            }
            FileOrigin::Mirrors { urls, pieces, .. } => {
                let balancer = BalancerPresence::Absent;
                let mut plan = DownloadPlan::new(settings, self.known(), pieces.clone(), balancer);
                // The Metalink asserts that all of its addresses have the same file.
                let resource = urls.first().map(shown).unwrap_or_default();
                for url in urls {
                    plan.add_source(RedirectChain::new(url.clone(), options.max_redirects), &resource);
                }
                plan
            }
        }
    }

    /// Whether a server may name the file. If so, its path is not reserved before a server has answered.
    pub(super) fn is_named_later(&self, naming: Naming) -> bool {
        let is_open = matches!((&self.output, &self.origin), (Output::Folder(_), FileOrigin::Address(_)));
        naming == Naming::Server && is_open
    }
}

/// State shared by all downloads of one run.
#[derive(Clone)]
pub(super) struct Context {
    /// The HTTP client.
    pub transport: Rc<dyn SendRequest>,
    /// Options of all downloads.
    pub options: Rc<Options>,
    /// Rate limit of all downloads together.
    pub limiter: Option<Rc<RefCell<RateLimiter>>>,
    /// Opens outputs.
    pub storage: Rc<dyn Storage>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DownloadSuccess {
    /// The file was downloaded.
    Downloaded,
    /// The complete file existed before.
    AlreadyThere,
    /// The address leads to a Metalink with this text, and no file was written.
    Metalink(String),
}

impl DownloadReport {
    /// The report of a download that failed before its start.
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
    let result = obtain(context, job, observer, started, &mut report).await;
    if let (Err(_), Some(path)) = (&result, job.name()) {
        // A pipe that was not opened yet still has a waiting reader.
        release_reader(&path);
    }
    FinishedTransfer { report, result, started }
}

/// Implements [`fetch`]. Fills `report`, except for its outcome.
async fn obtain(
    context: &Context,
    job: &DownloadJob,
    observer: &dyn Observer,
    started: Instant,
    report: &mut DownloadReport,
) -> Result<Transferred, DownloadError> {
    if *context.stop.borrow() {
        return Err(DownloadError::Interrupted);
    }
    let home = match &job.origin {
        FileOrigin::Address(url) => Some(url.origin()),
        FileOrigin::Mirrors { .. } => None,
    };
    let fetcher = Fetcher {
        transport: Rc::clone(&context.transport),
        headers: context.options.headers.clone(),
        home,
        credentials: Rc::clone(&job.credentials),
    };
    make_folders(job)?;
    let target_state = TargetState::of(report.target.as_deref())?;
    let mut present = None;
    if target_state == TargetState::Taken
        && let Some(path) = report.target.clone()
        // A file that another download of this run has written is not a file from before the run.
        && !(job.is_named_later(context.options.naming) && context.reserved_paths.has(&path))
        && within(context, started, is_complete(context, job, &fetcher, &path, report)).await?
    {
        present = Some(path);
    }
    if present.is_none() {
        let mut engine =
            Engine::new(context, job, observer, fetcher, report.target.clone(), target_state, started);
        let ending = engine.run().await;
        engine.fill(report);
        match ending? {
            Ending::Complete => {
                let pending = engine.into_pending_rename().ok_or(DownloadError::NoSource)?;
                return Ok(Transferred::Complete(Box::new(pending)));
            }
            Ending::Metalink(url, answer) => {
                engine.release_name();
                let text = within(context, started, read_metalink(&url, answer)).await??;
                return Ok(Transferred::Metalink(text));
            }
            Ending::NameTaken(path) => {
                let is_there = is_identical(context, engine.identity(), &path, report);
                if !within(context, started, is_there).await? {
                    return Err(DownloadError::NameTaken { path });
                }
                present = Some(path);
            }
        }
    }
    if let Some(target) = &present {
        observer.notice(&Event::AlreadyThere { target });
    }
    Ok(Transferred::AlreadyThere)
}

/// Reads the text of the Metalink from `answer`, sent by the server at `url`.
async fn read_metalink(url: &Url, mut answer: Box<dyn Response>) -> Result<String, DownloadError> {
    let reading = async {
        let mut text = Vec::new();
        loop {
            let failed = |source| DownloadError::Transport { url: url.to_string(), source };
            let chunk: Option<Bytes> = answer.chunk().await.map_err(failed)?;
            let Some(bytes) = chunk else { return Ok(String::from_utf8_lossy(&text).into_owned()) };
            text.extend_from_slice(&bytes);
            if text.len() > MAX_BYTES {
                return Err(MetalinkError::TooLarge.into());
            }
        }
    };
    tokio::time::timeout(METALINK_TIMEOUT, reading)
        .await
        .unwrap_or(Err(DownloadError::TooLong(METALINK_TIMEOUT)))
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
