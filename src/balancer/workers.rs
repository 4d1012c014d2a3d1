//! The HTTP workers: each has a `RedirectHandler`, which holds its table, and a service that reads it.

use std::net::TcpListener;
use std::sync::Arc;

use actix::{Actor, Arbiter};
use actix_http::{HttpService, Request};
use actix_server::Server;
use actix_service::{fn_factory, fn_service};
use arc_swap::ArcSwap;
use futures_util::future::ready;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::balancer::admin::metrics::BalancerMetrics;
use crate::balancer::ranking::publication::Publication;
use crate::balancer::redirect::service::{AnswerPlan, RedirectService};
use crate::balancer::redirect::{CurrentTable, RedirectHandler};
use crate::balancer::settings::BalancerSettings;
use crate::supervision::{ActorKind, Guardian, Seat};

/// What every HTTP worker is started with.
#[derive(Clone)]
pub struct Workers {
    /// How it answers.
    pub plan: AnswerPlan,
    /// Where its tables come from.
    pub publication: Arc<Publication>,
    /// Who brings its actor back.
    pub guardian: Guardian,
    /// Where it counts.
    pub metrics: Arc<BalancerMetrics>,
}

impl Workers {
    /// Serves redirects on `listener`.
    pub fn serve(self, listener: TcpListener, settings: &BalancerSettings) -> std::io::Result<Server> {
        let workers = self;
        let server = Server::build()
            .workers(settings.workers)
            .shutdown_timeout(settings.shutdown_timeout.as_secs())
            .disable_signals()
            .listen("redirects", listener, move || {
                let workers = workers.clone();
                HttpService::build()
                    .h1(fn_factory(move || {
                        let service = std::rc::Rc::new(workers.start());
                        ready(Ok::<_, ()>(fn_service(move |request: Request| {
                            ready(Ok::<_, std::convert::Infallible>(service.answer(&request)))
                        })))
                    }))
                    .tcp()
            })?
            .run();
        Ok(server)
    }

    /// One worker's service; called on the worker's own thread.
    fn start(&self) -> RedirectService {
        let current: CurrentTable = Arc::new(ArcSwap::new(self.publication.latest()));
        let seat = Seat::<RedirectHandler>::default();
        self.publication.subscribe(&seat.outlet());
        let arbiter = Arbiter::current();
        let (table, publication) = (Arc::clone(&current), Arc::clone(&self.publication));
        let leash = self.guardian.supervise(ActorKind::Redirect, "worker".into(), &seat, move |lifeline| {
            let (table, publication) = (Arc::clone(&table), Arc::clone(&publication));
            RedirectHandler::start_in_arbiter(&arbiter, move |_| {
                RedirectHandler::new(table, &publication, lifeline)
            })
        });
        let random = SmallRng::from_rng(&mut rand::rng());
        RedirectService::new(self.plan.clone(), current, self.metrics.worker(), random, leash)
    }
}
