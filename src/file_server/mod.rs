//! The file server: serves a folder, with an HTML page for every error.
//!
//! It is a service of actix-web ([`FileService`]). `fingerpost server` mounts it on the transport of fingerpost;
//! other programs mount it on a stock `HttpServer`. `actix_files::NamedFile` evaluates conditions and ranges.

// The modules:
// - `service`: the service, and its settings for other programs.
// - `path`, `root`, `walk_beneath`: parse a request path, and open the file beneath the root.
// - `file_state`: the state of a file on the disk. `found_file`: a file that can be sent. `validators`, `media`: its
//   headers.
// - `store`, `cache`, `memfd_copy`: open files, and small files in memory.
// - `encoding`, `variants`: select a precompressed file in place of the plain one.
// - `files`: from a request to its file. `sending`: from a file to its answer. `rewrite` and `range`
//   translate our entity tag and multiple ranges for `NamedFile`, and `stand_in` gives it the properties of a file
//   in memory.
// - `replay`, `recorded_heads`: the fast path, which repeats a recorded answer.
// - `multipart`, `body`: response bodies.
// - `listing`: pages for folders without an index.
// - `digests`: the SHA-256 of every file, computed in the background.
// - `load`: the load report for balancers, and `drain`: the graceful stop.
// - `lease`: the registration in an engine.
// - `metrics`, `admin`: the operator's view.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use actix_service::map_config;
use actix_web::App;
use actix_web::dev::AppConfig;
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};

mod admin;
mod body;
mod cache;
mod digests;
mod drain;
mod encoding;
mod file_state;
mod files;
mod found_file;
mod lease;
mod listing;
mod load;
mod media;
mod memfd_copy;
mod metrics;
mod multipart;
mod path;
pub(crate) mod range;
mod recorded_heads;
mod replay;
mod rewrite;
mod root;
mod sending;
mod service;
pub(crate) mod settings;
mod stand_in;
mod store;
mod validators;
mod variants;
mod walk_beneath;

use crate::engine::{EngineClient, FleetSettings};
use crate::handover::{self, Handover, NoEstate, Predecessor};
use crate::http;
use crate::http::access_log::{self, AccessLog, AccessLogError};
use crate::http::client::Resolver;
use crate::http::https::{Https, HttpsError};
use crate::http::listener::{self, Address, ListenError, Listening};
use crate::http::pages::{Pages, PagesError};
use crate::http::reloading::{PreparedServer, ReloadSignal, RunningServer, ServerChange};
use crate::http::stop::StopHandle;
use crate::http::transport::{FastPath, RefusalLog, Transport};
use crate::open_files::{self, TooFewFiles};
use crate::settings::reload::{ReadSettings, ReloadRecord, Reloader, SettingValues};
use crate::systemd::{self, PassedSockets, ServiceState};
use crate::telemetry::{chain, print_line};
use digests::DigestService;
use files::{FileServerState, Files};
use lease::{Lease, RegistrationSettings};
use load::Load;
use metrics::{Figures, FileServerCounters};
use root::Root;
use settings::{FIXED_KEYS, ServerSettings};

pub use root::RootError;
pub use service::{FileService, FileServiceBuilder, FileWorkerService};

