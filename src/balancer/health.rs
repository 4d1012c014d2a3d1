//! What is known of one backend's health, and what a probe's outcome makes of it.
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
//! Pure: time and randomness are arguments. [`fleet`] decides over all backends together which are chosen from.

pub mod fleet;
mod outcome;

use std::fmt;
use std::time::Duration;

use outcome::Evidence;
use rand::{Rng, RngExt};
use tokio::time::Instant;

pub use outcome::{Failure, FailureKind, ProbeOutcome};

/// When a backend's state changes and how often it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// Failures in a row that take a backend out; at least 1.
    pub fall: u32,
    /// Successes in a row that bring it back; at least 1.
    pub rise: u32,
    /// The time between two probes of a backend about which nothing is in doubt.
    pub interval: Duration,
    /// The longest time between two probes of a backend that is down.
    pub backoff_max: Duration,
    /// How long a backend that came back takes to get its whole share; zero gives it at once.
    pub slow_start: Duration,
}

/// Where a backend stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No probe has ended yet.
    Unknown,
    /// The last probe succeeded.
    Up,
    /// It was up, and fewer than `fall` probes in a row have failed since.
    Suspect,
    /// It is out.
    Down,
}

/// The health of one backend: kept by its address, so that a new weight or a table rebuilt leaves it alone.
#[derive(Debug, Clone)]
pub struct Health {
    state: State,
    since: Instant,
    /// Failures in a row; 0 after a success.
    failures: u32,
    /// Successes in a row while it is down.
    successes: u32,
    has_answered: bool,
    last_failure: Option<Failure>,
    /// When it stopped answering, as long as nothing but silence came since.
    silent_since: Option<Instant>,
    /// Why the latest probe could not be sent; `None` after one that was.
    obstacle: Option<Failure>,
    /// When the slow start began that is under way, or was at the probe before.
    returned: Option<Instant>,
    /// The share of failed probes, the latest counting a tenth; starts anew with each return.
    failure_rate: f32,
}

/// A change of state. Transitions are logged and counted, samples are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state left.
    pub from: State,
    /// The state entered.
    pub to: State,
}

/// Whether a backend is being sent clients: those that are get looked at twice as often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// No client was sent there lately.
    Idle,
    /// At least one was.
    Active,
}

/// For so many intervals after a client was sent there, a backend counts as being sent clients: in a large fleet each
/// is chosen seldom, and together they are asked for all the time.
const IN_USE_INTERVALS: u32 = 4;

impl Traffic {
    /// By the time since a client was seen to have been sent there; `None` if none was.
    #[must_use]
    pub fn after(unused: Option<Duration>, interval: Duration) -> Self {
        match unused {
            Some(time) if time <= interval.saturating_mul(IN_USE_INTERVALS) => Self::Active,
            _ => Self::Idle,
        }
    }
}

/// The share of its weight with which a backend that came back begins. Less would be chosen too seldom to warm up.
const SLOW_START_FLOOR: f64 = 0.1;

/// Every delay is drawn from within this share around its nominal value, lest probes march in step.
const JITTER: f64 = 0.1;

/// What one probe adds to the failure rate.
const FAILURE_RATE_STEP: f32 = 0.1;

