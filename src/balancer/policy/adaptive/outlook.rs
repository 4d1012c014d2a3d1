//! The best of a few backends. What is compared is in no order that a processor could foresee, so it is compared as
//! numbers, without branches.

use std::hint::select_unpredictable;

use super::{DRAWN, REMEMBERED};
use crate::balancer::policy::ledger::Line;
use crate::balancer::policy::{MOST_ALTERNATES, Tick};

/// How many backends a pick compares.
const CHOICES: usize = DRAWN + REMEMBERED;

/// How many of the best are gone through for those to name and to remember besides the chosen one, which is nearly
/// always among them.
const BEST: usize = 1 + MOST_ALTERNATES;

/// What is to be expected of a backend that gets one request more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outlook {
    rank: Rank,
    /// The bits of a number that grows with the time it has been idle, in requests that it could have answered, and
    /// below them the backend's number; 0 if it has work.
    wait: u64,
}

/// In how many nanoseconds it would be finished, whether it has work, and its number: as one number, from the top. The
/// bits of floats that are not negative are in the order of the floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u64);

const FINISH_SHIFT: u32 = 33;
const BUSY_SHIFT: u32 = 32;

impl Rank {
    pub(super) const NONE: Self = Self(u64::MAX);

    fn new(finish: f32, busy: bool, number: u32) -> Self {
        let finish = u64::from(finish.to_bits()) << FINISH_SHIFT;
        Self(finish | (u64::from(busy) << BUSY_SHIFT) | u64::from(number))
    }

    fn is_busy(self) -> bool {
        (self.0 >> BUSY_SHIFT) & 1 != 0
    }

    /// The number of its backend; of nobody for [`Rank::NONE`].
    pub(super) fn number(self) -> u32 {
        self.0 as u32
    }

    /// The last rank of those that take no more than half as long again.
    fn half_more(self) -> Self {
        let finish = f32::from_bits((self.0 >> FINISH_SHIFT) as u32) * 1.5;
        Self((u64::from(finish.to_bits()) << FINISH_SHIFT) | ((1 << FINISH_SHIFT) - 1))
    }
}

impl Outlook {
    /// Where there is nothing to choose.
    pub(super) const NONE: Self = Self { rank: Rank::NONE, wait: 0 };

    #[inline]
    pub(super) fn of(line: &Line, number: u32, now: Tick) -> Self {
        let backlog = line.drained_at().0.wrapping_sub(now.0).cast_signed();
        let busy = backlog > 0;
        // Half a request more where there is work: that it goes on as believed is less sure than that an idle
        // server is idle.
        let finish = backlog as f32 + 1.5 * line.delay();
        let finish = select_unpredictable(busy, finish, line.service());
        let waited = (backlog.wrapping_neg() as f32 * line.pace()).to_bits();
        let wait = ((u64::from(waited) + 1) << u32::BITS) | u64::from(number);
        Self { rank: Rank::new(finish, busy, number), wait: select_unpredictable(busy, 0, wait) }
    }

    pub(super) fn rank(&self) -> Rank {
        self.rank
    }
}

/// The backends that a pick looks at.
pub(super) struct Samples {
    outlooks: [Outlook; CHOICES],
    /// The soonest first.
    ranks: [Rank; CHOICES],
}

impl Samples {
    pub(super) fn new(outlooks: [Outlook; CHOICES]) -> Self {
        Self { outlooks, ranks: sorted(outlooks.map(|outlook| outlook.rank)) }
    }

    /// The backend that finishes soonest. If it is idle: of the idle ones that take no more than half as long again, the
    /// one that has waited longest in proportion to what a request costs it. So those of about the same capacity share
    /// what comes in by weight, and a much slower one is left alone until the faster have work to do.
    pub(super) fn best(&self) -> Option<u32> {
        let [soonest, ..] = self.ranks;
        let limit = Rank(select_unpredictable(soonest.is_busy(), soonest.0, soonest.half_more().0));
        let longest = self.outlooks.iter().fold(u64::from(soonest.number()), |longest, outlook| {
            longest.max(select_unpredictable(outlook.rank <= limit, outlook.wait, 0))
        });
        (soonest != Rank::NONE).then_some(longest as u32)
    }

    /// The best that were looked at but for the chosen one, each once; and how many they are.
    pub(super) fn others(&self, chosen: u32) -> ([Rank; BEST], usize) {
        let (mut others, mut found) = ([Rank::NONE; BEST], 0);
        let mut last = chosen;
        for rank in self.ranks.into_iter().take(BEST) {
            // Doubles are neighbours, since they have the same rank.
            #[allow(clippy::needless_bitwise_bool, reason = "no branches")]
            let is_other = (rank.number() != chosen) & (rank.number() != last) & (rank != Rank::NONE);
            if let Some(other) = others.get_mut(found) {
                *other = select_unpredictable(is_other, rank, Rank::NONE);
            }
            found += usize::from(is_other);
            last = rank.number();
        }
        (others, found)
    }
}

/// Sorts by a network of twelve exchanges.
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
