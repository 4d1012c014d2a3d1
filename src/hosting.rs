//! The common part of `fingerpost balancer` and `fingerpost server`: ports for clients, the access log, and settings that are
//! read again while the program runs.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::engine::FleetSettings;
use crate::handover::{Handover, Predecessor};
use crate::http::access_log::{AccessLog, Format};
use crate::http::https::{Https, HttpsSettings};
use crate::http::listener::{Address, ListenAddress, Listening};
use crate::http::pages::Pages;
use crate::http::reloading::{ReloadSignal, RunningServer};
use crate::http::stop::StopHandle;
use crate::http::transport::Limits;
use crate::open_files::{self, Need};
use crate::settings::reload::{FixedKeys, Reading, ReloadRecord, ReloadReport, Reloader};
use crate::systemd::{self, PassedSockets, ServiceState};
use crate::telemetry::{chain, print_line};

/// An error that prevents or ends a run of a program. It is only shown.
pub(crate) type ProgramError = Box<dyn Error>;

/// A thread cannot be started, or a signal handler cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the {program}")]
pub(crate) struct StartFailure {
    program: &'static str,
    source: io::Error,
}

/// A program with open ports, ready to run.
pub(crate) trait Program: Sized {
    /// The name in errors.
    const NAME: &'static str;

    /// Its section of the configuration.
    type Settings: ProgramSettings;

    /// Opens the ports and files. `passed` sockets replace the addresses of the settings.
    fn build(
        settings: Self::Settings,
        fleet: &FleetSettings,
        passed: PassedSockets,
    ) -> Result<Self, ProgramError>;

    /// The common part.
    fn host(&mut self) -> &mut Host<Self::Settings>;

    /// Serves clients until `stop` is triggered, then finishes unfinished answers. Calls `ready` once connections are accepted.
    async fn run(self, ready: impl FnOnce(&Addresses), stop: StopHandle) -> Result<(), ProgramError>;

    /// The error for a failed call of the system at the start.
    fn cannot_start(source: io::Error) -> StartFailure {
        StartFailure { program: Self::NAME, source }
    }
}

/// The validated settings of a program.
pub(crate) trait ProgramSettings: Send + 'static {
    /// The keys whose change needs a restart.
    const FIXED_KEYS: &'static FixedKeys;

    /// The common part.
    fn host(&self) -> &HostSettings;

    /// The need of open files.
    fn open_files(&self) -> Need;
}

/// Validated settings that both programs have.
#[derive(Debug, Clone)]
pub(crate) struct HostSettings {
    /// The address for clients.
    pub listen: ListenAddress,
    /// HTTPS beside it.
    pub https: HttpsSettings,
    /// The number of HTTP worker threads; at least 1.
    pub workers: usize,
    /// The limits of clients.
    pub limits: Limits,
    /// The file that gets a line for each answer.
    pub access_log: Option<PathBuf>,
    /// The format of its lines.
    pub access_log_format: Format,
    /// The time limit for unfinished answers at a stop.
    pub grace: Duration,
}

impl HostSettings {
    /// Every error with which [`Host::open`] would fail, without a change to the system.
    pub(crate) fn check(&self) -> Vec<ProgramError> {
        let log = self.access_log.as_deref().and_then(|path| AccessLog::check(path).err());
        let mut errors: Vec<ProgramError> = self.https.check().into_iter().map(Into::into).collect();
        errors.extend(self.listen.check().err().map(Into::into));
        errors.extend(log.map(Into::into));
        errors
    }
}

/// Makes the [`HostSettings`] of the raw keys of a section. Both sections have them under the same names, except the limits
/// and the time for unfinished answers.
macro_rules! host_settings {
    ($section:literal, $raw:ident, $limits:expr, $grace:expr) => {
        $crate::hosting::HostSettings {
            https: $crate::http::https::HttpsSettings {
                certificates: $raw.tls_cert,
                keys: $raw.tls_key,
                host: $raw.host.clone(),
                port: $raw.tls_port,
                is_for_admin: $raw.admin_tls,
            },
            listen: $crate::http::listener::ListenAddress::new(
                $section,
                $raw.host,
                $raw.port,
                $raw.unix_socket,
                &$raw.unix_socket_mode,
            )?,
            workers: $crate::settings::worker_threads(concat!($section, ".workers"), $raw.workers)?,
            limits: $limits,
            access_log: $crate::settings::path($raw.access_log),
            access_log_format: $raw.access_log_format,
            grace: $grace,
        }
    };
}
pub(crate) use host_settings;

