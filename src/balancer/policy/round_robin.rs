//! `round-robin`: one after the other, each as often as its weight says.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::Rng;

use super::{Candidate, Picks, Policy, Request, Tick, draw};

/// Walks over the weights laid end to end, in as many equal steps as there are candidates. So a round gives each its
/// share, rounded up or down, and with equal weights each comes exactly once.
///
/// A new table goes on where the last one was, which the ledgers tell: beginning anew would favour the first backends
/// with every table.
#[derive(Debug)]
pub(super) struct RoundRobin {
    candidates: Box<[Candidate]>,
    /// Where each candidate's stretch ends, the whole being 1.
    ends: Box<[f64]>,
    steps: AtomicU64,
}

/// The golden ratio's fraction: each round is shifted by it, so that the points of all rounds lie evenly.
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
        let sent = candidates.iter().map(|candidate| candidate.ledger.redirects()).sum();
        Self { candidates: candidates.into_boxed_slice(), ends, steps: AtomicU64::new(sent) }
    }

    /// The candidate at the current step; `advance` moves the round on by that number of steps.
    fn step(&self, advance: u64) -> usize {
        let steps = self.steps.fetch_add(advance, Relaxed);
        let count = self.candidates.len().max(1) as u64;
        let (round, place) = (steps / count, steps % count);
        let shift = (round as f64 * SHIFT).fract();
        let point = (place as f64 + shift) / count as f64;
        self.ends.partition_point(|end| *end <= point).min(self.candidates.len().saturating_sub(1))
    }
}

impl Policy for RoundRobin {
    fn pick(&self, request: &Request, _now: Tick, _rng: &mut dyn Rng, picks: &mut Picks) {
        let first = self.step(u64::from(picks.chosen().is_none()));
        let mut offset = 0;
        // Runners-up and replacements are the next in order; they do not move the round on.
        draw::fill(&self.candidates, request, picks, || {
            let index = (first + offset) % self.candidates.len().max(1);
            offset += 1;
            index
        });
    }
}
