//! How a routing table reaches the HTTP workers, the status API and a ranking that is started anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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
    is_first_round_in: AtomicBool,
}

impl Publication {
    /// Begins with `table`; `lost` counts tables that a worker could not take.
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

    /// Whether a table was published in which every backend had been probed. It stays so: servers that join the list
    /// later are not chosen from before they answer, so what could be answered before still can.
    #[must_use]
    pub fn is_first_round_in(&self) -> bool {
        self.is_first_round_in.load(Relaxed)
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
        if !self.is_first_round_in() && table.are_all_probed() {
            self.is_first_round_in.store(true, Relaxed);
        }
        for worker in self.workers.load().iter() {
            if worker(Publish(Arc::clone(table))).is_err() {
                self.lost.inc();
            }
        }
    }
}
