//! Files as they are answered: small ones in memory, large ones open. One store for each worker thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::IoSliceMut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_http::header::HeaderValue;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::time::Instant;

use super::cache::Cache;
use super::conditions::Validators;
use super::digests;
use super::media;
use super::metrics::WorkerCounters;
use super::root::{Identity, OpenError, Patience, Root};
use super::snapshot;
use crate::http::transport::Passage;

/// Files up to this size are answered from memory.
pub const SMALL: u64 = 128 << 10;

/// A file in memory is looked at again once this has passed: its answer is never staler than that.
pub const FRESH: Duration = Duration::from_secs(1);

/// What an answer says of a file.
#[derive(Debug)]
pub struct Meta {
    /// The state it was in.
    pub identity: Identity,
    /// What tells that state from another.
    pub validators: Validators,
    /// Its type.
    pub content_type: HeaderValue,
    /// Its `Repr-Digest`, once that is known.
    pub digest: OnceLock<HeaderValue>,
    /// Whether somebody was asked to find the digest out.
    pub is_digest_asked: AtomicBool,
}

impl Meta {
    fn new(path: &[u8], identity: Identity) -> Self {
        Self {
            identity,
            validators: Validators::new(identity.modified, identity.length),
            content_type: media::content_type(path),
            digest: OnceLock::new(),
            is_digest_asked: AtomicBool::new(false),
        }
    }
}

/// A file that can be answered.
#[derive(Debug, Clone)]
pub struct Found {
    /// What the answer says of it.
    pub meta: Arc<Meta>,
    /// Its bytes.
    pub content: Content,
}

impl Found {
    /// Bytes that are part of the program, under the name of a file.
    #[must_use]
    pub fn embedded(name: &[u8], bytes: Bytes) -> Self {
        let identity = Identity::embedded(bytes.len() as u64);
        let meta = Meta { digest: digests::header_of(&bytes).into(), ..Meta::new(name, identity) };
        Self { meta: Arc::new(meta), content: Content::Memory(bytes) }
    }
}

/// The bytes of a file.
#[derive(Debug, Clone)]
pub enum Content {
    /// All of them, in memory.
    Memory(Bytes),
    /// All of them, in memory that the kernel can send from.
    Snapshot(Arc<File>),
    /// To be read from here.
    File(Arc<File>),
}

/// What a look at the disk came to.
#[derive(Debug, Clone)]
enum Loaded {
    /// The file is as it was.
    Same,
    Found(Found),
}

type Loading = Shared<LocalBoxFuture<'static, Result<Loaded, OpenError>>>;

/// Gives files by their path, from memory where they are small and were looked at a moment ago.
pub struct Store {
    root: Arc<Root>,
    cache: RefCell<Cache>,
    counters: Arc<WorkerCounters>,
    passage: Passage,
    /// Files that are being read from a disk: one read for all who wait.
    loading: RefCell<HashMap<Box<[u8]>, Loading>>,
}

impl Store {
    /// A store that keeps at most this many bytes of small files in memory.
    #[must_use]
    pub fn new(root: Arc<Root>, cache_bytes: u64, passage: Passage, counters: Arc<WorkerCounters>) -> Self {
        let cache = RefCell::new(Cache::new(cache_bytes));
        Self { root, cache, counters, passage, loading: RefCell::default() }
    }

    /// The file if it can be had without waiting for a disk; [`OpenError::WouldBlock`] if it cannot.
    pub fn get(&self, path: &[u8], now: Instant) -> Result<Found, OpenError> {
        let cached = self.cache.borrow_mut().get(path, now);
        let known = match cached {
            Some((found, age)) if age < FRESH => {
                self.counters.cache_hits.fetch_add(1, Ordering::Relaxed);
                return Ok(self.with_snapshot(path, found));
            }
            Some((found, _)) => Some(found.meta.identity),
            None => None,
        };
        self.counters.cache_misses.fetch_add(1, Ordering::Relaxed);
        let loaded = load(&self.root, path, known, Patience::Cached);
        self.settle(path, loaded, now)
    }

