//! `ranked`: of n backends the fastest has weight n, the slowest weight 1, and a weighted draw decides.

use rand::Rng;
use rand::seq::SliceRandom;

use super::alias::AliasTable;
use super::{Candidate, Picks, Policy, Request, Tick, draw};

/// Weighs by rank in response time. Equal times are ranked in random order, anew in each table; a backend whose time
/// is not known ranks last.
#[derive(Debug)]
pub(super) struct Ranked {
    candidates: Box<[Candidate]>,
    draws: AliasTable,
}

impl Ranked {
    pub(super) fn new(mut candidates: Vec<Candidate>, rng: &mut dyn Rng) -> Self {
        candidates.shuffle(rng);
        candidates.sort_by_key(|candidate| {
            std::cmp::Reverse((candidate.response_time.is_none(), candidate.response_time))
        });
        let weights: Vec<f64> = candidates
            .iter()
            .zip(1_u32..)
            .map(|(candidate, rank)| f64::from(rank) * candidate.weight)
            .collect();
        Self { candidates: candidates.into_boxed_slice(), draws: AliasTable::new(&weights) }
    }
}

impl Policy for Ranked {
    fn pick(&self, request: &Request, _now: Tick, rng: &mut dyn Rng, picks: &mut Picks) {
        draw::fill(&self.candidates, request, picks, || self.draws.index(rng.next_u64()));
    }
}
