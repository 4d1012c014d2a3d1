//! The request path: the choice of a backend for a client, and the answer.
//!
//! `RedirectHandler` is the actor of one HTTP worker. It owns the routing table of its worker; the [`service`] of the
//! worker reads the table on the same thread. [`mount`] adds the service to an actix-web application.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Supervised};

use crate::balancer::ranking::publisher::TableUpdate;
use crate::balancer::ranking::table::RoutingTable;

pub mod answer;
pub mod avoid;
pub mod client;
pub mod explain;
pub mod fast_path;
pub mod location;
pub mod mount;
pub mod path_samples;
pub mod service;

/// The routing table of one worker. Only its `RedirectHandler` replaces it, between two requests.
pub type CurrentTable = Rc<RefCell<Arc<RoutingTable>>>;

/// Owns the table of one HTTP worker and replaces it with each [`TableUpdate`]. The table survives a restart.
pub struct RedirectHandler(CurrentTable);

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
