//! Reads and writes the state file.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::{RememberedState, Snapshot};
use crate::balancer::health::State;
use crate::balancer::policy::MonotonicClock;
use crate::balancer::ranking::publisher::TablePublisher;
use crate::balancer::ranking::table::RoutingTable;
use crate::balancer::sources::{ReportedSources, SourcesReport};
use crate::balancer::state_folder::{FileContent, STATE_FILE, StateFolder};
use crate::telemetry::chain;

const VERSION: u32 = 1;

/// The longest time between two writes. A crash loses the estimates and counters of this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// The time between two writes if the state of a backend has changed.
const CHANGED_INTERVAL: Duration = Duration::from_secs(1);

/// A longer list is written less often: this time for each backend, ten times the cost of its part of the file.
const INTERVAL_PER_BACKEND: Duration = Duration::from_micros(200);

/// Reads the remembered state. A file that is not usable is moved aside.
pub(crate) fn load(folder: &StateFolder) -> RememberedState {
    let reason = match folder.read(STATE_FILE) {
        FileContent::Missing => return RememberedState::default(),
        FileContent::Damaged(reason) => reason,
        FileContent::Valid { version: VERSION, body } => match serde_json::from_slice::<Snapshot>(&body) {
            Ok(snapshot) => return snapshot.into_memory(),
            Err(error) => error.to_string(),
        },
        FileContent::Valid { version, .. } => {
            format!("another version of fingerpost wrote it (format {version})")
        }
    };
    folder.set_aside(STATE_FILE, &reason);
    RememberedState::default()
}

/// Writes the state of the backends of a table, and the lists of the sources.
pub(crate) fn save(
    folder: &StateFolder,
    table: &RoutingTable,
    sources: &ReportedSources,
    clock: &MonotonicClock,
) -> io::Result<()> {
    let snapshot = Snapshot::of(table, sources, clock, Instant::now(), SystemTime::now());
    let body = serde_json::to_vec(&snapshot)?;
    folder.write(STATE_FILE, VERSION, &body)
}

/// Writes the state regularly, and soon after a change of health. `failures` counts the writes that failed.
pub(crate) async fn keep(
    folder: Arc<StateFolder>,
    publisher: Arc<TablePublisher>,
    sources: SourcesReport,
    clock: MonotonicClock,
    failures: Counter,
) {
    let mut saved_at = Instant::now();
    let mut saved_states = states(&publisher.latest());
    let mut is_failing = false;
    loop {
        tokio::time::sleep(CHANGED_INTERVAL).await;
        let table = publisher.latest();
        let latest_states = states(&table);
        let needed = if latest_states == saved_states { INTERVAL } else { CHANGED_INTERVAL };
        let shortest = INTERVAL_PER_BACKEND.saturating_mul(table.entries.len() as u32);
        if saved_at.elapsed() < needed.max(shortest) || folder.is_released() {
            continue;
        }
        let (own, sources) = (Arc::clone(&folder), sources.latest());
        let saving = actix_rt::task::spawn_blocking(move || save(&own, &table, &sources, &clock)).await;
        (saved_at, saved_states) = (Instant::now(), latest_states);
        match saving.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => is_failing = false,
            Err(error) => {
                failures.inc();
                // A full disk must not fill the log.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(
                        error = chain(&error),
                        "the state cannot be written; a restart would use an older one"
                    );
                }
            }
        }
    }
}

fn states(table: &RoutingTable) -> Vec<State> {
    table.entries.iter().map(|entry| entry.health.state()).collect()
}
