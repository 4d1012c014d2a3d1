//! `adaptive`: chooses the backend at which a download causes the least delay, for its client and for the other downloads.
//!
//! Each backend has a backlog: its unfinished downloads by size (`backlog.rs`), from the latest load report and the redirects
//! since. It is drained at the measured capacity, so probes need no reset. If reports stop, the balancer keeps sending clients
//! at the rate that it expects the backend to carry, which is weighted round robin. The virtual finish time is the moment at
//! which the backlog will be empty.
//!
//! A pick compares six backends, however many there are: four drawn in proportion to their capacity, and the two best
//! after the previous pick. The chosen backend can be one of those two. Without memory, an idle weak backend would
//! rarely be drawn while strong backends are overloaded. The draws follow a low-discrepancy sequence instead of random
//! numbers, so each backend is drawn about as often as its share requires.

mod capacity;
mod cell_map;
mod score;
mod without_reports;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::Rng;

use self::capacity::FleetCosts;
use self::cell_map::CellMap;
use self::score::{Samples, Score, ScoreRank};
use super::alias::AliasTable;
use super::backlog::NewDownload;
use super::draw::{self, BackendRef, BackendSet as _};
use super::load::{CHUNK_LEN, LoadCell, SlabChunk};
use super::{BackendLoad, Candidate, PickRequest, Picks, Policy, Timestamp};

/// The number of backends that a pick draws.
const DRAWN: usize = 4;

/// The number of backends that a pick remembers for the next one. Each costs less than a draw and improves the choice
/// more (Mitzenmacher, Prabhakar, Shah, "Load Balancing with Memory", 2002).
const REMEMBERED: usize = 2;

/// The number of draws for a file that some backends lack.
const MOST_DRAWN: usize = 16;

/// 2^64 divided by the golden ratio. Its multiples modulo 2^64 are evenly distributed.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Compares virtual finish times.
///
/// A backend is identified by the number of its cell, counted through `chunks`. A draw yields this number, so a pick
/// waits for memory only twice: for the column of the alias table and for the cell.
#[derive(Debug)]
pub(super) struct Adaptive {
    draws: AliasTable,
    chunks: Box<[Arc<SlabChunk>]>,
    backends: CellMap,
    hints: Hints,
    /// The weight of a download of unknown size, in bytes.
    mean_size: f32,
    /// The share of the booked bytes that reach the servers.
    arriving: f32,
    /// Keeps the slab from reusing the cells.
    _loads: Box<[Arc<BackendLoad>]>,
}

/// State that all workers write with each pick, on its own cache line. Of two concurrent writes one is lost, which makes
/// one pick slightly worse.
#[derive(Debug)]
#[repr(align(64))]
struct Hints {
    /// The number of draws so far.
    drawn: AtomicU64,
    /// The cells of the best backends after the latest pick.
    remembered: [AtomicU32; REMEMBERED],
}

impl Adaptive {
    /// Updates the cost and the finish time of each candidate, then compares the candidates.
    pub(super) fn new(candidates: Vec<Candidate>, now: Timestamp, rng: &mut dyn Rng) -> Self {
        without_reports::align(&candidates, now);
        for (candidate, cost) in candidates.iter().zip(capacity::costs(&candidates).costs) {
            candidate.load.cell().set_cost(cost, now);
        }
        Self::over(candidates, rng)
    }

    /// Compares candidates whose cost and finish time another policy has updated.
    pub(super) fn over(candidates: Vec<Candidate>, rng: &mut dyn Rng) -> Self {
        let mut chunks: Vec<Arc<SlabChunk>> = Vec::new();
        let (mut backends, mut shares) = (Vec::new(), Vec::new());
        let mut best = [(Timestamp(u64::MAX), u32::MAX); REMEMBERED];
        let FleetCosts { mean_size, arriving, .. } = capacity::costs(&candidates);
        for Candidate { load, backend, .. } in &candidates {
            let cell = load.cell_ref();
            let known = chunks.iter().rposition(|chunk| Arc::ptr_eq(chunk, &cell.chunk));
            let chunk = known.unwrap_or_else(|| {
                chunks.push(Arc::clone(&cell.chunk));
                backends.resize(chunks.len() * CHUNK_LEN, None);
                shares.resize(chunks.len() * CHUNK_LEN, 0.0);
                chunks.len() - 1
            });
            let number = chunk * CHUNK_LEN + cell.index;
            if let (Some(entry), Some(share)) = (backends.get_mut(number), shares.get_mut(number)) {
                let (identity, number) = (load.identity(), load.number());
                *entry = Some(BackendRef { backend: *backend, identity, number });
                *share = 1.0 / f64::from(load.cell().cost().weighted);
            }
            let service_time = (load.cell().cost().weighted * mean_size) as u64;
            let finish = load.cell().finish_time().0.saturating_add(service_time);
            let [first, second] = best;
            let this = (Timestamp(finish), number as u32);
            best = [first.min(this), first.max(this).min(second)];
        }
        let backends = CellMap::new(backends);
        shares.truncate(backends.cells());
        Self {
            draws: AliasTable::new(&shares),
            chunks: chunks.into_boxed_slice(),
            backends,
            mean_size,
            arriving,
            hints: Hints {
                drawn: AtomicU64::new(rng.next_u64()),
                remembered: best.map(|(_, cell)| AtomicU32::new(cell)),
            },
            _loads: candidates.into_iter().map(|candidate| candidate.load).collect(),
        }
    }

