//! Health, estimates, counters and history of all backends, and the lists of their sources, in the form of the state file. Pure.

pub(crate) mod saving;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::balancer::backends::BackendId;
use crate::balancer::health::RememberedHealth;
use crate::balancer::history::History;
use crate::balancer::policy::{MonotonicClock, RememberedLoad};
use crate::balancer::ranking::estimate::RememberedEstimate;
use crate::balancer::ranking::table::{BackendEntry, RoutingTable};
use crate::balancer::sources::ReportedSources;
use crate::load_report::MOST_COUNTED;

/// The state of all backends at one time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// The time since 1970.
    saved_at: Duration,
    backends: Vec<RememberedBackend>,
    #[serde(default)]
    sources: HashMap<String, Vec<String>>,
}

/// The state of one backend.
#[derive(Debug, Serialize, Deserialize)]
struct RememberedBackend {
    backend: String,
    health: RememberedHealth,
    estimate: RememberedEstimate,
    #[serde(flatten)]
    load: RememberedLoad,
    history: History,
}

impl Snapshot {
    /// The state of the backends of a table. `now` and `wall` are the current time by both clocks.
    pub(crate) fn of(
        table: &RoutingTable,
        sources: &ReportedSources,
        clock: &MonotonicClock,
        now: Instant,
        wall: SystemTime,
    ) -> Self {
        let remembered = |entry: &BackendEntry| {
            let mut history = History::clone(&entry.history);
            history.count(entry.health.state(), wall);
            RememberedBackend {
                backend: entry.backend.id().to_string(),
                health: entry.health.remember(now),
                estimate: entry.estimate.remember(now),
                load: entry.load.remember(clock.timestamp(now)),
                history,
            }
        };
        let saved_at = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let backends = table.entries.iter().map(remembered).collect();
        Self { saved_at, backends, sources: sources.remember() }
    }

    /// The remembered state, by backend.
    pub(crate) fn into_memory(self) -> RememberedState {
        let backends = self.backends.into_iter().map(|backend| (backend.backend.clone(), backend));
        RememberedState { saved_at: self.saved_at, backends: backends.collect(), sources: self.sources }
    }
}

/// The remembered state of backends that have not been restored yet.
#[derive(Debug, Default)]
pub(crate) struct RememberedState {
    saved_at: Duration,
    backends: HashMap<String, RememberedBackend>,
    /// The last good answers of the sources, by name, as lines of the list.
    pub(crate) sources: HashMap<String, Vec<String>>,
}

impl RememberedState {
    /// Restores the state of a backend before its first probe, if it is known; now being `(now, wall)`.
    pub(crate) fn restore(
        &mut self,
        entry: &mut BackendEntry,
        clock: &MonotonicClock,
        now: Instant,
        wall: SystemTime,
    ) {
        let id: &BackendId = entry.backend.id();
        let Some(remembered) = self.backends.remove(id.as_str()) else { return };
        let saved_at = SystemTime::UNIX_EPOCH.checked_add(self.saved_at);
        let age = saved_at.and_then(|saved_at| wall.duration_since(saved_at).ok()).unwrap_or_default();
        // Ages in the snapshot refer to this instant.
        let saved_at = now.checked_sub(age).unwrap_or(now);
        // Another program may have written any number.
        let redirects = remembered.load.redirects.min(MOST_COUNTED);
        let mut load = remembered.load;
        load.redirects = redirects;
        entry.restore_load(&load, age, clock.timestamp(now));
        entry.health = remembered.health.restore(saved_at);
        entry.estimate = remembered.estimate.restore(saved_at, redirects);
        let mut history = remembered.history;
        // The time between the snapshot and now was not observed.
        history.count(entry.health.state(), wall);
        entry.history = Arc::new(history);
    }
}

#[cfg(test)]
mod tests;
