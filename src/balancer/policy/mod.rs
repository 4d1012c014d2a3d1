//! How one backend is chosen from those that are usable: one file for each policy.
//!
//! A policy is built anew with each routing table and then only read, by all HTTP workers at once. What must survive
//! the rebuild (what was sent where) lives in each backend's [`Ledger`]. A pick takes no lock, allocates nothing and
//! reads neither clock nor random source of its own.

mod adaptive;
mod alias;
mod digest;
mod draw;
mod hash;
mod ledger;
mod random;
mod ranked;
mod round_robin;
mod second_chance;
mod two_choices;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

pub use digest::{digest, identity};
pub use ledger::{Book, Clock, Ledger, Tick};
pub use second_chance::{SecondChance, Visit};

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
    /// the policy has no candidate. If `picks` holds a chosen backend already, only runners-up are added.
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
    /// Whether its probe answers say what is in flight there, so that its ledger is set right with each.
    pub reports: bool,
    /// Whether it joins the others of its kind, with reports or without: it is new, was out, or was of the other kind.
    pub joins: bool,
    /// A [`digest`] of its whole address, the same on every balancer.
    pub address: u64,
    /// What it was sent; the same one in each table.
    pub ledger: Arc<Ledger>,
}

/// What a server was seen to do, older observations counting less.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throughput {
    /// Requests completed.
    pub requests: f64,
    /// Bytes of bodies sent; 0 if the server does not count them.
    pub bytes: f64,
    /// The seconds it took, those in which nothing was to be done left out.
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

/// A short list of backends, each by the number that [`identity`] gives its authority.
#[derive(Debug, Clone, Copy, Default)]
pub struct Avoid {
    identities: [u32; MOST_AVOIDED],
    len: usize,
}

impl Avoid {
    /// Adds a backend, if there is room.
    pub fn add(&mut self, identity: u32) {
        if let Some(slot) = self.identities.get_mut(self.len) {
            *slot = identity;
            self.len += 1;
        }
    }

    /// Whether nothing is to be avoided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the backend is in it.
    #[must_use]
    #[inline]
    pub fn contains(&self, identity: u32) -> bool {
        // Nearly always there is nothing to look through.
        self.len > 0 && self.identities.iter().take(self.len).any(|avoided| *avoided == identity)
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

    /// One that has its chosen backend, a place in the routing table, and asks for runners-up alone.
    #[must_use]
    pub fn with(chosen: u32, alternates: usize) -> Self {
        let mut picks = Self::new(alternates);
        picks.push(chosen);
        picks
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

    fn len(&self) -> usize {
        self.len
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
    /// The least virtual finish time of a few, from load reports and what was sent since.
    Adaptive,
    /// Weights 1 to n by rank, the fastest n; weighted random.
    Ranked,
    /// Of two drawn at random, the one with fewer requests outstanding.
    TwoChoices,
    /// One after the other.
    RoundRobin,
    /// Weighted random.
    Random,
    /// The same path to the same backend.
    Hash,
}

impl PolicyName {
    /// All of them, in the order in which help and errors list them.
    pub const ALL: [Self; 6] =
        [Self::Adaptive, Self::Ranked, Self::TwoChoices, Self::RoundRobin, Self::Random, Self::Hash];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Ranked => "ranked",
            Self::TwoChoices => "two-choices",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::Hash => "hash",
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
pub fn build(
    name: PolicyName,
    mut candidates: Vec<Candidate>,
    now: Tick,
    rng: &mut dyn Rng,
) -> Box<dyn Policy> {
    candidates.retain(|candidate| candidate.weight > 0.0 && candidate.weight.is_finite());
    match name {
        PolicyName::Adaptive => Box::new(adaptive::Adaptive::new(candidates, now, rng)),
        _ => build_part(name, candidates, rng),
    }
}

/// Builds the policy over a part of the candidates of another one, which is used beside it: what that one has written to
/// the ledgers stays.
#[must_use]
pub fn build_part(name: PolicyName, mut candidates: Vec<Candidate>, rng: &mut dyn Rng) -> Box<dyn Policy> {
    candidates.retain(|candidate| candidate.weight > 0.0 && candidate.weight.is_finite());
    match name {
        PolicyName::Adaptive => Box::new(adaptive::Adaptive::over(candidates, rng)),
        PolicyName::Ranked => Box::new(ranked::Ranked::new(candidates, rng)),
        PolicyName::TwoChoices => Box::new(two_choices::TwoChoices::new(candidates)),
        PolicyName::RoundRobin => Box::new(round_robin::RoundRobin::new(candidates)),
        PolicyName::Random => Box::new(random::Random::new(candidates)),
        PolicyName::Hash => Box::new(hash::Hash::new(candidates)),
    }
}
