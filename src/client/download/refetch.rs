//! A wrong digest: the bytes are fetched again, from one source at a time.
//!
//! The digest of the whole does not identify the source of wrong bytes if several brought parts. Each source then brings the
//! whole file alone, the largest contributor last, until the digest is right. A wrong piece is fetched again by itself.

use std::collections::{HashSet, VecDeque};

use super::super::checksum::Checksum;
use super::super::error::DownloadError;
use super::super::plan::{ByteRange, RangeSet, SourceId};
use super::engine::Engine;
use super::known;

/// How many times the size of the file may be fetched again because the digest was wrong.
const MAX_AGAIN: u64 = 4;

const REASON: &str = "the file had a wrong digest";

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
    /// Records a wrong piece. Returns false if it was recorded before.
    pub(super) fn note_piece(&mut self, piece: ByteRange) -> bool {
        self.pieces.insert(piece.start)
    }

    /// The number of wrong pieces that begin in `missing`.
    pub(super) fn wrong_pieces(&self, missing: &RangeSet) -> usize {
        let is_missing =
            |start: u64| !missing.within(ByteRange::new(start, start.saturating_add(1))).is_empty();
        self.pieces.iter().filter(|start| is_missing(**start)).count()
    }
}

impl Engine<'_> {
    /// Handles a wrong digest of the whole file: decides what is fetched again, and from which source.
    pub(super) async fn repair(&mut self, found: Checksum, promised: Checksum) -> Result<(), DownloadError> {
        let path = self.target.clone().or_else(|| self.job.name());
        let name = path.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        let error = || DownloadError::WrongChecksum {
            name,
            found: Box::new(found),
            promised: Box::new(promised),
            unasked: 0,
        };
        if self.target.is_none() {
            return Err(error());
        }
        self.checksum_error.get_or_insert_with(error);
        let size = self.plan.size().unwrap_or_default();
        if size == 0 {
            return self.exclude_empty_answers();
        }
        if !self.sources.resumed.is_empty() {
            // The bytes of an earlier run have no source: they are replaced before any source is excluded.
            let ranges: Vec<_> = self.sources.resumed.iter().collect();
            return self.discard_all(&ranges).await;
        }
        self.spend(size)?;
        let suppliers: Vec<SourceId> =
            self.sources.ids().filter(|id| self.sources.supplied_bytes(*id) > 0).collect();
        if let [only] = suppliers.as_slice() {
            self.exclude(*only, REASON);
        }
        let others: Vec<SourceId> = self.sources.ids().filter(|id| !self.plan.is_excluded(*id)).collect();
        self.ask_one_at_a_time(&others);
        self.discard_all(&[ByteRange::new(0, size)]).await
    }

    /// Asks `sources` one at a time from now on, the largest contributor last.
    pub(super) fn ask_one_at_a_time(&mut self, sources: &[SourceId]) {
        let mut order: Vec<SourceId> =
            sources.iter().copied().filter(|id| !self.plan.is_excluded(*id)).collect();
        order.sort_by_key(|id| self.sources.supplied_bytes(*id));
        for source in &order {
            self.plan.exclude(*source);
        }
        self.refetch.waiting.extend(order);
        self.admit_next();
    }

    /// Admits the next source to ask alone. Returns whether there is one.
    fn admit_next(&mut self) -> bool {
        let next = self.refetch.waiting.pop_front();
        if let Some(source) = next {
            self.plan.readmit(source);
        }
        next.is_some()
    }

    /// Handles the failure of a source that was asked alone: starts again with the next one. Returns whether
    /// there is one.
    pub(super) async fn give_up_lone_source(&mut self) -> Result<bool, DownloadError> {
        if !self.admit_next() {
            return Ok(false);
        }
        if !self.has_pieces() && !self.nothing_kept() {
            let size = self.plan.size().unwrap_or(u64::MAX);
            self.discard_all(&[ByteRange::new(0, size)]).await?;
        }
        Ok(true)
    }

    /// An empty file has no byte that identifies a source: excludes every source that has answered.
    fn exclude_empty_answers(&mut self) -> Result<(), DownloadError> {
        let has_answered = |id: &SourceId| {
            !self.plan.is_excluded(*id)
                && self.sources.get(*id).is_some_and(|entry| entry.first_byte.is_some())
        };
        let empty: Vec<SourceId> = self.sources.ids().filter(has_answered).collect();
        if empty.is_empty() || known(self.job).size.is_some() {
            return Err(self.final_error());
        }
        for source in empty {
            self.exclude(source, REASON);
        }
        self.forget_announced_size();
        Ok(())
    }

    /// If no bytes are kept, the size announced by the excluded sources is dropped too.
    fn forget_announced_size(&mut self) {
        if self.nothing_kept() && known(self.job).size.is_none() {
            self.identity.size = None;
            self.plan.forget_size();
        }
    }

    /// Counts bytes fetched again, and fails once the limit is reached.
    fn spend(&mut self, size: u64) -> Result<(), DownloadError> {
        self.refetch.spent = self.refetch.spent.saturating_add(size);
        if self.refetch.spent <= size.saturating_mul(MAX_AGAIN) {
            return Ok(());
        }
        let is_unasked = |id: &SourceId| !self.plan.is_excluded(*id) && self.sources.supplied_bytes(*id) == 0;
        let left = self.sources.ids().filter(is_unasked).count().saturating_add(self.refetch.waiting.len());
        if let Some(DownloadError::WrongChecksum { unasked, .. }) = &mut self.checksum_error {
            *unasked = left;
        }
        Err(self.final_error())
    }

    /// Like [`discard`](Self::discard), after all pieces were written and checked: no other piece can turn out
    /// wrong.
    async fn discard_all(&mut self, ranges: &[ByteRange]) -> Result<(), DownloadError> {
        self.discard(ranges, REASON).await?;
        self.forget_announced_size();
        Ok(())
    }
}