/// Why a file server cannot start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// The folder cannot be served.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The error pages cannot be read.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The address cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// HTTPS cannot be offered.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The access log cannot be written.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// The file of digests cannot be written. The server still starts; it logs this and keeps the digests in memory
    /// only.
    #[error("cannot write the digests to {}: check that its folder exists and is writable", path.display())]
    Digests { path: PathBuf, source: std::io::Error },
    /// The limit of open files is too low.
    #[error(transparent)]
    TooFewFiles(#[from] TooFewFiles),
    /// A thread could not be started, or a signal handler not be installed.
    #[error("cannot start the file server")]
    System(#[from] std::io::Error),
}

/// A file server that has bound its address and opened its folder. It answers requests once it runs.
pub struct FileServer {
    settings: ServerSettings,
    /// Reads the settings again, and the values in force.
    reading: Option<(ReadSettings<ServerSettings>, SettingValues)>,
    grace: watch::Sender<Duration>,
    predecessor: Option<Predecessor>,
    bound: ServerAddresses,
    listening: Listening,
    https: Option<Https>,
    admin_listener: Option<TcpListener>,
    root: Arc<Root>,
    pages: Pages,
    log: Option<AccessLog>,
    registration: Option<(RegistrationSettings, EngineClient)>,
}

/// The addresses of a file server.
#[derive(Debug, Clone)]
pub(crate) struct ServerAddresses {
    /// The listen addresses for clients.
    pub clients: Vec<Address>,
    /// The address of the admin listener, if there is one.
    pub admin: Option<SocketAddr>,
    /// `http` or `https`, for the admin listener.
    pub admin_scheme: &'static str,
}

impl ServerAddresses {
    /// Prints the ready lines for scripts, and notifies the service manager.
    pub(crate) fn announce(&self) {
        if let Some(admin) = self.admin {
            print_line(format_args!("Admin interface at {}://{admin}/", self.admin_scheme));
        }
        self.clients.iter().for_each(Address::announce);
        systemd::notify(ServiceState::Ready);
    }
}

impl FileServer {
    /// Opens the folder, reads the error pages and binds the address. Sockets in `passed` take precedence over the
    /// settings.
    pub(crate) fn build(
        settings: ServerSettings,
        fleet: &FleetSettings,
        passed: PassedSockets,
    ) -> Result<Self, ServerError> {
        let root = Arc::new(Root::open(&settings.root)?);
        let pages = settings.pages()?;
        let (https, tls_listeners) = settings.https.open(passed.tls)?;
        let mut listening = Listening::open(passed.clients, &settings.listen, tls_listeners)?;
        listening.has_own_file |= passed.has_own_file;
        let mut predecessor = passed.old_process.map(Predecessor::new);
        let admin_listener = match (passed.admin, &settings.admin) {
            (Some(listener), _) => Some(listener),
            (None, Some((host, port))) => Some(listener::listen(host, *port)?),
            (None, None) => None,
        };
        let admin = admin_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let admin_scheme = settings.https.admin_scheme();
        let bound = ServerAddresses { clients: listening.addresses.clone(), admin, admin_scheme };
        let log = match &settings.access_log {
            Some(path) => Some(AccessLog::open(path, settings.access_log_format)?),
            None => None,
        };
        let registration = settings.registration.clone().map(|registration| {
            let engine = EngineClient::new(fleet.at(registration.engine.clone()), Resolver::default());
            (registration, engine)
        });
        // A server takes over no state.
        predecessor.as_mut().and_then(Predecessor::inherit);
        let grace = watch::Sender::new(settings.drain_timeout);
        Ok(Self {
            settings,
            reading: None,
            grace,
            predecessor,
            bound,
            listening,
            https,
            admin_listener,
            root,
            pages,
            log,
            registration,
        })
    }

    /// Reads the settings again at each SIGHUP. `in_force` are the values of the start.
    pub(crate) fn reloading(self, read: ReadSettings<ServerSettings>, in_force: SettingValues) -> Self {
        Self { reading: Some((read, in_force)), ..self }
    }

    /// The time for downloads at a stop.
    pub(crate) fn grace(&self) -> watch::Receiver<Duration> {
        self.grace.subscribe()
    }

    /// Returns every error with which [`build`](Self::build) would fail, without serving requests and without
    /// creating files.
    pub(crate) fn check(settings: &ServerSettings) -> Vec<ServerError> {
        let mut errors = Vec::new();
        errors.extend(Root::open(&settings.root).err().map(ServerError::from));
        errors.extend(
            settings.pages.as_deref().and_then(|pages| Pages::load(pages).err()).map(ServerError::from),
        );
        errors.extend(settings.listen.check().err().map(ServerError::from));
        errors.extend(settings.https.check().into_iter().map(ServerError::from));
        let admin = settings.admin.as_ref().map(|(host, port)| listener::listen(host, *port).map(drop));
        errors.extend(admin.and_then(Result::err).map(ServerError::from));
        let log = settings.access_log.as_deref().and_then(|path| AccessLog::check(path).err());
        errors.extend(log.map(ServerError::from));
        let file = settings.digests.as_ref().and_then(|digests| digests.file.as_deref());
        errors.extend(file.and_then(|path| {
            access_log::check_writable(path)
                .err()
                .map(|source| ServerError::Digests { path: path.to_owned(), source })
        }));
        errors
    }

    /// The settings of a [`FileService`], which any actix-web application can mount.
    #[must_use]
    pub fn builder(root: impl Into<PathBuf>) -> FileServiceBuilder {
        FileServiceBuilder::new(root.into())
    }

    /// The addresses of this server.
    pub(crate) fn bound(&self) -> &ServerAddresses {
        &self.bound
    }

    /// Opens the access log again at each SIGUSR1, which logrotate sends after a rename. Without an access log the
    /// signal is ignored; its default action would end the process.
    pub(crate) fn reopen_log_on_signal(&self) -> std::io::Result<()> {
        access_log::reopen_on_signal(self.log.as_ref())
    }

    /// Serves until `stop` requests a stop. From then on probes get 503, while downloads continue for as long as the
    /// stop allows.
    ///
    /// `ready` is called once connections are accepted.
    pub(crate) async fn run(
        self,
        ready: impl FnOnce(&ServerAddresses),
        stop: StopHandle,
    ) -> Result<(), ServerError> {
        let Self {
            settings,
            reading,
            grace,
            predecessor,
            bound,
            mut listening,
            https,
            admin_listener,
            root,
            pages,
            log,
            registration,
        } = self;
        // Only a program with a configuration can start again.
        let listen = |_| Handover::listen(&mut listening, admin_listener.as_ref(), predecessor);
        let mut handover = reading.as_ref().map(listen).transpose()?;
        let Listening { listeners, file: _file, .. } = listening;
        let (load, transport_stop) = (Arc::new(Load::new(rand::random())), StopHandle::default());
        let refusals = log.clone().map(|log| Arc::new(log) as Arc<dyn RefusalLog>);
        let transport = Transport {
            name: "files",
            workers: settings.workers,
            blocking_threads: 4,
            limits: settings.limits,
            pages: pages.clone(),
            refusals,
            stop: transport_stop.clone(),
        };
        let signal = ReloadSignal::listen()?;
        https.as_ref().map_or(Ok(()), |https| https.follow(signal.file_reloads()))?;
        root::keep_fresh(&root)?;
        let hashing =
            settings.digests.map(|plan| DigestService::start(Arc::clone(&root), plan)).transpose()?;
        let digests = hashing.as_ref().map(DigestService::digests);
        let digest_table = digests.as_ref().map(|digests| digests.table());
        let workers: Vec<_> =
            (0..settings.workers).map(|_| Arc::new(FileServerCounters::default())).collect();
        let last_lines = log.clone();
        let reloads = Arc::<ReloadRecord>::default();
        let shared = Arc::new(FileServerState {
            root,
            pages: ArcSwap::from_pointee(pages),
            cache_control: settings.cache_control,
            passage: settings.passage,
            cache_bytes: settings.cache_bytes / settings.workers as u64,
            precompressed: settings.precompressed,
            listing_memory: settings.listing.then(|| Arc::new(Semaphore::new(listing::MEMORY))),
            digests,
            load: Arc::clone(&load),
            log,
            counters: workers.clone(),
            next_worker: AtomicUsize::new(0),
            phases: Some(transport_stop.phases()),
        });
        let state = Arc::clone(&shared);
        let serving = transport.serve(listeners, move || {
            let replays: Rc<dyn FastPath> = Files::of_thread(&state);
            let app = App::new().default_service(FileService::new(Arc::clone(&state)));
            (map_config(app, |()| AppConfig::default()), Some(replays))
        })?;
        let port = bound.clients.iter().find_map(Address::port);
        let mut lease =
            registration.map(|(settings, engine)| Lease::new(settings, engine, load.boot(), port));
        if let Some(listener) = admin_listener {
            let (load, connections) = (Arc::clone(&load), serving.connections());
            let log_lines_lost = last_lines.as_ref().map(AccessLog::lost).unwrap_or_default();
            let figures = Figures { workers, load, connections, log_lines_lost, digests: digest_table };
            let mut registry = figures.registry(https.as_ref(), Arc::clone(&reloads));
            if let Some(lease) = &lease {
                lease.register(&mut registry);
            }
            start_admin(listener, https.as_ref(), registry, &stop)?;
        }
        let running = RunningServer::new(serving.control(), grace, https.as_ref(), last_lines.clone());
        let (control, grace) = (running.control.clone(), running.grace.subscribe());
        if let Some(handover) = &mut handover {
            handover.accept();
        }
        let patience = move || control.keep_alive() * 2;
        let handing_over = handover::run(handover, NoEstate, stop.clone(), patience, grace);
        ready(&bound);
        let connections = serving.connections();
        let is_arriving = move || connections.lingering() > 0;
        let stopping = async {
            if let Some(lease) = &mut lease {
                lease.hold(stop.phases()).await;
            }
            drain::drain(stop.phases(), transport_stop, &load, is_arriving).await;
        };
        let mut served = std::pin::pin!(serving.run());
        let served = tokio::select! {
            served = &mut served => served,
            never = handing_over => match never {},
            never = reload(running, reading, &shared, &reloads, signal) => match never {},
            () = stopping => served.await,
        };
        write_and_stop(last_lines, hashing).await;
        Ok(served?)
    }
}

/// Starts the admin pages.
fn start_admin(
    listener: TcpListener,
    https: Option<&Https>,
    registry: Registry,
    stop: &StopHandle,
) -> io::Result<()> {
    let admin = admin::serve(listener, https.and_then(Https::admin_config), registry, stop.phases())?;
    actix::spawn(http::admin::close_after_hand_over(admin.handle(), stop.phases()));
    actix::spawn(admin);
    Ok(())
}

/// Waits for the last lines of the access log and for the end of the digests.
async fn write_and_stop(log: Option<AccessLog>, hashing: Option<DigestService>) {
    if let Some(log) = log {
        log.written().await;
    }
    if let Some(hashing) = hashing {
        hashing.stop().await;
    }
}

/// Reads the settings again at each signal.
async fn reload(
    server: RunningServer,
    reading: Option<(ReadSettings<ServerSettings>, SettingValues)>,
    shared: &FileServerState,
    record: &Arc<ReloadRecord>,
    mut signal: ReloadSignal,
) -> Infallible {
    let mut reloader =
        reading.map(|(read, in_force)| Reloader::new(read, in_force, &FIXED_KEYS, Arc::clone(record)));
    loop {
        signal.received().await;
        if let Some(reloader) = &mut reloader {
            let change = server.change();
            let prepare = move |settings: &ServerSettings, changed: &[String]| {
                prepare(settings, changed, change).map_err(|error| chain(&error))
            };
            let apply = async |settings: ServerSettings, (pages, prepared)| {
                shared.pages.store(Arc::new(Pages::clone(&pages)));
                server.apply(prepared, settings.limits, pages, settings.drain_timeout).await;
            };
            reloader.reload(prepare, apply).await;
        }
        signal.reload_files();
    }
}

/// Creates the parts of new settings that can fail.
fn prepare(
    settings: &ServerSettings,
    changed: &[String],
    change: ServerChange,
) -> Result<(Pages, PreparedServer), ServerError> {
    open_files::provide(settings.open_files())?;
    let pages = settings.pages()?;
    let server = change.prepare::<ServerError>(changed, &settings.https, settings.access_log.as_deref())?;
    Ok((pages, server))
}
