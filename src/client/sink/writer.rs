//! Writes bytes concurrently with the network: batches run on tokio's bounded pool of blocking threads, one
//! at a time; bytes that arrive meanwhile form the next batch.

use std::fmt;
use std::future::pending;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::group_commit::{Finish, WholeFile};
use super::{Batch, DigestMode, FileCompletion, SinkError, Storage, Store, digest};
use crate::client::byte_map::ByteMap;
use crate::client::checksum::{Algorithm, Checksum, Pieces};
use crate::client::identity::ContentIdentity;
use crate::client::range::{ByteRange, RangeSet};

/// Maximum number of unwritten bytes; beyond it, the network is not read.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// Unsaved bytes that make an early checkpoint worthwhile: the disk works while the rest still arrives, and
/// the final sync is short.
const EARLY_CHECKPOINT_BYTES: u64 = 16 << 20;

/// Files of at most this size have no part file unless something fails.
pub(crate) const MAX_SMALL: usize = 64 << 10;

/// Bytes verified per step after a resume: an interruption waits for one step at most.
const VERIFY_BYTES: u64 = 8 << 20;

/// Completed work of the disk.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Bytes were written; these pieces are wrong.
    Written(Vec<ByteRange>),
    /// A checkpoint is complete.
    Saved,
}

/// A batch that is being written.
struct Writing {
    job: JoinHandle<Result<Vec<ByteRange>, SinkError>>,
    ranges: Vec<ByteRange>,
    pieces: Vec<ByteRange>,
}

/// A checkpoint in progress, and the bytes that it lists.
struct Saving {
    job: JoinHandle<Result<(), SinkError>>,
    done: RangeSet,
}

/// The writing side of one download. The state of the bytes is in the [`ByteMap`] that is passed to it.
pub(crate) struct Writer {
    /// `None` while all received bytes are in memory, in the batch.
    store: Option<Arc<dyn Store>>,
    small: Small,
    pieces: Option<Pieces>,
    batch: Vec<(u64, Bytes)>,
    /// Unwritten bytes, including those that are being written.
    waiting: usize,
    writing: Option<Writing>,
    saving: Option<Saving>,
}

/// What is needed to store a file that is still in memory.
struct Small {
    storage: Rc<dyn Storage>,
    target: PathBuf,
    size: Option<u64>,
    hashing: DigestMode,
}

