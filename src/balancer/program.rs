//! The balancer of `fingerpost balancer` and `fingerpost up`: a [`Balancer`] with listeners and admin pages.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_service::{fn_factory, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::web::ServiceConfig;
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use super::admin::access::{Access, AccessError};
use super::admin::{self, Admin};
use super::backends::watch::ListError;
use super::estate::Inheritance;
use super::fleet::FleetIdentity;
use super::fleet::actor;
use super::geography::{FollowedGeography, GeographyError};
use super::presence::source::{CatalogueSourceError, OpenCatalogue};
use super::redirect::acme;
use super::redirect::mount::RedirectWorker;
use super::settings::{BalancerSettings, FIXED_KEYS};
use super::sources::SourceSet;
use super::state_folder::{StateError, StateFolder};
use super::{Balancer, BalancerFiles, FleetPlan};
use crate::engine::FleetSettings;
use crate::handover::{self, Handover, Predecessor};
use crate::http;
use crate::http::access_log::{self, AccessLog, AccessLogError};
use crate::http::https::{Https, HttpsError};
use crate::http::listener::{self, Address, ListenError, Listening};
use crate::http::pages::Pages;
use crate::http::reloading::{PreparedServer, ReloadSignal, RunningServer, ServerChange};
use crate::http::stop::StopHandle;
use crate::http::tls::{self, TlsError};
use crate::http::transport::{FastPath, Limits, RefusalLog, Transport};
use crate::open_files::{self, TooFewFiles};
use crate::settings::reload::{ReadSettings, ReloadReport, Reloader, SettingValues};
use crate::supervision::SupervisionFailure;
use crate::systemd::{self, PassedSockets, ServiceState};
use crate::telemetry::{chain, print_line};

