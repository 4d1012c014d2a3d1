//! The redirect: which backend a client is sent to, and how that is said.
//!
//! `RedirectHandler` is the actor of one HTTP worker: it receives routing tables and holds the current one for the
//! worker's [`service`], which reads it without waiting for anybody.

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use arc_swap::ArcSwap;

use crate::balancer::ranking::publication::{Publication, Publish};
use crate::balancer::ranking::table::RoutingTable;
use crate::supervision::{Lifeline, Panic};

pub mod answer;
pub mod avoid;
pub mod location;
pub mod service;
pub mod shortcut;

/// The table that one worker chooses from; written by its `RedirectHandler` alone.
pub type CurrentTable = Arc<ArcSwap<RoutingTable>>;

/// Holds the current table of one HTTP worker.
pub struct RedirectHandler {
    current: CurrentTable,
    _lifeline: Lifeline,
}

impl RedirectHandler {
    /// Begins with the latest table, so that a restart misses none.
    #[must_use]
    pub fn new(current: CurrentTable, publication: &Publication, lifeline: Lifeline) -> Self {
        current.store(publication.latest());
        Self { current, _lifeline: lifeline }
    }
}

impl Actor for RedirectHandler {
    type Context = Context<Self>;
}

impl Handler<Publish> for RedirectHandler {
    type Result = ();

    fn handle(&mut self, Publish(table): Publish, _: &mut Context<Self>) {
        // Two threads may have published in turn while this one was restarted; an older table must not win.
        if table.generation >= self.current.load().generation {
            self.current.store(table);
        }
    }
}

impl Handler<Panic> for RedirectHandler {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Context<Self>) {
        Panic::now();
    }
}
