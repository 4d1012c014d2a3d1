//! The orders and the remembered state of a balancer, which a hand-over gives to the new process.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::orders::{OrderBook, OrderRecord};
use super::redirect::BalancerState;
use super::snapshot::{RememberedState, Snapshot};
use crate::handover::Estate;
use crate::telemetry::chain;

/// The heritage as it is sent.
#[derive(Serialize)]
struct SentHeritage {
    orders: Vec<OrderRecord>,
    state: Snapshot,
}

#[derive(Deserialize)]
struct ReadHeritage {
    orders: Vec<serde_json::Value>,
    state: serde_json::Value,
}

/// The heritage of a balancer, with and without a state folder.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) orders: OrderBook,
    pub(crate) state: RememberedState,
}

impl Inheritance {
    /// Reads the heritage of another process, which may have another version. `None` if its orders cannot be read.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let heritage: ReadHeritage = serde_json::from_slice(bytes)
            .inspect_err(|error| tracing::error!(%error, "the orders of the old process cannot be read"))
            .ok()?;
        let (orders, unreadable) = OrderBook::from_records(heritage.orders);
        if unreadable > 0 {
            tracing::error!(
                unreadable,
                "orders of another version cannot be read; drained servers may get clients"
            );
        }
        let state = serde_json::from_value::<Snapshot>(heritage.state)
            .inspect_err(|error| tracing::warn!(%error, "the state of the old process cannot be read"));
        Some(Self { orders, state: state.map(Snapshot::into_memory).unwrap_or_default() })
    }
}

/// The estate of a running balancer.
pub(in crate::balancer) struct BalancerEstate(pub(in crate::balancer) Arc<BalancerState>);

impl Estate for BalancerEstate {
    async fn release(&self) -> Vec<u8> {
        let state = &self.0;
        let orders = state.orders.release().await.records();
        state.statistics.save().await;
        if let Some(folder) = &state.state {
            folder.release();
        }
        let (table, sources) = (state.publisher.latest(), state.sources.latest());
        let snapshot = Snapshot::of(&table, &sources, &state.clock, Instant::now(), SystemTime::now());
        // It is text and numbers, so serialization cannot fail.
        serde_json::to_vec(&SentHeritage { orders, state: snapshot }).unwrap_or_default()
    }

    async fn reclaim(&self) {
        let state = &self.0;
        if let Some(Err(error)) = state.state.as_ref().map(|folder| folder.reclaim()) {
            tracing::error!(error = chain(&error), "orders and state are no longer stored");
        }
        state.orders.reclaim().await;
    }
}
