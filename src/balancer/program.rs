//! The balancer of `fingerpost balancer` and `fingerpost up`: a [`Balancer`] with listeners and admin pages.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use actix_service::{fn_factory, map_config};
use actix_web::App;
use actix_web::dev::AppConfig;
use actix_web::web::ServiceConfig;
use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::admin::access::Access;
use super::admin::{self, Admin};
use super::estate::Inheritance;
use super::fleet::FleetIdentity;
use super::fleet::actor;
use super::geography::FollowedGeography;
use super::presence::source::OpenCatalogue;
use super::redirect::acme;
use super::redirect::mount::RedirectWorker;
use super::settings::BalancerSettings;
use super::sources::SourceSet;
use super::state_folder::StateFolder;
use super::{Balancer, BalancerFiles, FleetPlan};
use crate::engine::FleetSettings;
use crate::handover::{self, Handover, Predecessor};
use crate::hosting::{self, Addresses, Host, Program, ProgramError};
use crate::http;
use crate::http::access_log::AccessLog;
use crate::http::https::Https;
use crate::http::listener::{self, Address, Listener, Listening};
use crate::http::pages::Pages;
use crate::http::reloading::RunningServer;
use crate::http::stop::StopHandle;
use crate::http::tls::{self, TlsError, Trust};
use crate::http::transport::{FastPath, Limits, RefusalLog, Serving, Transport};
use crate::supervision::SupervisionFailure;
use crate::systemd::PassedSockets;

/// `fingerpost balancer`.
pub(crate) struct BalancerProgram {
    host: Host<BalancerSettings>,
    admin_listener: TcpListener,
    sources: SourceSet,
    access: Access,
    files: BalancerFiles,
    fleet: Option<FleetPlan>,
}

impl Program for BalancerProgram {
    const NAME: &'static str = "balancer";

    type Settings = BalancerSettings;

    fn build(
        settings: BalancerSettings,
        engines: &FleetSettings,
        mut passed: PassedSockets,
    ) -> Result<Self, ProgramError> {
        let sources = SourceSet::open(settings.sources.clone(), engines.clone())?;
        check_authorities(&settings.trust)?;
        let admin_listener = match passed.admin.take() {
            Some(listener) => listener,
            None => listener::listen(&settings.admin.0, settings.admin.1)?,
        };
        let admin = admin_listener.local_addr().map_err(Self::cannot_start)?;
        let access = Access::open(settings.admin_token.as_deref(), admin)?;
        let mut host = Host::open(settings, passed, Some(admin))?;
        // The last step, because the old process stops writing.
        let heritage = host.predecessor.as_mut().and_then(Predecessor::inherit);
        let inheritance = heritage.and_then(|heritage| Inheritance::read(&heritage));
        let open =
            if host.predecessor.is_some() { StateFolder::open_after_release } else { StateFolder::open };
        let settings = &host.settings;
        let state = settings.state.as_deref().map(open).transpose()?.map(Arc::new);
        let geography = Some(&settings.geography).filter(|settings| !settings.has_no_file());
        let geography = geography.map(FollowedGeography::open).transpose()?;
        let catalogue = settings.catalogue.as_ref();
        let catalogue = catalogue.map(|source| OpenCatalogue::open(source, state.as_deref())).transpose()?;
        let certificates = host.https.as_ref().map(Https::certificates);
        let access_log = host.log.clone();
        let files = BalancerFiles { state, access_log, catalogue, geography, certificates, inheritance };
        let fleet = settings.fleet.as_ref().map(|membership| FleetPlan {
            identity: FleetIdentity {
                name: membership.name.clone().unwrap_or_else(|| default_name(&host.addresses, admin)),
                boot: actor::boot(),
                probers: membership.probers,
            },
            engine: engines.at(membership.engine.clone()),
        });
        Ok(Self { host, admin_listener, sources, access, files, fleet })
    }

    fn host(&mut self) -> &mut Host<BalancerSettings> {
        &mut self.host
    }

    async fn run(self, ready: impl FnOnce(&Addresses), stop: StopHandle) -> Result<(), ProgramError> {
        Ok(self.serve(ready, stop).await.map_err(Self::cannot_start)??)
    }
}

