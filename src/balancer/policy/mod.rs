//! How one backend is chosen from those that are usable: one file for each policy.
//!
//! A policy is built anew with each routing table and then only read, by all HTTP workers at once. What must survive
//! the rebuild (what was sent where) lives in each backend's [`Ledger`]. A pick takes no lock, allocates nothing and
//! reads neither clock nor random source of its own.

mod alias;
mod draw;
mod ledger;
mod ranked;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

pub use ledger::{Clock, Ledger, Tick};

/// How many runners-up a pick can name besides the backend chosen.
pub const MOST_ALTERNATES: usize = 3;

/// How many backends a request can ask to avoid; what it names beyond is not heeded.
pub const MOST_AVOIDED: usize = 8;

/// Chooses backends.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Chooses a backend and up to `picks.wanted() - 1` runners-up, all different, and notes in the ledger of the
    /// first that a client was sent there.
    ///
    /// A backend that the request avoids is chosen only when it avoids all of them. `picks` stays empty only when
    /// the policy has no candidate.
    fn pick(&self, request: &Request, now: Tick, rng: &mut dyn Rng, picks: &mut Picks);
}

/// A backend that may be chosen.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its place in the routing table.
    pub backend: u32,
    /// The weight of the list times the share its health leaves it. Not above 0 (or not a number) means never.
    pub weight: f64,
    /// How long it takes to answer a probe, if that is known.
    pub response_time: Option<Duration>,
    /// What its load reports tell of its capacity, if it sends any.
    pub throughput: Option<Throughput>,
    /// What it was sent; the same one in each table.
    pub ledger: Arc<Ledger>,
}

/// A server's capacity, as far as it was observed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throughput {
    /// Requests completed in a second in which it was busy.
    pub requests_per_second: f64,
    /// How many such seconds were observed, older ones counting less: how much the rate is to be trusted.
    pub busy_seconds: f64,
}

/// What a policy needs to know of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// A hash of the path, the same on every balancer.
    pub path_hash: u64,
    /// The backends to leave out while another is usable.
    pub avoid: Avoid,
}

/// A short list of backends, by their place in the routing table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Avoid {
    backends: [u32; MOST_AVOIDED],
    len: usize,
}

impl Avoid {
    /// Adds a backend, if there is room.
    pub fn add(&mut self, backend: u32) {
        if let Some(slot) = self.backends.get_mut(self.len) {
            *slot = backend;
            self.len += 1;
        }
    }

    /// Whether the backend is in it.
    #[must_use]
    pub fn contains(&self, backend: u32) -> bool {
        self.backends.iter().take(self.len).any(|avoided| *avoided == backend)
    }
}

/// The outcome of a pick: the backend chosen, then the runners-up in the order of preference.
#[derive(Debug, Clone, Copy)]
pub struct Picks {
    backends: [u32; 1 + MOST_ALTERNATES],
    len: usize,
    wanted: usize,
}

impl Picks {
    /// An empty one that asks for `alternates` runners-up, [`MOST_ALTERNATES`] at most.
    #[must_use]
    pub fn new(alternates: usize) -> Self {
        Self { backends: [0; 1 + MOST_ALTERNATES], len: 0, wanted: 1 + alternates.min(MOST_ALTERNATES) }
    }

    /// How many backends are asked for, the chosen one included.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// The backend that the client is to be sent to.
    #[must_use]
    pub fn chosen(&self) -> Option<u32> {
        self.as_slice().first().copied()
    }

    /// The runners-up.
    #[must_use]
    pub fn alternates(&self) -> &[u32] {
        self.as_slice().get(1..).unwrap_or_default()
    }

    fn as_slice(&self) -> &[u32] {
        self.backends.get(..self.len).unwrap_or_default()
    }

    fn contains(&self, backend: u32) -> bool {
        self.as_slice().contains(&backend)
    }

    fn is_full(&self) -> bool {
        self.len >= self.wanted
    }

    fn push(&mut self, backend: u32) {
        if let Some(slot) = self.backends.get_mut(self.len) {
            *slot = backend;
            self.len += 1;
        }
    }
}

/// The name of a policy, as `--policy` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyName {
    /// Weights 1 to n by rank, the fastest n; weighted random.
    Ranked,
}

impl PolicyName {
    /// All of them, in the order in which help and errors list them.
    pub const ALL: [Self; 1] = [Self::Ranked];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ranked => "ranked",
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// There is no policy of that name.
#[derive(Debug, thiserror::Error)]
#[error("there is no such policy; known are {}", PolicyName::ALL.map(PolicyName::as_str).join(", "))]
pub struct UnknownPolicy;

impl FromStr for PolicyName {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == name).ok_or(UnknownPolicy)
    }
}

/// Builds the policy over these candidates. Those whose weight is not above 0 are left out.
#[must_use]
pub fn build(name: PolicyName, mut candidates: Vec<Candidate>, rng: &mut dyn Rng) -> Box<dyn Policy> {
    candidates.retain(|candidate| candidate.weight > 0.0 && candidate.weight.is_finite());
    match name {
        PolicyName::Ranked => Box::new(ranked::Ranked::new(candidates, rng)),
    }
}
