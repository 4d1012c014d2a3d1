//! The file server: serves a folder, with an error page of its own for every error.
//!
//! - [`path`], [`root`]: which file a request path names, and opening it beneath the root.
//! - [`store`], [`cache`], [`snapshot`]: files as they are answered, small ones from memory.
//! - [`files`]: from a request to its file, and [`sending`]: from a file to its answer; [`conditions`], [`range`],
//!   [`multipart`] decide what is sent of it.
//! - [`encoding`], [`variants`]: whether a file is sent that lies compressed beside it.
//! - [`listing`]: folders without an index.
//! - [`digests`]: the SHA-256 of every file, made in the background.
//! - [`source`]: a file that is watched while it is sent.
//! - [`load`]: what the server reports of itself to balancers, and `drain`: how it stops.
//! - [`access_log`], [`metrics`], [`admin`]: what its operator sees.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_http::Request;
use actix_service::fn_service;
use tokio::sync::Semaphore;

pub mod access_log;
pub mod admin;
pub mod cache;
pub mod conditions;
pub mod digests;
mod drain;
pub mod encoding;
pub mod files;
mod listing;
pub mod load;
pub mod media;
pub mod metrics;
pub mod multipart;
pub mod path;
pub mod range;
pub mod root;
pub mod sending;
pub mod settings;
pub mod snapshot;
pub mod source;
pub mod store;
mod variants;

use crate::cli::ServerArguments;
use crate::http::listener::{self, Address, ListenError, Listening};
use crate::http::pages::{Pages, PagesError};
use crate::http::stop::{Interrupts, StopHandle};
use crate::http::transport::{RefusalLog, Transport};
use crate::open_files::{self, TooFewFiles};
use crate::settings::SettingsError;
use crate::systemd::{PassedError, PassedSockets, ServiceState};
use crate::telemetry::say;
use access_log::{AccessLog, AccessLogError};
use digests::Hashing;
use files::{AnswerPlan, Files};
use listing::Listings;
use load::Load;
use metrics::{Figures, WorkerCounters};
use root::{Root, RootError};
use settings::ServerSettings;
use store::{Found, Store};
use variants::Variants;

/// Why a file server cannot run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The folder cannot be served.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The error pages cannot be read.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The port cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The service manager passed sockets that cannot be used.
    #[error(transparent)]
    Passed(#[from] PassedError),
    /// The access log cannot be written.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// Too few files may be open.
    #[error(transparent)]
    TooFewFiles(#[from] TooFewFiles),
    /// The system gave no thread or no signals.
    #[error("cannot start the file server")]
    System(#[from] std::io::Error),
}

/// Runs `fingerpost server` until it is told to stop.
pub fn command(arguments: &ServerArguments) -> Result<(), ServerError> {
    // First of all, since it is about descriptors and the environment.
    let passed = PassedSockets::take()?;
    let raw = crate::settings::load(arguments.config.config.as_deref(), arguments.overrides())?;
    let settings = ServerSettings::try_from(raw.server)?;
    let (grace, need) = (settings.drain_timeout, settings.open_files());
    let server = FileServer::build(settings, passed)?;
    open_files::provide(need)?;
    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::listen()?;
        actix::spawn(interrupts.announce_and_stop(stop.clone(), grace));
        server.run(Bound::announce, stop).await
    })
}

/// A file server that has its port and its folder, and answers once it is run.
///
/// ```
/// use fingerpost::file_server::FileServer;
/// use fingerpost::http::stop::StopHandle;
/// use fingerpost::systemd::PassedSockets;
///
/// # let folder = tempfile::tempdir().unwrap();
/// let mut raw = fingerpost::settings::load(None, Vec::new()).unwrap().server;
/// # raw.root = folder.path().to_owned();
/// raw.host = "127.0.0.1".to_owned();
/// let server = FileServer::build(raw.try_into().unwrap(), PassedSockets::default()).unwrap();
/// println!("will serve on {}", server.bound().clients[0]);
/// # actix::System::new().block_on(async {
/// let stop = StopHandle::default();
/// stop.stop(std::time::Duration::ZERO); // From a signal, or from another task.
/// server.run(|_| {}, stop).await.unwrap();
/// # });
/// ```
pub struct FileServer {
    settings: ServerSettings,
    bound: Bound,
    listening: Listening,
    admin_listener: Option<TcpListener>,
    root: Arc<Root>,
    pages: Pages,
    log: Option<AccessLog>,
}

/// Where a file server can be reached.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Where clients connect.
    pub clients: Vec<Address>,
    /// Where the admin pages are, if there are any.
    pub admin: Option<SocketAddr>,
}

impl Bound {
    /// Prints the ready lines that scripts wait for, and tells the service manager.
    pub fn announce(&self) {
        if let Some(admin) = self.admin {
            say(format_args!("Admin interface at http://{admin}/"));
        }
        self.clients.iter().for_each(Address::announce);
        crate::systemd::notify(ServiceState::Ready);
    }
}

