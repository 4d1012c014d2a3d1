//! `hash`: sends requests for one path to one backend, for servers that cache.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::Rng;

use super::digest::mix;
use super::{Candidate, PickRequest, Picks, Policy, Timestamp, draw};

/// Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads",
/// 2018). A path belongs to the backend at the next point of a ring. While that backend has more than 1.25 times its
/// share of the outstanding requests, the path moves to the following one.
///
/// The points depend only on each backend's whole address, including the base path. So a backend that joins or leaves
/// moves only its own paths, and all balancers agree.
#[derive(Debug)]
pub(super) struct ConsistentHash {
    candidates: Box<[Candidate]>,
    /// Points in ascending order, each with the index of its candidate.
    ring: Box<[(u64, u32)]>,
    /// The outstanding requests of all candidates when the table was built, plus the redirects since.
    outstanding: AtomicU64,
    weights: f64,
}

/// Points of a backend of average weight in a small fleet. More points distribute the paths more evenly.
const POINTS: usize = 64;

/// The approximate number of points of all backends. Sorting them takes most of the time of a rebuild.
const MAX_POINTS: usize = 1 << 16;

/// A backend may have this many times its share of the outstanding requests before its paths move.
const BOUND: f64 = 1.25;

/// With fewer outstanding requests than this, paths never move: a moved path misses the cache.
const ALWAYS_ALLOWED: f64 = 8.0;

impl ConsistentHash {
    pub(super) fn new(candidates: Vec<Candidate>) -> Self {
        let weights: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let average = weights / candidates.len().max(1) as f64;
        let points = (MAX_POINTS / candidates.len().max(1)).clamp(4, POINTS) as f64;
        let mut ring: Vec<(u64, u32)> = (0..)
            .zip(&candidates)
            .flat_map(|(index, candidate)| {
                let seed = candidate.address;
                let count = (candidate.weight / average * points).round().max(1.0) as u64;
                (0..count).map(move |point| (mix(seed.wrapping_add(point)), index))
            })
            .collect();
        ring.sort_unstable();
        let outstanding = candidates.iter().map(|candidate| candidate.load.outstanding()).sum();
        Self {
            candidates: candidates.into_boxed_slice(),
            ring: ring.into_boxed_slice(),
            outstanding: AtomicU64::new(outstanding),
            weights,
        }
    }

    fn has_room(&self, candidate: &Candidate, outstanding: u64) -> bool {
        let share = (outstanding as f64 + 1.0) * candidate.weight / self.weights;
        (candidate.load.outstanding() as f64) < (share * BOUND).max(ALWAYS_ALLOWED)
    }
}

impl Policy for ConsistentHash {
    fn pick(&self, request: &PickRequest, _now: Timestamp, _rng: &mut dyn Rng, picks: &mut Picks) {
        let outstanding = self.outstanding.fetch_add(1, Relaxed);
        let start = self.ring.partition_point(|(point, _)| *point < mix(request.path_hash));
        let (before, from) = self.ring.split_at_checked(start).unwrap_or_default();
        let mut walk = from.iter().chain(before).map(|(_, index)| *index as usize);
        let owner = walk.clone().next().unwrap_or_default();
        // At most four in five backends are full, so a backend with room is almost certainly among the next points.
        let mut near = walk.clone().take(POINTS).filter(|index| {
            self.candidates.get(*index).is_some_and(|candidate| {
                self.has_room(candidate, outstanding) && request.is_held_by(candidate.load.number())
            })
        });
        let mut chosen = Some(near.next().unwrap_or(owner));
        draw::fill(&self.candidates, request, picks, || {
            chosen.take().or_else(|| walk.next()).unwrap_or(owner)
        });
    }
}
