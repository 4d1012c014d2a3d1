//! `adaptive`: the backend that will have finished one request more the soonest, as far as that is known.
//!
//! Each backend has a virtual finish time, the tick at which the work known of will be done: what its latest load
//! report said, and what this balancer has sent since. It approaches by itself as time passes, so that nothing has to
//! be reset between probes, and a backend that is not heard of is sent clients at the pace it is believed to carry,
//! which is weighted round robin.
//!
//! A pick looks at a few backends, whatever their number: some drawn by capacity, and the best that earlier picks left
//! over. The draws are not random but spread evenly, so that each backend comes up about as often as it should.

mod capacity;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::Rng;

use self::capacity::Cost;
use super::alias::AliasTable;
use super::draw::{self, Choice};
use super::{Candidate, Ledger, Picks, Policy, Request, Tick};

/// How many backends a pick draws ...
const DRAWN: usize = 5;

/// ... and how many more it remembers of those that earlier picks found good and did not choose. They cost less than
/// a draw, and are worth more (Mitzenmacher, Prabhakar, Shah, "Load Balancing with Memory", 2002).
const REMEMBERED: usize = 3;

/// How many backends a pick compares.
const CHOICES: usize = DRAWN + REMEMBERED;

/// 2^64 divided by the golden ratio: multiples of it, modulo 2^64, are spread as evenly as can be.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Compares virtual finish times.
#[derive(Debug)]
pub(super) struct Adaptive {
    slots: Box<[Slot]>,
    draws: AliasTable,
    hints: Hints,
}

/// What all workers write for each pick, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Hints {
    /// How many draws were made.
    sequence: AtomicU64,
    /// Slots that the latest picks found good and did not choose.
    remembered: [AtomicU32; REMEMBERED],
}

#[derive(Debug)]
struct Slot {
    ledger: Arc<Ledger>,
    backend: u32,
    cost: Cost,
}

impl Choice for Slot {
    fn backend(&self) -> u32 {
        self.backend
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

/// A backend that was looked at.
#[derive(Clone, Copy)]
struct Sample<'a> {
    slot: &'a Slot,
    index: u32,
    drained_at: Tick,
    /// Nanoseconds until it would have finished one request more.
    finish: u64,
}

impl Adaptive {
    pub(super) fn new(candidates: Vec<Candidate>, rng: &mut dyn Rng) -> Self {
        let costs = capacity::costs(&candidates);
        let shares: Vec<f64> = costs.iter().map(|cost| 1.0 / cost.delay as f64).collect();
        let slots = candidates
            .into_iter()
            .zip(costs)
            .map(|(candidate, cost)| {
                candidate.ledger.set_cost(cost.delay);
                Slot { ledger: candidate.ledger, backend: candidate.backend, cost }
            })
            .collect();
        let hints = Hints { sequence: AtomicU64::new(rng.next_u64()), remembered: Default::default() };
        Self { slots, draws: AliasTable::new(&shares), hints }
    }

    /// The next index of the evenly spread sequence.
    fn draw(&self) -> usize {
        self.draws.index(self.hints.sequence.fetch_add(1, Relaxed).wrapping_mul(GOLDEN))
    }

    /// The backends to compare, those avoided left out.
    fn samples(&self, request: &Request, now: Tick) -> [Option<Sample<'_>>; CHOICES] {
        let first = self.hints.sequence.fetch_add(DRAWN as u64, Relaxed);
        let mut seen = [u32::MAX; CHOICES];
        std::array::from_fn(|place| {
            let index = match self.hints.remembered.get(place) {
                Some(remembered) => remembered.load(Relaxed),
                None => self.draws.index(first.wrapping_add(place as u64).wrapping_mul(GOLDEN)) as u32,
            };
            let slot = self.slots.get(index as usize)?;
            if seen.contains(&index) || request.avoid.contains(slot.ledger.identity()) {
                return None;
            }
            if let Some(entry) = seen.get_mut(place) {
                *entry = index;
            }
            Some(slot.sample(index, now))
        })
    }

    /// Keeps the best of what was looked at and not chosen for the next pick.
    fn remember(&self, samples: &mut [Option<Sample<'_>>; CHOICES], chosen: u32) {
        samples.sort_unstable_by_key(|sample| sample.map_or(u64::MAX, |sample| sample.finish));
        let left = samples.iter().flatten().filter(|sample| sample.index != chosen);
        for (sample, place) in left.zip(&self.hints.remembered) {
            place.store(sample.index, Relaxed);
        }
    }
}

impl Slot {
    fn sample(&self, index: u32, now: Tick) -> Sample<'_> {
        let drained_at = self.ledger.drained_at();
        // Half a request more where there is work: that it goes on as believed is less sure than that an idle server
        // is idle.
        let finish = if drained_at > now {
            (drained_at.0 - now.0).saturating_add(lengthened(self.cost.delay))
        } else {
            self.cost.service
        };
        Sample { slot: self, index, drained_at, finish }
    }
}

/// Half as long again.
fn lengthened(time: u64) -> u64 {
    time.saturating_add(time / 2)
}

/// The sample that finishes soonest. If it is idle: of the idle ones that take no more than half as long again, the
/// one that has waited longest in proportion to what a request costs it. So those of about the same capacity share what
/// comes in by weight, and a much slower one is left alone until the faster have work to do.
fn best<'a>(samples: &[Option<Sample<'a>>; CHOICES], now: Tick) -> Option<Sample<'a>> {
    let soonest = samples.iter().flatten().min_by_key(|sample| sample.finish).copied()?;
    if soonest.drained_at > now {
        return Some(soonest);
    }
    let limit = lengthened(soonest.finish);
    let waited = |sample: &Sample<'_>| {
        now.0.saturating_sub(sample.drained_at.0) as f64 / sample.slot.cost.delay as f64
    };
    samples
        .iter()
        .flatten()
        .filter(|sample| sample.drained_at <= now && sample.finish <= limit)
        .max_by(|left, right| waited(left).total_cmp(&waited(right)))
        .copied()
}

impl Policy for Adaptive {
    fn pick(&self, request: &Request, now: Tick, _rng: &mut dyn Rng, picks: &mut Picks) {
        let mut samples = self.samples(request, now);
        let best = best(&samples, now).or_else(|| {
            // All that were drawn are avoided: the next that is not, or whichever if all are.
            let first = self.draw();
            let slot = draw::acceptable(&self.slots, request, picks, first, &mut || self.draw());
            slot.or_else(|| self.slots.get(first)).map(|slot| slot.sample(u32::MAX, now))
        });
        let Some(best) = best else { return };
        best.slot.ledger.delay(best.drained_at, best.slot.cost.delay, now);
        best.slot.ledger.redirected();
        picks.push(best.slot.backend);
        self.remember(&mut samples, best.index);
        if !picks.is_full() {
            for sample in samples.iter().flatten() {
                if !picks.is_full() && !picks.contains(sample.slot.backend) {
                    picks.push(sample.slot.backend);
                }
            }
            draw::fill_up(&self.slots, request, picks, || self.draw());
        }
    }
}
