//! The balancer: knows which backends are usable and how fast they are, and redirects each client to the best.
//!
//! - [`backends`]: the list of backends, and changes of it while the balancer runs.
//! - `roster`, [`probe`]: one `ProbeActor` for each backend of the list.
//! - [`health`], [`load_report`], [`ranking`]: probe results and load reports, folded by `RankingActor` into tables.
//! - [`expectation`]: the content that probes expect.
//! - [`policy`]: how one backend is chosen from a table.
//! - [`redirect`]: the request path, and `RedirectHandler`, which owns the table of one HTTP worker.
//! - [`builder`]: a balancer in any actix program; [`program`]: `fingerpost balancer`, with listeners and signals.
//! - [`admin`]: metrics, the status API, drills.
//!
//! # In a program of your own
//! A [`Balancer`] probes and ranks; [`Balancer::redirects`] is a service for any actix-web `App`:
//!
//! ```
//! use actix_web::{App, test};
//! use fingerpost::balancer::Balancer;
//!
//! # actix_web::rt::System::new().block_on(async {
//! // Its connections are never accepted, so that it stays unknown, and is used, until the first probe times out.
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

use std::collections::HashMap;
use std::sync::Arc;

use actix::Arbiter;
use actix_http::header::HeaderValue;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub mod admin;
pub mod backends;
pub mod builder;
pub mod expectation;
pub mod health;
pub mod load_report;
pub mod policy;
pub mod probe;
pub mod program;
pub mod ranking;
pub mod redirect;
mod roster;
pub mod settings;

use crate::http::client::Resolver;
use crate::http::pages::Pages;
use crate::settings::SettingsError;
use crate::supervision::{ActorKind, Failure, RestartPolicy, Supervisor};
use admin::metrics::BalancerMetrics;
use admin::status::StatusReport;
use backends::Backend;
use backends::list::Problem;
use backends::watch::{Follower, ListError};
use builder::Builder;
use policy::{LoadSlab, PolicyName};
use probe::ProbePlan;
use ranking::publication::Publication;
use ranking::table::{Member, RoutingTable};
use ranking::{RankingActor, RankingPlan};
use redirect::mount::Redirects;
use redirect::service::AnswerPlan;
use roster::Roster;
use settings::BalancerSettings;

/// Why a balancer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting has a value that makes no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The list cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// A backend given in code is wrong. Its number counts from 1.
    #[error("cannot use the backends: {0}")]
    Backends(Problem),
}

/// The origin of the list of backends.
pub(crate) enum Source {
    /// It never changes.
    Fixed(Arc<[Backend]>),
    /// A file, which is followed.
    File(Follower),
}

impl Source {
    fn backends(&self) -> Arc<[Backend]> {
        match self {
            Self::Fixed(backends) => Arc::clone(backends),
            Self::File(follower) => follower.backends(),
        }
    }

    /// Waits until another list is in force.
    async fn changed(&mut self) -> Arc<[Backend]> {
        match self {
            Self::Fixed(_) => std::future::pending().await,
            Self::File(follower) => follower.changed().await,
        }
    }
}

/// A running balancer: it follows the list, probes and ranks, on a thread of its own, as long as the balancer, a
/// [`Redirects`] or a service made of one exists.
///
/// It has no listener and handles no signal. See the [module](self) for an example.
pub struct Balancer(Arc<Shared>);

/// What the services of all workers share.
pub(in crate::balancer) struct Shared {
    answers: AnswerPlan,
    publication: Arc<Publication>,
    supervisor: Supervisor,
    metrics: Arc<BalancerMetrics>,
    arbiter: Arbiter,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}

impl Balancer {
    /// A balancer with the default settings; see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts the actors. The first probes begin at once, spread as the probe budget demands.
    pub(crate) fn start(settings: &BalancerSettings, source: Source) -> Self {
        let backends = source.backends();
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
        let mut metrics = BalancerMetrics::default();
        let publication = Arc::new(Publication::new(first, metrics.tables_lost.clone()));
        metrics.observe(Arc::clone(&publication), settings.metrics_backends);
        let supervisor = Supervisor::new(RestartPolicy::default(), metrics.supervision.clone());
        let ranking = RankingPlan {
            publication: Arc::clone(&publication),
            policy: settings.policy,
            thresholds: settings.thresholds,
            probe_budget: settings.probe_budget,
            clock,
            metrics: metrics.ranking.clone(),
        };
        let probes = ProbePlan {
            path: settings.probe_path.clone(),
            timeout: settings.probe_timeout,
            expectation: settings.probe_expect.clone(),
            interval: settings.thresholds.interval,
            slots: Semaphore::new(settings.probe_concurrency),
            resolver: Resolver::default(),
            reports: metrics.reports.clone(),
            results_lost: metrics.results_lost.clone(),
        };
        let (budget, interval) = (settings.probe_budget, metrics.probe_interval.clone());
        let arbiter = Arbiter::new();
        let own = supervisor.clone();
        arbiter.spawn_fn(move || {
            let ranking = RankingActor::new(ranking, backends, book, SmallRng::from_rng(&mut rand::rng()));
            let ranking = own.start(ActorKind::Ranking, "ranking", ranking);
            let (plan, supervisor) = (Arc::new(probes), own.clone());
            let roster = Roster { plan, budget, ranking, supervisor, interval, probes: HashMap::new() };
            actix_rt::spawn(own.guard("the list of servers", follow(source, roster)));
        });
        Self(Arc::new(Shared {
            answers: AnswerPlan {
                status: settings.status,
                alternates: settings.alternates,
                trusted_proxies: settings.trusted_proxies.clone(),
                memory: (settings.policy != PolicyName::Hash).then(Arc::default),
                returning: settings.returning,
                retry_after: HeaderValue::from(settings.thresholds.interval.as_secs().max(1)),
                pages: Pages::built_in(),
                clock,
            },
            publication,
            supervisor,
            metrics: Arc::new(metrics),
            arbiter,
        }))
    }

    /// The service that redirects, for any number of `App`s and workers.
    #[must_use]
    pub fn redirects(&self) -> Redirects {
        Redirects::new(Arc::clone(&self.0))
    }

    /// Whether every backend of the first list has been probed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.publication.is_first_round_in()
    }

    /// The backends and their state, as `/api/v1/backends` of the program shows them.
    #[must_use]
    pub fn status(&self) -> StatusReport {
        StatusReport::of(&self.0.publication.latest())
    }

    /// The metrics in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.0.metrics.encode()
    }

    /// Waits until an actor has panicked so often that it is not restarted any more. The balancer then answers from
    /// its last table; the program should end.
    pub async fn failed(&self) -> Failure {
        self.0.supervisor.failed().await
    }
}

/// Follows the list and probes its backends.
async fn follow(mut source: Source, mut roster: Roster) {
    roster.replace(&source.backends());
    loop {
        let backends = source.changed().await;
        roster.replace(&backends);
    }
}
