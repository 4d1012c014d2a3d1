//! Writes bytes concurrently with the network: batches run on tokio's bounded pool of blocking threads, one
//! at a time; bytes that arrive meanwhile form the next batch.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::task::{JoinError, JoinHandle};

use super::super::checksum::{Algorithm, Checksum};
use super::super::plan::{ByteRange, RangeSet};
use super::digest::RunningDigest;
use super::group_commit::{Finish, GroupCommit, WholeFile};
use super::journal::Journal;
use super::provenance::Provenance;
use super::store::{DigestMode, DownloadStore};
use super::{Durability, Existing, SinkError};

mod saving;

/// Maximum number of unwritten bytes; beyond it, the network is not read.
const MAX_WAITING_BYTES: usize = 8 << 20;

/// Unsaved bytes that make an early checkpoint worthwhile: the disk works while the rest still arrives, and
/// the final sync is short.
const EARLY_CHECKPOINT_BYTES: u64 = 16 << 20;

/// Files of at most this size have no part file unless something fails. As many bytes are hashed without
/// moving to another thread.
pub(crate) const MAX_SMALL: usize = 64 << 10;

/// The store after a batch, and the pieces that turned out wrong.
type Written = (Box<DownloadStore>, Result<Vec<ByteRange>, SinkError>);

/// The writing side of one download.
#[derive(Debug)]
pub(crate) struct Writer {
    target: PathBuf,
    /// Set while all received bytes are in memory, in the batch.
    held: Option<InMemory>,
    /// `None` while the file is in memory, and while a batch is being written.
    store: Option<Box<DownloadStore>>,
    writing: Option<JoinHandle<Written>>,
    batch: Vec<(u64, Bytes)>,
    /// Sources of the bytes in the batch, and in the batch that is being written.
    batch_runs: Provenance,
    writing_runs: Provenance,
    waiting: usize,
    /// Bytes written since the last checkpoint, with their sources.
    unsaved: Provenance,
    journal: JournalState,
    /// Bytes on the disk when this run started.
    before: RangeSet,
}

/// A file without a part file.
#[derive(Debug)]
struct InMemory {
    size: Option<u64>,
    hashing: DigestMode,
    group_commit: GroupCommit,
}

#[derive(Debug)]
enum JournalState {
    Idle(Option<Journal>),
    Busy(JoinHandle<Result<Journal, SinkError>>),
}

impl Writer {
    /// A writer to `store`, which was started with the bytes `before`.
    #[must_use]
    pub(crate) fn new(target: &Path, store: DownloadStore, before: RangeSet) -> Self {
        Self { store: Some(Box::new(store)), before, ..Self::empty(target) }
    }

    /// A writer of a new file of `size` bytes, if known, which stays in memory while it is small. Neither the
    /// file nor a part file may exist.
    #[must_use]
    pub(crate) fn held(
        target: &Path,
        size: Option<u64>,
        hashing: DigestMode,
        group_commit: &GroupCommit,
    ) -> Self {
        let held = InMemory { size, hashing, group_commit: group_commit.clone() };
        Self { held: Some(held), ..Self::empty(target) }
    }

    fn empty(target: &Path) -> Self {
        Self {
            target: target.to_owned(),
            held: None,
            store: None,
            writing: None,
            batch: Vec::new(),
            batch_runs: Provenance::default(),
            writing_runs: Provenance::default(),
            waiting: 0,
            unsaved: Provenance::default(),
            journal: JournalState::Idle(None),
            before: RangeSet::new(),
        }
    }

    /// Adds bytes from `source` to the batch.
    pub(crate) fn push(&mut self, offset: u64, bytes: Bytes, source: usize) {
        let range = ByteRange::new(offset, offset.saturating_add(bytes.len() as u64));
        self.waiting = self.waiting.saturating_add(bytes.len());
        self.batch_runs.add(range, source);
        self.batch.push((offset, bytes));
    }

