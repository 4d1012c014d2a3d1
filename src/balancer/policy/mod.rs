//! Policies that choose a backend for each request. One file per policy.
//!
//! A policy is built for each routing table. All HTTP workers then read it concurrently. State that must outlive a
//! table, such as the number of redirects, is in the load record of each backend ([`BackendLoad`]). A pick takes no lock,
//! allocates nothing, and gets the time and the source of random numbers as arguments.

mod adaptive;
mod alias;
mod backlog;
mod clock;
mod digest;
mod draw;
mod hash;
mod holders;
mod load;
mod load_cell;
mod load_slab;
mod random;
mod ranked;
mod retry_avoidance;
mod round_robin;
mod two_choices;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

pub use clock::{MonotonicClock, Timestamp};
pub use digest::{digest, identity};
pub use holders::{Holders, MirrorSet};
pub(crate) use holders::{LINE_MIRRORS, LINE_WORDS, SetLine};
pub(crate) use load::RememberedLoad;
pub use load::{BackendLoad, ReportedLoad};
pub use load_slab::LoadSlab;
pub(crate) use retry_avoidance::{RetryAvoidance, RetryLookup, Visited};

/// The largest number of alternates that a pick returns besides the chosen backend.
pub const MOST_ALTERNATES: usize = 3;

/// The assumed size of a download in bytes, as long as no size is known.
pub(crate) const DEFAULT_SIZE: f32 = 1e6;

/// The largest number of backends that a request can avoid. Further ones are ignored.
pub(crate) const MOST_AVOIDED: usize = 8;

/// Chooses backends.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Puts the chosen backend and the requested number of alternates into `picks`, all different, and records the
    /// redirect in the load of the chosen one.
    ///
    /// If `picks` has a chosen backend already, only alternates are added, and no redirect is recorded.
    ///
    /// A backend that the request avoids is chosen only if the request avoids all candidates. `picks` stays empty only if
    /// the policy has no candidate, or no candidate has the file.
    fn pick(&self, request: &PickRequest, now: Timestamp, rng: &mut dyn Rng, picks: &mut Picks);
}

/// A backend that may be chosen.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its index in the routing table.
    pub backend: u32,
    /// Its weight in the list, reduced by its health. A candidate whose weight is not above 0 (or not finite) is never
    /// chosen.
    pub weight: f64,
    /// Its response time to probes; `None` if unknown.
    pub response_time: Option<Duration>,
    /// Its throughput according to its load reports; `None` without usable reports.
    pub throughput: Option<Throughput>,
    /// Whether its probe responses carry load reports, which correct its load with each probe.
    pub reports: bool,
    /// Whether it joins the candidates with reports, or those without, in this table: it was not a candidate in the
    /// previous table, or it stopped sending usable reports.
    pub joins: bool,
    /// The `digest` of its whole address, equal on every balancer.
    pub address: u64,
    /// Its load. Every table shares the same record.
    pub load: Arc<BackendLoad>,
}

/// Work that a server completed. Older observations have less weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throughput {
    /// Completed requests.
    pub requests: f64,
    /// Bytes of response bodies; 0 if the server does not count them.
    pub bytes: f64,
    /// Seconds in which the server had at least one request in flight.
    pub busy_seconds: f64,
    /// Bytes of the downloads that this balancer redirected to the server in the same time.
    pub booked: f64,
}

/// The properties of a request that policies use.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickRequest<'a> {
    /// A hash of the path, equal on every balancer.
    pub path_hash: u64,
    /// The backends to avoid as long as another one is usable.
    pub avoid: Avoid,
    /// The expected size of the download in bytes; `None` if it is unknown.
    pub size: Option<f32>,
    /// The mirrors that have the file; `None` if every backend is assumed to have it.
    pub holders: Option<Holders<'a>>,
}

impl PickRequest<'_> {
    /// Whether the backend with this load number is assumed to have the file.
    #[inline]
    fn is_held_by(&self, number: u32) -> bool {
        self.holders.is_none_or(|holders| holders.contains(number))
    }
}

/// Up to [`MOST_AVOIDED`] backends, each identified by the [`identity`] of its authority.
#[derive(Debug, Clone, Copy, Default)]
pub struct Avoid {
    identities: [u32; MOST_AVOIDED],
    len: usize,
}

