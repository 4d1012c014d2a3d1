//! Compares a few backends and selects the best.
//!
//! A processor cannot predict the outcome of these comparisons, so scores are integers that are compared and sorted
//! without branches.

use std::hint::select_unpredictable;

use wide::f32x8;

use super::{COMPARED, REMEMBERED};
use crate::balancer::policy::backlog::NewDownload;
use crate::balancer::policy::load_cell::LoadCell;
use crate::balancer::policy::{MOST_ALTERNATES, Timestamp};

/// The number of best ranks that are searched for alternates and for backends to remember. The chosen backend is nearly
/// always one of them.
const BEST: usize = 1 + MOST_ALTERNATES;

/// From the top: the time to finish in nanoseconds, whose lowest bit is replaced by whether the backend is busy, and the
/// number of the backend's cell. The bits of non-negative floats sort like the floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScoreRank(u64);

/// The part of a new download's own work that a busy backend is charged, beside the work that is done before it ends.
///
/// The new download waits for this work, and the others wait as long for the new one. The sum of both delays is smallest with
/// a half. An estimate may be wrong, so a little less is charged.
const OWN_WORK_IF_BUSY: f32 = 0.4;

/// The same for an idle backend. It is smaller, because idle is certain, and a finish time is an estimate.
const OWN_WORK_IF_IDLE: f32 = 0.25;

impl ScoreRank {
    /// The last rank; belongs to no backend.
    const NONE: Self = Self(u64::MAX);

    fn new(finish: f32, cell: u32) -> Self {
        Self((u64::from(finish.to_bits()) << u32::BITS) | u64::from(cell))
    }

    /// The number of the backend's cell.
    pub(super) fn cell(self) -> u32 {
        self.0 as u32
    }

    fn finish(self) -> f32 {
        f32::from_bits((self.0 >> u32::BITS) as u32)
    }

    fn is_busy(self) -> bool {
        (self.0 >> u32::BITS) & 1 != 0
    }

    /// The last rank with a time to finish of at most 1.5 times this one's.
    fn half_more(self) -> Self {
        Self::new(self.finish() * 1.5, u32::MAX)
    }
}

/// The backends that a pick compares.
pub(super) struct Samples {
    /// In no order.
    ranks: [ScoreRank; COMPARED],
    /// High half: the bits of the idle time, counted in bytes that the backend could have sent; 0 for a busy backend. Low half:
    /// the number of its cell. In the order of `ranks`.
    idle: [u64; COMPARED],
    /// `ranks` in ascending order.
    sorted: [ScoreRank; COMPARED],
}

