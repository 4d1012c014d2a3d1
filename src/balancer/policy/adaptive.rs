//! `adaptive`: the backend that will have finished one request more the soonest, as far as that is known.
//!
//! Each backend has a virtual finish time, the tick at which the work known of will be done: what its latest load
//! report said, and what this balancer has sent since. It approaches by itself as time passes, so that nothing has to
//! be reset between probes, and a backend that is not heard of is sent clients at the pace it is believed to carry,
//! which is weighted round robin.
//!
//! A pick looks at a few backends, whatever their number: some drawn by capacity, and the best that were there after
//! earlier picks, the chosen one included: a weak backend that is free is seldom drawn, and must not be forgotten while
//! strong ones are overrun. The draws are not random but spread evenly, so that each backend comes up about as often as
//! it should.

mod capacity;
mod names;
mod outlook;
mod silent;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::Rng;

use self::names::{Name, Names};
use self::outlook::{Outlook, Rank, Samples};
use super::alias::AliasTable;
use super::draw::{self, Choices as _};
use super::ledger::{Line, PAGE, Page};
use super::{Candidate, Ledger, Picks, Policy, Request, Tick};

/// How many backends a pick draws ...
const DRAWN: usize = 4;

/// ... and how many more it remembers, the best that are left after earlier picks. They cost less than a draw, and are
/// worth more (Mitzenmacher, Prabhakar, Shah, "Load Balancing with Memory", 2002).
const REMEMBERED: usize = 2;

/// 2^64 divided by the golden ratio: multiples of it, modulo 2^64, are spread as evenly as can be.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Compares virtual finish times.
///
/// A backend goes by the number of its line: its place in `pages`, one page after the other. A draw gives such a number,
/// so that a pick waits for memory twice only, for a column of `draws` and for the line.
#[derive(Debug)]
pub(super) struct Adaptive {
    draws: AliasTable,
    pages: Box<[Arc<Page>]>,
    names: Names,
    hints: Hints,
    /// What keeps the lines from being given to others.
    _ledgers: Box<[Arc<Ledger>]>,
}

/// What all workers write for each pick, on a cache line of its own. Where two write at once, one hint is lost.
#[derive(Debug)]
#[repr(align(64))]
struct Hints {
    /// How many draws were made.
    drawn: AtomicU64,
    /// The backends that were the best after the latest pick.
    remembered: [AtomicU32; REMEMBERED],
}

impl Adaptive {
    /// Compares these candidates, whose lines it sets right first.
    pub(super) fn new(candidates: Vec<Candidate>, now: Tick, rng: &mut dyn Rng) -> Self {
        silent::level(&candidates, now);
        for (candidate, cost) in candidates.iter().zip(capacity::costs(&candidates)) {
            candidate.ledger.line().set_cost(cost);
        }
        Self::over(candidates, rng)
    }

    /// Compares candidates whose lines are right already.
    pub(super) fn over(candidates: Vec<Candidate>, rng: &mut dyn Rng) -> Self {
        let mut pages: Vec<Arc<Page>> = Vec::new();
        let (mut names, mut shares) = (Vec::new(), Vec::new());
        let mut best = [(Tick(u64::MAX), u32::MAX); REMEMBERED];
        for Candidate { ledger, backend, .. } in &candidates {
            let place = ledger.place();
            let known = pages.iter().rposition(|page| Arc::ptr_eq(page, &place.page));
            let page = known.unwrap_or_else(|| {
                pages.push(Arc::clone(&place.page));
                names.resize(pages.len() * PAGE, None);
                shares.resize(pages.len() * PAGE, 0.0);
                pages.len() - 1
            });
            let number = page * PAGE + place.index;
            if let (Some(name), Some(share)) = (names.get_mut(number), shares.get_mut(number)) {
                *name = Some(Name { backend: *backend, identity: ledger.identity() });
                *share = 1.0 / f64::from(place.line().delay());
            }
            let delay = place.line().delay() as u64;
            let [first, second] = best;
            let free = (Tick(place.line().drained_at().0.saturating_add(delay)), number as u32);
            best = [first.min(free), first.max(free).min(second)];
        }
        let names = Names::new(names);
        shares.truncate(names.lines());
        let draws = AliasTable::new(&shares);
        let remembered = best.map(|(_, number)| AtomicU32::new(number));
        Self {
            draws,
            pages: pages.into_boxed_slice(),
            names,
            hints: Hints { drawn: AtomicU64::new(rng.next_u64()), remembered },
            _ledgers: candidates.into_iter().map(|candidate| candidate.ledger).collect(),
        }
    }

