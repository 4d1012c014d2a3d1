//! The balancer: knows which backends are usable and how fast they are, and redirects to the best.
//!
//! - [`backends`]: the list, and following it while the balancer runs.
//! - [`roster`], [`probe`]: one `ProbeActor` for each backend of the list.
//! - [`health`], [`load_report`], [`ranking`]: what probes and reports say, folded by `RankingActor` into tables.
//! - [`policy`]: how one backend is chosen from a table.
//! - [`redirect`]: the request path, and `RedirectHandler`, which holds the table of one HTTP worker.
//! - [`admin`]: metrics, the status API, drills.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use actix::{Actor, Arbiter};
use actix_http::header::HeaderValue;
use arc_swap::ArcSwap;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub mod admin;
pub mod backends;
pub mod health;
pub mod load_report;
pub mod policy;
pub mod probe;
pub mod ranking;
pub mod redirect;
pub mod roster;
pub mod settings;
pub mod workers;

use crate::cli::BalancerArguments;
use crate::http::listener::{self, Address, ListenError, Listening};
use crate::http::pages::Pages;
use crate::http::stop::{Interrupts, StopHandle};
use crate::open_files::{self, TooFewFiles};
use crate::settings::SettingsError;
use crate::supervision::{ActorKind, GaveUp, Guardian, Leash, Patience, Seat};
use crate::systemd::{PassedError, PassedSockets, ServiceState};
use crate::telemetry::say;
use admin::Admin;
use admin::metrics::BalancerMetrics;
use backends::watch::{Follower, ListError};
use policy::{LoadSlab, PolicyName, RetryAvoidance};
use probe::ProbePlan;
use ranking::publication::Publication;
use ranking::table::{Member, RoutingTable};
use ranking::{Members, RankingActor, RankingPlan};
use redirect::service::AnswerPlan;
use roster::Roster;
use settings::{BalancerSettings, Returning};
use workers::Workers;

/// Why a balancer cannot run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
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
    /// An actor kept dying.
    #[error(transparent)]
    GaveUp(#[from] GaveUp),
}

/// Runs `fingerpost balancer` until it is told to stop.
pub fn command(arguments: &BalancerArguments) -> Result<(), BalancerError> {
    // First of all, since it is about descriptors and the environment.
    let passed = PassedSockets::take()?;
    let raw = crate::settings::load(arguments.config.config.as_deref(), arguments.overrides())?;
    let settings = BalancerSettings::try_from(raw.balancer)?;
    let (grace, need) = (settings.shutdown_timeout, settings.open_files());
    let balancer = Balancer::build(settings, passed)?;
    open_files::provide(need)?;
    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::listen()?;
        actix::spawn(interrupts.announce_and_stop(stop.clone(), grace));
        balancer.run(Bound::announce, stop).await
    })
}

/// A balancer that has its ports and its list, and answers once it is run.
pub struct Balancer {
    settings: BalancerSettings,
    bound: Bound,
    listening: Listening,
    admin_listener: TcpListener,
    follower: Follower,
}

/// Where a balancer can be reached.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Where clients connect.
    pub clients: Vec<Address>,
    /// Where the admin pages are.
    pub admin: SocketAddr,
}

impl Bound {
    /// Prints the ready lines that scripts wait for, and tells the service manager.
    pub fn announce(&self) {
        say(format_args!("Admin interface at http://{}/", self.admin));
        self.clients.iter().for_each(Address::announce);
        crate::systemd::notify(ServiceState::Ready);
    }
}

impl Balancer {
    /// Reads the list and binds both ports. Sockets that were `passed` go before those of the settings.
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

