//! The mirrors that have a file, as sets of bits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The words of a cache line, each with the bits of 64 mirrors.
pub(crate) const LINE_WORDS: usize = 8;

/// The mirrors of one cache line.
pub(crate) const LINE_MIRRORS: usize = 64 * LINE_WORDS;

/// The bits of 512 mirrors.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct SetLine(pub(crate) [AtomicU64; LINE_WORDS]);

/// A set of mirrors, each by the [`number`](super::BackendLoad::number) of its load record.
#[derive(Debug, Clone, Copy, Default)]
pub struct MirrorSet<'a>(&'a [SetLine]);

impl<'a> MirrorSet<'a> {
    /// The set with these bits.
    pub(crate) fn new(lines: &'a [SetLine]) -> Self {
        Self(lines)
    }

    /// Whether the set has the mirror. A mirror without a bit is not in the set.
    #[must_use]
    #[inline]
    pub fn contains(self, mirror: u32) -> bool {
        self.word(mirror).is_some_and(|word| word.load(Relaxed) >> (mirror % 64) & 1 != 0)
    }

    /// The words of the set, 64 mirrors each.
    pub fn words(self) -> impl Iterator<Item = u64> + 'a {
        self.0.iter().flat_map(|line| &line.0).map(|word| word.load(Relaxed))
    }

    /// The word with the bit of this mirror.
    #[inline]
    pub(crate) fn word(self, mirror: u32) -> Option<&'a AtomicU64> {
        self.0.get(mirror as usize / LINE_MIRRORS)?.0.get(mirror as usize / 64 % LINE_WORDS)
    }
}

/// The mirrors that may get the requests for one file: all except those of two sets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Holders<'a> {
    /// The mirrors that lack the file.
    pub lacking: MirrorSet<'a>,
    /// The mirrors that are not proven to have files of its age.
    pub unproven: MirrorSet<'a>,
}

impl Holders<'_> {
    /// Whether the mirror may get requests for the file.
    #[must_use]
    #[inline]
    pub fn contains(&self, mirror: u32) -> bool {
        !self.lacking.contains(mirror) && !self.unproven.contains(mirror)
    }
}
