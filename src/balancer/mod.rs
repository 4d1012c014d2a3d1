//! The balancer: probes the backends, ranks them, and redirects each client to the best one.
//!
//! # As a library
//! A [`Balancer`] probes and ranks; [`Balancer::redirects`] is a service for any actix-web `App`:
//!
//! ```
//! use actix_web::{App, test};
//! use fingerpost::balancer::Balancer;
//!
//! # actix_web::rt::System::new().block_on(async {
//! // This backend never accepts a connection. It stays unknown, and is chosen, until the first probe times out.
//! let mirror = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
//! let address = mirror.local_addr().unwrap();
//!
//! let balancer = Balancer::builder().backend(address).start().unwrap();
//! let app = test::init_service(App::new().default_service(balancer.redirects())).await;
//! let request = test::TestRequest::get().uri("/plshelp.txt?x=1").to_request();
//! let answer = test::call_service(&app, request).await;
//! assert_eq!(answer.status(), 301);
//! let location = answer.headers().get("location").unwrap();
//! assert_eq!(location, &format!("http://{address}/plshelp.txt?x=1"));
//! # });
//! ```

// The modules:
// - `backends`: the list of backends, and its changes while the balancer runs.
// - `probe_manager`, `probe`: one `ProbeActor` for each backend of the list.
// - `health`, `ranking`: `RankingActor` makes routing tables from probe results and load reports.
// - `expectation`: the content that probes expect.
// - `fleet`: the exchange with other balancers.
// - `geography`, `locator`: the places of clients and servers.
// - `policy`: the choice of a backend from a table.
// - `catalogue`, `presence`: the files of a mirror network, and the backends that have each of them.
// - `statistics`: the downloads by file, directory, server and day.
// - `redirect`: the request path, and `RedirectHandler`, which owns the table of one HTTP worker.
// - `builder`: a balancer in any actix program; `program`: `fingerpost balancer`, with listeners and signals.
// - `metrics`: the metrics. `admin`: their display, the status API, fault injection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Arbiter, Recipient};
use actix_http::header::HeaderValue;
use arc_swap::ArcSwap;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(crate) mod admin;
pub(crate) mod backends;
mod builder;
mod catalogue;
#[cfg(fuzzing)]
pub mod driver;
mod estate;
pub(crate) mod expectation;
pub(crate) mod fleet;
mod following;
pub(crate) mod geography;
pub(crate) mod health;
pub(crate) mod history;
mod locator;
mod lookups;
mod metrics;
pub(crate) mod orders;
pub(crate) mod policy;
pub(crate) mod presence;
pub(crate) mod probe;
mod probe_manager;
pub(crate) mod program;
pub(crate) mod ranking;
pub(crate) mod redirect;
pub(crate) mod settings;
pub(crate) mod sizes;
mod snapshot;
pub(crate) mod sources;
pub(crate) mod state_folder;
pub(crate) mod statistics;
mod wall_clock;
pub(crate) mod webhook;

use crate::engine::EngineSettings;
use crate::http::access_log::AccessLog;
use crate::http::certificates::Certificates;
use crate::http::client::Resolver;
use crate::http::pages::Pages;
use crate::supervision::{ActorKind, RestartPolicy, Supervisor};
use admin::collector::TableCollector;
use backends::Backend;
use estate::{BalancerEstate, Inheritance};
use fleet::FleetExchange;
use fleet::FleetIdentity;
use fleet::actor::FleetActor;
use following::{end_overdue_orders, follow};
use geography::{FollowedGeography, Geography, GeographyError};
use locator::Locator;
use lookups::{presence, sizes, start_lookups, statistics};
use metrics::{BalancerMetrics, FleetMetrics, GeographyMetrics};
use orders::store::Orders;
use policy::{LoadSlab, RetryAvoidance};
use presence::source::{CatalogueSourceError, OpenCatalogue};
use probe::{ProbePlan, ProbeResources};
use probe_manager::ProbeManager;
use ranking::publisher::TablePublisher;
use ranking::reach::{Reach, ServerAddresses, TableReach};
use ranking::table::{BackendEntry, RoutingTable};
use ranking::{ListChanged, RankingActor, RankingPlan, RankingSettings};
use redirect::service::AnswerPlan;
use redirect::{BalancerState, SettingsChanged};
use settings::BalancerSettings;
use snapshot::saving;
use sources::SourceSet;
use state_folder::StateFolder;

