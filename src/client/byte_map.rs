//! The one record of the bytes of a file: which exist, from which source, and how safe they are.

use super::checksum::{Checksum, Pieces};
use super::range::{ByteRange, RangeSet};

/// Index of a source, in the order of addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SourceId(pub usize);

/// The state of every byte of a file.
///
/// A byte is missing, then received (in memory), then written (in the file), then durable (synced, and listed in the
/// journal). The bytes in flight are the missing ones that a run of the plan covers. A written byte is verified if its
/// piece has the right digest. A wrong byte becomes missing again, in one call.
#[derive(Debug, Default)]
pub(super) struct ByteMap {
    size: Option<u64>,
    missing: RangeSet,
    /// Received bytes of each source, by its number.
    by_source: Vec<RangeSet>,
    /// Bytes of an earlier run, which have no source.
    earlier: RangeSet,
    written: RangeSet,
    durable: RangeSet,
    verified: RangeSet,
}

/// Work that becomes possible when a batch of bytes is written.
#[derive(Debug, Default)]
pub(super) struct FollowUp {
    /// The file is written without a gap up to this byte.
    pub prefix: u64,
    /// Complete pieces that are not verified, with their digests.
    pub pieces: Vec<(ByteRange, Checksum)>,
}

impl ByteMap {
    /// The map of a file of which the bytes `done` are on the disk, and in the journal.
    pub(super) fn new(size: Option<u64>, done: RangeSet) -> Self {
        let mut missing = RangeSet::of(ByteRange::new(0, size.unwrap_or(u64::MAX)));
        done.iter().for_each(|range| missing.remove(range));
        let (earlier, written) = (done.clone(), done.clone());
        Self { size, missing, earlier, written, durable: done, ..Self::default() }
    }

    /// The size of the file, once known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// A lower bound of the size: the size if known, or else the end of the received bytes.
    pub(super) fn least_size(&self) -> u64 {
        self.size.unwrap_or_else(|| self.missing.iter().last().map_or(0, |rest| rest.start))
    }

    /// The bytes that were not received.
    pub(super) fn missing(&self) -> &RangeSet {
        &self.missing
    }

    /// Whether every byte was received.
    pub(super) fn is_complete(&self) -> bool {
        self.size.is_some() && self.missing.is_empty()
    }

    /// Whether no byte is present, neither from this run nor from an earlier one.
    pub(super) fn is_empty(&self) -> bool {
        self.earlier.is_empty() && self.has_no_new_byte()
    }

    /// Whether no byte is present from this run.
    pub(super) fn has_no_new_byte(&self) -> bool {
        self.by_source.iter().all(RangeSet::is_empty)
    }

    /// The bytes of an earlier run.
    pub(super) fn earlier(&self) -> &RangeSet {
        &self.earlier
    }

    /// Number of bytes from `source`.
    pub(super) fn count_from(&self, source: SourceId) -> u64 {
        self.by_source.get(source.0).map_or(0, RangeSet::len)
    }

    /// The sources of `range`.
    pub(super) fn sources_of(&self, range: ByteRange) -> Vec<SourceId> {
        let own = self.by_source.iter().enumerate();
        own.filter(|(_, set)| !set.within(range).is_empty()).map(|(index, _)| SourceId(index)).collect()
    }

    /// Bytes that are written, but not durable.
    pub(super) fn unsaved(&self) -> u64 {
        self.written.len().saturating_sub(self.durable.len())
    }

    /// Written bytes.
    pub(super) fn written(&self) -> &RangeSet {
        &self.written
    }

    /// Bytes that the journal lists.
    pub(super) fn durable(&self) -> &RangeSet {
        &self.durable
    }

    /// Whether every byte is written.
    pub(super) fn is_written(&self) -> bool {
        self.is_complete() && Some(self.written.len()) == self.size
    }

    pub(super) fn set_size(&mut self, size: u64) {
        self.size = Some(size);
        self.missing.remove(ByteRange::new(size, u64::MAX));
    }

    /// Forgets the size, which belonged to another version. No byte may be present.
    pub(super) fn forget_size(&mut self) {
        self.size = None;
        self.missing = RangeSet::of(ByteRange::new(0, u64::MAX));
    }

    /// Records bytes from `source`. Returns those that were missing.
    pub(super) fn receive(&mut self, range: ByteRange, source: SourceId) -> Vec<ByteRange> {
        let fresh = self.missing.within(range);
        self.missing.remove(range);
        if self.by_source.len() <= source.0 {
            self.by_source.resize(source.0.saturating_add(1), RangeSet::new());
        }
        if let Some(own) = self.by_source.get_mut(source.0) {
            own.extend(fresh.iter().copied());
        }
        fresh
    }

    /// The work that becomes possible when `batch` is written.
    pub(super) fn follow_up(&self, batch: &[ByteRange], pieces: Option<&Pieces>) -> FollowUp {
        let mut written = self.written.clone();
        written.extend(batch.iter().copied());
        let prefix = written.iter().next().filter(|first| first.start == 0).map_or(0, |first| first.end);
        let mut touched: Vec<(ByteRange, Checksum)> = Vec::new();
        for range in pieces.iter().flat_map(|_| batch.iter()) {
            for (piece, digest) in pieces.iter().flat_map(|pieces| pieces.touching(*range)) {
                let is_new = touched.last().is_none_or(|(last, _)| *last != piece);
                let is_whole = written.within(piece).first() == Some(&piece);
                let is_verified = self.verified.within(piece).first() == Some(&piece);
                if is_new && is_whole && !is_verified {
                    touched.push((piece, digest));
                }
            }
        }
        touched.sort_by_key(|(piece, _)| piece.start);
        touched.dedup_by_key(|(piece, _)| piece.start);
        FollowUp { prefix, pieces: touched }
    }

    /// Records that `ranges` are written, and that `verified` pieces have the right digest.
    pub(super) fn on_written(&mut self, ranges: &[ByteRange], verified: &[ByteRange]) {
        self.written.extend(ranges.iter().copied());
        self.verified.extend(verified.iter().copied());
    }

    /// Records that the journal lists `ranges`.
    pub(super) fn on_saved(&mut self, ranges: RangeSet) {
        self.durable = ranges;
    }

    /// Makes wrong bytes missing again. They must not be in a batch that is being written or saved.
    pub(super) fn forget(&mut self, range: ByteRange) {
        let range = range.intersection(&ByteRange::new(0, self.size.unwrap_or(u64::MAX)));
        self.missing.insert(range);
        let own = self.by_source.iter_mut();
        let all = [&mut self.earlier, &mut self.written, &mut self.durable, &mut self.verified];
        own.chain(all).for_each(|set| set.remove(range));
    }
}
