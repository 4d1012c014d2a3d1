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

use std::array;
use std::hint::select_unpredictable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::Rng;

use super::alias::AliasTable;
use super::draw::{self, Choice};
use super::{Candidate, Ledger, MOST_ALTERNATES, Picks, Policy, Request, Tick};

/// How many backends a pick draws ...
const DRAWN: usize = 4;

/// ... and how many more it remembers of those that earlier picks found good and did not choose. They cost less than
/// a draw, and are worth more (Mitzenmacher, Prabhakar, Shah, "Load Balancing with Memory", 2002).
const REMEMBERED: usize = 2;

/// How many backends a pick compares; less than 8, as [`Key`] has room for.
const CHOICES: usize = DRAWN + REMEMBERED;

/// How many of the best are gone through for those to name and to remember besides the chosen one, which is nearly always
/// among them.
const BEST: usize = 1 + MOST_ALTERNATES;

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

/// Two to a cache line: with many backends, what a pick costs is waiting for memory.
#[derive(Debug)]
#[repr(align(32))]
struct Slot {
    ledger: Arc<Ledger>,
    service: u64,
    pace: f64,
    backend: u32,
}

impl Choice for Slot {
    fn backend(&self) -> u32 {
        self.backend
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

/// A figure to compare by, and below it the place among the samples that it belongs to: one number, since what is
/// looked at is in no order that a processor could foresee, and the smaller or larger of two numbers takes no branch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64);

const PLACE_BITS: u32 = 3;

impl Key {
    /// Of a place where there is nothing to choose.
    const NONE: Self = Self(u64::MAX);

    fn new(figure: u64, place: usize) -> Self {
        Self((figure.min(u64::MAX >> (PLACE_BITS + 1)) << PLACE_BITS) | place as u64)
    }

    fn figure(self) -> u64 {
        self.0 >> PLACE_BITS
    }

    fn place(self) -> usize {
        (self.0 & ((1 << PLACE_BITS) - 1)) as usize
    }
}

/// Sorts by a network of twelve exchanges.
fn sorted(
    [mut first, mut second, mut third, mut fourth, mut fifth, mut sixth]: [Key; CHOICES],
) -> [Key; CHOICES] {
    let exchange = |left: &mut Key, right: &mut Key| {
        (*left, *right) = (Key(left.0.min(right.0)), Key(left.0.max(right.0)));
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

/// The backends that a pick looks at, each at its place.
struct Samples {
    /// Their slots.
    indices: [u32; CHOICES],
    /// When each would have finished one request more, in nanoseconds from now, the soonest first.
    ranks: [Key; CHOICES],
    /// How long each has waited for work, as [`Slot::outlook`] puts it.
    waits: [u64; CHOICES],
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
                let Candidate { ledger, backend, .. } = candidate;
                Slot { ledger, service: cost.service, pace: cost.pace, backend }
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

    /// The slots to look at.
    fn indices(&self) -> [u32; CHOICES] {
        let first = self.advance(DRAWN);
        let [one, two, three, four] = [0, 1, 2, 3].map(|nth| self.draw(first.wrapping_add(nth)) as u32);
        let [five, six] = self.hints.remembered.each_ref().map(|hint| hint.load(Relaxed));
        [one, two, three, four, five, six]
    }

    /// The backends to compare, those avoided left out.
    fn samples(&self, request: &Request, now: Tick) -> Samples {
        let indices = self.indices();
        let outlooks: [(Key, u64); CHOICES] = array::from_fn(|place| {
            let slot = indices.get(place).and_then(|index| self.slots.get(*index as usize));
            match slot {
                Some(slot) if !request.avoid.contains(slot.ledger.identity()) => slot.outlook(now, place),
                _ => (Key::NONE, 0),
            }
        });
        let (ranks, waits) = (outlooks.map(|(rank, _)| rank), outlooks.map(|(_, wait)| wait));
        Samples { indices, ranks: sorted(ranks), waits }
    }

    /// Keeps the best of what was looked at and not chosen for the next pick.
    fn remember(&self, others: &[u32]) {
        for (hint, index) in self.hints.remembered.iter().zip(others) {
            hint.store(*index, Relaxed);
        }
    }
}

impl Slot {
    /// In how many nanoseconds it would have finished one request more, as the key of its place among the samples; and
    /// a number that grows with the time it has been idle, in requests that it could have answered, 0 if it has work.
    fn outlook(&self, now: Tick, place: usize) -> (Key, u64) {
        let drained_at = self.ledger.drained_at();
        let backlog = drained_at.0.saturating_sub(now.0);
        let idle = now.0.saturating_sub(drained_at.0);
        // Half a request more where there is work: that it goes on as believed is less sure than that an idle
        // server is idle.
        let finish = backlog.saturating_add(half_more(self.ledger.cost()));
        // The bits of floats that are not negative are in the order of the floats. Signed numbers are converted to
        // floats in one instruction.
        let waited = (idle.cast_signed() as f64 * self.pace).to_bits() >> PLACE_BITS;
        let busy = backlog > 0;
        let finish = select_unpredictable(busy, finish, self.service);
        (Key::new(finish, place), select_unpredictable(busy, 0, waited + 1))
    }
}

fn half_more(time: u64) -> u64 {
    time.saturating_add(time / 2)
}

impl Samples {
    /// The place of the sample that finishes soonest. If it is idle: of the idle ones that take no more than half as
    /// long again, the one that has waited longest in proportion to what a request costs it. So those of about the
    /// same capacity share what comes in by weight, and a much slower one is left alone until the faster have work to
    /// do.
    fn best(&self) -> Option<usize> {
        let soonest = *self.ranks.first()?;
        let idle = *self.waits.get(soonest.place())? > 0;
        let limit = select_unpredictable(idle, half_more(soonest.figure()), soonest.figure());
        let mut longest = Key::new(0, soonest.place());
        for rank in self.ranks {
            let wait = self.waits.get(rank.place()).copied().unwrap_or_default();
            let key = Key::new(wait, rank.place());
            longest = longest.max(select_unpredictable(rank.figure() <= limit, key, longest));
        }
        Some(longest.place())
    }

    /// The best slots that were looked at but for the chosen one, most doubles left out; and how many they are.
    fn others(&self, chosen: u32) -> ([u32; BEST], usize) {
        let (mut others, mut found) = ([u32::MAX; BEST], 0);
        let mut last = chosen;
        for rank in self.ranks.into_iter().take(BEST) {
            let index = self.indices.get(rank.place()).copied().unwrap_or(chosen);
            if let Some(other) = others.get_mut(found) {
                *other = index;
            }
            // The same backend has the same rank but for its place, so doubles are neighbours, nearly always.
            found += usize::from(index != chosen && index != last);
            last = index;
        }
        (others, found)
    }
}

impl Policy for Adaptive {
    fn pick(&self, request: &Request, now: Tick, _rng: &mut dyn Rng, picks: &mut Picks) {
        let samples = self.samples(request, now);
        let mut draw = || self.draw(self.advance(1));
        let best = samples.best().and_then(|place| samples.indices.get(place).copied());
        let (index, slot) = if let Some(index) = best {
            (index, self.slots.get(index as usize))
        } else {
            // All that were looked at are avoided: the next that is not, or whichever if all are.
            let first = draw();
            let slot = draw::acceptable(&self.slots, request, picks, first, &mut draw);
            (u32::MAX, slot.or_else(|| self.slots.get(first)))
        };
        let Some(slot) = slot else { return };
        slot.ledger.delay(now);
        slot.ledger.redirected();
        picks.push(slot.backend);
        let (others, found) = samples.others(index);
        let others = others.get(..found).unwrap_or_default();
        self.remember(others);
        if !picks.is_full() {
            for slot in others.iter().filter_map(|index| self.slots.get(*index as usize)) {
                // Where several have the same rank, doubles are not always neighbours.
                if !picks.is_full() && !picks.contains(slot.backend) {
                    picks.push(slot.backend);
                }
            }
            draw::fill_up(&self.slots, request, picks, draw);
        }
    }
}
