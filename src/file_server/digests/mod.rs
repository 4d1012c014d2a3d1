//! SHA-256 of the served files, computed in the background and sent as `Repr-Digest` (RFC 9530).
//!
//! Workers look a digest up in a table that is read without a lock. One thread of the lowest priority fills the
//! table: it walks the folder at intervals ([`walk`]), reads the files without a known digest ([`hasher`],
//! [`background_read`]), requested files first, and stores the table in a file across restarts ([`digest_file`]).
//!
//! The table is keyed by device and inode, and a digest is valid for one state of the file only ([`Stamp`]). So a
//! file has one digest for all of its paths and hard links, a changed file has no digest until it is read again, and
//! paths that clients invent through links need no memory.

use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use actix_http::header::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::file_state::{FileState, Stamp};
use super::found_file::Meta;
use super::root::Root;

mod background_read;
mod digest_file;
mod hasher;
mod walk;

use digest_file::DigestFile;
use hasher::DigestThread;

/// Maximum number of digests in memory; each needs about 200 bytes.
pub(super) const MOST_DIGESTS: usize = 1 << 18;

/// Requests for digests that wait for the thread. A request beyond this number is dropped and counted.
const MAX_REQUESTS: usize = 1024;

/// Maximum time that a stop waits for the file of digests to be written.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// A SHA-256 digest.
type Sha256Bytes = [u8; 32];

/// Device and inode of a file.
type FileId = (u64, u64);

/// The digest of a file in one state.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    digest: Sha256Bytes,
    /// The number of the last walk during which a walk or a request found the file in this state.
    seen: AtomicU64,
}

impl Known {
    fn new(stamp: Stamp, digest: Sha256Bytes, walk: u64) -> Self {
        Self { stamp, digest, seen: AtomicU64::new(walk) }
    }
}

/// Settings for the computation of digests.
#[derive(Debug, Clone, Default)]
pub(crate) struct DigestPlan {
    /// The file that stores digests across restarts; `None` keeps them in memory only.
    pub file: Option<PathBuf>,
    /// Maximum rate of reading, in bytes per second.
    pub rate: Option<NonZeroU64>,
}

/// The workers' access to the digests. The thread ends when its [`DigestService`] is dropped.
#[derive(Debug)]
pub(super) struct Digests {
    table: Arc<Table>,
    asked: SyncSender<Box<[u8]>>,
}

/// State that the workers and the thread share.
#[derive(Debug, Default)]
pub(super) struct Table {
    known: papaya::HashMap<FileId, Known>,
    is_stopping: AtomicBool,
    /// Files that wait to be read or are being read.
    pub pending: AtomicUsize,
    /// Files that could not be read.
    pub failures: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// Complete walks through the folder.
    pub walks: AtomicU64,
    /// Requests that were dropped because the queue was full, and files without a digest because of a limit.
    pub left_out: AtomicU64,
}

/// The thread that computes digests.
#[derive(Debug)]
pub(super) struct DigestService {
    digests: Arc<Digests>,
    ended: oneshot::Receiver<()>,
}

impl DigestService {
    /// Starts to compute the digests of all files below `root`.
    pub(super) fn start(root: Arc<Root>, plan: DigestPlan) -> io::Result<Self> {
        let (asked, receiver) = sync_channel(MAX_REQUESTS);
        let (ending, ended) = oneshot::channel();
        let table = Arc::new(Table::default());
        let file = plan.file.map(DigestFile::new);
        let hasher = DigestThread::new(root, Arc::clone(&table), receiver, plan.rate);
        std::thread::Builder::new().name("digests".to_owned()).spawn(move || {
            hasher.run(file);
            // The receiver is missing if the server was dropped without a stop.
            let _ = ending.send(());
        })?;
        Ok(Self { digests: Arc::new(Digests { table, asked }), ended })
    }

    /// The digests.
    pub(super) fn digests(&self) -> Arc<Digests> {
        Arc::clone(&self.digests)
    }

    /// Stops the thread, and waits at most [`LAST_WRITE`] until it has saved the digests.
    pub(super) async fn stop(self) {
        self.digests.table.is_stopping.store(true, Relaxed);
        // Wakes the thread. If the queue is full, the thread is awake.
        let _ = self.digests.asked.try_send(Box::default());
        let _ = tokio::time::timeout(LAST_WRITE, self.ended).await;
    }
}

impl Drop for Digests {
    fn drop(&mut self) {
        self.table.is_stopping.store(true, Relaxed);
    }
}

impl Digests {
    /// The `Repr-Digest` of a file in this state. If it is not known, the file is requested with priority.
    pub(super) fn header(&self, path: &[u8], meta: &Meta) -> Option<HeaderValue> {
        if let Some(header) = meta.digest.get() {
            return Some(header.clone());
        }
        if let Some(digest) = self.table.find(&meta.identity) {
            return Some(meta.digest.get_or_init(|| header(&digest)).clone());
        }
        if !meta.is_digest_requested.swap(true, Relaxed) && self.asked.try_send(path.into()).is_err() {
            self.table.left_out.fetch_add(1, Relaxed);
        }
        None
    }

    /// The table, for metrics.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table)
    }
}

impl Table {
    /// The number of known digests.
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    /// The digest of a file in this state, if it is known.
    fn find(&self, identity: &FileState) -> Option<Sha256Bytes> {
        let table = self.known.pin();
        let known = table.get(&identity.file()).filter(|known| known.stamp == identity.stamp())?;
        let walk = self.this_walk();
        // Writing for each request would move the cache line between workers.
        if known.seen.load(Relaxed) != walk {
            known.seen.store(walk, Relaxed);
        }
        Some(known.digest)
    }

    fn insert(&self, identity: &FileState, digest: Sha256Bytes) {
        let known = Known::new(identity.stamp(), digest, self.this_walk());
        self.known.pin().insert(identity.file(), known);
    }

    /// The number of the current walk, or of the next one between two walks.
    fn this_walk(&self) -> u64 {
        self.walks.load(Relaxed) + 1
    }

    /// Whether the table can store a digest of this file: it has room for one more entry, or an entry for the file.
    fn has_room_for(&self, file: &FileId) -> bool {
        self.known.len() < MOST_DIGESTS || self.known.pin().contains_key(file)
    }

    /// Removes the digests of files that were not found during the last two walks, and returns their number.
    fn retire_unseen(&self) -> usize {
        let oldest = self.walks.load(Relaxed).saturating_sub(1);
        let before = self.known.len();
        self.known.pin().retain(|_, known| known.seen.load(Relaxed) >= oldest);
        before.saturating_sub(self.known.len())
    }
}

/// The `Repr-Digest` of these bytes.
pub(super) fn header_of(bytes: &[u8]) -> HeaderValue {
    header(&Sha256::digest(bytes).into())
}

fn header(digest: &Sha256Bytes) -> HeaderValue {
    let text = format!("sha-256=:{}:", STANDARD.encode(digest));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("sha-256=::"))
}

#[cfg(test)]
mod tests;
