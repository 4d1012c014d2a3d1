//! SHA-256 of the served files, made in the background and sent as `Repr-Digest` (RFC 9530).
//!
//! Workers look a digest up in a table that is read without a lock. One thread of the lowest priority fills it: it
//! walks the folder again and again ([`walk`]), reads what it does not know ([`hasher`], [`gentle`]), what clients
//! ask for first, and keeps the table in a file over restarts ([`kept`]).
//!
//! A digest counts for a path in one state only ([`Stamp`]): a file that changes has none until it was read anew. Another
//! path to a file that was read has its digest, too ([`links`]).

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

use super::root::{Root, Stamp};
use super::store::Meta;

mod gentle;
mod hasher;
mod kept;
mod links;
mod walk;

use hasher::Hasher;
use kept::KeptFile;

/// Digests that are held; about 300 bytes each.
pub const MOST_DIGESTS: usize = 1 << 18;

/// A file with a longer path has no digest.
const LONGEST_PATH: usize = 1024;

/// Requests for digests that wait for the thread; one more is lost, and counted.
const MOST_ASKED: usize = 1024;

/// A stop waits this long for the file of digests to be written.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// A SHA-256.
type Sha256Bytes = [u8; 32];

/// What is known of one path.
#[derive(Debug)]
struct Known {
    made: Arc<Made>,
    /// The last walk that met it.
    walk: AtomicU64,
    /// Whether it was asked for, and no walk has met it since.
    is_guest: AtomicBool,
}

/// What was made of a file in one state.
#[derive(Debug)]
struct Made {
    stamp: Stamp,
    digest: Sha256Bytes,
}

impl Known {
    fn new(stamp: Stamp, digest: Sha256Bytes) -> Self {
        let made = Arc::new(Made { stamp, digest });
        Self { made, walk: AtomicU64::new(0), is_guest: AtomicBool::new(false) }
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
    known: papaya::HashMap<Box<[u8]>, Known>,
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
        if let Some(digest) = self.table.find(path, &meta.identity.stamp()) {
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

    fn find(&self, path: &[u8], stamp: &Stamp) -> Option<Sha256Bytes> {
        let known = self.known.pin();
        let made = &known.get(path)?.made;
        (made.stamp == *stamp).then_some(made.digest)
    }

    /// The number of the walk that is under way, or comes next.
    fn this_walk(&self) -> u64 {
        self.walks.load(Relaxed) + 1
    }

    /// Whether there is room for one more path, or for a new state of this one.
    fn has_room_for(&self, path: &[u8]) -> bool {
        path.len() <= LONGEST_PATH && (self.known.len() < MOST_DIGESTS || self.known.pin().contains_key(path))
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
}
