//! The unfinished downloads of one backend, by size.
//!
//! A server divides its capacity evenly among its downloads. Before a new download of `s` bytes ends, the server sends
//! these bytes, and of each other download the smaller of its rest and `s`. A [`Backlog`] stores this sum as a function
//! W(s) at a few sizes, so its cost does not depend on the number of downloads.
//!
//! After each download has received `v` bytes, the server has sent W(v) bytes, and the function is W(s + v) - W(v). So a
//! backlog ages without knowledge of the single downloads.

/// The number of sizes at which the function is stored. With one more, the fields of a pick need a second cache line.
pub(super) const KNOTS: usize = 7;

/// The pieces of the function: one up to each size, and one beyond the largest.
const PIECES: usize = KNOTS + 1;

/// The smallest of the sizes in bytes. Each further one is [`RATIO`] times as large; the largest is 1.5 GB.
const SMALLEST: f32 = 32_768.0;

const RATIO: f32 = 6.0;

/// The sizes at which the function is stored, in bytes.
const SIZES: [f32; KNOTS] = {
    let mut sizes = [SMALLEST; KNOTS];
    let mut knot = 1;
    while knot < KNOTS {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            sizes[knot] = sizes[knot - 1] * RATIO;
        }
        knot += 1;
    }
    sizes
};

/// The size at which each piece starts.
const STARTS: [f32; PIECES] = {
    let [first, second, third, fourth, fifth, sixth, seventh] = SIZES;
    [0.0, first, second, third, fourth, fifth, sixth, seventh]
};

/// The length of each piece.
const LENGTHS: [f32; PIECES] = {
    let mut lengths = [SMALLEST; PIECES];
    let mut piece = 1;
    while piece < PIECES {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            lengths[piece] = STARTS[piece] * (RATIO - 1.0);
        }
        piece += 1;
    }
    lengths
};

/// The inverse of each length.
const RATES: [f32; PIECES] = {
    let mut rates = LENGTHS;
    let mut piece = 0;
    while piece < PIECES {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            rates[piece] = 1.0 / LENGTHS[piece];
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
    /// The factors of [`Backlog::work`] that give the function at this size.
    factors: [f32; KNOTS],
}

impl NewDownload {
    /// A download of `size` bytes.
    #[inline]
    pub(super) fn new(size: f32) -> Self {
        let mut shares = STARTS;
        for (part, rate) in shares.iter_mut().zip(RATES) {
            *part = share((size - *part) * rate);
        }
        // Each piece adds its growth, which is the difference of two stored values; see `growths`.
        let [first, second, third, fourth, fifth, sixth, seventh, beyond] = shares;
        let last = seventh + beyond * RATIO;
        let factors = [
            first - second,
            second - third,
            third - fourth,
            fourth - fifth,
            fifth - sixth,
            sixth - last,
            last,
        ];
        Self { size, factors }
    }
}

/// Limits a share to 0..=1. The share of an empty piece, which is NaN, is 0.
#[inline]
fn share(value: f32) -> f32 {
    // A processor has instructions for exactly these comparisons, but not for `f32::max`.
    let value = if value > 0.0 { value } else { 0.0 };
    if value < 1.0 { value } else { 1.0 }
}

/// The unfinished downloads of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Backlog {
    /// The function at [`SIZES`], in bytes. It is linear between them, and 0 at 0.
    pub(super) work: [f32; KNOTS],
    /// The rest of all downloads in bytes: the function at infinity.
    pub(super) total: f32,
}

impl Backlog {
    /// `count` downloads with `bytes` bytes left, of typical sizes: their rests are distributed exponentially.
    fn typical(count: f32, bytes: f32) -> Self {
        let work =
            SIZES.map(|size| if bytes > 0.0 { -bytes * (-size * count / bytes).exp_m1() } else { 0.0 });
        Self { work, total: bytes }
    }