    /// Whether the network must not be read for now.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.waiting >= MAX_WAITING_BYTES
    }

    /// Starts to write the batch, unless the previous one is still being written or the file is small enough
    /// to stay in memory.
    pub(crate) fn start(&mut self) -> Result<(), SinkError> {
        if self.held.is_some() && self.waiting <= MAX_SMALL {
            return Ok(());
        }
        self.write_batch()
    }

    fn write_batch(&mut self) -> Result<(), SinkError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.move_to_disk()?;
        let Some(mut store) = self.store.take() else { return Ok(()) };
        let batch = std::mem::take(&mut self.batch);
        self.writing_runs = std::mem::take(&mut self.batch_runs);
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let result = store.write(&batch);
            (store, result)
        }));
        Ok(())
    }

    /// Moves a file from memory to a part file.
    fn move_to_disk(&mut self) -> Result<(), SinkError> {
        if let Some(InMemory { size, hashing, .. }) = self.held.take() {
            self.store = Some(Box::new(DownloadStore::create(&self.target, size, hashing, None)?));
        }
        Ok(())
    }

    /// Waits until a batch was written, and returns the pieces that turned out wrong, or until a checkpoint
    /// is complete. Never completes if neither is in progress.
    pub(crate) async fn progress(&mut self) -> Result<Vec<ByteRange>, SinkError> {
        match (&mut self.writing, &mut self.journal) {
            (Some(writing), JournalState::Busy(saving)) => tokio::select! {
                joined = writing => self.batch_written(joined),
                joined = saving => self.checkpoint_finished(joined).map(|()| Vec::new()),
            },
            (Some(writing), JournalState::Idle(_)) => {
                let joined = writing.await;
                self.batch_written(joined)
            }
            (None, JournalState::Busy(saving)) => {
                let joined = saving.await;
                self.checkpoint_finished(joined).map(|()| Vec::new())
            }
            (None, JournalState::Idle(_)) => std::future::pending().await,
        }
    }

    fn batch_written(&mut self, joined: Result<Written, JoinError>) -> Result<Vec<ByteRange>, SinkError> {
        self.writing = None;
        let (store, result) = joined.map_err(SinkError::Worker)?;
        self.store = Some(store);
        self.waiting = self.batch.iter().map(|(_, bytes)| bytes.len()).sum();
        let wrong = result?;
        self.unsaved.append(&mut self.writing_runs);
        Ok(wrong)
    }

    /// Waits until all bytes are written. Returns pieces that turned out wrong.
    pub(crate) async fn flush(&mut self) -> Result<Vec<ByteRange>, SinkError> {
        let mut wrong = Vec::new();
        loop {
            self.write_batch()?;
            let Some(writing) = &mut self.writing else { return Ok(wrong) };
            let joined = writing.await;
            wrong.extend(self.batch_written(joined)?);
        }
    }

    /// Runs blocking `work` with the store, after all bytes were written and the current checkpoint is
    /// complete. The last batch is written by the same thread: moving it to another one costs more than
    /// writing a small file.
    ///
    /// Wrong pieces of that batch are not reported: with pieces, call [`flush`](Self::flush) first.
    async fn with_store<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut DownloadStore) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        if let Some(writing) = &mut self.writing {
            let joined = writing.await;
            self.batch_written(joined)?;
        }
        self.finish_checkpoint().await?;
        self.move_to_disk()?;
        let mut store = self.store.take().ok_or(SinkError::Abandoned)?;
        let batch = std::mem::take(&mut self.batch);
        let mut runs = std::mem::take(&mut self.batch_runs);
        let (store, result) = tokio::task::spawn_blocking(move || {
            let written = if batch.is_empty() { Ok(Vec::new()) } else { store.write(&batch) };
            let result = written.and_then(|_| work(&mut store));
            (store, result)
        })
        .await
        .map_err(SinkError::Worker)?;
        self.store = Some(store);
        self.waiting = 0;
        let result = result?;
        self.unsaved.append(&mut runs);
        Ok(result)
    }

    /// The digest of all bytes, a file of `size` bytes; `None` if the output has not computed it.
    pub(crate) async fn digest(
        &mut self,
        size: u64,
        algorithm: Algorithm,
    ) -> Result<Option<Checksum>, SinkError> {
        if self.waiting <= MAX_SMALL {
            let running = match (&self.store, &self.held) {
                (Some(store), _) => store.running_digest(),
                (None, Some(_)) => Some(RunningDigest::new(algorithm)),
                (None, None) => None,
            };
            if let Some(digest) = running.and_then(|running| running.of(&self.batch, size, algorithm)) {
                return Ok(Some(digest));
            }
        }
        self.with_store(move |store| store.digest(algorithm)).await
    }

    /// Gives the file its name.
    pub(crate) async fn finish(
        &mut self,
        size: u64,
        modified: Option<SystemTime>,
        existing: Existing,
        durability: Durability,
    ) -> Result<(), SinkError> {
        let target = self.target.clone();
        if let Some(held) = &self.held
            && self.waiting as u64 == size
        {
            let file = WholeFile { target: target.clone(), parts: self.batch.clone(), modified };
            if held.group_commit.finish(file).await? == Finish::Named {
                return Ok(());
            }
        }
        let journal = self.own_journal().await?;
        self.with_store(move |store| {
            store.finish(&target, size, modified, existing, durability, journal.as_ref())
        })
        .await
    }

    /// Whether all of a file of `size` bytes is written.
    #[must_use]
    pub(crate) fn holds(&self, size: u64) -> bool {
        let whole = ByteRange::new(0, size);
        self.store.as_ref().is_some_and(|store| {
            store.written().within(whole).iter().map(ByteRange::len).sum::<u64>() == size
        })
    }

    /// Removes the part file and the journal, which no later run could use.
    pub(crate) async fn discard(&mut self) -> Result<(), SinkError> {
        if self.held.take().is_some() {
            self.batch.clear();
            return Ok(());
        }
        self.flush().await?;
        let (target, journal) = (self.target.clone(), self.own_journal().await?);
        self.with_store(move |store| store.discard(&target, journal.as_ref())).await
    }
}
