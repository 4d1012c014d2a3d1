//! Wrong bytes: which are fetched again, and from which sources.
//!
//! The digest of the whole does not identify the source of wrong bytes if several brought parts. Each source then brings the
//! whole file alone, the largest contributor last, until the digest is right. A wrong piece is fetched again by itself.

use std::collections::{HashSet, VecDeque};

use super::{Availability, ByteMap, ByteRange, DownloadPlan, Note, RangeSet, SourceId, query::BalancerQuery};
use crate::client::error::DownloadError;

/// How many times the size of the file may be fetched again because the digest was wrong.
const MAX_AGAIN: u64 = 4;

/// Maximum number of restarts because the file changed during the download.
const MAX_RESTARTS: usize = 3;

const WRONG_FILE: &str = "the file had a wrong digest";

/// Which bytes are fetched again, and from which sources.
#[derive(Debug, Default)]
pub(super) struct Refetch {
    /// Bytes fetched again because of a wrong digest.
    spent: u64,
    /// Sources to ask alone, in this order, after the current one.
    waiting: VecDeque<SourceId>,
    /// Start positions of wrong pieces.
    pieces: HashSet<u64>,
}

impl Refetch {
    /// The number of wrong pieces that begin in `missing`.
    pub(super) fn wrong_pieces(&self, missing: &RangeSet) -> usize {
        let is_missing =
            |start: u64| !missing.within(ByteRange::new(start, start.saturating_add(1))).is_empty();
        self.pieces.iter().filter(|start| is_missing(**start)).count()
    }
}

/// All methods that discard bytes require that no batch is being written or saved.
impl DownloadPlan {
    /// Discards pieces with a wrong digest, and nothing else. The only contributor to a wrong piece is
    /// excluded. Several contributors are asked one at a time if the piece is wrong again.
    pub(crate) fn reject_pieces(&mut self, wrong: &[ByteRange]) {
        for piece in wrong {
            let suppliers = self.bytes.sources_of(*piece);
            let is_again = !self.refetch.pieces.insert(piece.start);
            // The wrong bytes may come from an earlier run.
            let is_mixed = !self.bytes.earlier().within(*piece).is_empty();
            match suppliers.as_slice() {
                [only] if !is_mixed => self.exclude(*only, "it sent a piece with a wrong digest"),
                several if is_again => self.ask_one_at_a_time(several),
                _ => {}
            }
        }
        self.discard(wrong, "pieces had a wrong digest");
    }

    /// Discards the bytes of a file with a wrong digest, which `error` reports. Returns false if no source or no attempt
    /// is left.
    pub(crate) fn reject_file(&mut self, error: DownloadError) -> bool {
        self.checksum_error.get_or_insert(error);
        let size = self.size().unwrap_or_default();
        if size == 0 {
            return self.exclude_empty_answers();
        }
        if !self.bytes.earlier().is_empty() {
            // The bytes of an earlier run have no source: they are replaced before any source is excluded.
            let ranges: Vec<_> = self.bytes.earlier().iter().collect();
            self.discard_for_digest(&ranges);
            return true;
        }
        if !self.spend(size) {
            return false;
        }
        let suppliers = self.bytes.sources_of(ByteRange::new(0, size));
        if let [only] = suppliers.as_slice() {
            self.exclude(*only, WRONG_FILE);
        }
        let all: Vec<SourceId> = self.ids().collect();
        self.ask_one_at_a_time(&all);
        self.discard_for_digest(&[ByteRange::new(0, size)]);
        true
    }

    /// Whether further sources wait until the current one, which is asked alone, has failed.
    pub(crate) fn has_next_lone_source(&self) -> bool {
        !self.refetch.waiting.is_empty()
    }

    /// Starts again with the next source that is asked alone.
    pub(crate) fn use_next_lone_source(&mut self) {
        self.admit_next();
        if self.pieces.is_none() && !self.bytes.is_empty() {
            let size = self.size().unwrap_or(u64::MAX);
            self.discard_for_digest(&[ByteRange::new(0, size)]);
        }
    }

    /// Discards wrong pieces of an earlier run.
    pub(crate) fn forget_earlier(&mut self, wrong: &[ByteRange]) {
        for range in wrong {
            self.bytes.forget(*range);
        }
    }