    /// The function at the start of each piece.
    #[inline]
    fn values(&self) -> [f32; PIECES] {
        let [first, second, third, fourth, fifth, sixth, seventh] = self.work;
        [0.0, first, second, third, fourth, fifth, sixth, seventh]
    }

    /// The growth of the function over each piece. Beyond the largest of [`SIZES`], it grows as before.
    #[inline]
    fn growths(&self) -> [f32; PIECES] {
        let [first, second, third, fourth, fifth, sixth, seventh] = self.work;
        let last = seventh - sixth;
        [
            first,
            second - first,
            third - second,
            fourth - third,
            fifth - fourth,
            sixth - fifth,
            last,
            last * RATIO,
        ]
    }

    /// The bytes that each download has received when the server has sent `sent` bytes.
    #[inline]
    fn level(&self, sent: f32) -> f32 {
        let mut parts = self.values();
        for ((part, growth), length) in parts.iter_mut().zip(self.growths()).zip(LENGTHS) {
            *part = length * share((sent - *part) / growth);
        }
        parts.into_iter().sum()
    }

    /// The function at each of these sizes.
    #[inline]
    fn at<const N: usize>(&self, sizes: [f32; N]) -> [f32; N] {
        let mut sums = [0.0; N];
        for ((growth, start), rate) in self.growths().into_iter().zip(STARTS).zip(RATES) {
            for (sum, size) in sums.iter_mut().zip(sizes) {
                *sum += growth * share((size - start) * rate);
            }
        }
        sums
    }

    /// The bytes that the server sends of other downloads before this new one ends, if `left` bytes of this backlog are left.
    ///
    /// This is an approximation for the comparison of backends: all rests shrink by the same factor. A change of the backlog
    /// first ages it exactly, by [`Self::after`].
    #[inline]
    pub(super) fn before(&self, left: f32, new: &NewDownload) -> f32 {
        let mut work = 0.0;
        for (value, factor) in self.work.into_iter().zip(new.factors) {
            work += value * factor;
        }
        f32::min(work * f32::min(left / self.total, 1.0), left)
    }

    /// The backlog after the server has sent `sent` bytes.
    #[inline]
    pub(super) fn after(&self, sent: f32) -> Self {
        let level = self.level(sent);
        let mut work = self.at(SIZES.map(|size| level + size));
        for work in &mut work {
            *work = f32::max(work.min(self.total) - sent, 0.0);
        }
        Self { work, total: f32::max(self.total - sent, 0.0) }
    }

    /// The backlog with `count` more downloads of `size` bytes each.
    #[inline]
    pub(super) fn with(mut self, count: f32, size: f32) -> Self {
        for (work, knot) in self.work.iter_mut().zip(SIZES) {
            *work += count * knot.min(size);
        }
        self.total += count * size;
        self
    }

    /// The number of downloads. Those with less than the smallest of [`SIZES`] left count in part.
    fn count(&self) -> f32 {
        let [first, ..] = self.work;
        first / SMALLEST
    }

    /// The mean rest of the downloads; `None` without downloads.
    pub(super) fn mean(&self) -> Option<f32> {
        (self.count() > 0.5).then(|| self.total / self.count())
    }

    /// The backlog that agrees with a report of `count` downloads with `bytes` bytes left.
    ///
    /// The share of this backlog that the report confirms keeps its sizes. The rest of the report is filled with typical
    /// downloads.
    pub(super) fn reconciled(&self, count: f32, bytes: f32) -> Self {
        let confirmed = [count / self.count(), bytes / self.total].into_iter().fold(1.0, f32::min);
        let kept = Self { work: self.work.map(|work| work * confirmed), total: self.total * confirmed };
        let missing = Self::typical(f32::max(count - kept.count(), 0.0), f32::max(bytes - kept.total, 0.0));
        let mut work = kept.work;
        for (work, missing) in work.iter_mut().zip(missing.work) {
            *work += missing;
        }
        Self { work, total: bytes }
    }
}
