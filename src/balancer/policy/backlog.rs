//! The unfinished downloads of one backend, by size.
//!
//! A server divides its capacity evenly among its downloads. Before a new download of `s` bytes ends, the server sends
//! these bytes, and of each other download the smaller of its rest and `s`. A [`Backlog`] stores this sum as a function
//! W(s) at a few sizes, so its cost does not depend on the number of downloads.
//!
//! After each download has received `v` bytes, the server has sent W(v) bytes, and the function is W(s + v) - W(v). So a
//! backlog ages without knowledge of the single downloads.

use wide::f32x8;

/// The number of sizes at which the function is stored. With more, the fields of a pick need a second cache line.
pub(super) const KNOTS: usize = 8;

/// The smallest of [`SIZES`], in bytes.
const SMALLEST: f32 = 32_768.0;

/// Each of [`SIZES`], except the first and the last one, is this many times as large as the one before.
const RATIO: f32 = 6.0;

/// The sizes at which the function is stored, in bytes: up to 1.5 GB, and one above every size.
const SIZES: [f32; KNOTS] = {
    let mut sizes = [SMALLEST; KNOTS];
    let mut knot = 1;
    while knot < KNOTS {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            sizes[knot] = if knot < KNOTS - 1 { sizes[knot - 1] * RATIO } else { 1e30 };
        }
        knot += 1;
    }
    sizes
};

/// The size at which each linear piece of the function starts.
const STARTS: [f32; KNOTS] = {
    let [first, second, third, fourth, fifth, sixth, seventh, _] = SIZES;
    [0.0, first, second, third, fourth, fifth, sixth, seventh]
};

/// The size at which each piece ends. The last piece grows like the one before, up to 9 GB.
const ENDS: [f32; KNOTS] = {
    let [first, second, third, fourth, fifth, sixth, seventh, _] = SIZES;
    [first, second, third, fourth, fifth, sixth, seventh, seventh * RATIO]
};

/// The inverse of the length of each piece.
const RATES: [f32; KNOTS] = {
    let mut rates = [1.0; KNOTS];
    let mut piece = 0;
    while piece < KNOTS {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            rates[piece] = 1.0 / (ENDS[piece] - STARTS[piece]);
        }
        piece += 1;
    }
    rates
};

/// A download that is compared with several backlogs.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewDownload {
    /// Its size in bytes.
    pub(super) size: f32,
    /// The function at this size is the sum of two stored values, each times its factor.
    pub(super) knots: [usize; 2],
    factors: [f32; 2],
}

impl NewDownload {
    /// A download of `size` bytes.
    #[inline]
    pub(super) fn new(size: f32) -> Self {
        let piece = count_below(f32x8::new(SIZES), size);
        let part = f32::max((size - at(STARTS, piece)) * at(RATES, piece), 0.0).min(1.0);
        let (knots, factors) = match piece {
            0 => ([0, 0], [0.0, part]),
            7 => ([5, 6], [-part * RATIO, 1.0 + part * RATIO]),
            _ => ([piece - 1, piece], [1.0 - part, part]),
        };
        Self { size, knots, factors }
    }

    /// The bytes that each of eight servers sends of other downloads before this new one ends, if `left` bytes of its backlog
    /// are left. The values of its backlog are those at the two knots, and the total.
    ///
    /// This is an approximation for the comparison of backends: all rests shrink by the same factor. A change of the backlog
    /// first ages it exactly, by [`Backlog::after`].
    #[inline]
    pub(super) fn work_before(&self, [low, high, total]: [f32x8; 3], left: f32x8) -> f32x8 {
        let [low_factor, high_factor] = self.factors.map(f32x8::splat);
        let work = low * low_factor + high * high_factor;
        // The work of unknown sizes is not a number here, so `left` remains.
        (work * (left / total).fast_min(f32x8::ONE)).min(left)
    }
}

/// The number of these values before the first that is not smaller than `limit`.
#[inline]
fn count_below(values: f32x8, limit: f32) -> usize {
    values.simd_lt(f32x8::splat(limit)).to_bitmask().trailing_ones() as usize
}

#[inline]
fn at<const N: usize>(values: [f32; N], index: usize) -> f32 {
    values.get(index).copied().unwrap_or(0.0)
}

/// The unfinished downloads of one backend: the function at [`SIZES`], in bytes. It is linear between them, and 0 at 0. The
/// last value is the rest of all downloads.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Backlog(pub(super) [f32; KNOTS]);

