//! The health of one backend: a state machine over the outcomes of its probes.
//!
//! ```text
//!              success                    failure            `fall` failures in a row
//!   Unknown ------------> Up <----------------------> Suspect -----------------------> Down
//!      |                   ^        success                                             |
//!      |                   +------------------------------------------------------------+
//!      |                      `rise` successes in a row (one, if it never was up)       ^
//!      +--------------------------------------------------------------------------------+
//!                                            failure
//! ```
//!
//! Pure: time and randomness are arguments. `ranking/selection.rs` selects the candidates from the health of all backends.

mod outcome;
mod shared;

use std::fmt;
use std::time::Duration;

use outcome::Evidence;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use outcome::{FailureKind, ProbeFailure, ProbeOutcome};
pub use shared::{OwnView, SharedEvidence};

/// The rules for states and probe intervals.
#[derive(Debug, Clone, Copy)]
pub struct HealthCheckConfig {
    /// Failures in a row after which a backend is down; at least 1.
    pub fall: u32,
    /// Successes in a row after which a backend is up again; at least 1.
    pub rise: u32,
    /// The interval between two probes of a backend in a steady state.
    pub interval: Duration,
    /// The longest interval between two probes of a backend that is down.
    pub backoff_max: Duration,
    /// The time in which the share of a recovered backend grows to its whole weight; zero disables the slow start.
    pub slow_start: Duration,
}

/// The state of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No probe has ended.
    Unknown,
    /// The last probe succeeded.
    Up,
    /// The backend was up, and fewer than `fall` probes in a row have failed since.
    Suspect,
    /// The backend gets no clients.
    Down,
}

/// The health of one backend. It survives changes of the backend's attributes.
#[derive(Debug, Clone)]
pub struct Health {
    state: State,
    since: Instant,
    /// Failures in a row; 0 after a success.
    failures: u32,
    /// Successes in a row while it is down.
    successes: u32,
    has_answered: bool,
    last_failure: Option<ProbeFailure>,
    /// The time of the first of the latest, uninterrupted inconclusive failures of a backend that was up.
    silent_since: Option<Instant>,
    /// The failure of the prober at the latest probe; `None` if the probe was sent.
    prober_failure: Option<ProbeFailure>,
    /// The begin of the slow start. Cleared at the first probe after the end of the slow start.
    slow_start_began: Option<Instant>,
    /// Moving average of the share of failed probes. The latest probe has a weight of one tenth. Reset on recovery.
    failure_rate: f32,
    /// Whether it was restored, and no probe has ended since.
    is_remembered: bool,
}

/// The parts of a [`Health`] that survive a restart. Times are ages when it was stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RememberedHealth {
    state: State,
    age: Duration,
    failures: u32,
    has_answered: bool,
    last_failure: Option<ProbeFailure>,
    failure_rate: f32,
}

impl RememberedHealth {
    /// The health before the first probe of this run. Ages refer to `stored_at`.
    pub(crate) fn restore(self, stored_at: Instant) -> Health {
        Health {
            state: self.state,
            failures: self.failures,
            has_answered: self.has_answered,
            last_failure: self.last_failure,
            failure_rate: self.failure_rate.clamp(0.0, 1.0),
            is_remembered: self.state != State::Unknown,
            ..Health::new(stored_at.checked_sub(self.age).unwrap_or(stored_at))
        }
    }
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The previous state.
    pub from: State,
    /// The new state.
    pub to: State,
}

/// Whether clients are redirected to a backend. Backends with traffic are probed twice as often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// No client was redirected to it recently.
    Idle,
    /// At least one client was redirected to it recently.
    Active,
}

/// The number of intervals after a redirect for which a backend counts as active. In a large fleet, each backend is
/// chosen rarely although the fleet is busy.
const IN_USE_INTERVALS: u32 = 4;

