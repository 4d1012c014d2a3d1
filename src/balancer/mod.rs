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
// - `policy`: the choice of a backend from a table.
// - `redirect`: the request path, and `RedirectHandler`, which owns the table of one HTTP worker.
// - `builder`: a balancer in any actix program; `program`: `fingerpost balancer`, with listeners and signals.
// - `metrics`: the metrics. `admin`: their display, the status API, fault injection.

use std::collections::HashMap;
use std::sync::Arc;

use actix::Arbiter;
use actix_http::header::HeaderValue;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(crate) mod admin;
pub(crate) mod backends;
mod builder;
pub(crate) mod expectation;
pub(crate) mod health;
mod metrics;
#[allow(unreachable_pub, reason = "to be restricted with the next change of this module")]
pub(crate) mod policy;
pub(crate) mod probe;
mod probe_manager;
pub(crate) mod program;
pub(crate) mod ranking;
pub(crate) mod redirect;
pub(crate) mod settings;

use crate::http::client::Resolver;
use crate::http::pages::Pages;
use crate::supervision::{ActorKind, RestartPolicy, Supervisor};
use admin::collector::TableCollector;
use backends::Backend;
use backends::watch::Follower;
use metrics::BalancerMetrics;
use policy::LoadSlab;
use probe::ProbePlan;
use probe_manager::ProbeManager;
use ranking::publisher::TablePublisher;
use ranking::table::{Member, RoutingTable};
use ranking::{RankingActor, RankingPlan};
use redirect::BalancerState;
use redirect::service::AnswerPlan;
use settings::BalancerSettings;

pub use crate::settings::SettingsError;
pub use crate::supervision::SupervisionFailure;
pub use admin::status::{BackendStatus, StatusReport};
pub use backends::list::ListProblem;
pub use backends::watch::ListError;
pub use builder::Builder;
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
}

/// The origin of the list of backends.
pub(crate) enum BackendSource {
    /// A list that never changes.
    Fixed(Arc<[Backend]>),
    /// A file that is followed.
    File(Follower),
}

impl BackendSource {
    fn backends(&self) -> Arc<[Backend]> {
        match self {
            Self::Fixed(backends) => Arc::clone(backends),
            Self::File(follower) => follower.backends(),
        }
    }

    /// Waits until another list is active.
    async fn changed(&mut self) -> Arc<[Backend]> {
        match self {
            Self::Fixed(_) => std::future::pending().await,
            Self::File(follower) => follower.changed().await,
        }
    }
}

/// A running balancer: it follows the list, probes and ranks on its own thread, as long as the balancer, a
/// [`Redirects`] or a service created from one exists.
///
/// It has no listener and handles no signal. See the [module](self) for an example.
pub struct Balancer(Arc<BalancerState>);

impl Balancer {
    /// Starts the actors. The first probes start at once, spread over time as the probe budget requires.
    pub(crate) fn start(settings: &BalancerSettings, source: BackendSource) -> Self {
        let backends = source.backends();
        let mut slab = LoadSlab::default();
        let members: Vec<Member> =
            backends.iter().cloned().map(|backend| Member::new(backend, &mut slab)).collect();
        let now = Instant::now();
        let clock = policy::MonotonicClock::new(now);
        let first = RoutingTable::first(
            &members,
            settings.policy,
            &settings.health_check,
            &clock,
            now,
            &mut SmallRng::from_rng(&mut rand::rng()),
        );
        let mut metrics = BalancerMetrics::default();
        let publisher = Arc::new(TablePublisher::new(first, metrics.tables_lost.clone()));
        TableCollector::register(&mut metrics, Arc::clone(&publisher), settings.metrics_backends);
        let resolver = Resolver::default();
        metrics.observe_lookups(resolver.refused());
        let supervisor = Supervisor::new(RestartPolicy::default(), metrics.supervision.clone());
        let ranking = RankingPlan {
            publisher: Arc::clone(&publisher),
            policy: settings.policy,
            health_check: settings.health_check,
            probe_budget: settings.probe_budget,
            clock,
            metrics: metrics.ranking.clone(),
        };
        let probes = ProbePlan {
            path: settings.probe_path.clone(),
            timeout: settings.probe_timeout,
            expectation: settings.probe_expect.clone(),
            interval: settings.health_check.interval,
            slots: Semaphore::new(settings.probe_concurrency),
            resolver,
            trust: settings.trust.clone(),
            reports: metrics.reports.clone(),
            results_lost: metrics.results_lost.clone(),
        };
        let (budget, interval) = (settings.probe_budget, metrics.probe_interval.clone());
        let arbiter = Arbiter::new();
        let own = supervisor.clone();
        arbiter.spawn_fn(move || {
            let ranking = RankingActor::new(ranking, backends, slab, SmallRng::from_rng(&mut rand::rng()));
            let ranking = own.start(ActorKind::Ranking, "ranking", ranking);
            let (plan, supervisor) = (Arc::new(probes), own.clone());
            let probe_manager =
                ProbeManager { plan, budget, ranking, supervisor, interval, probes: HashMap::new() };
            actix_rt::spawn(own.guard("the list of servers", follow(source, probe_manager)));
        });
        Self(Arc::new(BalancerState {
            answers: AnswerPlan {
                status: settings.status,
                alternates: settings.alternates,
                trusted_proxies: settings.trusted_proxies.clone(),
                memory: (settings.policy != PolicyName::Hash).then(Arc::default),
                retry_routing: settings.retry_routing,
                retry_after: HeaderValue::from(settings.health_check.interval.as_secs().max(1)),
                pages: Pages::built_in(),
                serves_challenges: settings.acme_webroot.is_some(),
                clock,
            },
            publisher,
            supervisor,
            metrics: Arc::new(metrics),
            arbiter,
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

    /// The backends and their state, with the content of `/api/v1/backends` of the program.
    #[must_use]
    pub fn status(&self) -> StatusReport {
        StatusReport::of(&self.0.publisher.latest())
    }

    /// The metrics in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.0.metrics.encode()
    }

    /// Waits until an actor panics so often that it is no longer restarted. The balancer then answers from its last
    /// table; the program should end.
    pub async fn failed(&self) -> SupervisionFailure {
        self.0.supervisor.failed().await
    }
}

/// Applies every change of the list to the probe manager.
async fn follow(mut source: BackendSource, mut probe_manager: ProbeManager) {
    probe_manager.replace(&source.backends());
    loop {
        let backends = source.changed().await;
        probe_manager.replace(&backends);
    }
}
