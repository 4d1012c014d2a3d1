//! The request path: the choice of a backend for a client, and the answer.
//!
//! `RedirectHandler` is the actor of one HTTP worker. It owns the routing table of its worker; the [`service`] of the
//! worker reads the table on the same thread. [`mount`] adds the service to an actix-web application.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Arbiter, Context, Handler, Supervised};
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::balancer::metrics::BalancerMetrics;
use crate::balancer::orders::store::Orders;
use crate::balancer::policy::MonotonicClock;
use crate::balancer::presence::Presence;
use crate::balancer::probe::ProbeSettings;
use crate::balancer::ranking::RankingSettings;
use crate::balancer::ranking::publisher::{TablePublisher, TableUpdate};
use crate::balancer::ranking::table::RoutingTable;
use crate::balancer::sizes::Sizes;
use crate::balancer::sources::SourcesReport;
use crate::balancer::state_folder::StateFolder;
use crate::balancer::statistics::Statistics;
use crate::http::access_log::AccessLog;
use crate::settings::reload::ReloadRecord;
use crate::supervision::Supervisor;

pub(crate) mod acme;
pub(crate) mod answer;
pub(crate) mod avoid;
mod choice;
pub(crate) mod client;
mod client_reach;
mod documents;
pub(crate) mod explain;
pub(crate) mod fast_path;
pub(crate) mod location;
pub(crate) mod mount;
mod range;
pub(crate) mod service;

use service::AnswerPlan;

/// The state that the services of all workers share.
pub(in crate::balancer) struct BalancerState {
    pub(in crate::balancer) answers: Arc<ArcSwap<AnswerPlan>>,
    pub(in crate::balancer) clock: MonotonicClock,
    pub(in crate::balancer) changes: mpsc::Sender<SettingsChanged>,
    pub(in crate::balancer) reloads: Arc<ReloadRecord>,
    pub(in crate::balancer) publisher: Arc<TablePublisher>,
    pub(in crate::balancer) orders: Arc<Orders>,
    /// The name of the balancer in its fleet; `None` if it works alone.
    pub(in crate::balancer) name: Option<Arc<str>>,
    pub(in crate::balancer) zone: Option<Arc<str>>,
    pub(in crate::balancer) state: Option<Arc<StateFolder>>,
    pub(in crate::balancer) access_log: Option<AccessLog>,
    /// The sizes of files; `None` if they are not looked up.
    pub(in crate::balancer) sizes: Option<Sizes>,
    /// The files of mirrors; `None` without a catalogue.
    pub(in crate::balancer) presence: Option<Arc<Presence>>,
    pub(in crate::balancer) sources: SourcesReport,
    pub(in crate::balancer) supervisor: Supervisor,
    pub(in crate::balancer) metrics: Arc<BalancerMetrics>,
    pub(in crate::balancer) statistics: Arc<Statistics>,
    pub(in crate::balancer) arbiter: Arbiter,
    /// Closed once the thread of the arbiter has ended.
    pub(in crate::balancer) arbiter_ended: watch::Receiver<()>,
}

impl Drop for BalancerState {
    fn drop(&mut self) {
        self.arbiter.stop();
    }
}

/// Settings for the ranking and the probes, to be put into force by the task that follows the list.
#[derive(Debug)]
pub(in crate::balancer) struct SettingsChanged {
    pub(in crate::balancer) ranking: RankingSettings,
    pub(in crate::balancer) probes: ProbeSettings,
    /// Notified once the settings are in the routing table.
    pub(in crate::balancer) done: oneshot::Sender<()>,
}

/// The routing table of one worker, and the settings of its answers.
pub(crate) struct WorkerState {
    pub(super) table: Arc<RoutingTable>,
    pub(super) answers: Arc<AnswerPlan>,
}

/// The state of one worker. Only its `RedirectHandler` replaces it, between two requests.
pub(crate) type CurrentState = Rc<RefCell<WorkerState>>;

/// Owns the state of one HTTP worker and replaces it with each [`TableUpdate`]. The state survives a restart.
///
/// A table is published after each change of the settings of answers, so its update delivers these, too.
pub(crate) struct RedirectHandler {
    current: CurrentState,
    answers: Arc<ArcSwap<AnswerPlan>>,
}

impl Actor for RedirectHandler {
    type Context = Context<Self>;
}

impl Supervised for RedirectHandler {}

impl Handler<TableUpdate> for RedirectHandler {
    type Result = ();

    fn handle(&mut self, TableUpdate(table): TableUpdate, _: &mut Context<Self>) {
        self.current.replace(WorkerState { table, answers: self.answers.load_full() });
    }
}