impl BalancerProgram {
    /// Probes, ranks and redirects. A failure of the system and one of an actor are separate errors.
    async fn serve(
        self,
        ready: impl FnOnce(&Addresses),
        stop: StopHandle,
    ) -> io::Result<Result<(), SupervisionFailure>> {
        let Self { mut host, admin_listener, mut sources, access, files, fleet } = self;
        let admin_address = admin_listener.local_addr()?;
        let mut handover = host.handover(Some(&admin_listener))?;
        let signal = host.reload_signal()?;
        sources.reload_at(&signal.file_reloads());
        sources.read_once().await;
        let Host { settings, reading, grace, addresses, listening, https, log, .. } = host;
        let Listening { listeners, file: _file, .. } = listening;
        let balancer = Balancer::start(&settings, sources, files, fleet);
        if handover.as_ref().is_some_and(Handover::takes_over) {
            balancer.first_round().await;
        }
        let serving = serve_clients(&balancer, &settings, listeners, log.as_ref(), &stop)?;
        let (requests, reload_requests) = mpsc::channel(1);
        let access = Arc::new(ArcSwap::from_pointee(access));
        let admin = Admin {
            balancer: Arc::clone(&balancer.0),
            access: Arc::clone(&access),
            reload: reading.is_some().then_some(requests),
            fault_injection: settings.fault_injection,
        };
        let admin =
            admin::serve(admin_listener, https.as_ref(), admin, serving.connections(), stop.phases())?;
        let admin_handle = admin.handle();
        actix::spawn(admin);
        actix::spawn(http::admin::close_after_hand_over(admin_handle.clone(), stop.phases()));
        let server = RunningServer::new(serving.control(), grace, https.as_ref(), log.clone());
        let grace = server.grace.subscribe();
        if let Some(handover) = &mut handover {
            handover.accept();
        }
        let patience = || Limits::default().keep_alive * 2;
        let handing_over = handover::run(handover, balancer.estate(), stop, patience, grace);
        let record = Arc::clone(&balancer.0.reloads);
        let prepare = move |settings: &BalancerSettings| -> Result<Access, ProgramError> {
            check_authorities(&settings.trust)?;
            Ok(Access::open(settings.admin_token.as_deref(), admin_address)?)
        };
        let apply = async |settings: &BalancerSettings, own: Access| {
            access.store(Arc::new(own));
            balancer.change(settings).await;
            Pages::built_in()
        };
        let reloading = hosting::reload(reading, record, signal, reload_requests, server, prepare, apply);
        ready(&addresses);
        let ended = tokio::select! {
            never = reloading => match never {},
            never = handing_over => match never {},
            stopped = serving.run() => stopped.map(Ok),
            failure = balancer.failed() => Ok(Err(failure)),
        };
        admin_handle.stop(true).await;
        balancer.save_state();
        balancer.save_statistics().await;
        if let Some(log) = log {
            log.written().await;
        }
        balancer.end().await;
        ended
    }
}

/// Accepts and redirects clients.
fn serve_clients(
    balancer: &Balancer,
    settings: &BalancerSettings,
    listeners: Vec<Listener>,
    log: Option<&AccessLog>,
    stop: &StopHandle,
) -> io::Result<Serving> {
    let transport = Transport {
        name: "redirects",
        workers: settings.host.workers,
        limits: settings.host.limits,
        pages: Pages::built_in(),
        refusals: log.map(|log| Arc::new(log.clone()) as Arc<dyn RefusalLog>),
        stop: stop.clone(),
        ..Transport::default()
    };
    let (redirects, acme_webroot) = (balancer.redirects(), settings.acme_webroot.clone());
    transport.serve(listeners, move || {
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
    })
}

/// Reads the authorities of https backends, if there are own ones.
fn check_authorities(trust: &Trust) -> Result<(), UnusableAuthorities> {
    if trust.authorities.is_some() {
        tls::client_config(trust)?;
    }
    Ok(())
}

/// The authorities of https backends are unusable.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the key backend_ca")]
struct UnusableAuthorities(#[from] TlsError);

/// The name of a balancer in its fleet if the settings have none: host name and port.
fn default_name(addresses: &Addresses, admin: SocketAddr) -> Arc<str> {
    let port = addresses.clients.iter().find_map(Address::port).unwrap_or(admin.port());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(char::is_ascii_graphic).take(LONGEST_HOST).collect();
    format!("{host}:{port}").into()
}

/// The longest part of the host name in [`default_name`], in characters.
const LONGEST_HOST: usize = 50;