    /// A file that is asked for again while it is in memory goes on as a copy that the kernel can send from.
    fn with_snapshot(&self, path: &[u8], mut found: Found) -> Found {
        let Content::Memory(bytes) = &found.content else { return found };
        if self.passage != Passage::Kernel || (bytes.len() as u64) < snapshot::SMALLEST {
            return found;
        }
        let has_room = self.cache.borrow().snapshots() < snapshot::MOST;
        // Without one, as where descriptors run out, the bytes go out from where they are.
        if let Some(copy) = has_room.then(|| snapshot::of(bytes).ok()).flatten() {
            found.content = Content::Snapshot(Arc::new(copy));
            self.cache.borrow_mut().keep_as(path, found.content.clone());
        } else {
            self.counters.copies_left_out.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// The file, read by a thread that may wait for a disk.
    pub async fn read(&self, path: &[u8]) -> Result<Found, OpenError> {
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
        let reading = actix_rt::task::spawn_blocking(move || load(&root, &owned, None, Patience::Disk));
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
    ) -> Result<Found, OpenError> {
        let mut cache = self.cache.borrow_mut();
        match loaded {
            Ok(Loaded::Same) => cache.confirm(path, now).ok_or(OpenError::WouldBlock),
            Ok(Loaded::Found(found)) => {
                match &found.content {
                    Content::Memory(_) | Content::Snapshot(_) => {
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

/// Ends the time in which others may wait for a read with the request that began it, also where that is given up: what
/// was read then is not for whoever comes later.
struct Forget<'a> {
    store: &'a Store,
    path: &'a [u8],
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.store.loading.borrow_mut().remove(self.path);
    }
}

/// Looks at a file, and reads it when it is small and not `known`.
fn load(root: &Root, path: &[u8], known: Option<Identity>, patience: Patience) -> Result<Loaded, OpenError> {
    let (file, identity) = root.file(path, patience)?;
    // A file that was replaced by one of the same size and time is another.
    if known.is_some_and(|known| known == identity && known.stamp() == identity.stamp()) {
        return Ok(Loaded::Same);
    }
    let content = if identity.length <= SMALL {
        Content::Memory(read_whole(&file, identity, patience)?)
    } else {
        Content::File(Arc::new(file))
    };
    Ok(Loaded::Found(Found { meta: Arc::new(Meta::new(path, identity)), content }))
}

/// All bytes of a file that is in this state before and after.
fn read_whole(file: &File, identity: Identity, patience: Patience) -> Result<Bytes, OpenError> {
    let flags = match patience {
        Patience::Cached => ReadWriteFlags::NOWAIT,
        Patience::Disk => ReadWriteFlags::empty(),
    };
    let mut bytes = vec![0; identity.length as usize];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_at(file, rest, filled as u64, flags)? {
            0 => return Err(OpenError::Failed(Errno::IO)),
            read => filled += read,
        }
    }
    // Whoever writes while we read would otherwise leave half of each state under one entity tag.
    if Identity::of(file)? == identity { Ok(bytes.into()) } else { Err(OpenError::WouldBlock) }
}

/// Reads at a place; on systems that cannot say whether that waits for a disk, it may.
fn read_at(file: &File, bytes: &mut [u8], at: u64, flags: ReadWriteFlags) -> Result<usize, OpenError> {
    use rustix::io::retry_on_intr;

    #[cfg(target_os = "linux")]
    match retry_on_intr(|| rustix::io::preadv2(file, &mut [IoSliceMut::new(bytes)], at, flags)) {
        // The file system does not know how not to wait.
        Err(Errno::OPNOTSUPP) => Err(OpenError::WouldBlock),
        result => Ok(result?),
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = flags;
        Ok(retry_on_intr(|| rustix::io::pread(file, &mut *bytes, at))?)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;
    use crate::http::transport::Passage;

    /// One look at a future, of which nothing is expected.
    async fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }

    #[test]
    fn a_read_that_is_given_up_is_not_answered_to_later_requests() {
        let folder = tempfile::tempdir().unwrap();
        let root = Arc::new(Root::open(folder.path()).unwrap());
        let store = Store::new(root, 1 << 20, Passage::Memory, Arc::default());
        let write = |text: &str| std::fs::write(folder.path().join("file"), text).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            write("old");
            let mut given_up = Box::pin(store.read(b"file"));
            let _ = poll_once(&mut given_up).await;
            drop(given_up);
            assert!(store.loading.borrow().is_empty());
            write("new bytes");
            let found = store.read(b"file").await.unwrap();
            assert!(matches!(found.content, Content::Memory(bytes) if bytes == "new bytes"));
        });
    }

    #[test]
    fn who_waits_for_a_read_that_another_gave_up_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "hello").unwrap();
        let root = Arc::new(Root::open(folder.path()).unwrap());
        let store = Store::new(root, 1 << 20, Passage::Memory, Arc::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut given_up = Box::pin(store.read(b"file"));
            let _ = poll_once(&mut given_up).await;
            let mut waiting = Box::pin(store.read(b"file"));
            let early = poll_once(&mut waiting).await;
            drop(given_up);
            let found = match early {
                Poll::Ready(found) => found,
                Poll::Pending => waiting.await,
            };
            assert!(matches!(found.unwrap().content, Content::Memory(bytes) if bytes == "hello"));
        });
    }
}
