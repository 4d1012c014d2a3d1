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

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use rand::Rng;

use self::capacity::FleetCosts;
use self::cell_map::CellMap;
use self::score::Samples;
use super::alias::AliasTable;
use super::backlog::NewDownload;
use super::draw::{self, BackendRef, BackendSet as _};
use super::load_cell::LoadCell;
use super::load_slab::{CHUNK_LEN, SlabChunk};
use super::{BackendLoad, Candidate, PickRequest, Picks, Policy, Timestamp};

/// The number of backends that a pick draws.
const DRAWN: usize = 4;

/// The number of backends that a pick remembers for the next one. Each costs less than a draw and improves the choice
/// more (Mitzenmacher, Prabhakar, Shah, "Load Balancing with Memory", 2002).
const REMEMBERED: usize = 2;

/// The number of backends that a pick compares.
const COMPARED: usize = DRAWN + REMEMBERED;

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
    draws: AtomicU64,
    /// The cells that are drawn for the next pick.
    drawn: [AtomicU32; DRAWN],
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
                *share = 1.0 / f64::from(load.cell().cost());
            }
            let service_time = (load.cell().cost() * mean_size) as u64;
            let finish = load.cell().finish_time().0.saturating_add(service_time);
            let [first, second] = best;
            let this = (Timestamp(finish), number as u32);
            best = [first.min(this), first.max(this).min(second)];
        }
        let backends = CellMap::new(backends);
        let any = backends.indices_from(0).next().unwrap_or_default() as u32;
        shares.truncate(backends.cells());
        let policy = Self {
            draws: AliasTable::new(&shares),
            chunks: chunks.into_boxed_slice(),
            backends,
            mean_size,
            arriving,
            hints: Hints {
                draws: AtomicU64::new(rng.next_u64()),
                drawn: Default::default(),
                remembered: best.map(|(_, cell)| AtomicU32::new(if cell == u32::MAX { any } else { cell })),
            },
            _loads: candidates.into_iter().map(|candidate| candidate.load).collect(),
        };
        policy.draw_ahead();
        policy
    }

    /// Reserves `count` draws and returns the number of the first.
    fn advance(&self, count: usize) -> u64 {
        // Load and store are separate: if two workers get the same numbers, they compare the same backends once.
        let draws = self.hints.draws.load(Relaxed);
        self.hints.draws.store(draws.wrapping_add(count as u64), Relaxed);
        draws
    }

    /// The cell that the draw with this number yields.
    fn draw(&self, number: u64) -> usize {
        self.draws.index(number.wrapping_mul(GOLDEN))
    }

    /// The cell with this number, or another one if the policy has no such cell; `None` without candidates.
    #[inline]
    fn cell(&self, number: u32) -> Option<&LoadCell> {
        let chunk = self.chunks.get(number as usize / CHUNK_LEN).or(self.chunks.first())?;
        Some(chunk.cell(number as usize))
    }

    /// The cells of the backends to compare.
    #[inline]
    fn compared(&self) -> [u32; COMPARED] {
        let mut numbers = [0; COMPARED];
        for (number, hint) in numbers.iter_mut().zip(self.hints.drawn.iter().chain(&self.hints.remembered)) {
            *number = hint.load(Relaxed);
        }
        numbers
    }

    /// Draws for the next pick, and requests the drawn cells from memory, so that it need not wait for them.
    #[inline]
    fn draw_ahead(&self) {
        let first = self.advance(DRAWN);
        for (nth, hint) in (0..).zip(&self.hints.drawn) {
            let number = self.draw(first.wrapping_add(nth)) as u32;
            hint.store(number, Relaxed);
            if let Some(cell) = self.cell(number) {
                black_box(cell.finish_time().0);
            }
        }
    }

    /// Replaces each cell whose backend lacks the file or is avoided, unless the request avoids all; `None` if no backend has
    /// the file.
    #[cold]
    fn suitable(&self, mut numbers: [u32; COMPARED], request: &PickRequest) -> Option<[u32; COMPARED]> {
        let mut draw = || self.draw(self.advance(1));
        for number in &mut numbers {
            let first = *number as usize;
            *number = draw::first(&self.backends, request, &Picks::new(0), first, &mut draw)? as u32;
        }
        Some(numbers)
    }
}

impl Policy for Adaptive {
    fn pick(&self, request: &PickRequest, now: Timestamp, _rng: &mut dyn Rng, picks: &mut Picks) {
        let draw = || self.draw(self.advance(1));
        if picks.chosen().is_some() {
            return draw::fill_up(&self.backends, request, picks, draw);
        }
        let size = request.size.unwrap_or(self.mean_size) * self.arriving;
        let new = NewDownload::new(size);
        let mut numbers = self.compared();
        if !request.avoid.is_empty() || request.holders.is_some() {
            let Some(suitable) = self.suitable(numbers, request) else { return };
            numbers = suitable;
        }
        let Some(any) = self.cell(0) else { return };
        let mut cells = [any; COMPARED];
        for (cell, number) in cells.iter_mut().zip(&numbers) {
            *cell = self.cell(*number).unwrap_or(any);
        }
        let samples = Samples::new(numbers, cells, &new, now);
        let number = samples.best();
        let (Some(cell), Some(chosen)) = (self.cell(number), self.backends.get(number as usize)) else {
            return;
        };
        cell.book(size, now);
        picks.push(chosen.backend);
        let (others, found) = samples.others(number);
        let hints = score::best_two(samples.rank_with(number, &new, cell.cost()), others);
        for (hint, number) in self.hints.remembered.iter().zip(hints) {
            hint.store(number, Relaxed);
        }
        self.draw_ahead();
        if !picks.is_full() {
            for rank in others.iter().take(found) {
                let other = self.backends.get(rank.cell() as usize);
                if let Some(other) = other.filter(|other| !request.avoid.contains(other.identity))
                    && !picks.is_full()
                {
                    picks.push(other.backend);
                }
            }
            draw::fill_up(&self.backends, request, picks, draw);
        }
    }
}
