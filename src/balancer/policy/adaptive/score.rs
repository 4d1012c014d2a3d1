//! Compares a few backends and selects the best.
//!
//! A processor cannot predict the outcome of these comparisons, so scores are integers that are compared and sorted
//! without branches.

use std::hint::select_unpredictable;

use super::{DRAWN, REMEMBERED};
use crate::balancer::policy::backlog::NewDownload;
use crate::balancer::policy::load::LoadCell;
use crate::balancer::policy::{MOST_ALTERNATES, Timestamp};

/// The number of backends that a pick compares.
const COMPARED: usize = DRAWN + REMEMBERED;

/// The number of best ranks that are searched for alternates and for backends to remember. The chosen backend is nearly
/// always one of them.
const BEST: usize = 1 + MOST_ALTERNATES;

/// The state that a backend would have with one more request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Score {
    rank: ScoreRank,
    /// High half: the bits of a number that grows with the idle time, counted in requests that the backend could have
    /// served. Low half: the number of its cell. 0 for a busy backend.
    idle: u64,
}

/// From the top: the time to finish in nanoseconds, whether the backend is busy, and the number of its cell. The bits of
/// non-negative floats sort like the floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScoreRank(u64);

/// The part of a new download's own work that a busy backend is charged, beside the work that is done before it ends.
///
/// The new download waits for this work, and the others wait as long for the new one. The sum of both delays is smallest with
/// a half. An estimate may be wrong, so a little less is charged.
const OWN_WORK_IF_BUSY: f32 = 0.4;

/// The same for an idle backend. It is smaller, because idle is certain, and a finish time is an estimate.
const OWN_WORK_IF_IDLE: f32 = 0.25;

const FINISH_SHIFT: u32 = 33;
const BUSY_SHIFT: u32 = 32;

impl ScoreRank {
    /// The last rank; belongs to no backend.
    const NONE: Self = Self(u64::MAX);

    fn new(finish: f32, busy: bool, cell: u32) -> Self {
        let finish = u64::from(finish.to_bits()) << FINISH_SHIFT;
        Self(finish | (u64::from(busy) << BUSY_SHIFT) | u64::from(cell))
    }

    fn is_busy(self) -> bool {
        (self.0 >> BUSY_SHIFT) & 1 != 0
    }

    /// The number of the backend's cell.
    pub(super) fn cell(self) -> u32 {
        self.0 as u32
    }

    /// The last rank with a time to finish of at most 1.5 times this one's.
    fn half_more(self) -> Self {
        let finish = f32::from_bits((self.0 >> FINISH_SHIFT) as u32) * 1.5;
        Self((u64::from(finish.to_bits()) << FINISH_SHIFT) | ((1 << FINISH_SHIFT) - 1))
    }
}

impl Score {
    /// The score of a backend that must not be chosen.
    pub(super) const NONE: Self = Self { rank: ScoreRank::NONE, idle: 0 };

    #[inline]
    pub(super) fn new(
        cell: &LoadCell,
        number: u32,
        finish: Timestamp,
        new: &NewDownload,
        now: Timestamp,
    ) -> Self {
        let backlog = finish.0.wrapping_sub(now.0).cast_signed();
        let busy = backlog > 0;
        let cost = cell.cost();
        let rate = cost.weighted.recip();
        let left = if busy { backlog as f32 * rate } else { 0.0 };
        let work = select_unpredictable(cost.by_size, cell.work_before(new, left), left);
        let finish = (work + OWN_WORK_IF_BUSY * new.size) * cost.weighted;
        let finish = select_unpredictable(busy, finish, OWN_WORK_IF_IDLE * new.size * cost.idle);
        let idle_bytes = (backlog.wrapping_neg() as f32 * rate).to_bits();
        let idle = ((u64::from(idle_bytes) + 1) << u32::BITS) | u64::from(number);
        Self { rank: ScoreRank::new(finish, busy, number), idle: select_unpredictable(busy, 0, idle) }
    }

    pub(super) fn rank(&self) -> ScoreRank {
        self.rank
    }
}

/// The backends that a pick compares.
pub(super) struct Samples {
    scores: [Score; COMPARED],
    /// The ranks of `scores` in ascending order.
    ranks: [ScoreRank; COMPARED],
}

impl Samples {
    pub(super) fn new(scores: [Score; COMPARED]) -> Self {
        Self { scores, ranks: sorted(scores.map(|score| score.rank)) }
    }

    /// The cell of the backend to choose; `None` if all scores are [`Score::NONE`].
    ///
    /// If the backend that would finish first is busy, it is chosen. If it is idle, it competes with the idle backends
    /// that would take at most 1.5 times as long, and the longest idle of them wins, relative to its request cost. So
    /// backends of similar capacity share the clients by weight, and a much slower backend gets clients only when the
    /// faster ones are busy.
    pub(super) fn best(&self) -> Option<u32> {
        let [first, ..] = self.ranks;
        let limit = ScoreRank(select_unpredictable(first.is_busy(), first.0, first.half_more().0));
        let best = self.scores.iter().fold(u64::from(first.cell()), |best, score| {
            best.max(select_unpredictable(score.rank <= limit, score.idle, 0))
        });
        (first != ScoreRank::NONE).then_some(best as u32)
    }

    /// The best compared backends except the chosen one, without duplicates, and their number.
    pub(super) fn others(&self, chosen: u32) -> ([ScoreRank; BEST], usize) {
        let (mut others, mut found) = ([ScoreRank::NONE; BEST], 0);
        let mut last = chosen;
        for rank in self.ranks.into_iter().take(BEST) {
            // Duplicates have equal ranks, so they are neighbours.
            #[allow(clippy::needless_bitwise_bool, reason = "no branches")]
            let is_other = (rank.cell() != chosen) & (rank.cell() != last) & (rank != ScoreRank::NONE);
            if let Some(other) = others.get_mut(found) {
                *other = select_unpredictable(is_other, rank, ScoreRank::NONE);
            }
            found += usize::from(is_other);
            last = rank.cell();
        }
        (others, found)
    }
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
