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
const DRAWN: usize = 4;

/// ... and how many more it remembers of those that earlier picks found good and did not choose. They cost less than
/// a draw, and are worth more (Mitzenmacher, Prabhakar, Shah, "Load Balancing with Memory", 2002).
const REMEMBERED: usize = 2;

/// How many backends a pick compares; less than 8, as [`Rank`] has room for.
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

/// What all workers write for each pick, on a cache line of its own. Where two write at once, one hint is lost.
#[derive(Debug)]
#[repr(align(64))]
struct Hints {
    /// How many draws were made.
    drawn: AtomicU64,
    /// Slots that the latest pick found good and did not choose.
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
}

/// When a sample would have finished one request more, in nanoseconds from now, and below that its place among the
/// samples: one number, since sorting numbers is most of what a pick does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u64);

const PLACE_BITS: u32 = 3;

impl Rank {
    /// Of a place where there is nothing to choose.
    const NONE: Self = Self(u64::MAX);

    fn new(finish: u64, place: usize) -> Self {
        Self((finish.min(u64::MAX >> (PLACE_BITS + 1)) << PLACE_BITS) | place as u64)
    }

    fn finish(self) -> u64 {
        self.0 >> PLACE_BITS
    }

    fn place(self) -> usize {
        (self.0 & ((1 << PLACE_BITS) - 1)) as usize
    }
}

/// Sorts by a network of twelve exchanges, which need no branches: what is looked at is in no order that a processor
/// could foresee.
fn sorted(
    [mut first, mut second, mut third, mut fourth, mut fifth, mut sixth]: [Rank; CHOICES],
) -> [Rank; CHOICES] {
    let exchange = |left: &mut Rank, right: &mut Rank| {
        (*left, *right) = (Rank(left.0.min(right.0)), Rank(left.0.max(right.0)));
    };
    exchange(&mut first, &mut sixth);
    exchange(&mut second, &mut fourth);
    exchange(&mut third, &mut fifth);
    exchange(&mut second, &mut third);
    exchange(&mut fourth, &mut fifth);
    exchange(&mut first, &mut fourth);
    exchange(&mut third, &mut sixth);
    exchange(&mut first, &mut second);
    exchange(&mut third, &mut fourth);
    exchange(&mut fifth, &mut sixth);
    exchange(&mut second, &mut third);
    exchange(&mut fourth, &mut fifth);
    [first, second, third, fourth, fifth, sixth]
}

/// What a pick looks at, and in which order it would choose.
struct Samples<'a> {
    samples: [Option<Sample<'a>>; CHOICES],
    ranks: [Rank; CHOICES],
}

impl Adaptive {
    pub(super) fn new(candidates: Vec<Candidate>, rng: &mut dyn Rng) -> Self {
        let costs = capacity::costs(&candidates);
        let shares: Vec<f64> = costs.iter().map(|cost| cost.pace).collect();
        let slots = candidates
            .into_iter()
            .zip(costs)
            .map(|(candidate, cost)| {
                candidate.ledger.set_cost(cost.delay);
                Slot { ledger: candidate.ledger, backend: candidate.backend, cost }
            })
            .collect();
        let hints = Hints { drawn: AtomicU64::new(rng.next_u64()), remembered: Default::default() };
        Self { slots, draws: AliasTable::new(&shares), hints }
    }

    /// The number of the first of `count` draws.
    fn advance(&self, count: usize) -> u64 {
        // Not one atomic step: two workers that get the same numbers look at the same backends once.
        let drawn = self.hints.drawn.load(Relaxed);
        self.hints.drawn.store(drawn.wrapping_add(count as u64), Relaxed);
        drawn
    }

    /// The index that the draw of this number gives.
    fn draw(&self, number: u64) -> usize {
        self.draws.index(number.wrapping_mul(GOLDEN))
    }

