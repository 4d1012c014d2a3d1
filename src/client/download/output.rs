//! The output of a download: its name, and the writer to it.

use std::path::PathBuf;

use tokio::time::Instant;

use super::complete::within;
use super::finish::PendingRename;
use super::target_state::TargetState;
use super::{Context, DownloadJob, Output, Resume};
use crate::client::checksum::{Checksum, Pieces};
use crate::client::error::DownloadError;
use crate::client::identity::ContentIdentity;
use crate::client::naming;
use crate::client::plan::DownloadPlan;
use crate::client::range::ByteRange;
use crate::client::sink::{
    self, Destination, DigestMode, FileCompletion, MAX_SMALL, SinkError, Writer, part_path,
};

/// Result of opening an output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OpenResult {
    Opened,
    /// The name chosen by a server exists already.
    NameTaken(PathBuf),
}

/// The result of the comparison of a complete file with its digests.
#[derive(Debug)]
pub(super) enum DigestComparison {
    Right,
    /// The plan has discarded wrong pieces.
    WrongPieces,
    /// Some bytes are wrong.
    WrongFile(DownloadError),
}

/// The output of one download.
pub(super) struct FileOutput<'a> {
    context: &'a Context,
    job: &'a DownloadJob,
    /// The path of the file; `None` for an output in order.
    pub(super) target: Option<PathBuf>,
    state: TargetState,
    /// The path that was reserved late, once the name of the file was known.
    reserved: Option<PathBuf>,
    pub(super) writer: Option<Writer>,
    /// The digest of the file, once it was computed.
    pub(super) digest: Option<Checksum>,
}

impl<'a> FileOutput<'a> {
    pub(super) fn new(
        context: &'a Context,
        job: &'a DownloadJob,
        target: Option<PathBuf>,
        state: TargetState,
    ) -> Self {
        // An output without positions has no part file and cannot be resumed.
        let target = target.filter(|_| state != TargetState::Sequential);
        Self { context, job, target, state, reserved: None, writer: None, digest: None }
    }

    /// Whether the output takes bytes in order, and cannot take them back.
    pub(super) fn is_sequential(&self) -> bool {
        self.target.is_none()
    }

