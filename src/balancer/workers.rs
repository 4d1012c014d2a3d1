//! The HTTP workers: each has a `RedirectHandler`, which holds its table, and a service that reads it.

use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Arbiter};
use actix_http::body::BoxBody;
use actix_http::{Request, Response};
use actix_service::fn_service;
use arc_swap::ArcSwap;
use futures_util::future::ready;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::balancer::admin::metrics::BalancerMetrics;
use crate::balancer::ranking::publication::Publication;
use crate::balancer::redirect::service::{AnswerPlan, RedirectService};
use crate::balancer::redirect::{CurrentTable, RedirectHandler};
use crate::balancer::settings::BalancerSettings;
use crate::http::listener::Listener;
use crate::http::stop::StopHandle;
use crate::http::transport::{FastPath, Limits, Serving, Transport};
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
    /// Serves redirects on `listeners`.
    pub fn serve(
        self,
        listeners: Vec<Listener>,
        settings: &BalancerSettings,
        stop: StopHandle,
    ) -> std::io::Result<Serving> {
        let transport = Transport {
            name: "redirects",
            workers: settings.workers,
            limits: Limits {
                connections: settings.max_connections,
                connections_per_address: settings.max_connections_per_address,
                ..Limits::default()
            },
            pages: self.plan.pages.clone(),
            stop,
            ..Transport::default()
        };
        transport.serve_with_fast_path(listeners, move || {
            let service = Rc::new(self.start());
            let fast_path: Rc<dyn FastPath> = Rc::clone(&service) as _;
            let slow_path = fn_service(move |request: Request| {
                ready(Ok::<_, Response<BoxBody>>(service.answer(&request)))
            });
            (slow_path, Some(fast_path))
        })
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