    /// The backends to compare, those avoided left out.
    fn samples(&self, request: &Request, now: Tick) -> Samples<'_> {
        let first = self.advance(DRAWN);
        let mut indices = [0; CHOICES];
        let (drawn, remembered) = indices.split_at_mut(DRAWN);
        for (index, number) in drawn.iter_mut().zip(0..) {
            *index = self.draw(first.wrapping_add(number)) as u32;
        }
        for (index, hint) in remembered.iter_mut().zip(&self.hints.remembered) {
            *index = hint.load(Relaxed);
        }
        let mut ranks = [Rank::NONE; CHOICES];
        let mut samples = [None; CHOICES];
        for (place, ((index, sample), rank)) in
            indices.into_iter().zip(&mut samples).zip(&mut ranks).enumerate()
        {
            if let Some(slot) = self.slots.get(index as usize)
                && !request.avoid.contains(slot.ledger.identity())
            {
                let found = Sample { slot, index, drained_at: slot.ledger.drained_at() };
                *rank = Rank::new(found.finish(now), place);
                *sample = Some(found);
            }
        }
        Samples { samples, ranks: sorted(ranks) }
    }

    /// Keeps the best of what was looked at and not chosen for the next pick.
    fn remember(&self, samples: &Samples<'_>, chosen: u32) {
        let mut last = chosen;
        let mut hints = self.hints.remembered.iter();
        for (_, sample) in samples.in_order() {
            // The same backend has the same rank but for its place, so doubles are neighbours.
            if sample.index != chosen && sample.index != last {
                let Some(hint) = hints.next() else { return };
                hint.store(sample.index, Relaxed);
                last = sample.index;
            }
        }
    }
}

impl Sample<'_> {
    fn finish(&self, now: Tick) -> u64 {
        let cost = self.slot.cost;
        match self.drained_at.0.checked_sub(now.0) {
            None | Some(0) => cost.service,
            // Half a request more where there is work: that it goes on as believed is less sure than that an idle
            // server is idle.
            Some(backlog) => backlog.saturating_add(half_more(cost.delay)),
        }
    }

    /// How long it has been idle, in requests that it could have answered.
    fn waited(&self, now: Tick) -> f64 {
        now.0.saturating_sub(self.drained_at.0) as f64 * self.slot.cost.pace
    }
}

fn half_more(time: u64) -> u64 {
    time.saturating_add(time / 2)
}

impl<'a> Samples<'a> {
    /// From the best to the worst.
    fn in_order(&self) -> impl Iterator<Item = (Rank, &Sample<'a>)> {
        self.ranks.iter().map_while(|rank| Some((*rank, self.samples.get(rank.place())?.as_ref()?)))
    }

    /// The sample that finishes soonest. If it is idle: of the idle ones that take no more than half as long again,
    /// the one that has waited longest in proportion to what a request costs it. So those of about the same capacity
    /// share what comes in by weight, and a much slower one is left alone until the faster have work to do.
    fn best(&self, now: Tick) -> Option<Sample<'a>> {
        let (soonest, mut best) = self.in_order().next()?;
        if best.drained_at > now {
            return Some(*best);
        }
        let limit = half_more(soonest.finish());
        let mut longest = best.waited(now);
        for (rank, sample) in self.in_order().skip(1) {
            if rank.finish() > limit {
                break;
            }
            let waited = sample.waited(now);
            if sample.drained_at <= now && waited > longest {
                (longest, best) = (waited, sample);
            }
        }
        Some(*best)
    }
}

impl Policy for Adaptive {
    fn pick(&self, request: &Request, now: Tick, _rng: &mut dyn Rng, picks: &mut Picks) {
        let samples = self.samples(request, now);
        let mut draw = || self.draw(self.advance(1));
        let best = samples.best(now).or_else(|| {
            // All that were looked at are avoided: the next that is not, or whichever if all are.
            let first = draw();
            let slot = draw::acceptable(&self.slots, request, picks, first, &mut draw);
            let slot = slot.or_else(|| self.slots.get(first))?;
            Some(Sample { slot, index: u32::MAX, drained_at: slot.ledger.drained_at() })
        });
        let Some(best) = best else { return };
        best.slot.ledger.delay(best.drained_at, best.slot.cost.delay, now);
        best.slot.ledger.redirected();
        picks.push(best.slot.backend);
        self.remember(&samples, best.index);
        if !picks.is_full() {
            for (_, sample) in samples.in_order() {
                if !picks.is_full() && !picks.contains(sample.slot.backend) {
                    picks.push(sample.slot.backend);
                }
            }
            draw::fill_up(&self.slots, request, picks, draw);
        }
    }
}
