//! One file, from the address that was asked for to the name on the disk.
//!
//! The [`Plan`](super::plan::Plan) decides, the engine acts: it sends what the plan asks for, judges whether an answer is the same file,
//! hands bytes to the [`Writer`](super::sink::Writer), and in the end compares the digest.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use super::address::Credentials;
use super::checksum::Checksum;
use super::claims::Claims;
use super::error::DownloadError;
use super::event::{Event, Observer};
use super::identity::{Authority, Identity};
use super::limit::RateLimiter;
use super::plan::PlanSettings;
use super::sink::{Destination, Durability, Finisher, Pieces, SinkError, destination, release_reader};
use crate::http::client::Transport;

mod answers;
mod asking;
mod complete;
mod countdown;
mod described;
mod engine;
mod fetch;
mod landing;
mod place;
mod refetch;
mod remember;
mod repair;
mod runs;
mod sources;

use complete::{is_complete, is_identical, within};
use engine::Engine;
use fetch::Fetcher;
pub use landing::Landed;
use landing::Unnamed;
use place::Place;
pub use sources::SourceReport;

/// Where the file goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To this path, by way of a part file beside it.
    File(PathBuf),
    /// To this folder, under the name of the address, or of `Content-Disposition` where the options say so.
    Folder(PathBuf),
    /// To an inherited descriptor, as it arrives; 1 is standard output.
    Descriptor(i32),
}

/// Where the file comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A balancer or a server.
    Address(Url),
    /// Several servers that are known to have it, best first, and what is known of the file.
    Mirrors {
        /// The relative path that the Metalink gives the file.
        name: PathBuf,
        /// Their addresses.
        urls: Vec<Url>,
        /// Size and digest, as far as they were told.
        identity: Identity,
        /// The digests of its pieces.
        pieces: Option<Pieces>,
        /// The kinds of digests it was described with, where none of them is understood.
        unchecked: Option<String>,
    },
}

/// What is to be downloaded.
#[derive(Debug, Clone)]
pub struct Job {
    /// Where it comes from.
    pub origin: Origin,
    /// Where it goes.
    pub output: Output,
    /// The digest that the user says it has.
    pub checksum: Option<Checksum>,
    /// User names and passwords of its addresses, which do not contain them.
    pub credentials: Rc<[Credentials]>,
}

impl Job {
    /// The path of the file, as far as it is known before a server names it; `None` for standard output.
    #[must_use]
    pub fn name(&self) -> Option<PathBuf> {
        let name = match (&self.output, &self.origin) {
            (Output::File(path), _) => Some(path.clone()),
            (Output::Folder(folder), Origin::Address(url)) => Some(folder.join(super::naming::from_url(url))),
            (Output::Folder(folder), Origin::Mirrors { name, .. }) => Some(folder.join(name)),
            (Output::Descriptor(_), _) => None,
        };
        // A link to a file is not replaced: the file is.
        name.map(|name| match destination(&name) {
            Destination::Path(path) => path,
            Destination::Descriptor(_) => name,
        })
    }

    /// Whether a server may name the file: until one has answered, its name is not taken.
    #[must_use]
    pub fn is_named_later(&self, naming: Naming) -> bool {
        let is_open = matches!((&self.output, &self.origin), (Output::Folder(_), Origin::Address(_)));
        naming == Naming::Server && is_open
    }
}

/// Whether what an earlier run left is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// Where it is proven to be the same file.
    #[default]
    Yes,
    /// Never.
    No,
}

/// What is done where the file is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clobber {
    /// Another version takes its place, once complete.
    #[default]
    Replace,
    /// It stays, and nothing is downloaded.
    Never,
}

/// What is done while a balancer has no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unavailable {
    /// The download fails.
    #[default]
    Fail,
    /// It waits as long as the balancer says, and asks again.
    Wait,
}

/// Whether the SHA-256 is computed although nobody promised one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reporting {
    /// Only to be compared.
    #[default]
    Compare,
    /// Always: the report tells it.
    Always,
}

/// How files are downloaded; the same for all of one run.
#[derive(Debug, Clone)]
pub struct Options {
    /// When sources are asked, helped and given up.
    pub plan: PlanSettings,
    /// How many redirects are followed.
    pub max_redirects: usize,
    /// Further header lines of every request.
    pub headers: Vec<(String, String)>,
    /// Whether what an earlier run left is used.
    pub resume: Resume,
    /// What is done where the file is there already.
    pub clobber: Clobber,
    /// What is done while a balancer has no server.
    pub unavailable: Unavailable,
    /// Whether even a first request is tried again after a failure that may pass.
    pub retry_first: bool,
    /// The time from which on nothing is tried again.
    pub retry_until: Option<Duration>,
    /// The time that the whole download may take.
    pub max_time: Option<Duration>,
    /// How often what came is synced and journalled.
    pub checkpoint_every: Duration,
    /// What a finished download survives.
    pub durability: Durability,
    /// Whether the digest is always computed.
    pub reporting: Reporting,
    /// Whether `Content-Disposition` names the file.
    pub naming: Naming,
}

/// Who names the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// The address.
    #[default]
    Address,
    /// `Content-Disposition`, made harmless, where the server sends it.
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

/// What downloads of one run share.
#[derive(Debug, Clone)]
pub struct Context {
    /// The connections.
    pub transport: Transport,
    /// How they are done.
    pub options: Rc<Options>,
    /// How fast they may be, all together.
    pub limiter: Option<Rc<RefCell<RateLimiter>>>,
    /// Where small files get their names.
    pub finisher: Finisher,
    /// The names that downloads of this run have.
    pub claims: Claims,
    /// Becomes true when the user wants an end.
    pub stop: watch::Receiver<bool>,
}