impl Traffic {
    /// Derives the traffic from the time since the last redirect; `None` if there was no redirect.
    #[must_use]
    pub fn after(unused: Option<Duration>, interval: Duration) -> Self {
        match unused {
            Some(time) if time <= interval.saturating_mul(IN_USE_INTERVALS) => Self::Active,
            _ => Self::Idle,
        }
    }
}

/// The share of its weight at the begin of the slow start. A backend with a smaller share would get too few requests to
/// fill its caches.
const SLOW_START_FLOOR: f64 = 0.1;

/// Relative jitter of every probe delay, so that probes do not synchronise.
const JITTER: f64 = 0.1;

/// The weight of one probe in the failure rate.
const FAILURE_RATE_STEP: f32 = 0.1;

impl Health {
    /// The health of a backend that was just added to the list.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Unknown,
            since: now,
            failures: 0,
            successes: 0,
            has_answered: false,
            last_failure: None,
            silent_since: None,
            prober_failure: None,
            slow_start_began: None,
            failure_rate: 0.0,
            is_remembered: false,
        }
    }

    /// The parts that survive a restart.
    pub(crate) fn remember(&self, now: Instant) -> RememberedHealth {
        RememberedHealth {
            state: self.state,
            age: now.saturating_duration_since(self.since),
            failures: self.failures,
            has_answered: self.has_answered,
            last_failure: self.last_failure.clone(),
            failure_rate: self.failure_rate,
        }
    }

    /// Applies the outcome of a probe; `Some` if the state changed.
    ///
    /// A failure of the prober itself proves nothing about the backend and changes only the displayed reason.
    pub fn observe(
        &mut self,
        outcome: &ProbeOutcome,
        health_check: &HealthCheckConfig,
        now: Instant,
    ) -> Option<Transition> {
        let to = match outcome {
            ProbeOutcome::Success { .. } => self.succeeded(health_check),
            ProbeOutcome::Failure(failure) if failure.kind == FailureKind::Prober => {
                self.prober_failure = Some(failure.clone());
                return None;
            }
            ProbeOutcome::Failure(failure) => self.failed(failure, health_check, now),
        };
        self.prober_failure = None;
        self.is_remembered = false;
        if self.slow_start_share(health_check, now) >= 1.0 {
            self.slow_start_began = None;
        }
        let from = self.state;
        if from == to {
            return None;
        }
        if (from, to) == (State::Down, State::Up) {
            self.failure_rate = 0.0;
            self.slow_start_began = Some(now);
        }
        self.state = to;
        self.since = now;
        Some(Transition { from, to })
    }

    fn succeeded(&mut self, health_check: &HealthCheckConfig) -> State {
        let rise = if self.has_answered { health_check.rise } else { 1 };
        self.failures = 0;
        self.failure_rate -= self.failure_rate * FAILURE_RATE_STEP;
        self.successes = self.successes.saturating_add(1);
        if self.state == State::Down && self.successes < rise {
            return State::Down;
        }
        self.successes = 0;
        self.has_answered = true;
        self.silent_since = None;
        State::Up
    }

    fn failed(&mut self, failure: &ProbeFailure, health_check: &HealthCheckConfig, now: Instant) -> State {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        self.failure_rate += (1.0 - self.failure_rate) * FAILURE_RATE_STEP;
        self.last_failure = Some(failure.clone());
        match (failure.kind.evidence(), self.state) {
            (Evidence::Conclusive, _) => self.silent_since = None,
            (Evidence::Inconclusive, State::Up) => self.silent_since = Some(now),
            (Evidence::Inconclusive, _) => {}
        }
        match self.state {
            State::Unknown | State::Down => State::Down,
            State::Up | State::Suspect if self.failures >= health_check.fall => State::Down,
            State::Up | State::Suspect => State::Suspect,
        }
    }

    /// Begins a slow start because the server restarted: its boot number changed although no probe failed.
    pub fn restarted(&mut self, now: Instant) {
        self.slow_start_began = Some(now);
    }

    /// Whether the backend stopped answering within the last `window`, and all failures since then are inconclusive.
    pub(crate) fn fell_silent(&self, window: Duration, now: Instant) -> bool {
        self.silent_since.is_some_and(|at| now.saturating_duration_since(at) <= window)
    }

    /// Whether it was up, and all probes since have ended without any answer.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent_since.is_some()
    }

    /// Whether it is down, and the latest probe succeeded.
    pub(crate) fn is_recovering(&self) -> bool {
        self.state == State::Down && self.successes > 0
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The recent share of failed probes, from 0 to 1.
    pub(crate) fn failure_rate(&self) -> f32 {
        self.failure_rate
    }

    /// The time at which the backend entered the current state.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The current share of the weight in the slow start: grows linearly from 0.1 to 1 over `slow_start`.
    #[must_use]
    pub fn slow_start_share(&self, health_check: &HealthCheckConfig, now: Instant) -> f64 {
        let Some(slow_start_began) = self.slow_start_began else { return 1.0 };
        let passed = now.saturating_duration_since(slow_start_began);
        if passed >= health_check.slow_start {
            return 1.0;
        }
        (passed.as_secs_f64() / health_check.slow_start.as_secs_f64()).max(SLOW_START_FLOOR)
    }

    /// The delay of the next probe, measured from the end of the last one.
    ///
    /// A quarter of the interval while the backend is suspect or recovers. While it is down, the interval, doubled with each
    /// further failure up to `backoff_max`. A backend that refuses connections is probed at each interval: such a probe is
    /// cheap, and it shows that the machine runs, so the server may return soon.
    #[must_use]
    pub fn next_probe(
        &self,
        health_check: &HealthCheckConfig,
        traffic: Traffic,
        rng: &mut dyn Rng,
    ) -> Duration {
        let interval = health_check.interval;
        let nominal = match (self.state, traffic) {
            (State::Unknown | State::Up, Traffic::Idle) => interval,
            (State::Unknown | State::Up, Traffic::Active) => interval / 2,
            (State::Suspect, _) => interval / 4,
            (State::Down, _) if self.successes > 0 => interval / 4,
            (State::Down, _) if self.refuses() => interval,
            (State::Down, _) => {
                let doublings = self.failures.saturating_sub(health_check.fall).min(16);
                interval.saturating_mul(1 << doublings).min(health_check.backoff_max.max(interval))
            }
        };
        nominal.mul_f64(1.0 + JITTER * rng.random_range(-1.0..=1.0))
    }

    fn refuses(&self) -> bool {
        self.last_failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Refused)
    }

    /// The reason of the current state, as text for the log and the status table.
    #[must_use]
    pub fn reason(&self) -> Reason<'_> {
        Reason(self)
    }
}

/// Displays the reason of a state.
#[derive(Debug, Clone, Copy)]
pub struct Reason<'a>(&'a Health);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reason(health) = self;
        if health.is_remembered {
            formatter.write_str("not probed since the restart; before: ")?;
        }
        match (&health.last_failure, health.failures, &health.prober_failure) {
            (_, 0, Some(prober_failure)) => write!(formatter, "could not be probed: {prober_failure}"),
            (_, 0, _) if health.state == State::Unknown => formatter.write_str("not probed yet"),
            (_, 0, _) if health.state == State::Down => {
                write!(formatter, "answers again ({} successful probes in a row)", health.successes)
            }
            (_, 0, _) if health.slow_start_began == Some(health.since) => {
                formatter.write_str("answers again")
            }
            (_, 0, _)
                if health
                    .slow_start_began
                    .is_some_and(|slow_start_began| slow_start_began > health.since) =>
            {
                formatter.write_str("answers (restarted since the last probe)")
            }
            (_, 0, _) | (None, ..) => formatter.write_str("answers"),
            (Some(failure), 1, _) => write!(formatter, "{failure}"),
            (Some(failure), failures, _) => write!(formatter, "{failure}, {failures} times in a row"),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        })
    }
}
