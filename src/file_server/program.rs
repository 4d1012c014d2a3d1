//! The file server of `fingerpost server` and `fingerpost up`: the service with listeners and admin pages.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use actix_service::map_config;
use actix_web::App;
use actix_web::dev::AppConfig;
use arc_swap::ArcSwap;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, mpsc};

use super::digests::DigestService;
use super::files::{FileServerState, Files};
use super::lease::{Lease, RegistrationSettings};
use super::load::Load;
use super::metrics::{Figures, FileServerCounters};
use super::root::{self, Root};
use super::service::{FileService, FileServiceBuilder};
use super::settings::ServerSettings;
use super::{admin, drain, listing};
use crate::engine::{EngineClient, FleetSettings};
use crate::handover::{self, NoEstate, Predecessor};
use crate::hosting::{self, Addresses, Host, Program, ProgramError};
use crate::http;
use crate::http::access_log::{self, AccessLog};
use crate::http::client::Resolver;
use crate::http::https::Https;
use crate::http::listener::{self, Address, Listening};
use crate::http::pages::Pages;
use crate::http::reloading::RunningServer;
use crate::http::stop::StopHandle;
use crate::http::transport::{FastPath, RefusalLog, Transport};
use crate::settings::reload::ReloadRecord;
use crate::systemd::PassedSockets;

/// A file server that has bound its address and opened its folder. It answers requests once it runs.
pub struct FileServer {
    host: Host<ServerSettings>,
    admin_listener: Option<TcpListener>,
    root: Arc<Root>,
    pages: Pages,
    registration: Option<(RegistrationSettings, EngineClient)>,
}

/// The file of digests cannot be written. The server still starts; it logs this and keeps the digests in memory only.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the digests to {}: check that its folder exists and is writable", path.display())]
struct DigestFileUnwritable {
    path: PathBuf,
    source: io::Error,
}

impl FileServer {
    /// The settings of a [`FileService`], which any actix-web application can mount.
    #[must_use]
    pub fn builder(root: impl Into<PathBuf>) -> FileServiceBuilder {
        FileServiceBuilder::new(root.into())
    }

    /// Returns every error with which [`build`](Program::build) would fail, without serving requests and without creating
    /// files.
    pub(crate) fn check(settings: &ServerSettings) -> Vec<ProgramError> {
        let mut errors = settings.host.check();
        errors.extend(Root::open(&settings.root).err().map(Into::into));
        errors.extend(settings.pages().err().map(Into::into));
        let admin = settings.admin.as_ref().map(|(host, port)| listener::listen(host, *port).map(drop));
        errors.extend(admin.and_then(Result::err).map(Into::into));
        let file = settings.digests.as_ref().and_then(|digests| digests.file.as_deref());
        errors.extend(file.and_then(|path| {
            let source = access_log::check_writable(path).err()?;
            Some(DigestFileUnwritable { path: path.to_owned(), source }.into())
        }));
        errors
    }
}

impl Program for FileServer {
    const NAME: &'static str = "file server";

    type Settings = ServerSettings;

    fn build(
        settings: ServerSettings,
        fleet: &FleetSettings,
        mut passed: PassedSockets,
    ) -> Result<Self, ProgramError> {
        let root = Arc::new(Root::open(&settings.root)?);
        let pages = settings.pages()?;
        let admin_listener = match (passed.admin.take(), &settings.admin) {
            (Some(listener), _) => Some(listener),
            (None, Some((host, port))) => Some(listener::listen(host, *port)?),
            (None, None) => None,
        };
        let admin = admin_listener.as_ref().map(TcpListener::local_addr).transpose();
        let mut host = Host::open(settings, passed, admin.map_err(Self::cannot_start)?)?;
        let registration = host.settings.registration.clone().map(|registration| {
            let engine = EngineClient::new(fleet.at(registration.engine.clone()), Resolver::default());
            (registration, engine)
        });
        // A server takes over no state.
        host.predecessor.as_mut().and_then(Predecessor::inherit);
        Ok(Self { host, admin_listener, root, pages, registration })
    }

    fn host(&mut self) -> &mut Host<ServerSettings> {
        &mut self.host
    }

    /// From the begin of a stop on, probes get 503, while downloads continue for as long as the stop allows.
    async fn run(self, ready: impl FnOnce(&Addresses), stop: StopHandle) -> Result<(), ProgramError> {
        Ok(self.serve(ready, stop).await.map_err(Self::cannot_start)?)
    }
}