    /// The number of the first of `count` draws.
    fn advance(&self, count: usize) -> u64 {
        // Not one atomic step: two workers that get the same numbers look at the same backends once.
        let drawn = self.hints.drawn.load(Relaxed);
        self.hints.drawn.store(drawn.wrapping_add(count as u64), Relaxed);
        drawn
    }

    /// The backend that the draw of this number gives.
    fn draw(&self, number: u64) -> usize {
        self.draws.index(number.wrapping_mul(GOLDEN))
    }

    fn line(&self, number: u32) -> Option<&Line> {
        let page = self.pages.get(number as usize / PAGE)?;
        Some(page.line(number as usize))
    }

    /// The backends to compare, those avoided left out.
    fn samples(&self, request: &Request, now: Tick) -> Samples {
        let first = self.advance(DRAWN);
        let [one, two, three, four] = [0, 1, 2, 3].map(|nth| self.draw(first.wrapping_add(nth)) as u32);
        let [five, six] = self.hints.remembered.each_ref().map(|hint| hint.load(Relaxed));
        let outlook = |number| self.line(number).map_or(Outlook::NONE, |line| Outlook::of(line, number, now));
        let mut outlooks = [one, two, three, four, five, six].map(outlook);
        if !request.avoid.is_empty() {
            for outlook in &mut outlooks {
                let name = self.names.get(outlook.rank().number() as usize);
                if name.is_none_or(|name| request.avoid.contains(name.identity)) {
                    *outlook = Outlook::NONE;
                }
            }
        }
        Samples::new(outlooks)
    }

    /// Keeps for the next pick the best of what was looked at: the chosen one as it is now, and the others in order.
    fn remember(&self, chosen: Rank, others: [Rank; REMEMBERED]) {
        let [first, second] = others;
        let best = [first.min(chosen), first.max(chosen).min(second)];
        for (hint, rank) in self.hints.remembered.iter().zip(best) {
            hint.store(rank.number(), Relaxed);
        }
    }
}

impl Policy for Adaptive {
    fn pick(&self, request: &Request, now: Tick, _rng: &mut dyn Rng, picks: &mut Picks) {
        let mut draw = || self.draw(self.advance(1));
        if picks.chosen().is_some() {
            return draw::fill_up(&self.names, request, picks, draw);
        }
        let samples = self.samples(request, now);
        let (number, name) = if let Some(number) = samples.best() {
            (number, self.names.get(number as usize))
        } else {
            // All that were looked at are avoided: the next that is not, or whichever if all are.
            let first = draw();
            let number = draw::acceptable(&self.names, request, picks, first, &mut draw).unwrap_or(first);
            (number as u32, self.names.get(number))
        };
        let (Some(line), Some(name)) = (self.line(number), name) else { return };
        line.postpone(now);
        line.redirected();
        picks.push(name.backend);
        let (others, found) = samples.others(number);
        let [first, second, ..] = others;
        self.remember(Outlook::of(line, number, now).rank(), [first, second]);
        if !picks.is_full() {
            let others = others.get(..found).unwrap_or_default();
            for name in others.iter().filter_map(|rank| self.names.get(rank.number() as usize)) {
                if !picks.is_full() {
                    picks.push(name.backend);
                }
            }
            draw::fill_up(&self.names, request, picks, draw);
        }
    }
}
