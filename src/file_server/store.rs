//! The files of one worker thread: small files in memory, large files open.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};
use rustix::io::{Errno, pread, retry_on_intr};
use tokio::time::Instant;

use super::cache::Cache;
use super::digests;
use super::file_state::{FileState, OpenError};
use super::found_file::{Content, FoundFile, Meta};
use super::memfd_copy;
use super::metrics::FileServerCounters;
use super::root::{BlockingIo, Root};
use crate::http::nowait::{self, NowaitRead};
use crate::http::transport::Passage;

/// Maximum size of a file that is sent from memory, in bytes.
pub(super) const SMALL: u64 = 128 << 10;

/// A file in memory is compared with the disk if the last comparison is older. This bounds the age of an answer.
pub(super) const FRESH: Duration = Duration::from_secs(1);

impl FoundFile {
    /// A file whose bytes are part of the program.
    pub(super) fn embedded(name: &[u8], bytes: Bytes) -> Self {
        let identity = FileState::embedded(bytes.len() as u64);
        let meta = Meta { digest: digests::header_of(&bytes).into(), ..Meta::new(name, identity) };
        Self { meta: Rc::new(meta), content: Content::Memory(bytes) }
    }
}

/// The result of opening a file.
#[derive(Debug, Clone)]
enum Loaded {
    /// The file is in the cached state.
    Same,
    /// The file is in this state.
    Read(FileState, Content),
}

type Loading = Shared<LocalBoxFuture<'static, Result<Loaded, OpenError>>>;

/// Returns files by path: small files from memory if they were compared with the disk a moment ago, others from the
/// disk.
pub(super) struct FileStore {
    root: Arc<Root>,
    cache: RefCell<Cache>,
    counters: Arc<FileServerCounters>,
    passage: Passage,
    /// Reads from a disk that are in progress. Requests for the same file wait for one read.
    loading: RefCell<HashMap<Box<[u8]>, Loading>>,
}

impl FileStore {
    /// A store whose cache holds at most `cache_bytes` bytes.
    pub(super) fn new(
        root: Arc<Root>,
        cache_bytes: u64,
        passage: Passage,
        counters: Arc<FileServerCounters>,
    ) -> Self {
        let cache = RefCell::new(Cache::new(cache_bytes));
        Self { root, cache, counters, passage, loading: RefCell::default() }
    }

    /// The file, if it is available without waiting for a disk; [`OpenError::WouldBlock`] otherwise.
    pub(super) fn get(&self, path: &[u8], now: Instant) -> Result<FoundFile, OpenError> {
        let cached = self.cache.borrow_mut().get(path, now);
        self.get_known(path, cached, now)
    }

    /// The file from memory. `None` if it is not cached, or if the comparison with the disk is due and would wait.
    pub(super) fn get_cached(&self, path: &[u8], now: Instant) -> Option<FoundFile> {
        let cached = self.cache.borrow_mut().get(path, now)?;
        self.get_known(path, Some(cached), now).ok()
    }

    fn get_known(
        &self,
        path: &[u8],
        cached: Option<(FoundFile, Duration)>,
        now: Instant,
    ) -> Result<FoundFile, OpenError> {
        let known = match cached {
            Some((found, age)) if age < FRESH => {
                self.counters.cache_hits.fetch_add(1, Ordering::Relaxed);
                return Ok(self.with_memfd_copy(path, found));
            }
            // A provisional tag must be replaced, so the file is read again.
            Some((found, _)) => Some(found.meta.identity).filter(|_| !found.meta.validators.is_provisional),
            None => None,
        };
        self.counters.cache_misses.fetch_add(1, Ordering::Relaxed);
        let loaded = load(&self.root, path, known, BlockingIo::Forbidden);
        self.settle(path, loaded, now)
    }