/// The longest wait for the first round of probes before a hand-over.
const FIRST_ROUND: Duration = Duration::from_secs(10);

pub use crate::settings::SettingsError;
pub use crate::settings::reload::ReloadReport;
pub use crate::supervision::SupervisionFailure;
pub use admin::status::{BackendStatus, SeenBy, SourceStatus, StatusReport};
pub use backends::list::ListProblem;
pub use backends::watch::ListError;
pub use builder::Builder;
pub use orders::{Override, StandingOrder};
pub use policy::PolicyName;
pub use redirect::mount::{RedirectWorker, Redirects};

/// An error at the start of a balancer.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is invalid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The list cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// The line of a backend given in code is invalid.
    #[error("cannot use the backends: {0}")]
    Backends(ListProblem),
    /// The catalogue cannot be used.
    #[error(transparent)]
    Catalogue(#[from] CatalogueUnusable),
    /// A file with the places of addresses cannot be used.
    #[error(transparent)]
    Geography(#[from] GeographyError),
}

/// The error for a catalogue that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CatalogueUnusable(#[from] CatalogueSourceError);

/// The files of a balancer, opened before its start.
#[derive(Debug, Default)]
pub(crate) struct BalancerFiles {
    /// Without it, orders and health end with the process.
    pub(crate) state: Option<Arc<StateFolder>>,
    /// Gets a line for each answer.
    pub(crate) access_log: Option<AccessLog>,
    /// Restricts the redirects to mirrors that have the file.
    pub(crate) catalogue: Option<OpenCatalogue>,
    /// Sends clients to near servers.
    pub(crate) geography: Option<FollowedGeography>,
    /// The webhook gets a notification before one of them ends.
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// Precedes the files in the folder.
    pub(crate) inheritance: Option<Inheritance>,
}

/// The fleet of a balancer.
#[derive(Debug, Clone)]
pub(crate) struct FleetPlan {
    /// This balancer.
    pub(crate) identity: FleetIdentity,
    /// The engine through which the balancers share.
    pub(crate) engine: EngineSettings,
}

impl FleetPlan {
    fn actor(
        self,
        zone: Arc<str>,
        resolver: Resolver,
        ranking: Recipient<FleetExchange>,
        orders: Arc<Orders>,
        metrics: FleetMetrics,
        started_at: Instant,
    ) -> FleetActor {
        let Self { identity, engine } = self;
        FleetActor { identity, zone, engine, resolver, ranking, orders, metrics, started_at, number: 0 }
    }
}

/// A running balancer: it follows the list, probes and ranks on its own thread, as long as the balancer, a
/// [`Redirects`] or a service created from one exists.
///
/// It has no listener and handles no signal. See the [module](self) for an example.
pub struct Balancer(Arc<BalancerState>);

/// The longest wait for the end of the actors.
const LONGEST_END: Duration = Duration::from_secs(1);

thread_local! {
    /// Dropped when the thread of an arbiter ends, after all its tasks.
    static END_OF_THREAD: RefCell<Option<watch::Sender<()>>> = const { RefCell::new(None) };
}

/// Starts the arbiter of a balancer. The receiver is closed once its thread has ended.
fn start_arbiter() -> (Arbiter, watch::Receiver<()>) {
    let (arbiter, (sender, ended)) = (Arbiter::new(), watch::channel(()));
    arbiter.spawn_fn(move || drop(END_OF_THREAD.replace(Some(sender))));
    (arbiter, ended)
}

fn probe_resources(resolver: &Resolver, metrics: &BalancerMetrics) -> ProbeResources {
    let (reports, results_lost) = (metrics.reports.clone(), metrics.ranking.results_lost.clone());
    ProbeResources { resolver: resolver.clone(), reports, results_lost }
}

impl Balancer {
    /// Starts the actors. The first probes start at once, spread over time as the probe budget requires.
    pub(crate) fn start(
        settings: &BalancerSettings,
        mut sources: SourceSet,
        BalancerFiles { state, access_log, catalogue, geography, inheritance, certificates }: BalancerFiles,
        fleet: Option<FleetPlan>,
    ) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let (inherited, remembered) = inheritance.map(|own| (own.orders, own.state)).unzip();
        let mut memory = remembered.unwrap_or_else(|| state.as_deref().map(saving::load).unwrap_or_default());
        sources.restore(&memory.sources);
        let (backends, sources_report) = (sources.backends(), sources.report());
        let identity = fleet.as_ref().map(|fleet| fleet.identity.clone());
        let name = identity.as_ref().map(|identity| Arc::clone(&identity.name));
        let (orders, changes) = Orders::open(state.clone(), inherited, name.clone(), wall);
        let (book, orders) = (orders.book(), Arc::new(orders));
        let mut slab = LoadSlab::default();
        let clock = policy::MonotonicClock::new(now);
        let entry = |backend: &Backend| {
            let mut entry = BackendEntry::new(backend.clone(), &mut slab, now);
            entry.list_as(backend, settings.zone.as_deref());
            memory.restore(&mut entry, &clock, now, wall);
            entry.obey(book.of(backend.id()), now, wall);
            entry
        };
        let mut entries: Vec<BackendEntry> = backends.iter().map(entry).collect();
        let known = geography.as_ref().map(|files| files.geography().clone());
        let first = first_table(settings, &mut entries, known.as_ref(), &clock, (now, wall));
        let mut metrics = BalancerMetrics::default();
        let publisher = Arc::new(TablePublisher::new(first, metrics.ranking.tables_lost.clone()));
        metrics.registry.register_collector(Box::new(TableCollector {
            publisher: Arc::clone(&publisher),
            orders: Arc::clone(&orders),
            sources: sources_report.clone(),
            log_lines_lost: access_log.as_ref().map(AccessLog::lost).unwrap_or_default(),
            most_backends: settings.metrics_backends,
            workers: Arc::clone(&metrics.workers),
        }));
        let resolver = Resolver::default();
        let help = "Lookups of names that were not started because too many were running";
        metrics.registry.register("lookups_refused", help, resolver.refused());
        let ranking = ranking_plan(settings, &publisher, clock, &metrics, identity, known);
        let probes = ProbePlan::new(settings.probes.clone(), probe_resources(&resolver, &metrics));
        let fleet = fleet.map(|plan| {
            let (zone, orders) = (settings.zone.clone().unwrap_or_default(), Arc::clone(&orders));
            let (metrics, resolver) = (FleetMetrics::register(&mut metrics.registry), resolver.clone());
            move |ranking| plan.actor(zone, resolver, ranking, orders, metrics, now)
        });
        let (sizes, size_plan) = sizes(settings, &publisher, clock, &resolver, &metrics).unzip();
        let of = |list| presence(list, settings, &publisher, &resolver, state.clone(), &mut metrics);
        let (presence, presence_plan) = catalogue.map(of).unzip();
        let (statistics, statistics_plan) = statistics(settings, &publisher, state.clone(), &mut metrics);
        let of = |files| {
            let metrics = GeographyMetrics::register(&mut metrics.registry);
            Locator::new(files, Arc::clone(&publisher), resolver.clone(), metrics)
        };
        let locator = geography.map(of);
        let (budget, interval) = (settings.ranking.probe_budget, metrics.ranking.probe_interval.clone());
        let (arbiter, arbiter_ended) = start_arbiter();
        if let Some(folder) = state.clone() {
            let (tables, failures) = (Arc::clone(&publisher), metrics.state_writes_failed.clone());
            arbiter.spawn(saving::keep(folder, tables, sources_report.clone(), clock, failures));
        }
        if let Some(webhook) = settings.webhook.clone() {
            let publisher = Arc::clone(&publisher);
            arbiter
                .spawn_fn(move || drop(actix_rt::spawn(webhook::notify(webhook, publisher, certificates))));
        }
        let (sender, settings_changes) = mpsc::channel(1);
        let supervisor = Supervisor::new(RestartPolicy::default(), metrics.supervision.clone());
        let (own, own_orders) = (supervisor.clone(), Arc::clone(&orders));
        arbiter.spawn_fn(move || {
            let list = ListChanged { backends, orders: book };
            let ranking = RankingActor::new(ranking, list, slab, SmallRng::from_rng(&mut rand::rng()));
            let ranking = own.start(ActorKind::Ranking, "ranking", ranking);
            if let Some(actor) = fleet {
                let _ = own.start(ActorKind::Fleet, "fleet", actor(ranking.clone().recipient()));
            }
            start_lookups(&own, size_plan, presence_plan, statistics_plan, locator, &ranking);
            let (plan, supervisor) = (Arc::new(probes), own.clone());
            let probe_manager =
                ProbeManager { plan, budget, ranking, supervisor, interval, probes: HashMap::new() };
            actix_rt::spawn(end_overdue_orders(Arc::clone(&own_orders)));
            let following = follow(sources, probe_manager, own_orders, changes, settings_changes);
            actix_rt::spawn(own.guard("the list of servers", following));
        });
        Self(Arc::new(BalancerState {
            answers: Arc::new(ArcSwap::from_pointee(answer_plan(settings, clock, &metrics, None))),
            clock,
            changes: sender,
            reloads: Arc::default(),
            publisher,
            orders,
            name,
            zone: settings.zone.clone(),
            state,
            access_log,
            sizes,
            presence,
            sources: sources_report,
            supervisor,
            metrics: Arc::new(metrics),
            statistics,
            arbiter,
            arbiter_ended,
        }))
    }

    /// The redirect service, for any number of `App`s and workers.
    #[must_use]
    pub fn redirects(&self) -> Redirects {
        Redirects::new(Arc::clone(&self.0))
    }

    /// Whether every backend of the first list has been probed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.publisher.is_first_round_complete()
    }

    /// Waits until every backend of the first list has been probed, for a limited time.
    pub(crate) async fn first_round(&self) {
        let round = async {
            while !self.is_ready() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // A longer list is redirected to like after a start.
        let _ = tokio::time::timeout(FIRST_ROUND, round).await;
    }

    /// The backends and their state, with the content of `/api/v1/backends` of the program.
    #[must_use]
    pub fn status(&self) -> StatusReport {
        self.0.report(&self.0.publisher.latest())
    }

    /// The metrics in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.0.metrics.encode()
    }

    /// Replaces the settings that can change while the balancer runs. Returns once they are in force; the workers use them
    /// from their next requests on.
    pub(crate) async fn change(&self, settings: &BalancerSettings) {
        let (done, is_done) = oneshot::channel();
        let before = self.0.answers.load_full();
        self.0.answers.store(Arc::new(answer_plan(settings, self.0.clock, &self.0.metrics, Some(&before))));
        let (ranking, probes) = (settings.ranking.clone(), settings.probes.clone());
        let change = SettingsChanged { ranking, probes, done };
        // Both fail only if the balancer ends.
        if self.0.changes.send(change).await.is_ok() {
            let _ = is_done.await;
        }
    }

    /// Writes the state for the next run, if the balancer has a folder for it.
    pub(crate) fn save_state(&self) {
        let folder = self.0.state.as_ref().filter(|folder| !folder.is_released());
        let (table, sources) = (self.0.publisher.latest(), self.0.sources.latest());
        let saving = folder.map(|folder| saving::save(folder, &table, &sources, &self.0.clock));
        if let Some(Err(error)) = saving {
            tracing::error!(%error, "the state cannot be written; the next start uses an older one");
        }
    }

    /// Writes the statistics, if the balancer has a folder for them.
    pub(crate) async fn save_statistics(&self) {
        self.0.statistics.save().await;
    }

    /// Ends the actors, and waits for their end for a limited time. A child process of a scan ends with them; it would outlive a
    /// program that ended first.
    pub(crate) async fn end(&self) {
        self.0.arbiter.stop();
        let _ = tokio::time::timeout(LONGEST_END, self.0.arbiter_ended.clone().changed()).await;
    }

    /// The orders and the state, for a new process.
    pub(in crate::balancer) fn estate(&self) -> BalancerEstate {
        BalancerEstate(Arc::clone(&self.0))
    }

    /// Waits until an actor panics so often that it is no longer restarted. The balancer then answers from its last
    /// table; the program should end.
    pub async fn failed(&self) -> SupervisionFailure {
        self.0.supervisor.failed().await
    }
}

