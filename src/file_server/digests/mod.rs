//! SHA-256 of the served files, made in the background and sent as `Repr-Digest` (RFC 9530).
//!
//! Workers look a digest up in a table that is read without a lock. One thread of the lowest priority fills it: it
//! walks the folder at intervals ([`walk`]), reads the files whose digest is not known ([`hasher`], [`gentle`]), those that
//! clients request first, and keeps the table in a file over restarts ([`kept`]).
//!
//! The table is keyed by device and inode, and a digest counts for one state of the file only ([`Stamp`]). So a file has one
//! digest whatever path or hard link leads to it, a file that changes has none until it was read again, and paths that
//! clients make up through links take no room.

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

use super::root::{Identity, Root, Stamp};
use super::store::Meta;

mod gentle;
mod hasher;
mod kept;
mod walk;

use hasher::Hasher;
use kept::KeptFile;

/// Digests that are held; about 200 bytes each.
pub const MOST_DIGESTS: usize = 1 << 18;

/// Requests for digests that wait for the thread; one more is lost, and counted.
const MOST_ASKED: usize = 1024;

/// A stop waits this long for the file of digests to be written.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// A SHA-256.
type Sha256Bytes = [u8; 32];

/// Device and inode of a file.
type FileId = (u64, u64);

/// The digest of a file in one state.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    digest: Sha256Bytes,
    /// The last walk during which a walk or a request came upon the file in this state.
    seen: AtomicU64,
}

impl Known {
    fn new(stamp: Stamp, digest: Sha256Bytes, walk: u64) -> Self {
        Self { stamp, digest, seen: AtomicU64::new(walk) }
    }
}

/// How digests are made.
#[derive(Debug, Clone, Default)]
pub struct DigestPlan {
    /// The file that keeps them over restarts.
    pub kept_in: Option<PathBuf>,
    /// Bytes a second that are read at most.
    pub rate: Option<NonZeroU64>,
}

/// All digests, as workers see them. The thread that makes them ends with its [`Hashing`].
#[derive(Debug)]
pub struct Digests {
    table: Arc<Table>,
    asked: SyncSender<Box<[u8]>>,
}

/// What the workers and the thread share.
#[derive(Debug, Default)]
pub struct Table {
    known: papaya::HashMap<FileId, Known>,
    is_stopping: AtomicBool,
    /// Files that wait to be read, or are being read.
    pub pending: AtomicUsize,
    /// Files that could not be read.
    pub failures: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// Times the whole folder was walked.
    pub walks: AtomicU64,
    /// Requests for a digest that were lost because too many waited, and files left out because of a limit.
    pub left_out: AtomicU64,
}

/// The thread that makes digests.
#[derive(Debug)]
pub struct Hashing {
    digests: Arc<Digests>,
    ended: oneshot::Receiver<()>,
}

impl Hashing {
    /// Starts to make digests of all files below `root`.
    pub fn start(root: Arc<Root>, plan: DigestPlan) -> io::Result<Self> {
        let (asked, receiver) = sync_channel(MOST_ASKED);
        let (ending, ended) = oneshot::channel();
        let table = Arc::new(Table::default());
        let kept = plan.kept_in.map(KeptFile::new);
        let hasher = Hasher::new(root, Arc::clone(&table), receiver, plan.rate);
        std::thread::Builder::new().name("digests".to_owned()).spawn(move || {
            hasher.run(kept);
            // Nobody waits where the server has not been stopped but dropped.
            let _ = ending.send(());
        })?;
        Ok(Self { digests: Arc::new(Digests { table, asked }), ended })
    }

    /// The digests it makes.
    #[must_use]
    pub fn digests(&self) -> Arc<Digests> {
        Arc::clone(&self.digests)
    }

