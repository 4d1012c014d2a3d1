//! Destination of received bytes: a part file beside the target, which gets the target's name only when it is
//! complete.

mod descriptor;
pub(super) mod digest;
mod group_commit;
mod journal;
mod part;
mod part_store;
mod piece_verifier;
mod sequential;
#[cfg(test)]
mod tests;
mod writer;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use digest::RunningDigest;
use part_store::PartStore;
use sequential::SequentialStore;

pub(super) use group_commit::{Finish, GroupCommit, WholeFile};
pub(super) use journal::ResumeState;
pub(super) use part::{Durability, Existing, PartFile};
pub(super) use sequential::release_reader;
pub(super) use writer::{MAX_SMALL, Progress, Writer};

use super::byte_map::FollowUp;
use super::checksum::{Algorithm, Checksum, Pieces};
use super::exit_code::GetCode;
use super::identity::ContentIdentity;
use super::range::{ByteRange, RangeSet};
use crate::folder::folder_of;

/// Whether the digest of the whole file is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DigestMode {
    /// The digest is compared or reported.
    On(Algorithm),
    /// The digest is not needed.
    Off,
}

impl DigestMode {
    fn begin(self) -> Option<RunningDigest> {
        match self {
            Self::On(algorithm) => Some(RunningDigest::new(algorithm)),
            Self::Off => None,
        }
    }
}

/// Bytes to write, and the work that follows.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The bytes, with their positions.
    pub parts: Vec<(u64, Bytes)>,
    /// The work that follows.
    pub follow_up: FollowUp,
}

/// The end of a download.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileCompletion {
    /// The size of the file.
    pub size: u64,
    /// Its modification time at the server.
    pub modified: Option<SystemTime>,
    /// Whether an existing file is replaced.
    pub existing: Existing,
    /// Which crashes the file survives.
    pub durability: Durability,
    /// Whether the journal lists bytes.
    pub is_saved: bool,
}

/// The output of one download. All methods block, and may be called at the same time.
///
/// A store knows no byte ranges: the [`ByteMap`](super::byte_map::ByteMap) of the plan has the state of the bytes.
pub(super) trait Store: Debug + Send + Sync {
    /// Starts with `present` bytes of an earlier run. Without any, the part file is emptied; if that fails, it is removed.
    fn begin(&mut self, present: u64, size: Option<u64>, hashing: DigestMode) -> Result<(), SinkError>;
    /// Writes bytes. Returns the pieces of the batch that are wrong.
    fn write(&self, batch: &Batch) -> Result<Vec<ByteRange>, SinkError>;
    /// Syncs all written bytes, then replaces the journal by one that lists `done`.
    fn save(&self, identity: &ContentIdentity, done: &RangeSet) -> Result<(), SinkError>;
    /// Durably removes all bytes but `right` from the journal, because they are about to be written again.
    fn take_back(&self, identity: &ContentIdentity, right: &RangeSet) -> Result<(), SinkError>;
    /// Whether bytes are written in order and cannot be taken back.
    fn is_sequential(&self) -> bool;
    /// The digest of a file of `size` bytes; `None` if it cannot be computed any more. All bytes are written, except for
    /// `last` if the store is sequential: the end of a wrong file must not be written.
    fn digest(&self, last: &Batch, size: u64, algorithm: Algorithm) -> Result<Option<Checksum>, SinkError>;
    /// Gives the complete file its name and removes the journal.
    fn finish(&self, ending: &FileCompletion) -> Result<(), SinkError>;
    /// Removes the part file and the journal, which no later run could use.
    fn discard(&self) -> Result<(), SinkError>;
}

/// Opens outputs.
pub(super) trait Storage {
    /// Opens the part file of `target`. Returns the state that an earlier run left, if it is usable.
    fn open(&self, target: &Path) -> Result<(Box<dyn Store>, Option<ResumeState>), SinkError>;
    /// Writes a small file that is complete in memory.
    fn finish_small(&self, file: WholeFile) -> LocalBoxFuture<'_, Result<Finish, SinkError>>;

    /// Creates an empty part file of `target` with room for `size` bytes. Leaves nothing behind if that fails.
    fn create(
        &self,
        target: &Path,
        size: Option<u64>,
        hashing: DigestMode,
    ) -> Result<Arc<dyn Store>, SinkError> {
        let (mut store, _) = self.open(target)?;
        store.begin(0, size, hashing)?;
        Ok(store.into())
    }
}

