//! `random`: each backend with a probability proportional to its weight.

use rand::Rng;

use super::alias::AliasTable;
use super::{Candidate, Picks, Policy, Request, Tick, draw};

/// A weighted draw that knows nothing else.
#[derive(Debug)]
pub(super) struct Random {
    candidates: Box<[Candidate]>,
    draws: AliasTable,
}

impl Random {
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        let weights: Vec<f64> = candidates.iter().map(|candidate| candidate.weight).collect();
        Self { candidates: candidates.into_boxed_slice(), draws: AliasTable::new(&weights) }
    }
}

impl Policy for Random {
    fn pick(&self, request: &Request, _now: Tick, rng: &mut dyn Rng, picks: &mut Picks) {
        draw::fill(&self.candidates, request, picks, || self.draws.index(rng.next_u64()));
    }
}
