//! The history of one backend: its last state changes and orders with their causes, and its availability. Pure.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::health::State;
use super::wall_clock;

/// The number of events that are kept for each backend.
pub(crate) const MOST_EVENTS: usize = 100;

/// The number of events of all backends. In a list of more than 10 000 backends, each keeps fewer.
const MOST_EVENTS_OF_ALL: usize = 1_000_000;

/// The longest cause, in characters. It may contain text of a server.
const LONGEST_CAUSE: usize = 300;

/// A change of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HistoryEvent {
    /// The time of the change.
    #[serde(with = "wall_clock")]
    pub time: SystemTime,
    /// The change.
    #[serde(flatten)]
    pub change: Change,
    /// The cause, as text.
    pub cause: String,
}

/// The kinds of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Change {
    /// Probes changed the state.
    State { from: State, to: State },
    /// The orders of operators changed.
    Orders {
        /// The orders in force, as text; empty if the last one ended.
        orders: String,
    },
}

/// The share of the observed time in which a backend was not down; `None` if it was not observed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct AvailabilityShares {
    /// Over the last 24 hours.
    pub day: Option<f64>,
    /// Over the last 7 days.
    pub week: Option<f64>,
    /// Over the last 30 days.
    pub month: Option<f64>,
}

/// The history of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct History {
    events: VecDeque<HistoryEvent>,
    hours: Calendar<3600, 24>,
    days: Calendar<86_400, 30>,
    /// The time up to which the states are counted, in seconds since 1970.
    #[serde(skip)]
    counted_until: Option<u64>,
}

impl History {
    /// The events, oldest first.
    pub(crate) fn events(&self) -> impl DoubleEndedIterator<Item = &HistoryEvent> {
        self.events.iter()
    }

    /// Adds an event. Drops the oldest one beyond the limit for one of `backends` backends.
    pub(crate) fn record(&mut self, time: SystemTime, change: Change, cause: &str, backends: usize) {
        let most = (MOST_EVENTS_OF_ALL / backends.max(1)).clamp(1, MOST_EVENTS);
        self.events.push_back(HistoryEvent {
            time,
            change,
            cause: cause.chars().take(LONGEST_CAUSE).collect(),
        });
        while self.events.len() > most {
            self.events.pop_front();
        }
    }

    /// Counts the time since the last call, in which the backend was in `state`. The first call only starts the count.
    pub(crate) fn count(&mut self, state: State, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if let Some(from) = self.counted_until
            && state != State::Unknown
        {
            self.hours.add(from, now, state != State::Down);
            self.days.add(from, now, state != State::Down);
        }
        self.counted_until = Some(now);
    }

    /// The availability at `now` of a backend that is in `state`.
    pub(crate) fn availability(&self, state: State, now: SystemTime) -> AvailabilityShares {
        let mut counted = self.clone();
        counted.count(state, now);
        let now = counted.counted_until.unwrap_or_default();
        AvailabilityShares {
            day: counted.hours.share(now, 24),
            week: counted.days.share(now, 7),
            month: counted.days.share(now, 30),
        }
    }
}

/// Observed seconds, in the last `PERIODS` periods of `PERIOD` seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Calendar<const PERIOD: u64, const PERIODS: usize>(VecDeque<PeriodCount>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct PeriodCount {
    /// The number of the period since 1970.
    period: u64,
    observed: u32,
    available: u32,
}

impl<const PERIOD: u64, const PERIODS: usize> Calendar<PERIOD, PERIODS> {
    /// Adds the seconds from `from` to `to`.
    fn add(&mut self, from: u64, to: u64, is_available: bool) {
        let first = from.max(to.saturating_sub(PERIOD * PERIODS as u64));
        for period in first / PERIOD..=to / PERIOD {
            let seconds = to.min((period + 1) * PERIOD).saturating_sub(first.max(period * PERIOD)) as u32;
            match self.0.back_mut() {
                Some(counted) if counted.period == period => {
                    counted.observed = counted.observed.saturating_add(seconds);
                    counted.available =
                        counted.available.saturating_add(if is_available { seconds } else { 0 });
                }
                // A clock that was set back adds nothing.
                Some(counted) if counted.period > period => {}
                _ if seconds == 0 => {}
                _ => {
                    let available = if is_available { seconds } else { 0 };
                    self.0.push_back(PeriodCount { period, observed: seconds, available });
                }
            }
        }
        while self.0.len() > PERIODS {
            self.0.pop_front();
        }
    }

    /// The available share of the last `periods` periods, the current one included.
    fn share(&self, now: u64, periods: u64) -> Option<f64> {
        let recent = self.0.iter().filter(|counted| counted.period.saturating_add(periods) > now / PERIOD);
        let (available, observed) = recent.fold((0_u64, 0_u64), |(available, observed), counted| {
            (available + u64::from(counted.available), observed + u64::from(counted.observed))
        });
        (observed > 0).then(|| available as f64 / observed as f64)
    }
}

#[cfg(test)]
mod tests;