    /// Moves a cached file to a memfd at its second request.
    fn with_memfd_copy(&self, path: &[u8], mut found: FoundFile) -> FoundFile {
        let Content::Memory(bytes) = &found.content else { return found };
        if self.passage != Passage::Kernel || (bytes.len() as u64) < memfd_copy::SMALLEST {
            return found;
        }
        let has_room = self.cache.borrow().memfd_copies() < memfd_copy::MOST;
        // If the copy fails, for instance for lack of descriptors, the bytes are sent from memory of the process.
        if let Some(copy) = has_room.then(|| memfd_copy::of(bytes).ok()).flatten() {
            found.content = Content::MemfdCopy(Arc::new(copy));
            self.cache.borrow_mut().keep_as(path, found.content.clone());
        } else {
            self.counters.copies_left_out.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// The file, opened by a thread that may wait for a disk.
    pub(super) async fn read(&self, path: &[u8]) -> Result<FoundFile, OpenError> {
        let loading = self.loading.borrow().get(path).cloned();
        let (loading, forget) = match loading {
            Some(loading) => (loading, None),
            None => (self.start(path), Some(Forget { store: self, path })),
        };
        let loaded = loading.await;
        drop(forget);
        self.settle(path, loaded, Instant::now())
    }

    fn start(&self, path: &[u8]) -> Loading {
        let (root, owned) = (Arc::clone(&self.root), path.to_owned());
        let reading = actix_rt::task::spawn_blocking(move || load(&root, &owned, None, BlockingIo::Allowed));
        // A task that panics has no result; the file counts as unreadable.
        let reading = async move { reading.await.unwrap_or(Err(OpenError::Failed(Errno::IO))) };
        let loading = reading.boxed_local().shared();
        self.loading.borrow_mut().insert(path.into(), loading.clone());
        loading
    }

    fn settle(
        &self,
        path: &[u8],
        loaded: Result<Loaded, OpenError>,
        now: Instant,
    ) -> Result<FoundFile, OpenError> {
        let mut cache = self.cache.borrow_mut();
        match loaded {
            Ok(Loaded::Same) => cache.confirm(path, now).ok_or(OpenError::WouldBlock),
            Ok(Loaded::Read(identity, content)) => {
                let found = FoundFile { meta: Rc::new(Meta::new(path, identity)), content };
                match &found.content {
                    Content::Memory(_) | Content::MemfdCopy(_) => {
                        let evicted = cache.insert(path, found.clone(), now);
                        self.counters.cache_evictions.fetch_add(evicted, Ordering::Relaxed);
                    }
                    Content::File(_) => cache.remove(path),
                }
                Ok(found)
            }
            Err(error) => {
                if error != OpenError::WouldBlock {
                    cache.remove(path);
                }
                Err(error)
            }
        }
    }
}

/// Removes a read from [`FileStore::loading`] when the request that started it ends or is dropped, so that later requests
/// do not get bytes that were read before them.
struct Forget<'a> {
    store: &'a FileStore,
    path: &'a [u8],
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.store.loading.borrow_mut().remove(self.path);
    }
}

/// Opens a file, and reads it if it is small and not in the state `known`.
fn load(
    root: &Root,
    path: &[u8],
    known: Option<FileState>,
    blocking_io: BlockingIo,
) -> Result<Loaded, OpenError> {
    let (file, identity) = root.file(path, blocking_io)?;
    // A file that was replaced by another of the same size and time has another inode or ctime.
    if known.is_some_and(|known| known == identity && known.stamp() == identity.stamp()) {
        return Ok(Loaded::Same);
    }
    let content = if identity.length <= SMALL {
        Content::Memory(read_whole(&file, identity, blocking_io)?)
    } else {
        Content::File(Arc::new(file))
    };
    Ok(Loaded::Read(identity, content))
}

/// Reads all bytes of a file, and checks that its state is the same before and after.
fn read_whole(file: &File, identity: FileState, blocking_io: BlockingIo) -> Result<Bytes, OpenError> {
    let mut bytes = vec![0; identity.length as usize];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let read = match blocking_io {
            BlockingIo::Forbidden => match nowait::read_at(file, rest, filled as u64)? {
                NowaitRead::Read(read) => read,
                NowaitRead::NotInMemory | NowaitRead::Unknown => return Err(OpenError::WouldBlock),
            },
            BlockingIo::Allowed => retry_on_intr(|| pread(file, &mut *rest, filled as u64))?,
        };
        if read == 0 {
            return Err(OpenError::Failed(Errno::IO));
        }
        filled += read;
    }
    // Without this check, a write during the read would mix two states under one entity tag.
    if FileState::of(file)? == identity { Ok(bytes.into()) } else { Err(OpenError::WouldBlock) }
}

#[cfg(test)]
mod tests;
