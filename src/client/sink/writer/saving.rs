//! Checkpoints: record in the journal which bytes are on the disk.

use std::fs::File;

use tokio::task::JoinError;

use super::super::SinkError;
use super::super::journal::{self, Journal};
use super::super::store::DownloadStore;
use super::{EARLY_CHECKPOINT_BYTES, JournalState, Writer};
use crate::client::identity::ContentIdentity;
use crate::client::plan::ByteRange;

impl Writer {
    /// Whether a journal lists written bytes.
    #[must_use]
    pub(crate) fn has_journal(&self) -> bool {
        !self.before.is_empty() || !matches!(self.journal, JournalState::Idle(None))
    }

    /// Whether enough bytes are unsaved to make an early checkpoint worthwhile.
    #[must_use]
    pub(crate) fn is_checkpoint_due(&self) -> bool {
        matches!(self.journal, JournalState::Idle(_)) && self.unsaved.len() >= EARLY_CHECKPOINT_BYTES
    }

    /// Starts a checkpoint, which syncs all written bytes and records them, unless one is in progress or the
    /// store is busy. `name` returns the address of a source.
    pub(crate) fn checkpoint(
        &mut self,
        identity: &ContentIdentity,
        name: impl Fn(usize) -> String,
    ) -> Result<(), SinkError> {
        if self.held.is_some() && !self.batch.is_empty() {
            // The bytes are few enough to be written on this thread. Only a file without pieces is held in
            // memory, so none can turn out wrong.
            self.move_to_disk()?;
            if let Some(store) = &mut self.store {
                store.write(&std::mem::take(&mut self.batch))?;
                self.unsaved.append(&mut self.batch_runs);
                self.waiting = 0;
            }
        }
        let JournalState::Idle(journal) = &mut self.journal else { return Ok(()) };
        let Some(store) = self.store.as_ref().filter(|_| !self.unsaved.is_empty()) else { return Ok(()) };
        let Some(file) = store.second_handle() else { return Ok(()) };
        let (file, journal, target) = (file?, journal.take(), self.target.clone());
        let (identity, before) = (identity.clone(), self.before.clone());
        let runs = std::mem::take(&mut self.unsaved).named(name);
        self.journal = JournalState::Busy(tokio::task::spawn_blocking(move || {
            journal::checkpoint(&file, &target, journal, &identity, &before, &runs)
        }));
        Ok(())
    }

    /// Writes and saves all received bytes, so that a later run can resume.
    pub(crate) async fn save_all(
        &mut self,
        identity: &ContentIdentity,
        name: impl Fn(usize) -> String,
    ) -> Result<(), SinkError> {
        let wrong = self.flush().await?;
        self.forget(&wrong, identity).await?;
        self.checkpoint(identity, name)?;
        self.finish_checkpoint().await
    }

    pub(super) fn checkpoint_finished(
        &mut self,
        joined: Result<Result<Journal, SinkError>, JoinError>,
    ) -> Result<(), SinkError> {
        self.journal = JournalState::Idle(None);
        self.journal = JournalState::Idle(Some(joined.map_err(SinkError::Worker)??));
        Ok(())
    }

    pub(super) async fn finish_checkpoint(&mut self) -> Result<(), SinkError> {
        let JournalState::Busy(saving) = &mut self.journal else { return Ok(()) };
        let joined = saving.await;
        self.checkpoint_finished(joined)
    }

    /// The journal of this run, to distinguish it from that of another client.
    pub(super) async fn own_journal(&mut self) -> Result<Option<File>, SinkError> {
        self.finish_checkpoint().await?;
        let JournalState::Idle(Some(journal)) = &self.journal else { return Ok(None) };
        // If the handle cannot be duplicated, an unneeded journal may stay.
        Ok(journal.handle().try_clone().ok())
    }

    /// Discards wrong bytes. A journal that lists them is corrected before they are overwritten, for a file
    /// of the given `identity`. Returns further pieces that turned out wrong.
    pub(crate) async fn forget(
        &mut self,
        ranges: &[ByteRange],
        identity: &ContentIdentity,
    ) -> Result<Vec<ByteRange>, SinkError> {
        let wrong = self.flush().await?;
        self.finish_checkpoint().await?;
        if let Some(store) = self.store.as_mut().filter(|_| !ranges.is_empty()) {
            for range in ranges {
                self.unsaved.forget(*range);
                store.forget(*range);
            }
            self.correct_journal(ranges, identity).await?;
        }
        Ok(wrong)
    }

    async fn correct_journal(
        &mut self,
        wrong: &[ByteRange],
        identity: &ContentIdentity,
    ) -> Result<(), SinkError> {
        let JournalState::Idle(journal) = &mut self.journal else { return Ok(()) };
        let journal = journal.take();
        let before = std::mem::take(&mut self.before);
        let mut right = journal.as_ref().map_or(before, |journal| journal.done().clone());
        for range in wrong {
            right.remove(*range);
        }
        let (identity, listed) = (identity.clone(), right.clone());
        let correct = move |store: &mut DownloadStore| {
            store.correct_journal(journal.as_ref().map(Journal::handle), &identity, &listed)
        };
        let corrected = self.with_store(correct).await?;
        self.journal = JournalState::Idle(corrected);
        self.before = right;
        Ok(())
    }
}