    /// Where it can be reached.
    #[must_use]
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Probes, ranks and redirects until `stop` asks to stop; then finishes what is being answered.
    ///
    /// `ready` is called once connections are accepted.
    pub async fn run(self, ready: impl FnOnce(&Bound), stop: StopHandle) -> Result<(), BalancerError> {
        let Self { settings, bound, listening, admin_listener, mut follower } = self;
        follower.heed_hangup();
        let Listening { listeners, file: _file, .. } = listening;
        let backends = follower.backends();
        let mut book = LoadSlab::default();
        let members: Vec<Member> =
            backends.iter().cloned().map(|backend| Member::new(backend, &mut book)).collect();
        let now = Instant::now();
        let clock = policy::MonotonicClock::new(now);
        let first = RoutingTable::first(
            &members,
            settings.policy,
            &settings.thresholds,
            &clock,
            now,
            &mut SmallRng::from_rng(&mut rand::rng()),
        );
        let members: Members = Arc::new(ArcSwap::from_pointee(members));
        let mut metrics = BalancerMetrics::default();
        let publication = Arc::new(Publication::new(first, metrics.tables_lost.clone()));
        metrics.observe(Arc::clone(&publication));
        let metrics = Arc::new(metrics);
        let (guardian, guarding) = Guardian::new(Patience::default(), metrics.supervision.clone());

        let arbiter = Arbiter::new();
        let (ranking, _ranking_leash) = start_ranking(
            &guardian,
            &arbiter,
            RankingPlan {
                members: Arc::clone(&members),
                publication: Arc::clone(&publication),
                policy: settings.policy,
                thresholds: settings.thresholds,
                probe_budget: settings.probe_budget,
                clock,
                metrics: metrics.ranking.clone(),
            },
        );
        let mut roster = Roster::new(
            arbiter.handle(),
            guardian.clone(),
            Arc::new(ProbePlan {
                path: settings.probe_path.clone(),
                timeout: settings.probe_timeout,
                thresholds: settings.thresholds,
                budget: settings.probe_budget,
                slots: Semaphore::new(settings.probe_concurrency),
                backends: AtomicUsize::new(0),
                reports: metrics.reports.clone(),
            }),
            ranking,
            (members, book),
            Arc::clone(&metrics),
        );
        roster.replace(&backends);

        let workers = Workers {
            plan: AnswerPlan {
                status: settings.status,
                alternates: settings.alternates,
                second_chance: second_chance(&settings),
                retry_after: HeaderValue::from(settings.thresholds.interval.as_secs().max(1)),
                pages: Pages::built_in(),
                clock,
            },
            publication: Arc::clone(&publication),
            guardian: guardian.clone(),
            metrics: Arc::clone(&metrics),
        };
        let serving = workers.serve(listeners, &settings, stop)?;
        let admin = Admin { publication, guardian, fault_injection: settings.fault_injection };
        let admin = admin::serve(admin_listener, admin, metrics, serving.connections())?;
        let admin_handle = admin.handle();
        actix::spawn(admin);
        ready(&bound);

        let follow = async {
            loop {
                let backends = follower.changed().await;
                roster.replace(&backends);
            }
        };
        let ended = tokio::select! {
            stopped = serving.run() => stopped.map_err(BalancerError::from),
            gave_up = guarding => Err(gave_up.into()),
            () = follow => Ok(()),
        };
        admin_handle.stop(true).await;
        arbiter.stop();
        ended
    }
}

/// Under `hash` a path belongs to one server, whoever asks for it again.
fn second_chance(settings: &BalancerSettings) -> Option<Arc<RetryAvoidance>> {
    let given = settings.returning == Returning::Elsewhere && settings.policy != PolicyName::Hash;
    given.then(Arc::default)
}

fn start_ranking(guardian: &Guardian, arbiter: &Arbiter, plan: RankingPlan) -> (Seat<RankingActor>, Leash) {
    let seat = Seat::<RankingActor>::default();
    let handle = arbiter.handle();
    let leash = guardian.supervise(ActorKind::Ranking, "ranking".into(), &seat, move |lifeline| {
        let plan = plan.clone();
        RankingActor::start_in_arbiter(&handle, move |_| {
            RankingActor::new(plan, SmallRng::from_rng(&mut rand::rng()), lifeline)
        })
    });
    (seat, leash)
}