    /// Whether no usable source has this version, but one has another.
    pub(crate) fn must_restart(&self) -> bool {
        let was_asked = self.query.count > 1 || self.has_no_balancer();
        !self.other_versions.is_empty() && self.is_out_of_sources() && !self.query.in_progress && was_asked
    }

    /// Discards all bytes and starts again with the version that the servers have now. Fails if the file changed too
    /// often.
    pub(crate) fn restart(&mut self) -> Result<(), DownloadError> {
        self.restarts = self.restarts.saturating_add(1);
        if self.restarts > MAX_RESTARTS {
            return Err(match self.last_error.take() {
                Some((error @ DownloadError::Transport { .. }, _)) => error,
                _ => DownloadError::KeepsChanging,
            });
        }
        let size = self.size().unwrap_or(u64::MAX);
        self.discard(&[ByteRange::new(0, size)], "the servers have another version now");
        self.refetch = Refetch::default();
        self.identity = self.identity.reopened();
        self.bytes = ByteMap::new(None, RangeSet::new());
        self.is_shared = false;
        self.query = BalancerQuery { count: 1, ..BalancerQuery::default() };
        let others = std::mem::take(&mut self.other_versions);
        for (index, source) in self.sources.iter_mut().enumerate() {
            let is_usable = others.contains(&SourceId(index));
            source.reset(if is_usable { Availability::Ready } else { Availability::Excluded });
        }
        Ok(())
    }

    /// Asks `sources` one at a time from now on, the largest contributor last.
    fn ask_one_at_a_time(&mut self, sources: &[SourceId]) {
        let mut order: Vec<SourceId> = sources.iter().copied().filter(|id| !self.is_excluded(*id)).collect();
        order.sort_by_key(|id| self.bytes.count_from(*id));
        for id in &order {
            self.set_availability(*id, Availability::Excluded);
        }
        self.refetch.waiting.extend(order);
        self.admit_next();
    }

    fn admit_next(&mut self) {
        let next = self.refetch.waiting.pop_front();
        if let Some(source) = next.and_then(|next| self.sources.get_mut(next.0)) {
            source.availability = Availability::Ready;
            source.failures = 0;
        }
    }

    /// An empty file has no byte that identifies a source: excludes every source that has answered.
    fn exclude_empty_answers(&mut self) -> bool {
        let has_answered = |id: &SourceId| self.source(*id).is_some_and(|entry| entry.first_byte.is_some());
        let empty: Vec<SourceId> =
            self.ids().filter(|id| !self.is_excluded(*id) && has_answered(id)).collect();
        if empty.is_empty() || self.known.size.is_some() {
            return false;
        }
        for id in empty {
            self.exclude(id, WRONG_FILE);
        }
        self.forget_announced_size();
        true
    }

    /// If no bytes are kept, the size announced by the excluded sources is dropped too.
    fn forget_announced_size(&mut self) {
        if self.bytes.is_empty() && self.known.size.is_none() {
            self.identity.size = None;
            self.forget_size();
        }
    }

    /// Counts bytes fetched again. Returns false once the limit is reached.
    fn spend(&mut self, size: u64) -> bool {
        self.refetch.spent = self.refetch.spent.saturating_add(size);
        if self.refetch.spent <= size.saturating_mul(MAX_AGAIN) {
            return true;
        }
        let is_unasked = |id: &SourceId| !self.is_excluded(*id) && self.bytes.count_from(*id) == 0;
        let left = self.ids().filter(is_unasked).count().saturating_add(self.refetch.waiting.len());
        if let Some(DownloadError::WrongChecksum { unasked, .. }) = &mut self.checksum_error {
            *unasked = left;
        }
        false
    }

    fn discard_for_digest(&mut self, ranges: &[ByteRange]) {
        self.discard(ranges, WRONG_FILE);
        self.forget_announced_size();
    }

    fn discard(&mut self, ranges: &[ByteRange], reason: &'static str) {
        let bytes = ranges.iter().map(ByteRange::len).sum();
        self.notes.push(Note::Lost { bytes, reason });
        for range in ranges {
            self.bytes.forget(*range);
        }
    }
}
