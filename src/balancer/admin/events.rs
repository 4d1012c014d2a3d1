//! The events of the backends, and their availability, for operators.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::balancer::backends::BackendId;
use crate::balancer::history::{AvailabilityShares, Change, HistoryEvent};
use crate::balancer::ranking::table::{BackendEntry, RoutingTable};

/// The number of events in an answer, if the request names no limit.
const DEFAULT_LIMIT: usize = 100;

/// The largest number of events in an answer.
const MOST_EVENTS: usize = 10_000;

/// The content of `/api/v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventReport {
    /// The latest events, newest first.
    pub events: Vec<BackendEvent>,
    /// The availability of each backend, in the order of the list.
    pub availability: Vec<BackendAvailability>,
}

/// An event of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackendEvent {
    /// The address of the backend.
    pub backend: String,
    /// The event.
    #[serde(flatten)]
    pub event: HistoryEvent,
}

/// The availability of one backend, 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BackendAvailability {
    /// The address of the backend.
    pub backend: String,
    /// The shares.
    #[serde(flatten)]
    pub availability: AvailabilityShares,
}

fn wanted<'a>(
    table: &'a RoutingTable,
    backend: Option<&'a BackendId>,
) -> impl Iterator<Item = &'a BackendEntry> {
    table.entries.iter().filter(move |entry| backend.is_none_or(|id| entry.backend.id() == id))
}

/// The latest events of all backends, or of one, newest first.
pub(super) fn latest(table: &RoutingTable, backend: Option<&BackendId>, limit: usize) -> Vec<BackendEvent> {
    let mut events: Vec<(&BackendEntry, &HistoryEvent)> = wanted(table, backend)
        .flat_map(|entry| entry.history.events().rev().take(limit).map(move |event| (entry, event)))
        .collect();
    // The sort is stable, and the events of one backend are in order.
    events.sort_by_key(|(_, event)| std::cmp::Reverse(event.time));
    let event = |(entry, event): (&BackendEntry, &HistoryEvent)| BackendEvent {
        backend: entry.backend.id().to_string(),
        event: event.clone(),
    };
    events.into_iter().take(limit).map(event).collect()
}

impl EventReport {
    /// The events of all backends, or of one.
    pub(crate) fn of(
        table: &RoutingTable,
        backend: Option<&BackendId>,
        limit: Option<usize>,
        now: SystemTime,
    ) -> Self {
        let limit = limit.unwrap_or(DEFAULT_LIMIT).min(MOST_EVENTS);
        let availability = |entry: &BackendEntry| BackendAvailability {
            backend: entry.backend.id().to_string(),
            availability: entry.history.availability(entry.health.state(), now),
        };
        Self {
            events: latest(table, backend, limit),
            availability: wanted(table, backend).map(availability).collect(),
        }
    }

    /// The report as text: the events, oldest first as in a log, then the availability.
    pub(crate) fn text(&self) -> String {
        let events = self.events.iter().rev().map(|BackendEvent { backend, event }| {
            let change = match &event.change {
                Change::State { from, to } => format!("{from} -> {to}"),
                Change::Orders { orders } if orders.is_empty() => "no order".to_owned(),
                Change::Orders { orders } => format!("order: {}", orders.escape_debug()),
            };
            let time = humantime::format_rfc3339_seconds(event.time);
            format!("{time}  {backend}  {change}  {}\n", event.cause.escape_debug())
        });
        let share =
            |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.3} %", share * 100.0));
        let availability = self.availability.iter().map(|BackendAvailability { backend, availability }| {
            let AvailabilityShares { day, week, month } = *availability;
            format!(
                "{backend}  available: 1 day {}, 7 days {}, 30 days {}\n",
                share(day),
                share(week),
                share(month)
            )
        });
        events.chain(availability).collect()
    }
}
