//! The settings of a server that can change while it runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::admission::Connections;
use super::pace::Pace;
use super::{Limits, Pages};

/// The settings that each worker replaces when they change.
#[derive(Debug, Clone)]
pub(super) struct Changeable {
    pub(super) limits: Limits,
    pub(super) pages: Pages,
    /// The limit of the rate; `None` without one.
    pub(super) pace: Option<Arc<Pace>>,
}

/// Changes the settings of a server while it runs.
#[derive(Debug, Clone)]
pub(crate) struct ServingControl {
    pub(super) connections: Arc<Connections>,
    changeable: watch::Sender<Arc<Changeable>>,
}

impl ServingControl {
    pub(super) fn new(limits: Limits, pages: Pages) -> (Self, watch::Receiver<Arc<Changeable>>) {
        let connections = Arc::new(Connections::new(limits.connections, limits.connections_per_address));
        let pace = limits.rate.map(Pace::new).map(Arc::new);
        let (changeable, receiver) = watch::channel(Arc::new(Changeable { limits, pages, pace }));
        (Self { connections, changeable }, receiver)
    }

    /// The time after which an idle connection closes.
    pub(crate) fn keep_alive(&self) -> Duration {
        self.changeable.borrow().limits.keep_alive
    }

    /// Replaces the limits and pages, for open connections too. A lower limit of connections ends no connection.
    pub(crate) fn change(&self, limits: Limits, pages: Pages) {
        self.connections.set_limits(limits.connections, limits.connections_per_address);
        self.changeable.send_modify(|changeable| {
            let pace = if limits.rate == changeable.limits.rate {
                changeable.pace.clone()
            } else {
                limits.rate.map(Pace::new).map(Arc::new)
            };
            *changeable = Arc::new(Changeable { limits, pages, pace });
        });
    }
}