impl Backlog {
    /// Downloads of unknown sizes.
    pub(super) const UNKNOWN: Self = Self([f32::INFINITY; KNOTS]);

    /// `count` downloads with `bytes` bytes left, of typical sizes: their rests are distributed exponentially.
    fn typical(count: f32, bytes: f32) -> Self {
        Self(SIZES.map(|size| if bytes > 0.0 { -bytes * (-size * count / bytes).exp_m1() } else { 0.0 }))
    }

    /// The rest of all downloads in bytes.
    #[inline]
    pub(super) fn total(&self) -> f32 {
        let [.., total] = self.0;
        total
    }

    /// The backlog once `left` bytes of it are left.
    #[inline]
    pub(super) fn after(self, left: f32) -> Self {
        let [first, second, third, fourth, fifth, sixth, seventh, total] = self.0;
        let values = [0.0, first, second, third, fourth, fifth, sixth, seventh];
        let last = seventh + (seventh - sixth) * RATIO;
        let ends = [first, second, third, fourth, fifth, sixth, seventh, last];
        let slopes = ((f32x8::new(ends) - f32x8::new(values)) * f32x8::new(RATES)).to_array();
        let [_, second, third, fourth, fifth, sixth, seventh, eighth] = slopes;
        let next_slopes = [second, third, fourth, fifth, sixth, seventh, eighth, 0.0];
        // Each download has received `level` bytes, a size in this piece.
        let sent = f32::max(total - left, 0.0);
        let piece = count_below(f32x8::new(self.0), sent);
        let (slope, next_slope, end) = (at(slopes, piece), at(next_slopes, piece), at(ENDS, piece));
        let received = f32::max((sent - at(values, piece)) / slope, 0.0);
        let level = f32::min(at(STARTS, piece) + received, end);
        // A size above the level and their sum lie in neighbouring pieces, because `RATIO` is above 2.
        let (sizes, rest) = (f32x8::new(SIZES), f32x8::splat(end - level));
        let behind = f32x8::new(self.0) + f32x8::new(next_slopes) * f32x8::splat(level) - f32x8::splat(sent);
        let ahead =
            sizes * f32x8::splat(next_slope) + sizes.fast_min(rest) * f32x8::splat(slope - next_slope);
        let aged = sizes.simd_gt(f32x8::splat(level)).select(behind, ahead);
        let [first, second, third, fourth, fifth, sixth, seventh, _] =
            aged.fast_min(f32x8::splat(left)).fast_max(f32x8::ZERO).to_array();
        Self([first, second, third, fourth, fifth, sixth, seventh, left])
    }

    /// The backlog with one more download.
    #[inline]
    pub(super) fn with(self, size: f32) -> Self {
        Self((f32x8::new(self.0) + f32x8::new(SIZES).fast_min(f32x8::splat(size))).to_array())
    }

    /// The backlog with `count` more downloads of `size` bytes each.
    pub(super) fn with_several(self, count: f32, size: f32) -> Self {
        let added = f32x8::splat(count) * f32x8::new(SIZES).fast_min(f32x8::splat(size));
        Self((f32x8::new(self.0) + added).to_array())
    }

    /// The number of downloads. Those with less than the smallest of [`SIZES`] left count in part.
    fn count(&self) -> f32 {
        let [first, ..] = self.0;
        first / SMALLEST
    }

    /// The mean rest of the downloads; `None` without downloads.
    pub(super) fn mean(&self) -> Option<f32> {
        (self.count() > 0.5).then(|| self.total() / self.count())
    }

    /// The backlog that agrees with a report of `count` downloads with `bytes` bytes left.
    ///
    /// The share of this backlog that the report confirms keeps its sizes. The rest of the report is filled with typical
    /// downloads.
    pub(super) fn reconciled(&self, count: f32, bytes: f32) -> Self {
        let confirmed = [count / self.count(), bytes / self.total()].into_iter().fold(1.0, f32::min);
        let kept = Self(self.0.map(|work| work * confirmed));
        let missing = Self::typical(f32::max(count - kept.count(), 0.0), f32::max(bytes - kept.total(), 0.0));
        let mut sum = kept;
        for (work, missing) in sum.0.iter_mut().zip(missing.0) {
            *work += missing;
        }
        let [.., total] = &mut sum.0;
        *total = bytes;
        sum
    }
}

#[cfg(test)]
mod tests;