impl Samples {
    /// Compares the backends with these cells. `numbers` are the numbers of the cells.
    #[inline]
    #[allow(
        clippy::indexing_slicing,
        clippy::needless_range_loop,
        reason = "constant bounds; the compiler does not unroll iterators over so many arrays"
    )]
    pub(super) fn new(
        numbers: [u32; COMPARED],
        cells: [&LoadCell; COMPARED],
        new: &NewDownload,
        now: Timestamp,
    ) -> Self {
        // One lane for each backend; two remain empty.
        let [mut ahead, mut cost, mut idle_cost, mut low, mut high, mut total] = [[0.0; 8]; 6];
        for lane in 0..COMPARED {
            let cell = cells[lane];
            ahead[lane] = cell.finish_time().0.wrapping_sub(now.0).cast_signed() as f32;
            cost[lane] = cell.cost();
            idle_cost[lane] = cell.idle_cost();
            [low[lane], high[lane], total[lane]] = cell.work_at(new);
        }
        let (size, cost) = (f32x8::splat(new.size), f32x8::new(cost));
        let bytes = f32x8::new(ahead) / cost;
        let is_busy = bytes.simd_gt(f32x8::ZERO);
        let left = bytes.fast_max(f32x8::ZERO);
        let work = new.work_before([low, high, total].map(f32x8::new), left);
        let finish_if_busy = (work + size * OWN_WORK_IF_BUSY) * cost;
        let finish_if_idle = size * OWN_WORK_IF_IDLE * f32x8::new(idle_cost);
        let finish = is_busy.select(finish_if_busy, finish_if_idle);
        let lowest_bit = f32x8::splat(f32::from_bits(1));
        let finish = ((finish | lowest_bit) ^ (lowest_bit & !is_busy)).to_array();
        let idle_bytes = (-bytes).fast_max(f32x8::ZERO).to_array();
        let mut ranks = [ScoreRank::NONE; COMPARED];
        let mut idle = [0; COMPARED];
        for lane in 0..COMPARED {
            ranks[lane] = ScoreRank::new(finish[lane], numbers[lane]);
            idle[lane] = ScoreRank::new(idle_bytes[lane], numbers[lane]).0;
        }
        Self { ranks, idle, sorted: sorted(ranks) }
    }

    /// The rank of the backend that would finish first.
    fn first(&self) -> ScoreRank {
        let [first, ..] = self.sorted;
        first
    }

    /// The cell of the backend to choose.
    ///
    /// If the backend that would finish first is busy, it is chosen. If it is idle, it competes with the idle backends
    /// that would take at most 1.5 times as long, and the longest idle of them wins, relative to its request cost. So
    /// backends of similar capacity share the clients by weight, and a much slower backend gets clients only when the
    /// faster ones are busy.
    #[inline]
    pub(super) fn best(&self) -> u32 {
        let first = self.first();
        let limit = ScoreRank(select_unpredictable(first.is_busy(), first.0, first.half_more().0));
        let mut best = 0;
        for (rank, idle) in self.ranks.iter().zip(&self.idle) {
            best = best.max(select_unpredictable(*rank <= limit, *idle, 0));
        }
        best as u32
    }

    /// The rank of the chosen backend with the new download. `cost` is the weighted cost of a byte.
    #[inline]
    pub(super) fn rank_with(&self, chosen: u32, new: &NewDownload, cost: f32) -> ScoreRank {
        let first = self.first();
        // A busy backend that is chosen is the first one.
        let own = OWN_WORK_IF_BUSY * new.size * cost;
        let before = select_unpredictable(first.is_busy(), first.finish().to_bits(), own.to_bits());
        ScoreRank::new(f32::from_bits(before) + new.size * cost, chosen)
    }

    /// The best compared backends except the chosen one, without duplicates, and their number.
    #[inline]
    pub(super) fn others(&self, chosen: u32) -> ([ScoreRank; BEST], usize) {
        let (mut others, mut found) = ([ScoreRank::NONE; BEST], 0);
        let mut last = chosen;
        for rank in self.sorted.iter().take(BEST) {
            // Duplicates have equal ranks, so they are neighbours.
            #[allow(clippy::needless_bitwise_bool, reason = "no branches")]
            let is_other = (rank.cell() != chosen) & (rank.cell() != last);
            if let Some(other) = others.get_mut(found) {
                *other = select_unpredictable(is_other, *rank, ScoreRank::NONE);
            }
            found += usize::from(is_other);
            last = rank.cell();
        }
        (others, found)
    }
}

/// The cells to remember for the next pick: the best two of the chosen backend with its new rank, and the others.
#[inline]
pub(super) fn best_two(chosen: ScoreRank, [first, second, ..]: [ScoreRank; BEST]) -> [u32; REMEMBERED] {
    let best = first.min(chosen);
    let second = first.max(chosen).min(second);
    [best.cell(), select_unpredictable(second == ScoreRank::NONE, best.cell(), second.cell())]
}

/// Sorts with a network of twelve compare-and-exchange steps.
fn sorted(
    [mut first, mut second, mut third, mut fourth, mut fifth, mut sixth]: [ScoreRank; COMPARED],
) -> [ScoreRank; COMPARED] {
    let exchange = |left: &mut ScoreRank, right: &mut ScoreRank| {
        (*left, *right) = (ScoreRank(left.0.min(right.0)), ScoreRank(left.0.max(right.0)));
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