/// The parts that both programs have.
pub(crate) struct Host<S> {
    pub(crate) settings: S,
    /// `None` for a program without a configuration, which can neither read it again nor start a new process.
    pub(crate) reading: Option<Reading<S>>,
    pub(crate) grace: watch::Sender<Duration>,
    pub(crate) predecessor: Option<Predecessor>,
    pub(crate) addresses: Addresses,
    pub(crate) listening: Listening,
    pub(crate) https: Option<Https>,
    pub(crate) log: Option<AccessLog>,
}

/// The addresses of a program.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// The addresses for clients.
    pub clients: Vec<Address>,
    /// The address of the admin listener, if there is one.
    pub admin: Option<SocketAddr>,
    /// `http` or `https`, for the admin listener.
    pub admin_scheme: &'static str,
}

impl Addresses {
    /// Prints the ready lines, for which scripts wait, and notifies the service manager.
    pub(crate) fn announce(&self) {
        if let Some(admin) = self.admin {
            print_line(format_args!("Admin interface at {}://{admin}/", self.admin_scheme));
        }
        self.clients.iter().for_each(Address::announce);
        systemd::notify(ServiceState::Ready);
    }
}

impl<S: ProgramSettings> Host<S> {
    /// Opens the ports for clients and the access log. `passed` sockets replace the addresses of the settings; `admin` is the
    /// address of the admin listener.
    pub(crate) fn open(
        settings: S,
        passed: PassedSockets,
        admin: Option<SocketAddr>,
    ) -> Result<Self, ProgramError> {
        let HostSettings { listen, https, access_log, access_log_format, grace, .. } = settings.host();
        let admin_scheme = https.admin_scheme();
        let (https, tls_listeners) = https.open(passed.tls)?;
        let mut listening = Listening::open(passed.clients, listen, tls_listeners)?;
        listening.has_own_file |= passed.has_own_file;
        let log = access_log.as_deref().map(|path| AccessLog::open(path, *access_log_format)).transpose()?;
        Ok(Self {
            reading: None,
            grace: watch::Sender::new(*grace),
            predecessor: passed.old_process.map(Predecessor::new),
            addresses: Addresses { clients: listening.addresses.clone(), admin, admin_scheme },
            listening,
            https,
            log,
            settings,
        })
    }

    /// Handles SIGUSR2 from now on, with a hand-over of the ports and of the `admin` listener.
    pub(crate) fn handover(&mut self, admin: Option<&TcpListener>) -> io::Result<Option<Handover>> {
        if self.reading.is_none() {
            return Ok(None);
        }
        Handover::listen(&mut self.listening, admin, self.predecessor.take()).map(Some)
    }

    /// Handles SIGHUP from now on, and follows the files of the certificates.
    pub(crate) fn reload_signal(&self) -> io::Result<ReloadSignal> {
        let signal = ReloadSignal::listen()?;
        if let Some(https) = &self.https {
            https.follow(signal.file_reloads())?;
        }
        Ok(signal)
    }
}

/// Reads the settings again at each SIGHUP and each request, and applies their changes as a whole or not at all. `prepare`
/// creates the own parts of the program that can fail, and `apply` puts them into force and returns the pages.
pub(crate) async fn reload<S: ProgramSettings, P: Send + 'static>(
    reading: Option<Reading<S>>,
    record: Arc<ReloadRecord>,
    mut signal: ReloadSignal,
    mut requests: mpsc::Receiver<oneshot::Sender<ReloadReport>>,
    server: RunningServer,
    prepare: impl Fn(&S) -> Result<P, ProgramError> + Clone + Send + 'static,
    apply: impl AsyncFn(&S, P) -> Pages,
) -> Infallible {
    let mut reloader = reading.map(|reading| Reloader::new(reading, S::FIXED_KEYS, record));
    loop {
        let request = tokio::select! {
            () = signal.received() => None,
            Some(request) = requests.recv() => Some(request),
        };
        if let Some(reloader) = &mut reloader {
            let (change, prepare) = (server.change(), prepare.clone());
            let prepare = move |settings: &S, changed: &[String]| {
                let prepare = || -> Result<_, ProgramError> {
                    open_files::provide(settings.open_files())?;
                    let HostSettings { https, access_log, .. } = settings.host();
                    Ok((prepare(settings)?, change.prepare(changed, https, access_log.as_deref())?))
                };
                prepare().map_err(|error| chain(&*error))
            };
            let apply = async |settings: S, (own, prepared)| {
                let pages = apply(&settings, own).await;
                let HostSettings { limits, grace, .. } = settings.host();
                server.apply(prepared, *limits, pages, *grace).await;
            };
            let report = reloader.reload(prepare, apply).await;
            // The receiver is dropped if its client is gone.
            request.map(|request| request.send(report));
        }
        signal.reload_files();
    }
}
