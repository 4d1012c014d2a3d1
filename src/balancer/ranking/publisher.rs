//! Delivery of routing tables to the HTTP workers, and the latest table for the status API and new workers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use actix::prelude::SendError;
use actix::{Message, WeakRecipient};
use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;

use super::table::RoutingTable;

/// The message that delivers a table to a worker.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct TableUpdate(pub Arc<RoutingTable>);

/// Sends each table to the `RedirectHandler` of every HTTP worker.
pub(crate) struct TablePublisher {
    latest: ArcSwap<RoutingTable>,
    /// Weak, so that a handler ends with its worker.
    workers: ArcSwap<Vec<WeakRecipient<TableUpdate>>>,
    lost: Counter,
    is_first_round_complete: AtomicBool,
}

impl TablePublisher {
    /// A publisher with a first table. `lost` counts tables that did not fit into the mailbox of a worker.
    pub(crate) fn new(table: RoutingTable, lost: Counter) -> Self {
        Self {
            // With remembered state, the first table is as good as the last one of the previous run.
            is_first_round_complete: AtomicBool::new(table.are_all_probed()),
            latest: ArcSwap::from_pointee(table),
            workers: ArcSwap::default(),
            lost,
        }
    }

    /// The latest table.
    pub(crate) fn latest(&self) -> Arc<RoutingTable> {
        self.latest.load_full()
    }

    /// Whether every backend of the first list has been probed. Never changes back to false: a backend that is added later
    /// gets no clients before its first answer, so it does not affect the redirects.
    pub(crate) fn is_first_round_complete(&self) -> bool {
        self.is_first_round_complete.load(Relaxed)
    }

    /// Sends every later table to `worker`, too, as long as an address of it exists.
    pub(crate) fn subscribe(&self, worker: &WeakRecipient<TableUpdate>) {
        self.change_workers(|workers| workers.push(worker.clone()));
    }

    /// The number of workers that receive tables.
    #[cfg(test)]
    pub(crate) fn workers(&self) -> usize {
        self.workers.load().len()
    }

    /// Replaces the latest table and sends it to every worker. A table that does not fit into a mailbox is dropped; the next
    /// one replaces it.
    pub(crate) fn publish(&self, table: &Arc<RoutingTable>) {
        self.latest.store(Arc::clone(table));
        if !self.is_first_round_complete() && table.are_all_probed() {
            self.is_first_round_complete.store(true, Relaxed);
        }
        let mut has_ended = false;
        for worker in self.workers.load().iter() {
            match worker.upgrade().map(|worker| worker.try_send(TableUpdate(Arc::clone(table)))) {
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

    fn change_workers(&self, change: impl Fn(&mut Vec<WeakRecipient<TableUpdate>>)) {
        self.workers.rcu(|workers| {
            let mut workers = Vec::clone(workers);
            change(&mut workers);
            workers
        });
    }
}

impl fmt::Debug for TablePublisher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TablePublisher")
    }
}
