//! `round-robin`: chooses the backends in order, each as often as its weight requires.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::Rng;

use super::{Candidate, PickRequest, Picks, Policy, Timestamp, draw};

/// Places the weights end to end on the interval from 0 to 1, and walks over it in as many equal steps per round as
/// there are candidates. A round chooses each candidate as often as its share requires, rounded up or down; with equal
/// weights, exactly once.
///
/// A new table continues at the position of the previous one, which is the sum of all redirects. Starting again at the
/// first candidate would favour the first candidates with each table.
#[derive(Debug)]
pub(super) struct RoundRobin {
    candidates: Box<[Candidate]>,
    /// The end of each candidate's part of the interval.
    ends: Box<[f64]>,
    steps: AtomicU64,
}

/// The fractional part of the golden ratio. Each round is shifted by it, so that the points of all rounds are evenly
/// distributed.
const SHIFT: f64 = 0.618_033_988_749_894_9;

impl RoundRobin {
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        let sum: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let ends = candidates
            .iter()
            .scan(0.0, |end, candidate| {
                *end += candidate.weight / sum;
                Some(*end)
            })
            .collect();
        let redirects = candidates.iter().map(|candidate| candidate.load.redirects()).sum();
        Self { candidates: candidates.into_boxed_slice(), ends, steps: AtomicU64::new(redirects) }
    }

    /// The candidate at the current step; `advance` moves the round on by that number of steps.
    fn step(&self, advance: u64) -> usize {
        let steps = self.steps.fetch_add(advance, Relaxed);
        let count = self.candidates.len().max(1) as u64;
        let (round, step) = (steps / count, steps % count);
        let shift = (round as f64 * SHIFT).fract();
        let point = (step as f64 + shift) / count as f64;
        self.ends.partition_point(|end| *end <= point).min(self.candidates.len().saturating_sub(1))
    }
}

impl Policy for RoundRobin {
    fn pick(&self, request: &PickRequest, _now: Timestamp, _rng: &mut dyn Rng, picks: &mut Picks) {
        let first = self.step(u64::from(picks.chosen().is_none()));
        let mut offset = 0;
        // Alternates and replacements are the next candidates in order. They do not advance the round.
        draw::fill(&self.candidates, request, picks, || {
            let index = (first + offset) % self.candidates.len().max(1);
            offset += 1;
            index
        });
    }
}
