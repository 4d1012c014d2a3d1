//! A fleet: several balancers that share their observations through an engine (Redis or Valkey).
//!
//! A balancer publishes a [`record`] once a second. [`Observers`](observers::Observers) combines the records of the others
//! with the own health of each backend, and assigns the probes. [`outbox`] collects the own news. All three are pure.
//! [`FleetActor`](actor::FleetActor) carries records and orders. The request path does not know the fleet.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;

pub(crate) mod actor;
pub(crate) mod observers;
pub(crate) mod outbox;
pub(crate) mod record;

use observers::{Delivery, EngineCondition};
use record::{BackendNews, FleetRecord};

/// The message that brings the records of the other balancers to the ranking. The reply has the own news if a record is due.
#[derive(Debug, Message)]
#[rtype(result = "Option<OwnNews>")]
pub(crate) struct FleetExchange {
    /// Whether the engine carried out the latest exchange.
    pub(crate) engine: EngineCondition,
    /// The records since the previous message.
    pub(crate) records: Vec<(FleetRecord, Delivery)>,
    /// Whether the reply has the own news when they are due.
    pub(crate) asks: bool,
}

/// The news of this balancer.
#[derive(Debug)]
pub(crate) struct OwnNews {
    /// The time since the previous news.
    pub(crate) period: Duration,
    /// A digest of the list.
    pub(crate) list: u64,
    /// The backends with news.
    pub(crate) backends: Vec<BackendNews>,
}

/// The identity of this balancer in its fleet.
#[derive(Debug, Clone)]
pub(crate) struct FleetIdentity {
    /// Its name, unique in the fleet.
    pub(crate) name: Arc<str>,
    /// A random number of this run.
    pub(crate) boot: u64,
    /// The number of balancers that probe each backend at the full rate.
    pub(crate) probers: usize,
}