impl Avoid {
    /// Adds a backend, unless the list is full.
    pub fn add(&mut self, identity: u32) {
        if let Some(slot) = self.identities.get_mut(self.len) {
            *slot = identity;
            self.len += 1;
        }
    }

    /// Whether the list contains the backend.
    #[must_use]
    #[inline]
    pub fn contains(&self, identity: u32) -> bool {
        // The list is nearly always empty.
        self.len > 0 && self.identities.iter().take(self.len).any(|avoided| *avoided == identity)
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The result of a pick: the chosen backend, then the alternates in order of preference. Each is an index in the routing
/// table.
#[derive(Debug, Clone, Copy)]
pub struct Picks {
    backends: [u32; 1 + MOST_ALTERNATES],
    len: usize,
    wanted: usize,
}

impl Picks {
    /// An empty result with room for `alternates` alternates, at most [`MOST_ALTERNATES`].
    #[must_use]
    pub fn new(alternates: usize) -> Self {
        Self { backends: [0; 1 + MOST_ALTERNATES], len: 0, wanted: 1 + alternates.min(MOST_ALTERNATES) }
    }

    /// A result with a chosen backend, which asks only for alternates.
    #[must_use]
    pub fn with(chosen: u32, alternates: usize) -> Self {
        let mut picks = Self::new(alternates);
        picks.push(chosen);
        picks
    }

    /// The backend for the `Location` header.
    #[must_use]
    pub fn chosen(&self) -> Option<u32> {
        self.as_slice().first().copied()
    }

    /// The backends for the `Link` header.
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

/// The policies, as values of `--policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyName {
    /// The earliest virtual finish time of a few backends, from load reports and redirects.
    Adaptive,
    /// Weighted random: the fastest of n backends has weight n, the slowest weight 1.
    Ranked,
    /// Of two random backends, the one with fewer outstanding requests.
    TwoChoices,
    /// In order, by weight.
    RoundRobin,
    /// Random, by weight.
    Random,
    /// The same backend for the same path.
    Hash,
}

impl PolicyName {
    /// All policies, in the order of the help text and of error messages.
    pub const ALL: [Self; 6] =
        [Self::Adaptive, Self::Ranked, Self::TwoChoices, Self::RoundRobin, Self::Random, Self::Hash];

    /// The name as a string.
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

/// The name belongs to no policy.
#[derive(Debug, thiserror::Error)]
#[error("unknown policy; the policies are {}", PolicyName::ALL.map(PolicyName::as_str).join(", "))]
pub struct UnknownPolicy;

impl FromStr for PolicyName {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == name).ok_or(UnknownPolicy)
    }
}

/// Builds a policy for one routing table. It ignores candidates whose weight is not above 0 or not finite.
#[must_use]
pub fn build(
    name: PolicyName,
    mut candidates: Vec<Candidate>,
    now: Timestamp,
    rng: &mut dyn Rng,
) -> Box<dyn Policy> {
    candidates.retain(|candidate| candidate.weight > 0.0 && candidate.weight.is_finite());
    match name {
        PolicyName::Adaptive => Box::new(adaptive::Adaptive::new(candidates, now, rng)),
        _ => build_part(name, candidates, rng),
    }
}

/// Builds a policy for some of the candidates of another policy, to be used beside it. The costs and finish times that the
/// other policy has set remain.
pub(crate) fn build_part(
    name: PolicyName,
    mut candidates: Vec<Candidate>,
    rng: &mut dyn Rng,
) -> Box<dyn Policy> {
    candidates.retain(|candidate| candidate.weight > 0.0 && candidate.weight.is_finite());
    match name {
        PolicyName::Adaptive => Box::new(adaptive::Adaptive::over(candidates, rng)),
        PolicyName::Ranked => Box::new(ranked::ranked(candidates, rng)),
        PolicyName::TwoChoices => Box::new(two_choices::TwoChoices::new(candidates)),
        PolicyName::RoundRobin => Box::new(round_robin::RoundRobin::new(candidates)),
        PolicyName::Random => Box::new(random::WeightedRandom::new(candidates)),
        PolicyName::Hash => Box::new(hash::ConsistentHash::new(candidates)),
    }
}
