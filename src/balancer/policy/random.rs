//! `random`: chooses each backend with a probability proportional to its weight.

use rand::Rng;

use super::alias::AliasTable;
use super::{Candidate, PickRequest, Picks, Policy, Timestamp, draw};

/// Draws candidates at random, in proportion to given weights.
#[derive(Debug)]
pub(super) struct WeightedRandom {
    candidates: Box<[Candidate]>,
    draws: AliasTable,
}

impl WeightedRandom {
    /// Draws by the weights in the candidates.
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        let weights: Vec<f64> = candidates.iter().map(|candidate| candidate.weight).collect();
        Self::with_weights(candidates, &weights)
    }

    /// Draws by `weights`, one for each candidate.
    pub(super) fn with_weights(candidates: Vec<Candidate>, weights: &[f64]) -> Self {
        Self { candidates: candidates.into_boxed_slice(), draws: AliasTable::new(weights) }
    }
}

impl Policy for WeightedRandom {
    fn pick(&self, request: &PickRequest, _now: Timestamp, rng: &mut dyn Rng, picks: &mut Picks) {
        draw::fill(&self.candidates, request, picks, || self.draws.index(rng.next_u64()));
    }
}
