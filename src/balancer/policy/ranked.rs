//! `ranked`: a weighted random draw in which the fastest of n backends has weight n and the slowest has weight 1.

use std::cmp::Reverse;

use rand::Rng;
use rand::seq::SliceRandom;

use super::Candidate;
use super::random::WeightedRandom;

/// Weighs the candidates by their rank in response time, multiplied by their own weight.
///
/// Candidates with equal response times are ranked in random order, which differs from table to table. Candidates with
/// an unknown response time rank last.
pub(super) fn ranked(mut candidates: Vec<Candidate>, rng: &mut dyn Rng) -> WeightedRandom {
    candidates.shuffle(rng);
    candidates.sort_by_key(|candidate| Reverse((candidate.response_time.is_none(), candidate.response_time)));
    let weights: Vec<f64> =
        candidates.iter().zip(1_u32..).map(|(candidate, rank)| f64::from(rank) * candidate.weight).collect();
    WeightedRandom::with_weights(candidates, &weights)
}