/// Files on the disk; small files are finished by the [`GroupCommit`].
impl Storage for GroupCommit {
    fn open(&self, target: &Path) -> Result<(Box<dyn Store>, Option<ResumeState>), SinkError> {
        let (store, state) = PartStore::open(target)?;
        Ok((Box::new(store), state))
    }

    fn finish_small(&self, file: WholeFile) -> LocalBoxFuture<'_, Result<Finish, SinkError>> {
        self.finish(file).boxed_local()
    }
}

/// A store for an output that takes bytes in order.
pub(super) fn sequential(
    output: &Destination,
    hashing: DigestMode,
    pieces: Option<Pieces>,
) -> Result<Arc<dyn Store>, SinkError> {
    Ok(Arc::new(match output {
        Destination::Descriptor(number) => SequentialStore::descriptor(*number, hashing, pieces)?,
        Destination::Path(path) => SequentialStore::named(path, hashing, pieces),
    }))
}

/// Suffixes of the files beside a target: part file, journal, new journal.
pub(super) const BESIDE: [&str; 3] = [".part", ".part.journal", ".part.new"];

/// Path of the part file of `target`.
pub(super) fn part_path(target: &Path) -> PathBuf {
    beside(target, ".part")
}

/// `target` with `suffix` appended to its name.
pub(super) fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(target.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

/// Maximum number of links to follow.
const MAX_LINKS: usize = 40;

/// The destination for `path`: an open descriptor that it names or leads to, or a path. The target of a link
/// to a file, or of a dangling link, is replaced instead of the link.
pub(super) fn destination(path: &Path) -> Destination {
    let mut to = path.to_owned();
    for _ in 0..MAX_LINKS {
        if let Some(number) = descriptor::number_of(&to) {
            return Destination::Descriptor(number);
        }
        match std::fs::read_link(&to) {
            Ok(next) => to = folder_of(&to).join(next),
            Err(_) => break,
        }
    }
    // A device or pipe keeps the name given by the user.
    let is_replaced = to.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) || !path.exists();
    Destination::Path(if is_replaced { to } else { path.to_owned() })
}

/// Destination of received bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// The inherited descriptor of this number.
    Descriptor(i32),
    /// The file, device or pipe at this path.
    Path(PathBuf),
}

/// Whether the descriptor `number` is open.
pub(super) fn check_descriptor(number: i32) -> Result<(), SinkError> {
    SequentialStore::descriptor(number, DigestMode::Off, None).map(|_| ())
}

/// Why the file cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// The part file belongs to another program.
    #[error(
        "{} exists without a journal and may belong to another program: remove it, or choose another name with -o",
        path.display()
    )]
    Foreign { path: PathBuf },
    /// Another process holds the part file.
    #[error("another download is writing {}: wait for it, or choose another name with -o", path.display())]
    Locked { path: PathBuf },
    /// A file with the target's name appeared during the download.
    #[error("{} appeared during the download and was not replaced; the download is in {}", path.display(), part.display())]
    Appeared { path: PathBuf, part: PathBuf },
    /// The target is neither replaceable by a file nor writable in order.
    #[error("{} is {what}: choose another name with -o, or a folder with --output-dir", path.display())]
    NotAFile { path: PathBuf, what: &'static str },
    /// The part file was removed or replaced during the download.
    #[error("{} was removed or replaced during the download", path.display())]
    Displaced { path: PathBuf },
    /// The disk is too small for the file.
    #[error("{} does not fit: it needs {wanted} bytes and {free} are free", path.display())]
    NoSpace { path: PathBuf, wanted: u64, free: u64 },
    /// A thread that writes the file panicked or was cancelled.
    #[error("a thread that writes the file stopped")]
    Worker(#[source] tokio::task::JoinError),
    /// The file was closed after an earlier failure.
    #[error("the file was closed after an earlier failure")]
    Abandoned,
    /// A piece has a wrong digest, and the output cannot take written bytes back.
    #[error(
        "the piece of {name} that begins at byte {start} has a wrong digest; the bytes before it are right"
    )]
    WrongPiece { name: String, start: u64 },
    /// Writing to standard output failed.
    #[error("cannot write to standard output")]
    StandardOutput(#[source] io::Error),
}

impl SinkError {
    /// Exit code of the process.
    pub(super) fn code(&self) -> GetCode {
        match self {
            Self::Locked { .. } => GetCode::CannotResume,
            Self::WrongPiece { .. } => GetCode::WrongChecksum,
            _ => GetCode::WriteError,
        }
    }
}