impl Health {
    /// A backend that has just entered the list.
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
            obstacle: None,
            returned: None,
            failure_rate: 0.0,
        }
    }

    /// Takes in one outcome; `Some` when it changed the state.
    ///
    /// A failure of the prober itself says nothing about the backend and changes nothing but the reason that is shown.
    pub fn observe(
        &mut self,
        outcome: &ProbeOutcome,
        thresholds: &Thresholds,
        now: Instant,
    ) -> Option<Transition> {
        let to = match outcome {
            ProbeOutcome::Success { .. } => self.succeeded(thresholds),
            ProbeOutcome::Failure(failure) if failure.kind == FailureKind::Prober => {
                self.obstacle = Some(failure.clone());
                return None;
            }
            ProbeOutcome::Failure(failure) => self.failed(failure, thresholds, now),
        };
        self.obstacle = None;
        if self.warmth(thresholds, now) >= 1.0 {
            self.returned = None;
        }
        let from = self.state;
        if from == to {
            return None;
        }
        if (from, to) == (State::Down, State::Up) {
            self.failure_rate = 0.0;
            self.returned = Some(now);
        }
        self.state = to;
        self.since = now;
        Some(Transition { from, to })
    }

    fn succeeded(&mut self, thresholds: &Thresholds) -> State {
        let rise = if self.has_answered { thresholds.rise } else { 1 };
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

    fn failed(&mut self, failure: &Failure, thresholds: &Thresholds, now: Instant) -> State {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        self.failure_rate += (1.0 - self.failure_rate) * FAILURE_RATE_STEP;
        self.last_failure = Some(failure.clone());
        match (failure.kind.evidence(), self.state) {
            (Evidence::Plain, _) => self.silent_since = None,
            (Evidence::Doubtful, State::Up) => self.silent_since = Some(now),
            (Evidence::Doubtful, _) => {}
        }
        match self.state {
            State::Unknown | State::Down => State::Down,
            State::Up | State::Suspect if self.failures >= thresholds.fall => State::Down,
            State::Up | State::Suspect => State::Suspect,
        }
    }

    /// Notes that the server behind the address is another one than before (its boot identity changed without a
    /// probe having failed): it starts slowly.
    pub fn restarted(&mut self, now: Instant) {
        self.returned = Some(now);
    }

    /// Whether it stopped answering within `window`, and nothing but silence came since.
    fn fell_silent(&self, window: Duration, now: Instant) -> bool {
        self.silent_since.is_some_and(|at| now.saturating_duration_since(at) <= window)
    }

    /// Where the backend stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when it stands there.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The share of its weight that a backend which came back has by now: from a tenth to 1, growing evenly over
    /// `slow_start`.
    #[must_use]
    pub fn warmth(&self, thresholds: &Thresholds, now: Instant) -> f64 {
        let Some(returned) = self.returned else { return 1.0 };
        let passed = now.saturating_duration_since(returned);
        if passed >= thresholds.slow_start {
            return 1.0;
        }
        (passed.as_secs_f64() / thresholds.slow_start.as_secs_f64()).max(SLOW_START_FLOOR)
    }

    /// How long to wait for the next probe, measured from the end of the last one.
    ///
    /// A quarter of the interval while in doubt; while down the interval, doubled with each further failure up to
    /// `backoff_max`. A backend that refuses connections is asked each interval: the answer is cheap, and says that
    /// the machine runs and its server may be back at any moment.
    #[must_use]
    pub fn next_probe(&self, thresholds: &Thresholds, traffic: Traffic, rng: &mut dyn Rng) -> Duration {
        let interval = thresholds.interval;
        let nominal = match (self.state, traffic) {
            (State::Unknown | State::Up, Traffic::Idle) => interval,
            (State::Unknown | State::Up, Traffic::Active) => interval / 2,
            (State::Suspect, _) => interval / 4,
            (State::Down, _) if self.successes > 0 => interval / 4,
            (State::Down, _) if self.refuses() => interval,
            (State::Down, _) => {
                let doublings = self.failures.saturating_sub(thresholds.fall).min(16);
                interval.saturating_mul(1 << doublings).min(thresholds.backoff_max.max(interval))
            }
        };
        nominal.mul_f64(1.0 + JITTER * rng.random_range(-1.0..=1.0))
    }

    fn refuses(&self) -> bool {
        self.last_failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Refused)
    }

    /// Why it stands where it stands, in words: what the log and the status table show.
    #[must_use]
    pub fn reason(&self) -> Reason<'_> {
        Reason(self)
    }
}

/// Displays why a backend is in its state.
#[derive(Debug, Clone, Copy)]
pub struct Reason<'a>(&'a Health);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reason(health) = self;
        match (&health.last_failure, health.failures, &health.obstacle) {
            (_, 0, Some(obstacle)) => write!(formatter, "could not be probed: {obstacle}"),
            (_, 0, _) if health.state == State::Unknown => formatter.write_str("not probed yet"),
            (_, 0, _) if health.state == State::Down => {
                write!(formatter, "answers again, {} times in a row so far", health.successes)
            }
            (_, 0, _) if health.returned == Some(health.since) => formatter.write_str("answers again"),
            (_, 0, _) if health.returned.is_some_and(|returned| returned > health.since) => {
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