    /// Reserves `count` draws and returns the number of the first.
    fn advance(&self, count: usize) -> u64 {
        // Load and store are separate: if two workers get the same numbers, they compare the same backends once.
        let drawn = self.hints.drawn.load(Relaxed);
        self.hints.drawn.store(drawn.wrapping_add(count as u64), Relaxed);
        drawn
    }

    /// The cell that the draw with this number yields.
    fn draw(&self, number: u64) -> usize {
        self.draws.index(number.wrapping_mul(GOLDEN))
    }

    fn cell(&self, number: u32) -> Option<&LoadCell> {
        let chunk = self.chunks.get(number as usize / CHUNK_LEN)?;
        Some(chunk.cell(number as usize))
    }

    /// The backends to compare, without those that the request avoids.
    fn samples(&self, request: &PickRequest, new: &NewDownload, now: Timestamp) -> Samples {
        if request.holders.is_some() {
            return self.holding_samples(request, new, now);
        }
        let first = self.advance(DRAWN);
        let [one, two, three, four] = [0, 1, 2, 3].map(|nth| self.draw(first.wrapping_add(nth)) as u32);
        let [five, six] = self.hints.remembered.each_ref().map(|hint| hint.load(Relaxed));
        // All cells are requested from memory before the first is needed.
        let found = [one, two, three, four, five, six]
            .map(|number| self.cell(number).map(|cell| (number, cell, cell.finish_time())));
        let mut scores = found.map(|found| {
            found.map_or(Score::NONE, |(number, cell, finish)| Score::new(cell, number, finish, new, now))
        });
        if !request.avoid.is_empty() {
            for score in &mut scores {
                let backend = self.backends.get(score.rank().cell() as usize);
                if backend.is_none_or(|backend| request.avoid.contains(backend.identity)) {
                    *score = Score::NONE;
                }
            }
        }
        Samples::new(scores)
    }

    /// The same among the backends that have the file.
    #[cold]
    fn holding_samples(&self, request: &PickRequest, new: &NewDownload, now: Timestamp) -> Samples {
        let accepts = |cell: u32| {
            self.backends.get(cell as usize).is_some_and(|backend| {
                request.is_held_by(backend.number) && !request.avoid.contains(backend.identity)
            })
        };
        let mut cells = [u32::MAX; DRAWN + REMEMBERED];
        let mut found = 0;
        let mut take = |cell: u32| {
            if let Some(place) = cells.get_mut(found) {
                *place = cell;
                found += 1;
            }
            found
        };
        let first = self.advance(MOST_DRAWN);
        let draws = (0..MOST_DRAWN as u64).map(|nth| self.draw(first.wrapping_add(nth)) as u32);
        let accepted =
            draws.filter(|cell| accepts(*cell)).take(DRAWN).map(&mut take).last().unwrap_or_default();
        if accepted < DRAWN {
            // Few backends have the file: compare some of those in order, from a position that moves with each pick.
            let start = self.draw(first);
            let cells = self.backends.indices_from(start).map(|cell| cell as u32);
            let _ = cells.filter(|cell| accepts(*cell)).take(DRAWN).map(&mut take).last();
        }
        let remembered = self.hints.remembered.each_ref().map(|hint| hint.load(Relaxed));
        remembered.into_iter().filter(|cell| accepts(*cell)).for_each(|cell| {
            take(cell);
        });
        Samples::new(cells.map(|number| {
            self.cell(number)
                .map_or(Score::NONE, |cell| Score::new(cell, number, cell.finish_time(), new, now))
        }))
    }

    /// Stores the best compared backends for the next pick: the chosen one with its new rank, and the others.
    fn remember(&self, chosen: ScoreRank, others: [ScoreRank; REMEMBERED]) {
        let [first, second] = others;
        let best = [first.min(chosen), first.max(chosen).min(second)];
        for (hint, rank) in self.hints.remembered.iter().zip(best) {
            hint.store(rank.cell(), Relaxed);
        }
    }
}

impl Policy for Adaptive {
    fn pick(&self, request: &PickRequest, now: Timestamp, _rng: &mut dyn Rng, picks: &mut Picks) {
        let mut draw = || self.draw(self.advance(1));
        if picks.chosen().is_some() {
            return draw::fill_up(&self.backends, request, picks, draw);
        }
        let size = request.size.unwrap_or(self.mean_size) * self.arriving;
        let new = NewDownload::new(size);
        let samples = self.samples(request, &new, now);
        // If the request avoids all compared backends, take another one, or any if it avoids all backends.
        let other = || draw::first(&self.backends, request, picks, &mut draw).map(|number| number as u32);
        let Some(number) = samples.best().or_else(other) else { return };
        let (Some(cell), Some(chosen)) = (self.cell(number), self.backends.get(number as usize)) else {
            return;
        };
        cell.book(size, now);
        cell.count_redirect();
        picks.push(chosen.backend);
        let (others, found) = samples.others(number);
        let [first, second, ..] = others;
        self.remember(Score::new(cell, number, cell.finish_time(), &new, now).rank(), [first, second]);
        if !picks.is_full() {
            let others = others.get(..found).unwrap_or_default();
            for other in others.iter().filter_map(|rank| self.backends.get(rank.cell() as usize)) {
                if !picks.is_full() {
                    picks.push(other.backend);
                }
            }
            draw::fill_up(&self.backends, request, picks, draw);
        }
    }
}