fn ranking_plan(
    settings: &BalancerSettings,
    publisher: &Arc<TablePublisher>,
    clock: policy::MonotonicClock,
    metrics: &BalancerMetrics,
    fleet: Option<FleetIdentity>,
    geography: Option<Geography>,
) -> RankingPlan {
    RankingPlan {
        publisher: Arc::clone(publisher),
        settings: settings.ranking.clone(),
        clock,
        metrics: metrics.ranking.clone(),
        zone: settings.zone.clone(),
        fleet,
        geography,
        spill_factor: settings.geography.spill_factor,
    }
}

/// The table before the first probes, now being `(now, wall)`.
fn first_table(
    settings: &BalancerSettings,
    entries: &mut [BackendEntry],
    geography: Option<&Geography>,
    clock: &policy::MonotonicClock,
    (now, wall): (Instant, SystemTime),
) -> RoutingTable {
    let (policy, checks) = (settings.ranking.policy, &settings.ranking.health_check);
    let mut random = SmallRng::from_rng(&mut rand::rng());
    let mut table = RoutingTable::build(0, entries, policy, checks, clock, now, &mut random);
    let reach = Reach::new(0, entries, geography, &ServerAddresses::new(), settings.geography.spill_factor);
    table.reach =
        reach.map(|reach| TableReach::new(reach.into(), entries, policy, clock.timestamp(now), wall));
    table
}

/// The plan of these settings. It keeps from the plan `before` the memory, and the challenges, whose service cannot change.
fn answer_plan(
    settings: &BalancerSettings,
    clock: policy::MonotonicClock,
    metrics: &BalancerMetrics,
    before: Option<&AnswerPlan>,
) -> AnswerPlan {
    let memory = || {
        let earlier = before.and_then(|before| before.memory.clone());
        earlier.unwrap_or_else(|| RetryAvoidance::new(metrics.failures_replaced.clone()).into())
    };
    let RankingSettings { policy, health_check, .. } = settings.ranking;
    AnswerPlan {
        status: settings.status,
        alternates: settings.alternates,
        trusted_proxies: settings.trusted_proxies.clone(),
        memory: (policy != PolicyName::Hash).then(memory),
        second_chance: settings.second_chance,
        retry_after: HeaderValue::from(health_check.interval.as_secs().max(1)),
        pages: Pages::built_in(),
        serves_challenges: before.map_or(settings.acme_webroot.is_some(), |before| before.serves_challenges),
        clock,
        policy,
        health_check,
    }
}