impl FileServer {
    async fn serve(self, ready: impl FnOnce(&Addresses), stop: StopHandle) -> io::Result<()> {
        let Self { mut host, admin_listener, root, pages, registration } = self;
        let mut handover = host.handover(admin_listener.as_ref())?;
        let signal = host.reload_signal()?;
        let Host { settings, reading, grace, addresses, listening, https, log, .. } = host;
        let Listening { listeners, file: _file, .. } = listening;
        let (load, transport_stop) = (Arc::new(Load::new(rand::random())), StopHandle::default());
        let workers = settings.host.workers;
        let transport = Transport {
            name: "files",
            workers,
            blocking_threads: 4,
            limits: settings.host.limits,
            pages: pages.clone(),
            refusals: log.clone().map(|log| Arc::new(log) as Arc<dyn RefusalLog>),
            stop: transport_stop.clone(),
        };
        root::keep_fresh(&root)?;
        let hashing =
            settings.digests.map(|plan| DigestService::start(Arc::clone(&root), plan)).transpose()?;
        let digests = hashing.as_ref().map(DigestService::digests);
        let digest_table = digests.as_ref().map(|digests| digests.table());
        let counters: Vec<_> = (0..workers).map(|_| Arc::new(FileServerCounters::default())).collect();
        let shared = Arc::new(FileServerState {
            root,
            pages: ArcSwap::from_pointee(pages),
            cache_control: settings.cache_control,
            passage: settings.passage,
            cache_bytes: settings.cache_bytes / workers as u64,
            precompressed: settings.precompressed,
            listing_memory: settings.listing.then(|| Arc::new(Semaphore::new(listing::MEMORY))),
            digests,
            load: Arc::clone(&load),
            log: log.clone(),
            counters: counters.clone(),
            next_worker: AtomicUsize::new(0),
            phases: Some(transport_stop.phases()),
        });
        let state = Arc::clone(&shared);
        let serving = transport.serve(listeners, move || {
            let replays: Rc<dyn FastPath> = Files::of_thread(&state);
            let app = App::new().default_service(FileService::new(Arc::clone(&state)));
            (map_config(app, |()| AppConfig::default()), Some(replays))
        })?;
        let port = addresses.clients.iter().find_map(Address::port);
        let mut lease =
            registration.map(|(settings, engine)| Lease::new(settings, engine, load.boot(), port));
        let record = Arc::<ReloadRecord>::default();
        let connections = serving.connections();
        if let Some(listener) = admin_listener {
            let (load, connections) = (Arc::clone(&load), Arc::clone(&connections));
            let log_lines_lost = log.as_ref().map(AccessLog::lost).unwrap_or_default();
            let figures =
                Figures { workers: counters, load, connections, log_lines_lost, digests: digest_table };
            let mut registry = figures.registry(https.as_ref(), Arc::clone(&record));
            if let Some(lease) = &lease {
                lease.register(&mut registry);
            }
            start_admin(listener, https.as_ref(), registry, &stop)?;
        }
        let server = RunningServer::new(serving.control(), grace, https.as_ref(), log.clone());
        let (control, grace) = (server.control.clone(), server.grace.subscribe());
        if let Some(handover) = &mut handover {
            handover.accept();
        }
        let patience = move || control.keep_alive() * 2;
        let handing_over = handover::run(handover, NoEstate, stop.clone(), patience, grace);
        let prepare = |settings: &ServerSettings| -> Result<Pages, ProgramError> { Ok(settings.pages()?) };
        let apply = async |_: &ServerSettings, pages: Pages| {
            shared.pages.store(Arc::new(pages.clone()));
            pages
        };
        // The admin listener of a file server has no request for a reload.
        let (_, requests) = mpsc::channel(1);
        let reloading = hosting::reload(reading, record, signal, requests, server, prepare, apply);
        ready(&addresses);
        let is_arriving = move || connections.lingering() > 0;
        let stopping = async {
            if let Some(lease) = &mut lease {
                lease.hold(stop.phases()).await;
            }
            drain::drain(stop.phases(), transport_stop, &load, is_arriving).await;
        };
        let mut running = std::pin::pin!(serving.run());
        let ended = tokio::select! {
            ended = &mut running => ended,
            never = handing_over => match never {},
            never = reloading => match never {},
            () = stopping => running.await,
        };
        if let Some(log) = log {
            log.written().await;
        }
        if let Some(hashing) = hashing {
            hashing.stop().await;
        }
        ended
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