/// What became of a download.
#[derive(Debug)]
pub struct Report {
    /// The address that was asked for.
    pub address: String,
    /// The name of the file; `None` for standard output, or where none was found.
    pub target: Option<PathBuf>,
    /// Its size in bytes, where known.
    pub size: Option<u64>,
    /// Its digest, where it was computed.
    pub digest: Option<Checksum>,
    /// Who was asked, and what each brought.
    pub sources: Vec<SourceReport>,
    /// How long it took.
    pub elapsed: Duration,
    /// How it ended.
    pub outcome: Result<Completion, DownloadError>,
}

/// How a download succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// Bytes came.
    Downloaded,
    /// The file was complete before.
    AlreadyThere,
}

impl Report {
    /// That of a download that failed before it began.
    #[must_use]
    pub fn of_failure(address: String, error: DownloadError) -> Self {
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
            outcome: Ok(Completion::AlreadyThere),
        }
    }
}

/// Downloads one file.
pub async fn run(context: &Context, job: &Job, observer: &dyn Observer) -> Report {
    fetch(context, job, observer).await.finish(context, observer).await
}

/// Downloads one file up to the point where only the disk is waited for.
pub async fn fetch(context: &Context, job: &Job, observer: &dyn Observer) -> Landed {
    let started = Instant::now();
    let address = match &job.origin {
        Origin::Address(url) => url.to_string(),
        Origin::Mirrors { urls, .. } => urls.first().map(Url::to_string).unwrap_or_default(),
    };
    let mut report = Report::begun(address, job.name());
    let obtained = obtain(context, job, observer, started, &mut report).await;
    let (outcome, unnamed) = match obtained {
        Ok((completion, unnamed)) => (Ok(completion), unnamed),
        Err(error) => (Err(error), None),
    };
    if let (Err(error), Some(path)) = (&outcome, job.name())
        && !matches!(error, DownloadError::IsMetalink { .. })
    {
        // Perhaps it was not opened: nothing was written.
        release_reader(&path);
    }
    report.outcome = outcome;
    Landed { report, unnamed, started }
}

/// What [`fetch`] does, with all that comes of it but the ending in `report`.
async fn obtain(
    context: &Context,
    job: &Job,
    observer: &dyn Observer,
    started: Instant,
    report: &mut Report,
) -> Result<(Completion, Option<Unnamed>), DownloadError> {
    if *context.stop.borrow() {
        return Err(DownloadError::Interrupted);
    }
    let home = match &job.origin {
        Origin::Address(url) => Some(url.origin()),
        Origin::Mirrors { .. } => None,
    };
    let fetcher = Fetcher {
        transport: context.transport.clone(),
        headers: context.options.headers.clone(),
        home,
        credentials: Rc::clone(&job.credentials),
    };
    make_folders(job)?;
    let there = |target: &Path| {
        observer.notice(&Event::AlreadyThere { target });
        Ok((Completion::AlreadyThere, None))
    };
    let place = Place::of(report.target.as_deref())?;
    if place == Place::Taken
        && let Some(path) = report.target.clone()
        // What another address of this run brought under that name says nothing of this one.
        && !(job.is_named_later(context.options.naming) && context.claims.has(&path))
        && within(context, started, is_complete(context, job, &fetcher, &path, report)).await?
    {
        return there(&path);
    }
    let mut engine = Engine::new(context, job, observer, fetcher, report.target.clone(), place, started);
    let outcome = engine.run().await;
    let outcome = engine.conclude(outcome).await;
    engine.fill(report);
    match outcome {
        Ok(unnamed) => Ok((Completion::Downloaded, unnamed)),
        Err(DownloadError::NameTaken { path }) => {
            let is_there = is_identical(context, &engine.identity, &path, report);
            if within(context, started, is_there).await? {
                return there(&path);
            }
            Err(DownloadError::NameTaken { path })
        }
        Err(DownloadError::IsMetalink { url, .. }) => {
            let answer = engine.metalink.take().ok_or(DownloadError::NoSource)?;
            engine.release_name();
            let text = within(context, started, described::read(&url, answer)).await??;
            Err(DownloadError::IsMetalink { url, text })
        }
        Err(error) => Err(error),
    }
}

/// Makes the folders that a Metalink gives a file, in the folder of the user, which must exist.
fn make_folders(job: &Job) -> Result<(), SinkError> {
    let (Output::Folder(folder), Origin::Mirrors { name, .. }) = (&job.output, &job.origin) else {
        return Ok(());
    };
    let inner = name.parent().filter(|inner| !inner.as_os_str().is_empty());
    let is_there = folder.as_os_str().is_empty() || folder.is_dir();
    let Some(inner) = inner.filter(|_| is_there) else { return Ok(()) };
    let path = folder.join(inner);
    std::fs::create_dir_all(&path).map_err(|source| SinkError::Io { action: "create", path, source })
}

/// What is known of the file before anybody was asked.
fn known(job: &Job) -> Identity {
    let mut identity = match &job.origin {
        Origin::Mirrors { identity, .. } => identity.clone(),
        Origin::Address(_) => Identity::default(),
    };
    if let Some(digest) = job.checksum {
        identity.digest = Some((digest, Authority::Given));
    }
    identity
}