impl fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Writer").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer of the file `target`, of `size` bytes if known. Without a `store`, the file stays in memory while it is
    /// small; neither the file nor a part file may exist then.
    pub(crate) fn new(
        storage: &Rc<dyn Storage>,
        target: PathBuf,
        size: Option<u64>,
        hashing: DigestMode,
        store: Option<Arc<dyn Store>>,
        pieces: Option<Pieces>,
    ) -> Self {
        let small = Small { storage: Rc::clone(storage), target, size, hashing };
        Self { store, small, pieces, batch: Vec::new(), waiting: 0, writing: None, saving: None }
    }

    /// Adds bytes to the batch.
    pub(crate) fn push(&mut self, offset: u64, bytes: Bytes) {
        self.waiting = self.waiting.saturating_add(bytes.len());
        self.batch.push((offset, bytes));
    }

    /// Whether the network must not be read for now.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting >= MAX_WAITING_BYTES
    }

    /// Starts to write the batch, unless the previous one is still being written or the file is small enough
    /// to stay in memory.
    pub(crate) fn start(&mut self, bytes: &ByteMap) -> Result<(), SinkError> {
        if self.store.is_none() && self.waiting <= MAX_SMALL {
            return Ok(());
        }
        self.write_batch(bytes)
    }

    fn write_batch(&mut self, bytes: &ByteMap) -> Result<(), SinkError> {
        if self.batch.is_empty() || self.writing.is_some() {
            return Ok(());
        }
        let store = self.stored()?;
        let (batch, ranges, pieces) = self.take_batch(bytes);
        let job = tokio::task::spawn_blocking(move || store.write(&batch));
        self.writing = Some(Writing { job, ranges, pieces });
        Ok(())
    }

    /// The collected batch, its ranges, and the pieces that are verified with it.
    fn take_batch(&mut self, bytes: &ByteMap) -> (Batch, Vec<ByteRange>, Vec<ByteRange>) {
        let parts = std::mem::take(&mut self.batch);
        let range = |(offset, bytes): &(u64, Bytes)| {
            ByteRange::new(*offset, offset.saturating_add(bytes.len() as u64))
        };
        let ranges: Vec<ByteRange> = parts.iter().map(range).collect();
        let follow_up = bytes.follow_up(&ranges, self.pieces.as_ref());
        let pieces = follow_up.pieces.iter().map(|(piece, _)| *piece).collect();
        (Batch { parts, follow_up }, ranges, pieces)
    }

    /// The store, to which a file in memory is moved.
    fn stored(&mut self) -> Result<Arc<dyn Store>, SinkError> {
        if let Some(store) = &self.store {
            return Ok(Arc::clone(store));
        }
        let Small { storage, target, size, hashing } = &self.small;
        let store = storage.create(target, *size, *hashing)?;
        Ok(Arc::clone(self.store.insert(store)))
    }

    /// Waits until a batch was written or a checkpoint is complete. Never completes if neither is in progress.
    pub(crate) async fn progress(&mut self, bytes: &mut ByteMap) -> Result<Progress, SinkError> {
        let writing = async {
            match &mut self.writing {
                Some(writing) => (&mut writing.job).await,
                None => pending().await,
            }
        };
        let saving = async {
            match &mut self.saving {
                Some(saving) => (&mut saving.job).await,
                None => pending().await,
            }
        };
        tokio::select! {
            result = writing => {
                let wrong = result.map_err(SinkError::Worker)?;
                self.on_written(wrong, bytes).map(Progress::Written)
            }
            result = saving => {
                let result = result.map_err(SinkError::Worker)?;
                self.on_saved(result, bytes).map(|()| Progress::Saved)
            }
        }
    }

    fn on_written(
        &mut self,
        result: Result<Vec<ByteRange>, SinkError>,
        bytes: &mut ByteMap,
    ) -> Result<Vec<ByteRange>, SinkError> {
        let Some(Writing { ranges, mut pieces, .. }) = self.writing.take() else { return Ok(Vec::new()) };
        self.waiting = self.batch.iter().map(|(_, bytes)| bytes.len()).sum();
        let wrong = result?;
        pieces.retain(|piece| !wrong.contains(piece));
        bytes.on_written(&ranges, &pieces);
        Ok(wrong)
    }

    fn on_saved(&mut self, result: Result<(), SinkError>, bytes: &mut ByteMap) -> Result<(), SinkError> {
        let Some(Saving { done, .. }) = self.saving.take() else { return Ok(()) };
        result?;
        bytes.on_saved(done);
        Ok(())
    }

    /// Waits until all bytes are written, and no checkpoint is in progress. Returns pieces that turned out wrong.
    pub(crate) async fn flush(&mut self, bytes: &mut ByteMap) -> Result<Vec<ByteRange>, SinkError> {
        let mut wrong = Vec::new();
        loop {
            self.write_batch(bytes)?;
            if self.writing.is_none() && self.saving.is_none() {
                return Ok(wrong);
            }
            if let Progress::Written(pieces) = self.progress(bytes).await? {
                wrong.extend(pieces);
            }
        }
    }

    /// Whether enough bytes are unsaved to make an early checkpoint worthwhile.
    pub(crate) fn is_checkpoint_due(&self, bytes: &ByteMap) -> bool {
        self.saving.is_none() && bytes.unsaved() >= EARLY_CHECKPOINT_BYTES
    }

    /// Whether the journal lists bytes, or may list them soon.
    pub(crate) fn has_journal(&self, bytes: &ByteMap) -> bool {
        self.saving.is_some() || !bytes.durable().is_empty()
    }

    /// Starts a checkpoint, which syncs all written bytes and lists them in the journal, unless one is in progress. A
    /// file in memory is moved to the disk instead.
    pub(crate) fn checkpoint(
        &mut self,
        identity: &ContentIdentity,
        bytes: &ByteMap,
    ) -> Result<(), SinkError> {
        if self.store.is_none() {
            return self.write_batch(bytes);
        }
        if let (Some(store), None, 1..) = (&self.store, &self.saving, bytes.unsaved()) {
            let (store, identity, done) = (Arc::clone(store), identity.clone(), bytes.written().clone());
            let listed = done.clone();
            let job = tokio::task::spawn_blocking(move || store.save(&identity, &listed));
            self.saving = Some(Saving { job, done });
        }
        Ok(())
    }

    /// Writes and saves all received bytes, except for wrong pieces, so that a later run can resume.
    pub(crate) async fn save_all(
        &mut self,
        identity: &ContentIdentity,
        bytes: &mut ByteMap,
    ) -> Result<(), SinkError> {
        let wrong = self.flush(bytes).await?;
        let mut right = bytes.written().clone();
        for piece in &wrong {
            right.remove(*piece);
        }
        if bytes.unsaved() == 0 {
            return Ok(());
        }
        let identity = identity.clone();
        self.with_store(move |store| store.save(&identity, &right)).await
    }

    /// Removes all bytes but the durable ones of `bytes` from the journal. All bytes must be [flushed](Self::flush).
    pub(crate) async fn take_back(
        &mut self,
        identity: &ContentIdentity,
        bytes: &ByteMap,
    ) -> Result<(), SinkError> {
        if self.store.is_none() {
            return Ok(());
        }
        let (identity, right) = (identity.clone(), bytes.durable().clone());
        self.with_store(move |store| store.take_back(&identity, &right)).await
    }

    /// Verifies the written pieces of an earlier run. Returns the wrong ones.
    pub(crate) async fn verify(&mut self, bytes: &mut ByteMap) -> Result<Vec<ByteRange>, SinkError> {
        let mut wrong = Vec::new();
        for range in bytes.written().clone().iter() {
            let mut start = range.start;
            while start < range.end {
                let step = ByteRange::new(start, start.saturating_add(VERIFY_BYTES).min(range.end));
                let follow_up = bytes.follow_up(&[step], self.pieces.as_ref());
                let pieces: Vec<ByteRange> = follow_up.pieces.iter().map(|(piece, _)| *piece).collect();
                let batch = Batch { parts: Vec::new(), follow_up };
                let found = self.with_store(move |store| store.write(&batch)).await?;
                let right: Vec<_> = pieces.into_iter().filter(|piece| !found.contains(piece)).collect();
                bytes.on_written(&[], &right);
                wrong.extend(found.into_iter().filter(|piece| !wrong.contains(piece)).collect::<Vec<_>>());
                start = step.end;
            }
        }
        Ok(wrong)
    }

    async fn with_store<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&dyn Store) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let store = self.stored()?;
        tokio::task::spawn_blocking(move || work(store.as_ref())).await.map_err(SinkError::Worker)?
    }

    /// Runs `work` with the store and the last batch, on one thread: moving the batch to another one costs more
    /// than writing a small file. A sequential store has not written the batch yet if `is_last_step` is false.
    ///
    /// Wrong pieces of the batch are not reported: with pieces, call [`flush`](Self::flush) first.
    async fn with_last_batch<T: Send + 'static>(
        &mut self,
        bytes: &mut ByteMap,
        is_last_step: bool,
        work: impl FnOnce(&dyn Store, &Batch) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        while self.writing.is_some() || self.saving.is_some() {
            self.progress(bytes).await?;
        }
        let store = self.stored()?;
        let is_kept = !is_last_step && store.is_sequential();
        let (batch, ranges, _) = self.take_batch(bytes);
        let job = tokio::task::spawn_blocking(move || {
            let is_over = is_kept || batch.parts.is_empty();
            let written = if is_over { Ok(()) } else { store.write(&batch).map(drop) };
            let is_written = !is_kept && written.is_ok();
            let result = written.and_then(|()| work(store.as_ref(), &batch));
            (batch, is_written, result)
        });
        let (batch, is_written, result) = job.await.map_err(SinkError::Worker)?;
        if is_kept {
            self.batch = batch.parts;
        } else {
            self.waiting = 0;
        }
        if is_written {
            bytes.on_written(&ranges, &[]);
        }
        result
    }

    /// The digest of the complete file; `None` if the output has not computed it.
    pub(crate) async fn digest(
        &mut self,
        algorithm: Algorithm,
        bytes: &mut ByteMap,
    ) -> Result<Option<Checksum>, SinkError> {
        if self.store.is_none() {
            return Ok(Some(digest::of_parts(&self.batch, algorithm)));
        }
        let size = bytes.size().unwrap_or_default();
        self.with_last_batch(bytes, false, move |store, last| store.digest(last, size, algorithm)).await
    }

    /// Gives the complete file its name.
    pub(crate) async fn finish(
        &mut self,
        ending: FileCompletion,
        bytes: &mut ByteMap,
    ) -> Result<(), SinkError> {
        if self.store.is_none() {
            let (target, parts) = (self.small.target.clone(), self.batch.clone());
            let file = WholeFile { target, parts, modified: ending.modified };
            if self.small.storage.finish_small(file).await? == Finish::Named {
                return Ok(());
            }
        }
        let ending = FileCompletion { is_saved: self.has_journal(bytes), ..ending };
        self.with_last_batch(bytes, true, move |store, _| store.finish(&ending)).await
    }

    /// Removes the part file and the journal, which no later run could use.
    pub(crate) async fn discard(&mut self, bytes: &mut ByteMap) -> Result<(), SinkError> {
        self.batch.clear();
        while self.writing.is_some() || self.saving.is_some() {
            // The first failure is reported.
            let _ = self.progress(bytes).await;
        }
        match self.store {
            Some(_) => self.with_store(|store| store.discard()).await,
            None => Ok(()),
        }
    }
}