/// An error that prevents or ends a run of the program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BalancerError {
    /// The list cannot be read at the start.
    #[error(transparent)]
    List(#[from] ListError),
    /// The admin address needs a token, or the token cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The access log cannot be written.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The catalogue cannot be used.
    #[error(transparent)]
    Catalogue(#[from] CatalogueSourceError),
    /// A file with the places of addresses cannot be used.
    #[error(transparent)]
    Geography(#[from] GeographyError),
    /// A port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// HTTPS cannot be offered.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The authorities of https backends are unusable.
    #[error("cannot use the key backend_ca")]
    Authorities(#[from] TlsError),
    /// A thread cannot be started, or a signal handler cannot be installed.
    #[error("cannot start the balancer")]
    System(#[from] std::io::Error),
    /// The limit of open files is too low.
    #[error(transparent)]
    TooFewFiles(#[from] TooFewFiles),
    /// An actor panicked too often.
    #[error(transparent)]
    Failed(#[from] SupervisionFailure),
}

/// A balancer program with open ports and a list, ready to run.
pub(crate) struct Program {
    settings: BalancerSettings,
    /// Reads the settings again, and the values in force.
    reading: Option<(ReadSettings<BalancerSettings>, SettingValues)>,
    grace: watch::Sender<Duration>,
    predecessor: Option<Predecessor>,
    bound: BalancerAddresses,
    listening: Listening,
    https: Option<Https>,
    admin_listener: TcpListener,
    sources: SourceSet,
    access: Access,
    files: BalancerFiles,
    fleet: Option<FleetPlan>,
}

/// The parts of a running program that a reload changes.
struct Reloading<'a> {
    balancer: &'a Balancer,
    admin_address: SocketAddr,
    access: &'a ArcSwap<Access>,
    server: RunningServer,
}

impl Reloading<'_> {
    /// Reloads at each signal and each request.
    async fn run(
        self,
        reading: Option<(ReadSettings<BalancerSettings>, SettingValues)>,
        mut signal: ReloadSignal,
        mut requests: mpsc::Receiver<oneshot::Sender<ReloadReport>>,
    ) -> Infallible {
        let record = &self.balancer.0.reloads;
        let mut reloader =
            reading.map(|(read, in_force)| Reloader::new(read, in_force, &FIXED_KEYS, Arc::clone(record)));
        loop {
            let request = tokio::select! {
                () = signal.received() => None,
                Some(request) = requests.recv() => Some(request),
            };
            if let Some(reloader) = &mut reloader {
                let report = self.reload(reloader).await;
                // The receiver is dropped if its client is gone.
                request.map(|request| request.send(report));
            }
            signal.reload_files();
        }
    }

    async fn reload(&self, reloader: &mut Reloader<BalancerSettings>) -> ReloadReport {
        let (admin_address, change) = (self.admin_address, self.server.change());
        let prepare = move |settings: &BalancerSettings, changed: &[String]| {
            prepare(settings, changed, admin_address, change).map_err(|error| chain(&error))
        };
        let apply = async |settings: BalancerSettings, (access, server)| {
            self.access.store(Arc::new(access));
            let (limits, grace) = (settings.limits(), settings.shutdown_timeout);
            self.server.apply(server, limits, Pages::built_in(), grace).await;
            self.balancer.change(&settings).await;
        };
        reloader.reload(prepare, apply).await
    }
}

/// Creates the parts of new settings that can fail.
fn prepare(
    settings: &BalancerSettings,
    changed: &[String],
    admin_address: SocketAddr,
    change: ServerChange,
) -> Result<(Access, PreparedServer), BalancerError> {
    if settings.trust.authorities.is_some() {
        tls::client_config(&settings.trust)?;
    }
    open_files::provide(settings.open_files())?;
    let access = Access::open(settings.admin_token.as_deref(), admin_address)?;
    let server = change.prepare::<BalancerError>(changed, &settings.https, settings.access_log.as_deref())?;
    Ok((access, server))
}

/// The addresses of a balancer program.
#[derive(Debug, Clone)]
pub(crate) struct BalancerAddresses {
    /// The addresses for clients.
    pub clients: Vec<Address>,
    /// The address of the admin pages.
    pub admin: SocketAddr,
    /// `http` or `https`, for the admin pages.
    pub admin_scheme: &'static str,
}

impl BalancerAddresses {
    /// Prints the ready lines, for which scripts wait, and notifies the service manager.
    pub(crate) fn announce(&self) {
        print_line(format_args!("Admin interface at {}://{}/", self.admin_scheme, self.admin));
        self.clients.iter().for_each(Address::announce);
        systemd::notify(ServiceState::Ready);
    }
}

impl Program {
    /// Reads the list and opens both ports. `passed` sockets replace the addresses of the settings.
    pub(crate) fn build(
        settings: BalancerSettings,
        engines: &FleetSettings,
        passed: PassedSockets,
    ) -> Result<Self, BalancerError> {
        let sources = SourceSet::open(settings.sources.clone(), engines.clone())?;
        if settings.trust.authorities.is_some() {
            tls::client_config(&settings.trust)?;
        }
        let (https, tls_listeners) = settings.https.open(passed.tls)?;
        let mut listening = Listening::open(passed.clients, &settings.listen, tls_listeners)?;
        listening.has_own_file |= passed.has_own_file;
        let (host, port) = &settings.admin;
        let admin_listener = match passed.admin {
            Some(listener) => listener,
            None => listener::listen(host, *port)?,
        };
        let bound = BalancerAddresses {
            clients: listening.addresses.clone(),
            admin: admin_listener.local_addr()?,
            admin_scheme: settings.https.admin_scheme(),
        };
        let access = Access::open(settings.admin_token.as_deref(), bound.admin)?;
        let mut predecessor = passed.old_process.map(Predecessor::new);
        let access_log = match &settings.access_log {
            Some(path) => Some(AccessLog::open(path, settings.access_log_format)?),
            None => None,
        };
        let geography = Some(&settings.geography).filter(|settings| !settings.has_no_file());
        let geography = geography.map(FollowedGeography::open).transpose()?;
        let catalogue = settings.catalogue.as_ref();
        // The last step, because the old process stops writing.
        let heritage = predecessor.as_mut().and_then(Predecessor::inherit);
        let inheritance = heritage.and_then(|heritage| Inheritance::read(&heritage));
        let open = if predecessor.is_some() { StateFolder::open_after_release } else { StateFolder::open };
        let state = settings.state.as_deref().map(open).transpose()?.map(Arc::new);
        let catalogue = catalogue.map(|source| OpenCatalogue::open(source, state.as_deref())).transpose()?;
        let certificates = https.as_ref().map(Https::certificates);
        let files = BalancerFiles { state, access_log, catalogue, geography, certificates, inheritance };
        let fleet = settings.fleet.as_ref().map(|membership| FleetPlan {
            identity: FleetIdentity {
                name: membership.name.clone().unwrap_or_else(|| default_name(&bound)),
                boot: actor::boot(),
                probers: membership.probers,
            },
            engine: engines.at(membership.engine.clone()),
        });
        let grace = watch::Sender::new(settings.shutdown_timeout);
        Ok(Self {
            settings,
            reading: None,
            grace,
            predecessor,
            bound,
            listening,
            https,
            admin_listener,
            sources,
            access,
            files,
            fleet,
        })
    }

    /// Reads the settings again at each SIGHUP and on request over the admin listener. `in_force` are the values of the start.
    #[must_use]
    pub(crate) fn reloading(self, read: ReadSettings<BalancerSettings>, in_force: SettingValues) -> Self {
        Self { reading: Some((read, in_force)), ..self }
    }

    /// The time for unfinished answers at a stop.
    #[must_use]
    pub(crate) fn grace(&self) -> watch::Receiver<Duration> {
        self.grace.subscribe()
    }

    /// Opens the access log again at each SIGUSR1. Must be called even without a log, because the signal ends a process that
    /// does not handle it.
    pub(crate) fn reopen_log_on_signal(&self) -> std::io::Result<()> {
        access_log::reopen_on_signal(self.files.access_log.as_ref())
    }

    /// Probes, ranks and redirects until `stop` is triggered, then finishes unfinished answers.
    ///
    /// Calls `ready` once connections are accepted.
    pub(crate) async fn run(
        self,
        ready: impl FnOnce(&BalancerAddresses),
        stop: StopHandle,
    ) -> Result<(), BalancerError> {
        let Self {
            settings,
            reading,
            grace,
            predecessor,
            bound,
            listening,
            https,
            admin_listener,
            mut sources,
            access,
            files,
            fleet,
        } = self;
        let mut listening = listening;
        // Only a program with a configuration can start again.
        let listen = |_| Handover::listen(&mut listening, Some(&admin_listener), predecessor);
        let handover = reading.as_ref().map(listen);
        let mut handover = handover.transpose()?;
        let signal = ReloadSignal::listen()?;
        sources.reload_at(&signal.file_reloads());
        sources.read_once().await;
        https.as_ref().map_or(Ok(()), |https| https.follow(signal.file_reloads()))?;
        let access = Arc::new(ArcSwap::from_pointee(access));
        let Listening { listeners, file: _file, .. } = listening;
        let log = files.access_log.clone();
        let balancer = Balancer::start(&settings, sources, files, fleet);
        if handover.as_ref().is_some_and(Handover::takes_over) {
            balancer.first_round().await;
        }
        let transport = Transport {
            name: "redirects",
            workers: settings.workers,
            limits: settings.limits(),
            pages: Pages::built_in(),
            refusals: log.clone().map(|log| Arc::new(log) as Arc<dyn RefusalLog>),
            stop: stop.clone(),
            ..Transport::default()
        };
        let redirects = balancer.redirects();
        let acme_webroot = settings.acme_webroot.clone();
        let serving = transport.serve(listeners, move || {
            let worker = redirects.start_worker();
            let service = RedirectWorker(Rc::clone(&worker));
            // Not `App::service`: there, actix-web would answer a request for `*` itself.
            let challenges = |config: &mut ServiceConfig| {
                if let Some(root) = &acme_webroot {
                    acme::serve(config, root, &Pages::built_in());
                }
            };
            let app = App::new().configure(challenges).default_service(fn_factory(move || {
                let service = service.clone();
                async { Ok::<_, ()>(service) }
            }));
            (map_config(app, |()| AppConfig::default()), Some(worker as Rc<dyn FastPath>))
        })?;
        let (requests, reload_requests) = mpsc::channel(1);
        let requests = reading.is_some().then_some(requests);
        let admin = Admin::new(&balancer.0, Arc::clone(&access), requests, settings.fault_injection);
        let connections = serving.connections();
        let admin = admin::serve(admin_listener, https.as_ref(), admin, connections, stop.phases())?;
        let admin_handle = admin.handle();
        actix::spawn(admin);
        actix::spawn(http::admin::close_after_hand_over(admin_handle.clone(), stop.phases()));
        let reloading = Reloading {
            balancer: &balancer,
            admin_address: bound.admin,
            access: &access,
            server: RunningServer::new(serving.control(), grace, https.as_ref(), log.clone()),
        };
        let grace = reloading.server.grace.subscribe();
        if let Some(handover) = &mut handover {
            handover.accept();
        }
        let patience = || Limits::default().keep_alive * 2;
        let handing_over = handover::run(handover, balancer.estate(), stop, patience, grace);
        ready(&bound);
        let ended = tokio::select! {
            never = reloading.run(reading, signal, reload_requests) => match never {},
            never = handing_over => match never {},
            stopped = serving.run() => stopped.map_err(BalancerError::from),
            failure = balancer.failed() => Err(failure.into()),
        };
        admin_handle.stop(true).await;
        balancer.save_state();
        if let Some(log) = log {
            log.written().await;
        }
        ended
    }
}

/// The name of a balancer in its fleet if the settings have none: host name and port.
fn default_name(bound: &BalancerAddresses) -> Arc<str> {
    let port = bound.clients.iter().find_map(Address::port).unwrap_or(bound.admin.port());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(char::is_ascii_graphic).take(LONGEST_HOST).collect();
    format!("{host}:{port}").into()
}

/// The longest part of the host name in [`default_name`], in characters.
const LONGEST_HOST: usize = 50;