impl FileServer {
    /// Opens the folder, reads the pages and binds the port. Sockets that were `passed` go before those of the settings.
    pub fn build(settings: ServerSettings, passed: PassedSockets) -> Result<Self, ServerError> {
        let root = Arc::new(Root::open(&settings.root)?);
        let pages = match &settings.pages {
            Some(folder) => Pages::load(folder)?,
            None => Pages::built_in(),
        };
        let listening = Listening::open(passed.clients, &settings.listen)?;
        let admin_listener = match (passed.admin, &settings.admin) {
            (Some(listener), _) => Some(listener),
            (None, Some((host, port))) => Some(listener::listen(host, *port)?),
            (None, None) => None,
        };
        let admin = admin_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let bound = Bound { clients: listening.addresses.clone(), admin };
        let log = match &settings.access_log {
            Some(path) => Some(AccessLog::open(path, settings.access_log_format)?),
            None => None,
        };
        Ok(Self { settings, bound, listening, admin_listener, root, pages, log })
    }

    /// Where it can be reached.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Serves until `stop` asks to stop. From then on probes are told so, while downloads go on for as long as
    /// the stop allows.
    ///
    /// `ready` is called once connections are accepted.
    pub async fn run(self, ready: impl FnOnce(&Bound), stop: StopHandle) -> Result<(), ServerError> {
        let Self { settings, bound, listening, admin_listener, root, pages, log } = self;
        let Listening { listeners, file: _file, .. } = listening;
        let load = Arc::new(Load::new(rand::random()));
        let transport_stop = StopHandle::default();
        let transport = Transport {
            name: "files",
            workers: settings.workers,
            blocking_threads: 4,
            limits: settings.limits,
            pages: pages.clone(),
            refusals: log.clone().map(|log| Arc::new(log) as Arc<dyn RefusalLog>),
            stop: transport_stop.clone(),
        };
        let plan = AnswerPlan {
            pages,
            cache_control: settings.cache_control,
            passage: settings.passage,
            probe_file: Found::embedded(files::PROBE, files::embedded_probe()),
        };
        let listing_memory = settings.listing.then(|| Arc::new(Semaphore::new(listing::MEMORY)));
        let hashing = settings.digests.map(|plan| Hashing::start(Arc::clone(&root), plan)).transpose()?;
        let digests = hashing.as_ref().map(Hashing::digests);
        let digest_table = digests.as_ref().map(|digests| digests.table());
        let workers: Vec<_> = (0..settings.workers).map(|_| Arc::new(WorkerCounters::default())).collect();
        let next_worker = Arc::new(AtomicUsize::new(0));
        let cache_bytes = settings.cache_bytes / settings.workers as u64;
        let log_lines_lost = log.as_ref().map(AccessLog::lost).unwrap_or_default();
        let last_lines = log.clone();
        let serving = {
            let (workers, load) = (workers.clone(), Arc::clone(&load));
            let worker_phases = transport_stop.phases();
            transport.serve(listeners, move || {
                // A worker that replaces another counts on where the other stopped.
                let number = next_worker.fetch_add(1, Ordering::Relaxed) % workers.len().max(1);
                let counters = workers.get(number).map(Arc::clone).unwrap_or_default();
                let variants = || Variants::new(Arc::clone(&root), Arc::clone(&counters));
                let variants = settings.precompressed.then(variants);
                let files = Rc::new(Files {
                    store: Store::new(Arc::clone(&root), cache_bytes, plan.passage, Arc::clone(&counters)),
                    load: Arc::clone(&load),
                    counters,
                    log: log.clone().map(Rc::new),
                    listings: listing_memory.clone().map(|memory| Listings::new(Arc::clone(&root), memory)),
                    variants,
                    digests: digests.clone(),
                    phases: worker_phases.clone(),
                    plan: plan.clone(),
                });
                fn_service(move |request: Request| files.answer(request))
            })?
        };
        if let Some(listener) = admin_listener {
            let (load, connections) = (Arc::clone(&load), serving.connections());
            let figures = Figures { workers, load, connections, log_lines_lost, digests: digest_table };
            actix::spawn(admin::serve(listener, figures.registry(), stop.phases())?);
        }
        ready(&bound);
        let connections = serving.connections();
        let is_arriving = move || connections.lingering() > 0;
        let mut served = std::pin::pin!(serving.run());
        let served = tokio::select! {
            served = &mut served => served,
            () = drain::drain(stop.phases(), transport_stop, &load, is_arriving) => served.await,
        };
        if let Some(log) = last_lines {
            log.written().await;
        }
        if let Some(hashing) = hashing {
            hashing.stop().await;
        }
        Ok(served?)
    }
}
