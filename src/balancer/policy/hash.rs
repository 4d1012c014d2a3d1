//! `hash`: the same path goes to the same backend, for servers that cache.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::Rng;

use super::digest::mix;
use super::{Candidate, Picks, Policy, Request, Tick, draw};

/// Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads",
/// 2018): a path belongs to the backend whose point on a ring comes next, and goes on to the one after while that
/// one has more than a quarter more outstanding than its share.
///
/// The points depend on each backend's address alone, the base path included, so that a backend which comes or goes moves only its own paths,
/// and all balancers agree.
#[derive(Debug)]
pub(super) struct Hash {
    candidates: Box<[Candidate]>,
    /// Points in order, each with the index of its candidate.
    ring: Box<[(u64, u32)]>,
    /// What was outstanding in all when the table was built, and what was sent since.
    outstanding: AtomicU64,
    weights: f64,
}

/// Points of a backend of average weight in a small fleet; the more, the more evenly paths spread.
const POINTS: usize = 64;

/// About as many points in all: sorting them is most of a rebuild.
const MOST_POINTS: usize = 1 << 16;

/// How many times its share of what is outstanding a backend may have before its paths move on.
const BOUND: f64 = 1.25;

/// So many outstanding are no reason to move on: spreading a path costs its cache.
const ALWAYS_ALLOWED: f64 = 8.0;

impl Hash {
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        let weights: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let average = weights / candidates.len().max(1) as f64;
        let points = (MOST_POINTS / candidates.len().max(1)).clamp(4, POINTS) as f64;
        let mut ring: Vec<(u64, u32)> = (0..)
            .zip(&candidates)
            .flat_map(|(index, candidate)| {
                let seed = candidate.address;
                let count = (candidate.weight / average * points).round().max(1.0) as u64;
                (0..count).map(move |point| (mix(seed.wrapping_add(point)), index))
            })
            .collect();
        ring.sort_unstable();
        let outstanding = candidates.iter().map(|candidate| candidate.ledger.outstanding()).sum();
        Self {
            candidates: candidates.into_boxed_slice(),
            ring: ring.into_boxed_slice(),
            outstanding: AtomicU64::new(outstanding),
            weights,
        }
    }

    fn has_room(&self, candidate: &Candidate, outstanding: u64) -> bool {
        let share = (outstanding as f64 + 1.0) * candidate.weight / self.weights;
        (candidate.ledger.outstanding() as f64) < (share * BOUND).max(ALWAYS_ALLOWED)
    }
}

impl Policy for Hash {
    fn pick(&self, request: &Request, _now: Tick, _rng: &mut dyn Rng, picks: &mut Picks) {
        let outstanding = self.outstanding.fetch_add(1, Relaxed);
        let start = self.ring.partition_point(|(point, _)| *point < mix(request.path_hash));
        let (before, from) = self.ring.split_at_checked(start).unwrap_or_default();
        let mut walk = from.iter().chain(before).map(|(_, index)| *index as usize);
        let owner = walk.clone().next().unwrap_or_default();
        // Within so many points a backend with room is found almost surely: at most four in five are full.
        let mut near = walk.clone().take(POINTS).filter(|index| {
            self.candidates.get(*index).is_some_and(|candidate| self.has_room(candidate, outstanding))
        });
        let first = near.next().unwrap_or(owner);
        let mut drawn = Some(first);
        draw::fill(&self.candidates, request, picks, || {
            drawn.take().or_else(|| walk.next()).unwrap_or(owner)
        });
    }
}
