//! The request path: the choice of a backend for a client, and the answer.
//!
//! `RedirectHandler` is the actor of one HTTP worker. It owns the routing table of its worker; the [`service`] of the
//! worker reads the table on the same thread. [`mount`] adds the service to an actix-web application.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Arbiter, Context, Handler, Supervised};

use crate::balancer::health::HealthCheckConfig;
use crate::balancer::metrics::BalancerMetrics;
use crate::balancer::orders::store::Orders;
use crate::balancer::policy::PolicyName;
use crate::balancer::presence::Presence;
use crate::balancer::ranking::publisher::{TablePublisher, TableUpdate};
use crate::balancer::ranking::table::RoutingTable;
use crate::balancer::sizes::Sizes;
use crate::balancer::state_folder::StateFolder;
use crate::http::access_log::AccessLog;
use crate::supervision::Supervisor;

pub(crate) mod acme;
pub(crate) mod answer;
pub(crate) mod avoid;
pub(crate) mod client;
mod documents;
pub(crate) mod explain;
pub(crate) mod fast_path;
pub(crate) mod location;
pub(crate) mod mount;
pub(crate) mod path_samples;
mod range;
pub(crate) mod service;

use path_samples::PathSamples;
use service::AnswerPlan;

/// The state that the services of all workers share.
pub(in crate::balancer) struct BalancerState {
    pub(in crate::balancer) answers: AnswerPlan,
    pub(in crate::balancer) policy: PolicyName,
    /// Without the stretch of a long list.
    pub(in crate::balancer) health_check: HealthCheckConfig,
    pub(in crate::balancer) publisher: Arc<TablePublisher>,
    pub(in crate::balancer) orders: Arc<Orders>,
    pub(in crate::balancer) state: Option<Arc<StateFolder>>,
    pub(in crate::balancer) access_log: Option<AccessLog>,
    /// The sizes of files; `None` if they are not looked up.
    pub(in crate::balancer) sizes: Option<Sizes>,
    /// The files of mirrors; `None` without a catalogue.
    pub(in crate::balancer) presence: Option<Arc<Presence>>,
    pub(in crate::balancer) supervisor: Supervisor,
    pub(in crate::balancer) metrics: Arc<BalancerMetrics>,
    pub(in crate::balancer) path_samples: PathSamples,
    pub(in crate::balancer) arbiter: Arbiter,
}

impl Drop for BalancerState {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}

/// The routing table of one worker. Only its `RedirectHandler` replaces it, between two requests.
pub(crate) type CurrentTable = Rc<RefCell<Arc<RoutingTable>>>;

/// Owns the table of one HTTP worker and replaces it with each [`TableUpdate`]. The table survives a restart.
pub(crate) struct RedirectHandler(CurrentTable);

impl Actor for RedirectHandler {
    type Context = Context<Self>;
}

impl Supervised for RedirectHandler {}

impl Handler<TableUpdate> for RedirectHandler {
    type Result = ();

    fn handle(&mut self, TableUpdate(table): TableUpdate, _: &mut Context<Self>) {
        self.0.replace(table);
    }
}
