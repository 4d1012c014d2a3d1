//! How a routing table reaches the HTTP workers, the status API and a ranking that is started anew.

use std::sync::Arc;

use actix::Message;
use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;

use super::table::RoutingTable;
use crate::supervision::Outlet;

/// A table for the worker that receives it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Publish(pub Arc<RoutingTable>);

/// The latest table, and those who are told of each.
pub struct Publication {
    latest: ArcSwap<RoutingTable>,
    workers: ArcSwap<Vec<Outlet<Publish>>>,
    lost: Counter,
}

impl Publication {
    /// Begins with `table`; `lost` counts tables that a worker could not take.
    #[must_use]
    pub fn new(table: RoutingTable, lost: Counter) -> Self {
        Self { latest: ArcSwap::from_pointee(table), workers: ArcSwap::default(), lost }
    }

    /// The latest table.
    #[must_use]
    pub fn latest(&self) -> Arc<RoutingTable> {
        self.latest.load_full()
    }

    /// Adds a worker, which is told of every table from now on. Workers are as many as HTTP threads and stay.
    pub fn subscribe(&self, worker: &Outlet<Publish>) {
        self.workers.rcu(|workers| {
            let mut workers = Vec::clone(workers);
            workers.push(Arc::clone(worker));
            workers
        });
    }

    /// Replaces the latest table and tells every worker. A worker that cannot take it is healed by the next.
    pub fn publish(&self, table: &Arc<RoutingTable>) {
        self.latest.store(Arc::clone(table));
        for worker in self.workers.load().iter() {
            if worker(Publish(Arc::clone(table))).is_err() {
                self.lost.inc();
            }
        }
    }
}
