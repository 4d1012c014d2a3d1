//! `fingerpost balancer`: a [`Balancer`] with listeners, admin pages, signals and the service manager.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;

use actix_service::{fn_factory, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use tokio::signal::unix::{SignalKind, signal};

use super::admin::{self, Admin};
use super::backends::watch::{Follower, ListError};
use super::redirect::mount::WorkerService;
use super::settings::BalancerSettings;
use super::{Balancer, Source, StartError};
use crate::cli::BalancerArguments;
use crate::http::listener::{self, Address, ListenError, Listening};
use crate::http::pages::Pages;
use crate::http::stop::{Interrupts, StopHandle};
use crate::http::transport::{FastPath, Limits, Transport};
use crate::open_files::{self, TooFewFiles};
use crate::settings::SettingsError;
use crate::supervision::Failure;
use crate::systemd::{PassedError, PassedSockets, ServiceState};
use crate::telemetry::say;

/// Why the program cannot run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The balancer cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The list cannot be read at start.
    #[error(transparent)]
    List(#[from] ListError),
    /// A port cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The service manager passed sockets that cannot be used.
    #[error(transparent)]
    Passed(#[from] PassedError),
    /// Too few files may be open.
    #[error(transparent)]
    TooFewFiles(#[from] TooFewFiles),
    /// The system gave no thread or no signals.
    #[error("cannot start the balancer")]
    System(#[from] std::io::Error),
    /// An actor kept panicking.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Runs `fingerpost balancer` until a signal stops it.
pub fn command(arguments: &BalancerArguments) -> Result<(), BalancerError> {
    // First of all, since it is about descriptors and the environment.
    let passed = PassedSockets::take()?;
    let raw = crate::settings::load(arguments.config.config.as_deref(), arguments.overrides())?;
    let settings = BalancerSettings::try_from(raw.balancer)?;
    let (grace, need) = (settings.shutdown_timeout, settings.open_files());
    let program = Program::build(settings, passed)?;
    open_files::provide(need)?;
    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::listen()?;
        // Rotation of logs sends SIGUSR1, which ends a process that does not handle it. The balancer has no log file.
        let _rotations = signal(SignalKind::user_defined1())?;
        actix::spawn(interrupts.announce_and_stop(stop.clone(), grace));
        program.run(Bound::announce, stop).await
    })
}

/// A balancer program that has its ports and its list, and answers once it runs.
pub struct Program {
    settings: BalancerSettings,
    bound: Bound,
    listening: Listening,
    admin_listener: TcpListener,
    follower: Follower,
}

/// The addresses of a balancer program.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Clients connect here.
    pub clients: Vec<Address>,
    /// The admin pages are here.
    pub admin: SocketAddr,
}

impl Bound {
    /// Prints the ready lines that scripts wait for, and notifies the service manager.
    pub fn announce(&self) {
        say(format_args!("Admin interface at http://{}/", self.admin));
        self.clients.iter().for_each(Address::announce);
        crate::systemd::notify(ServiceState::Ready);
    }
}

impl Program {
    /// Reads the list and binds both ports. Sockets that were `passed` replace those of the settings.
    pub fn build(settings: BalancerSettings, passed: PassedSockets) -> Result<Self, BalancerError> {
        let follower = Follower::open(settings.servers.clone())?;
        let listening = Listening::open(passed.clients, &settings.listen)?;
        let (host, port) = &settings.admin;
        let admin_listener = match passed.admin {
            Some(listener) => listener,
            None => listener::listen(host, *port)?,
        };
        let bound = Bound { clients: listening.addresses.clone(), admin: admin_listener.local_addr()? };
        Ok(Self { settings, bound, listening, admin_listener, follower })
    }

    /// Probes, ranks and redirects until `stop` asks to stop; then finishes the answers under way.
    ///
    /// `ready` is called once connections are accepted.
    pub async fn run(self, ready: impl FnOnce(&Bound), stop: StopHandle) -> Result<(), BalancerError> {
        let Self { settings, bound, listening, admin_listener, mut follower } = self;
        follower.heed_hangup();
        let Listening { listeners, file: _file, .. } = listening;
        let balancer = Balancer::start(&settings, Source::File(follower));
        let transport = Transport {
            name: "redirects",
            workers: settings.workers,
            limits: Limits {
                connections: settings.max_connections,
                connections_per_address: settings.max_connections_per_address,
                ..Limits::default()
            },
            pages: Pages::built_in(),
            stop,
            ..Transport::default()
        };
        let redirects = balancer.redirects();
        let serving = transport.serve_with_fast_path(listeners, move || {
            let worker = redirects.start_worker();
            let service = WorkerService(Rc::clone(&worker));
            // Not `App::service`: there, actix-web would answer a request for `*` itself.
            let app = App::new().default_service(fn_factory(move || {
                let service = service.clone();
                async { Ok::<_, ()>(service) }
            }));
            (map_config(app, |()| AppConfig::default()), Some(worker as Rc<dyn FastPath>))
        })?;
        let admin = Admin::new(&balancer, settings.fault_injection);
        let admin = admin::serve(admin_listener, admin, serving.connections())?;
        let admin_handle = admin.handle();
        actix::spawn(admin);
        ready(&bound);
        let ended = tokio::select! {
            stopped = serving.run() => stopped.map_err(BalancerError::from),
            failure = balancer.failed() => Err(failure.into()),
        };
        admin_handle.stop(true).await;
        ended
    }
}
