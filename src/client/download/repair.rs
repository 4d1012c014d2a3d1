//! Verifies the complete file; requests wrong pieces again, and restarts with another version.

use super::super::error::DownloadError;
use super::super::event::Event;
use super::super::plan::{BalancerPresence, ByteRange, DownloadPlan, RangeSet, SourceId};
use super::super::sink::DigestMode;
use super::FileOrigin;
use super::engine::Engine;
use super::refetch::Refetch;

/// Maximum number of restarts because the file changed during the download.
const MAX_RESTARTS: usize = 3;

impl Engine<'_> {
    /// Verifies the complete file. If it is wrong, the plan is updated with the bytes to fetch again.
    pub(super) async fn is_right(&mut self) -> Result<bool, DownloadError> {
        if self.writer.is_none() {
            // A file known to be empty needs no request.
            self.open_writer()?;
        }
        let has_pieces = self.has_pieces();
        let wrong = match &mut self.writer {
            Some(writer) if has_pieces => writer.flush().await?,
            // Unwritten bytes are written together with the digest, or with the rename.
            _ => Vec::new(),
        };
        if !wrong.is_empty() {
            self.reject_pieces(&wrong).await?;
            return Ok(false);
        }
        if self.hashing() == DigestMode::Off {
            return Ok(true);
        }
        let algorithm = self.algorithm();
        let found = match &mut self.writer {
            Some(writer) => writer.digest(self.plan.size().unwrap_or_default(), algorithm).await?,
            None => None,
        };
        self.set_digest(found);
        match (self.identity.digest, found) {
            (Some((promised, _)), Some(found)) if promised != found => {
                self.repair(found, promised).await?;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Fetches pieces with a wrong digest again, and nothing else. The only contributor to a wrong piece is
    /// excluded. Several contributors are asked one at a time if the piece is wrong again.
    pub(super) async fn reject_pieces(&mut self, wrong: &[ByteRange]) -> Result<(), DownloadError> {
        let mut wrong = wrong.to_vec();
        // Writing the remaining bytes may reveal more wrong pieces.
        while !wrong.is_empty() {
            for piece in &wrong {
                let suppliers = self.sources.suppliers(*piece);
                let is_again = !self.refetch.note_piece(*piece);
                // The wrong bytes may come from an earlier run.
                let is_mixed = !self.sources.resumed.within(*piece).is_empty();
                match suppliers.as_slice() {
                    [only] if !is_mixed => self.exclude(*only, "it sent a piece with a wrong digest"),
                    several if is_again => {
                        self.ask_one_at_a_time(several);
                    }
                    _ => {}
                }
            }
            wrong = self.discard(&wrong, "pieces had a wrong digest").await?;
        }
        Ok(())
    }

    /// Discards `ranges`, so that they are fetched again. Returns pieces that turned out wrong meanwhile.
    pub(super) async fn discard(
        &mut self,
        ranges: &[ByteRange],
        reason: &str,
    ) -> Result<Vec<ByteRange>, DownloadError> {
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = ranges.iter().map(ByteRange::len).sum();
        self.observer.notice(&Event::Lost { bytes, reason });
        for range in ranges {
            self.sources.forget(*range);
            self.plan.discard(*range);
        }
        match &mut self.writer {
            Some(writer) => Ok(writer.forget(ranges, &self.identity).await?),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn exclude(&mut self, source: SourceId, reason: &str) {
        self.plan.exclude(source);
        self.observer.notice(&Event::Dropped { source: source.0, reason });
        self.sources.note_error(source, reason.to_owned());
    }

    /// Whether no usable source has this version, but one has another.
    pub(super) fn must_restart(&self) -> bool {
        let was_asked = matches!(self.job.origin, FileOrigin::Mirrors { .. }) || self.queries > 1;
        !self.other_versions.is_empty()
            && self.plan.is_out_of_sources()
            && self.query.is_none()
            && (was_asked || self.plan.has_no_balancer())
    }

    /// Discards all bytes and starts again with the version that the servers have now.
    pub(super) async fn restart(&mut self) -> Result<(), DownloadError> {
        self.restarts = self.restarts.saturating_add(1);
        if self.restarts > MAX_RESTARTS {
            return Err(match self.last_error.take() {
                Some((error @ DownloadError::Transport { .. }, _)) => error,
                _ => DownloadError::KeepsChanging,
            });
        }
        if self.target.is_none() && self.plan.has_received() {
            // Bytes written to standard output cannot be taken back.
            return Err(DownloadError::KeepsChanging);
        }
        let size = self.plan.size().unwrap_or(u64::MAX);
        self.discard(&[ByteRange::new(0, size)], "the servers have another version now").await?;
        self.refetch = Refetch::default();
        self.identity = self.identity.reopened();
        let balancer =
            if self.plan.has_no_balancer() { BalancerPresence::Absent } else { BalancerPresence::Present };
        self.plan = DownloadPlan::new(self.plan.settings().clone(), None, &RangeSet::new(), balancer);
        self.queries = 1;
        let others = std::mem::take(&mut self.other_versions);
        for id in self.sources.ids() {
            self.plan.add_source();
            if !others.contains(&id) {
                self.plan.exclude(id);
            }
            if let Some(entry) = self.sources.get_mut(id) {
                entry.etag = None;
                entry.validator = None;
            }
        }
        Ok(())
    }

    /// The error to report if no source is left: a wrong digest, or else the last failure.
    pub(super) fn final_error(&mut self) -> DownloadError {
        if let Some(error) = self.checksum_error.take() {
            return error;
        }
        let pieces = self.refetch.wrong_pieces(self.plan.missing());
        if pieces > 0 {
            return DownloadError::WrongPieces { pieces };
        }
        let servers = self.sources.len();
        if servers > 1
            && self.sources.ids().all(|id| self.sources.get(id).is_some_and(|entry| entry.is_missing))
        {
            return DownloadError::Missing { name: self.sources.name(0), servers };
        }
        match self.last_error.take() {
            Some((error, shown)) => {
                // An error page is only shown if there is one server.
                if let Some(shown) = shown.filter(|_| servers == 1) {
                    self.observer.notice(&Event::Refused { head: &shown.head, page: &shown.page });
                }
                error
            }
            None => DownloadError::NoSource,
        }
    }
}
