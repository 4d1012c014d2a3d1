//! `two-choices`: draws two backends by weight and chooses the one with fewer outstanding requests (Mitzenmacher, "The
//! Power of Two Choices in Randomized Load Balancing", 2001).

use rand::Rng;

use super::alias::AliasTable;
use super::{Candidate, PickRequest, Picks, Policy, Timestamp, draw};

/// Compares the requests in flight of the latest report plus the redirects since.
#[derive(Debug)]
pub(super) struct TwoChoices {
    candidates: Box<[Candidate]>,
    draws: AliasTable,
}

impl TwoChoices {
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        let weights: Vec<f64> = candidates.iter().map(|candidate| candidate.weight).collect();
        Self { candidates: candidates.into_boxed_slice(), draws: AliasTable::new(&weights) }
    }

    /// Outstanding requests per weight, if the candidate had one request more.
    fn load(&self, index: usize) -> f64 {
        self.candidates
            .get(index)
            .map_or(f64::INFINITY, |candidate| (candidate.load.outstanding() as f64 + 1.0) / candidate.weight)
    }
}

impl Policy for TwoChoices {
    fn pick(&self, request: &PickRequest, _now: Timestamp, rng: &mut dyn Rng, picks: &mut Picks) {
        draw::fill(&self.candidates, request, picks, || {
            let (one, other) = (self.draws.index(rng.next_u64()), self.draws.index(rng.next_u64()));
            if self.load(other) < self.load(one) { other } else { one }
        });
    }
}