    /// The name of the output, for messages.
    fn name(&self) -> String {
        let path = self.target.clone().or_else(|| self.job.name());
        path.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string())
    }

    /// Opens the part file of an earlier run, and passes the bytes in it to `plan`.
    pub(super) async fn resume(
        &mut self,
        plan: &mut DownloadPlan,
        started: Instant,
    ) -> Result<(), DownloadError> {
        let Some(target) = self.target.clone() else { return Ok(()) };
        let is_begun = self.state != TargetState::Free && part_path(&target).symlink_metadata().is_ok();
        if self.context.options.resume == Resume::No || !is_begun {
            return Ok(());
        }
        if self.is_named_later() && self.reserve_name().is_err() {
            // The part file belongs to another file of this run.
            return Ok(());
        }
        let result = self.resume_from(target, plan, started).await;
        if self.writer.is_none() {
            self.release_name();
        }
        result
    }

    async fn resume_from(
        &mut self,
        target: PathBuf,
        plan: &mut DownloadPlan,
        started: Instant,
    ) -> Result<(), DownloadError> {
        let (mut store, state) = self.context.storage.open(&target)?;
        let Some(state) = state else { return Ok(()) };
        // The properties known now must not contradict those recorded by the earlier run.
        let known = plan.identity();
        let promised = (known.digest, state.identity.digest);
        let contradicts = matches!(promised, (Some((now, _)), Some((then, _))) if now.contradicts(&then));
        let is_resized = known.size.is_some_and(|size| Some(size) != state.identity.size);
        if contradicts || is_resized || !state.identity.can_be_resumed() {
            return Ok(());
        }
        let digest = known.digest.or(state.identity.digest);
        let identity = ContentIdentity { digest, ..state.identity };
        let (size, hashing) = (identity.size, self.context.options.hashing(&identity));
        store.begin(state.done.len(), size, hashing)?;
        plan.resume(identity, state.done);
        let mut writer = Writer::new(
            &self.context.storage,
            target,
            size,
            hashing,
            Some(store.into()),
            plan.pieces().cloned(),
        );
        if plan.pieces().is_some() {
            let wrong = within(self.context, started, writer.verify(plan.bytes_mut())).await??;
            if !wrong.is_empty() {
                plan.forget_earlier(&wrong);
                writer.take_back(plan.identity(), plan.bytes()).await?;
            }
        }
        self.writer = Some(writer);
        Ok(())
    }

    /// Opens the output for the first bytes of the version `identity`; `disposition` is the `Content-Disposition` of the
    /// answer.
    pub(super) fn open_named(
        &mut self,
        identity: &ContentIdentity,
        disposition: Option<&str>,
        plan: &DownloadPlan,
    ) -> Result<OpenResult, DownloadError> {
        if self.is_named_later() {
            match (disposition.and_then(naming::from_content_disposition), &self.job.output) {
                (Some(name), Output::Folder(folder)) => {
                    let target = folder.join(name);
                    if !self.use_server_name(&target)? {
                        return Ok(OpenResult::NameTaken(target));
                    }
                }
                _ => self.reserve_name()?,
            }
        }
        self.open(identity, plan).map(|()| OpenResult::Opened)
    }

    /// Opens the output of a file of which no byte was received.
    pub(super) fn open(
        &mut self,
        identity: &ContentIdentity,
        plan: &DownloadPlan,
    ) -> Result<(), DownloadError> {
        let (size, hashing, pieces) =
            (identity.size, self.context.options.hashing(identity), plan.pieces().cloned());
        let storage = &self.context.storage;
        let store = match (&self.target, self.job.name(), &self.job.output) {
            (Some(target), ..) => {
                let is_small = size.is_none_or(|size| size <= MAX_SMALL as u64);
                let is_in_memory = is_small && pieces.is_none() && self.state == TargetState::Free;
                if is_in_memory { None } else { Some(storage.create(target, size, hashing)?) }
            }
            (None, Some(path), _) => {
                Some(sink::sequential(&Destination::Path(path), hashing, pieces.clone())?)
            }
            (None, None, Output::Descriptor(number)) => {
                Some(sink::sequential(&Destination::Descriptor(*number), hashing, pieces.clone())?)
            }
            (None, None, _) => return Err(SinkError::Abandoned.into()),
        };
        let target = self.target.clone().unwrap_or_default();
        self.writer = Some(Writer::new(storage, target, size, hashing, store, pieces));
        Ok(())
    }

    /// Discards wrong pieces.
    pub(super) async fn reject_pieces(
        &mut self,
        plan: &mut DownloadPlan,
        mut wrong: Vec<ByteRange>,
    ) -> Result<(), DownloadError> {
        wrong.extend(self.flush(plan).await?);
        if !wrong.is_empty() {
            plan.reject_pieces(&wrong);
            self.take_back(plan).await?;
        }
        Ok(())
    }

    /// Starts again with the next source that is asked alone.
    pub(super) async fn use_next_lone_source(
        &mut self,
        plan: &mut DownloadPlan,
    ) -> Result<(), DownloadError> {
        self.flush(plan).await?;
        plan.use_next_lone_source();
        Ok(self.take_back(plan).await?)
    }

    /// Starts again with the version that the servers have now.
    pub(super) async fn restart(&mut self, plan: &mut DownloadPlan) -> Result<(), DownloadError> {
        if self.is_sequential() && !plan.bytes().is_empty() {
            // Written bytes cannot be taken back.
            return Err(DownloadError::KeepsChanging);
        }
        self.flush(plan).await?;
        plan.restart()?;
        Ok(self.take_back(plan).await?)
    }

    /// Compares the file, which has all bytes, with its digests.
    pub(super) async fn verify(
        &mut self,
        plan: &mut DownloadPlan,
        started: Instant,
    ) -> Result<DigestComparison, DownloadError> {
        if self.writer.is_none() {
            // A file known to be empty needs no request.
            self.open(&plan.identity().clone(), plan)?;
        }
        if self.is_sequential() {
            // A write to a pipe may block forever, so it must be interruptible. The check of a file
            // on the disk must not be left half done.
            return within(self.context, started, self.compare_digests(plan)).await?;
        }
        self.compare_digests(plan).await
    }

    async fn compare_digests(&mut self, plan: &mut DownloadPlan) -> Result<DigestComparison, DownloadError> {
        if plan.pieces().is_some() {
            let wrong = self.flush(plan).await?;
            if !wrong.is_empty() {
                return self.reject_pieces(plan, wrong).await.map(|()| DigestComparison::WrongPieces);
            }
        }
        let promised = plan.identity().digest.map(|(digest, _)| digest);
        let hashing = self.context.options.hashing(plan.identity());
        let (DigestMode::On(algorithm), Some(writer)) = (hashing, &mut self.writer) else {
            return Ok(DigestComparison::Right);
        };
        self.digest = writer.digest(algorithm, plan.bytes_mut()).await?;
        let found = self.digest;
        let (Some(promised), Some(found)) = (promised.filter(|digest| Some(*digest) != found), found) else {
            return Ok(DigestComparison::Right);
        };
        let (found, promised) = (Box::new(found), Box::new(promised));
        let error = DownloadError::WrongChecksum { name: self.name(), found, promised, unasked: 0 };
        if self.is_sequential() { Err(error) } else { Ok(DigestComparison::WrongFile(error)) }
    }

    /// Discards the wrong `pieces` of a wrong file, or all of it without digests of pieces.
    pub(super) async fn reject_file(
        &mut self,
        plan: &mut DownloadPlan,
        error: DownloadError,
        pieces: Option<Pieces>,
    ) -> Result<(), DownloadError> {
        self.flush(plan).await?;
        let mut wrong = Vec::new();
        if let (Some(pieces), Some(writer)) = (pieces, &mut self.writer) {
            plan.use_pieces(pieces.clone());
            wrong = writer.verify_with(pieces, plan.bytes_mut()).await?;
        }
        if !wrong.is_empty() {
            plan.reject_pieces(&wrong);
        } else if !plan.reject_file(error) {
            return Err(plan.final_error().0);
        }
        Ok(self.take_back(plan).await?)
    }

    /// The complete file, which only lacks its name.
    pub(super) fn into_pending_rename(mut self, plan: &mut DownloadPlan) -> Option<PendingRename> {
        let modified = plan.identity().last_modified.as_deref();
        let completion = FileCompletion {
            size: plan.size().unwrap_or_default(),
            modified: modified.and_then(|date| httpdate::parse_http_date(date).ok()),
            existing: self.state.existing(),
            durability: self.context.options.durability,
            is_saved: false,
        };
        let bytes = std::mem::take(plan.bytes_mut());
        Some(PendingRename {
            writer: self.writer.take()?,
            bytes,
            completion,
            is_sequential: self.is_sequential(),
        })
    }

    /// Writes all received bytes, so that bytes can be discarded. Returns pieces that turned out wrong.
    async fn flush(&mut self, plan: &mut DownloadPlan) -> Result<Vec<ByteRange>, SinkError> {
        match &mut self.writer {
            Some(writer) => writer.flush(plan.bytes_mut()).await,
            None => Ok(Vec::new()),
        }
    }

    /// Makes the journal forget the bytes that `plan` discarded.
    async fn take_back(&mut self, plan: &DownloadPlan) -> Result<(), SinkError> {
        match &mut self.writer {
            Some(writer) => writer.take_back(plan.identity(), plan.bytes()).await,
            None => Ok(()),
        }
    }

    /// Records the received bytes in the journal.
    pub(super) fn checkpoint(&mut self, plan: &DownloadPlan) -> Result<(), SinkError> {
        let identity = plan.identity();
        match &mut self.writer {
            Some(writer) if identity.size.is_some() && identity.can_be_resumed() => {
                writer.checkpoint(identity, plan.bytes())
            }
            _ => Ok(()),
        }
    }

    /// After the failure `error`, keeps the received bytes if a later run can use them, and removes them otherwise.
    pub(super) async fn give_up(&mut self, plan: &mut DownloadPlan, error: &DownloadError) {
        // Unwritten bytes of a sequential output are dropped: a write to a pipe without a reader would block forever.
        let Some(mut writer) = self.writer.take().filter(|_| !self.is_sequential()) else { return };
        let is_wrong = matches!(error, DownloadError::WrongChecksum { .. });
        let is_displaced = matches!(error, DownloadError::Sink(SinkError::Displaced { .. }));
        let identity = plan.identity().clone();
        let is_of_use = identity.size.is_some()
            && identity.can_be_resumed()
            && !is_wrong
            && !matches!(error, DownloadError::Sink(_));
        // The first failure is reported; a failure to clean up is not.
        let _ = if is_of_use {
            writer.save_all(&identity, plan.bytes_mut()).await
        } else if !is_wrong && !is_displaced && writer.has_journal(plan.bytes()) {
            // The disk may have space again later, and every line of the journal is true.
            Ok(())
        } else {
            writer.discard(plan.bytes_mut()).await
        };
    }

    /// Uses the name chosen by a server. No existing file of that name is replaced, unless the address has
    /// the same name. Returns false if the name exists.
    fn use_server_name(&mut self, target: &PathBuf) -> Result<bool, DownloadError> {
        if self.job.name().as_ref() == Some(target) {
            return self.reserve_name().map(|()| true);
        }
        self.context.reserved_paths.reserve(target)?;
        self.state = TargetState::of(Some(target))?;
        self.target = Some(target.clone());
        Ok(matches!(self.state, TargetState::Free | TargetState::Begun))
    }

    /// Whether the error of a file that is too large for the disk may be that of one server: another may have a smaller
    /// file.
    pub(super) fn may_fit_from_another(&self, error: &DownloadError) -> bool {
        matches!(error, DownloadError::Sink(SinkError::NoSpace { .. })) && !self.is_named_later()
    }

    fn is_named_later(&self) -> bool {
        self.job.is_named_later(self.context.options.naming)
    }

    /// Reserves the name of the address, which was not reserved while a server could choose another name.
    fn reserve_name(&mut self) -> Result<(), DownloadError> {
        let Some(name) = self.job.name() else { return Ok(()) };
        self.context.reserved_paths.reserve(&name)?;
        self.reserved = Some(name);
        Ok(())
    }

    /// Releases the path that [`reserve_name`](Self::reserve_name) reserved, if any.
    pub(super) fn release_name(&mut self) {
        if let Some(name) = self.reserved.take() {
            self.context.reserved_paths.release(&name);
        }
    }
}
