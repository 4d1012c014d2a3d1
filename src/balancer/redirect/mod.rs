//! The redirect: the choice of a backend for a client, and the answer.
//!
//! `RedirectHandler` is the actor of one HTTP worker. It owns the routing table of its worker; the worker's
//! [`service`] reads the table on the same thread. [`mount`] puts the service into an actix-web application.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Supervised};

use crate::balancer::ranking::publication::Publish;
use crate::balancer::ranking::table::RoutingTable;

pub mod answer;
pub mod avoid;
pub mod client;
pub mod location;
pub mod mount;
pub mod service;
pub mod shortcut;

/// The table that one worker chooses from. Only its `RedirectHandler` replaces it, between two requests.
pub type CurrentTable = Rc<RefCell<Arc<RoutingTable>>>;

/// Owns the table of one HTTP worker, and replaces it with each [`Publish`]. A restart keeps the table.
pub struct RedirectHandler(CurrentTable);

impl Actor for RedirectHandler {
    type Context = Context<Self>;
}

impl Supervised for RedirectHandler {}

impl Handler<Publish> for RedirectHandler {
    type Result = ();

    fn handle(&mut self, Publish(table): Publish, _: &mut Context<Self>) {
        self.0.replace(table);
    }
}
