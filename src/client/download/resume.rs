//! Resumes the download of an earlier run: decides whether its bytes can be used, and finds wrong pieces.

use std::path::PathBuf;

use super::super::error::DownloadError;
use super::super::identity::ContentIdentity;
use super::super::plan::{BalancerPresence, ByteRange, DownloadPlan, Parts, RangeSet};
use super::super::sink::{DownloadStore, SinkError, Writer, part_path};
use super::complete::within;
use super::engine::Engine;
use super::target_state::TargetState;
use super::{FileOrigin, Resume, known};

/// Bytes checked per step: an interruption waits for one step at most.
const CHECK_BYTES: u64 = 8 << 20;

impl Engine<'_> {
    /// Opens the part file of an earlier run, and plans the missing bytes.
    pub(super) async fn resume(&mut self) -> Result<(), DownloadError> {
        let Some(target) = self.target.clone() else { return Ok(()) };
        if self.context.options.resume == Resume::No || self.target_state == TargetState::Free {
            return Ok(());
        }
        if part_path(&target).symlink_metadata().is_err() {
            return Ok(());
        }
        if self.is_named_later() && self.reserve_name().is_err() {
            // The part file belongs to another file of this run.
            return Ok(());
        }
        let result = self.resume_from(target).await;
        if self.writer.is_none() {
            self.release_name();
        }
        result
    }

    async fn resume_from(&mut self, target: PathBuf) -> Result<(), DownloadError> {
        let (mut store, remembered) = DownloadStore::open(&target)?;
        let Some(memory) = remembered else { return Ok(()) };
        // The digest known now must not contradict the one recorded by the earlier run.
        let promised = (known(self.job).digest, memory.identity.digest);
        let contradicts = matches!(promised, (Some((now, _)), Some((then, _))) if now.contradicts(&then));
        let resized = self.identity.size.is_some_and(|size| Some(size) != memory.identity.size);
        if contradicts || resized || !memory.identity.can_be_resumed() {
            return Ok(());
        }
        let digest = self.identity.digest.or(memory.identity.digest);
        self.identity = ContentIdentity { digest, ..memory.identity };
        let mut done = memory.done;
        store.begin(&done, self.identity.size, self.hashing(), self.pieces())?;
        if self.has_pieces() {
            let (checked, wrong) = within(self.context, self.started, checked(store, &done)).await??;
            store = checked;
            for piece in &wrong {
                done.remove(*piece);
            }
            if !wrong.is_empty() {
                store = corrected(store, self.identity.clone(), done.clone()).await?;
            }
        }
        self.sources.resumed = done.clone();
        let balancer = match &self.job.origin {
            FileOrigin::Address(_) => BalancerPresence::Present,
            FileOrigin::Mirrors { .. } => BalancerPresence::Absent,
        };
        self.plan =
            DownloadPlan::new(Self::plan_settings(self.context, true), self.identity.size, &done, balancer);
        self.plan.allow_parts(Parts::Allowed);
        self.writer = Some(Writer::new(&target, store, done));
        Ok(())
    }
}

/// Rewrites the journal so that it lists only `right` bytes.
async fn corrected(
    store: DownloadStore,
    identity: ContentIdentity,
    right: RangeSet,
) -> Result<DownloadStore, SinkError> {
    let correcting = tokio::task::spawn_blocking(move || {
        let result = store.correct_journal(None, &identity, &right);
        result.map(|_| store)
    });
    correcting.await.map_err(SinkError::Worker)?
}

/// Checks all pieces in `done`. Returns the store and the wrong pieces.
async fn checked(
    mut store: DownloadStore,
    done: &RangeSet,
) -> Result<(DownloadStore, Vec<ByteRange>), SinkError> {
    let mut wrong = Vec::new();
    for range in done.iter() {
        let mut start = range.start;
        while start < range.end {
            let part = ByteRange::new(start, start.saturating_add(CHECK_BYTES).min(range.end));
            let checking = tokio::task::spawn_blocking(move || {
                let found = store.check(part);
                (store, found)
            });
            let (back, found) = checking.await.map_err(SinkError::Worker)?;
            store = back;
            wrong.extend(found?);
            start = part.end;
        }
    }
    Ok((store, wrong))
}
