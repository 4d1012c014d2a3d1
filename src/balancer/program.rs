//! The balancer of `fingerpost balancer` and `fingerpost up`: a [`Balancer`] with listeners and admin pages.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use actix_service::{fn_factory, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::web::ServiceConfig;

use super::admin::access::{Access, AccessError};
use super::admin::{self, Admin};
use super::backends::watch::{Follower, ListError};
use super::presence::source::{OpenCatalogue, SourceError};
use super::redirect::acme;
use super::redirect::mount::RedirectWorker;
use super::settings::BalancerSettings;
use super::state_folder::{StateError, StateFolder};
use super::{BackendSource, Balancer, BalancerFiles};
use crate::http::access_log::{self, AccessLog, AccessLogError};
use crate::http::https::{Https, HttpsError};
use crate::http::listener::{self, Address, ListenError, Listening};
use crate::http::pages::Pages;
use crate::http::stop::StopHandle;
use crate::http::tls::{self, TlsError};
use crate::http::transport::{FastPath, Limits, RefusalLog, Transport};
use crate::supervision::SupervisionFailure;
use crate::systemd::{self, PassedSockets, ServiceState};
use crate::telemetry::print_line;

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
    Catalogue(#[from] SourceError),
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
    /// An actor panicked too often.
    #[error(transparent)]
    Failed(#[from] SupervisionFailure),
}

/// A balancer program with open ports and a list, ready to run.
pub(crate) struct Program {
    settings: BalancerSettings,
    bound: BalancerAddresses,
    listening: Listening,
    https: Option<Https>,
    admin_listener: TcpListener,
    follower: Follower,
    access: Access,
    files: BalancerFiles,
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
    pub(crate) fn build(settings: BalancerSettings, passed: PassedSockets) -> Result<Self, BalancerError> {
        let follower = Follower::open(settings.servers.clone())?;
        if settings.trust.authorities.is_some() {
            tls::client_config(&settings.trust)?;
        }
        let (https, tls_listener) = settings.https.open()?.unzip();
        let listening = Listening::open(passed.clients, &settings.listen, tls_listener)?;
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
        let state = settings.state.as_deref().map(StateFolder::open).transpose()?.map(Arc::new);
        let access_log = match &settings.access_log {
            Some(path) => Some(AccessLog::open(path, settings.access_log_format)?),
            None => None,
        };
        let catalogue = settings.catalogue.as_ref();
        let catalogue = catalogue.map(|source| OpenCatalogue::open(source, state.as_deref())).transpose()?;
        let files = BalancerFiles { state, access_log, catalogue };
        Ok(Self { settings, bound, listening, https, admin_listener, follower, access, files })
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
        let Self { settings, bound, listening, https, admin_listener, mut follower, access, files } = self;
        follower.reload_on_hangup();
        https.as_ref().map_or(Ok(()), Https::follow)?;
        let Listening { listeners, file: _file, .. } = listening;
        let log = files.access_log.clone();
        let balancer = Balancer::start(&settings, BackendSource::File(follower), files);
        let transport = Transport {
            name: "redirects",
            workers: settings.workers,
            limits: Limits {
                connections: settings.max_connections,
                connections_per_address: settings.max_connections_per_address,
                ..Limits::default()
            },
            pages: Pages::built_in(),
            refusals: log.clone().map(|log| Arc::new(log) as Arc<dyn RefusalLog>),
            stop,
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
        let admin = Admin::new(&balancer.0, access, settings.fault_injection);
        let admin = admin::serve(admin_listener, https.as_ref(), admin, serving.connections())?;
        let admin_handle = admin.handle();
        actix::spawn(admin);
        ready(&bound);
        let ended = tokio::select! {
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
