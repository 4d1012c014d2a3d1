//! Delivery of routing tables to the HTTP workers, and the latest table for the status API and new workers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use actix::prelude::SendError;
use actix::{Message, WeakRecipient};
use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;

use super::table::RoutingTable;

/// A table for the worker that receives it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Publish(pub Arc<RoutingTable>);

/// Sends each table to the `RedirectHandler` of every HTTP worker.
pub struct Publication {
    latest: ArcSwap<RoutingTable>,
    /// Weak, so that a handler ends with its worker.
    workers: ArcSwap<Vec<WeakRecipient<Publish>>>,
    lost: Counter,
    is_first_round_in: AtomicBool,
}

impl Publication {
    /// Begins with `table`; `lost` counts tables for which a worker's mailbox had no room.
    #[must_use]
    pub fn new(table: RoutingTable, lost: Counter) -> Self {
        Self {
            latest: ArcSwap::from_pointee(table),
            workers: ArcSwap::default(),
            lost,
            is_first_round_in: AtomicBool::new(false),
        }
    }

    /// The latest table.
    #[must_use]
    pub fn latest(&self) -> Arc<RoutingTable> {
        self.latest.load_full()
    }

    /// Whether a table was published in which every backend had been probed. It stays so: a backend that joins the
    /// list later is not chosen before its first answer, so requests can be answered as before.
    #[must_use]
    pub fn is_first_round_in(&self) -> bool {
        self.is_first_round_in.load(Relaxed)
    }

    /// Sends every table from now on to `worker` too, as long as an address of it exists.
    pub fn subscribe(&self, worker: &WeakRecipient<Publish>) {
        self.change_workers(|workers| workers.push(worker.clone()));
    }

    /// The number of workers that receive tables.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.load().len()
    }

    /// Replaces the latest table and sends it to every worker. If a mailbox is full, the next table makes up for it.
    pub fn publish(&self, table: &Arc<RoutingTable>) {
        self.latest.store(Arc::clone(table));
        if !self.is_first_round_in() && table.are_all_probed() {
            self.is_first_round_in.store(true, Relaxed);
        }
        let mut has_ended = false;
        for worker in self.workers.load().iter() {
            match worker.upgrade().map(|worker| worker.try_send(Publish(Arc::clone(table)))) {
                Some(Ok(())) => {}
                Some(Err(SendError::Full(_))) => drop(self.lost.inc()),
                Some(Err(SendError::Closed(_))) | None => has_ended = true,
            }
        }
        if has_ended {
            self.change_workers(|workers| {
                workers.retain(|worker| worker.upgrade().is_some_and(|worker| worker.connected()));
            });
        }
    }

    fn change_workers(&self, change: impl Fn(&mut Vec<WeakRecipient<Publish>>)) {
        self.workers.rcu(|workers| {
            let mut workers = Vec::clone(workers);
            change(&mut workers);
            workers
        });
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Publication")
    }
}