    /// Ends it, and waits a moment for it to write down what it knows.
    pub async fn stop(self) {
        self.digests.table.is_stopping.store(true, Relaxed);
        // Wakes it. Where the queue is full it does not sleep.
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
    /// The `Repr-Digest` of a file in this state. Where it is not known, the file is read before others.
    #[must_use]
    pub fn header(&self, path: &[u8], meta: &Meta) -> Option<HeaderValue> {
        if let Some(header) = meta.digest.get() {
            return Some(header.clone());
        }
        if let Some(digest) = self.table.find(&meta.identity) {
            return Some(meta.digest.get_or_init(|| header(&digest)).clone());
        }
        if !meta.is_digest_asked.swap(true, Relaxed) && self.asked.try_send(path.into()).is_err() {
            self.table.left_out.fetch_add(1, Relaxed);
        }
        None
    }

    /// What is counted.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table)
    }
}

impl Table {
    /// Digests known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.known.len()
    }

    /// The digest of a file in this state, if it is known.
    fn find(&self, identity: &Identity) -> Option<Sha256Bytes> {
        let table = self.known.pin();
        let known = table.get(&identity.file()).filter(|known| known.stamp == identity.stamp())?;
        let walk = self.this_walk();
        // A write for each request would move the cache line between workers.
        if known.seen.load(Relaxed) != walk {
            known.seen.store(walk, Relaxed);
        }
        Some(known.digest)
    }

    fn insert(&self, identity: &Identity, digest: Sha256Bytes) {
        let known = Known::new(identity.stamp(), digest, self.this_walk());
        self.known.pin().insert(identity.file(), known);
    }

    /// The number of the walk that is under way, or comes next.
    fn this_walk(&self) -> u64 {
        self.walks.load(Relaxed) + 1
    }

    /// Whether there is room for one more file, or for a new state of this one.
    fn has_room_for(&self, file: &FileId) -> bool {
        self.known.len() < MOST_DIGESTS || self.known.pin().contains_key(file)
    }

    /// Removes the digests of files that were not seen during the last two walks, and returns their number.
    fn retire_unseen(&self) -> usize {
        let oldest = self.walks.load(Relaxed).saturating_sub(1);
        let before = self.known.len();
        self.known.pin().retain(|_, known| known.seen.load(Relaxed) >= oldest);
        before.saturating_sub(self.known.len())
    }
}

/// The `Repr-Digest` of these bytes.
#[must_use]
pub fn header_of(bytes: &[u8]) -> HeaderValue {
    header(&Sha256::digest(bytes).into())
}

fn header(digest: &Sha256Bytes) -> HeaderValue {
    let text = format!("sha-256=:{}:", STANDARD.encode(digest));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("sha-256=::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_a_dictionary_of_byte_sequences() {
        // The example of RFC 9530, appendix B.1.
        let header = header_of(b"{\"hello\": \"world\"}\n");
        assert_eq!(header, "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:");
    }

    #[test]
    fn the_digest_of_a_file_counts_for_one_state_and_every_path() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        std::fs::write(&file, "hello").unwrap();
        std::fs::hard_link(&file, &link).unwrap();
        let identity = |path| Identity::of(&std::fs::File::open(path).unwrap()).unwrap();
        let table = Table::default();
        table.insert(&identity(&file), [7; 32]);
        assert_eq!(table.find(&identity(&link)), Some([7; 32]));
        std::fs::write(&link, "other").unwrap();
        assert_eq!(table.find(&identity(&file)), None);
        table.insert(&identity(&file), [8; 32]);
        assert_eq!((table.find(&identity(&link)), table.known()), (Some([8; 32]), 1));
    }

    #[test]
    fn digests_of_files_that_no_walk_meets_are_retired() {
        let table = Table::default();
        let identity = Identity::embedded(7);
        table.insert(&identity, [7; 32]);
        for (is_seen, retired) in [(false, 0), (true, 0), (false, 0), (false, 1)] {
            if is_seen {
                assert!(table.find(&identity).is_some());
            }
            table.walks.fetch_add(1, Relaxed);
            assert_eq!(table.retire_unseen(), retired);
        }
    }
}
