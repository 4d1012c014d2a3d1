//! Destination of received bytes: a part file beside the target, which gets the target's name only when it is
//! complete.

mod descriptor;
pub(super) mod digest;
mod group_commit;
pub(super) mod journal;
mod part;
mod piece_verifier;
mod provenance;
mod sequential;
mod store;
mod writer;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub(super) use group_commit::GroupCommit;
pub(super) use part::{Durability, Existing, PartFile};
pub(super) use sequential::release_reader;
pub(super) use store::{DigestMode, DownloadStore, Pieces};
pub(super) use writer::{MAX_SMALL, Writer};

use super::exit_code::GetCode;

/// Suffixes of the files beside a target: part file, journal, new journal.
pub(super) const BESIDE: [&str; 3] = [".part", ".part.journal", ".part.new"];

/// Path of the part file of `target`.
#[must_use]
pub(super) fn part_path(target: &Path) -> PathBuf {
    beside(target, ".part")
}

/// `target` with `suffix` appended to its name.
#[must_use]
pub(super) fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(target.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

/// Maximum number of links to follow.
const MAX_LINKS: usize = 40;

/// The destination for `path`: an open descriptor that it names or leads to, or a path. The target of a link
/// to a file, or of a dangling link, is replaced instead of the link.
#[must_use]
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
    sequential::SequentialSink::descriptor(number).map(|_| ())
}

/// The folder that contains `target`.
fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Why the file cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The part file belongs to another program.
    #[error(
        "{} exists without a journal and may belong to another program: remove it, or choose another name with -o",
        path.display()
    )]
    Foreign {
        /// The part file.
        path: PathBuf,
    },
    /// Another process holds the part file.
    #[error("another download is writing {}: wait for it, or choose another name with -o", path.display())]
    Locked {
        /// The part file.
        path: PathBuf,
    },
    /// A file with the target's name appeared during the download.
    #[error("{} appeared during the download and was not replaced; the download is in {}", path.display(), part.display())]
    Appeared {
        /// The target.
        path: PathBuf,
        /// The complete part file.
        part: PathBuf,
    },
    /// The target is neither replaceable by a file nor writable in order.
    #[error("{} is {what}: choose another name with -o, or a folder with --output-dir", path.display())]
    NotAFile {
        /// The target.
        path: PathBuf,
        /// The kind of the target.
        what: &'static str,
    },
    /// The part file was removed or replaced during the download.
    #[error("{} was removed or replaced during the download", path.display())]
    Displaced {
        /// The part file.
        path: PathBuf,
    },
    /// The disk is too small for the file.
    #[error("{} does not fit: it needs {wanted} bytes and {free} are free", path.display())]
    NoSpace {
        /// The part file.
        path: PathBuf,
        /// Bytes still to be written.
        wanted: u64,
        /// Bytes that are free.
        free: u64,
    },
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
    WrongPiece {
        /// Name of the output.
        name: String,
        /// Position of the first byte of the piece.
        start: u64,
    },
    /// Writing to standard output failed.
    #[error("cannot write to standard output")]
    StandardOutput(#[source] io::Error),
}

impl SinkError {
    /// Exit code of the process.
    #[must_use]
    pub(super) fn code(&self) -> GetCode {
        match self {
            Self::Locked { .. } => GetCode::CannotResume,
            Self::WrongPiece { .. } => GetCode::WrongChecksum,
            Self::Io { .. }
            | Self::Appeared { .. }
            | Self::Foreign { .. }
            | Self::NotAFile { .. }
            | Self::Displaced { .. }
            | Self::NoSpace { .. }
            | Self::Worker(_)
            | Self::Abandoned
            | Self::StandardOutput(_) => GetCode::WriteError,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::checksum::{Algorithm, Checksum};
    use super::super::plan::ByteRange;
    use super::*;

    #[test]
    fn a_wrong_piece_of_several_chunks_is_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let digest = |bytes: &[u8]| {
            let mut running = digest::RunningDigest::new(Algorithm::Sha256);
            running.on_write(0, bytes);
            running.finish()
        };
        let digests: [Checksum; 2] = [digest(b"right"), digest(b"again")];
        let pieces = Pieces { length: 5, size: 10, digests: digests.into() };
        let target = folder.path().join("f");
        let mut store = DownloadStore::create(&target, Some(10), DigestMode::Off, Some(pieces)).unwrap();
        let chunk = |offset, text: &'static str| (offset, Bytes::from(text));
        let wrong = store.write(&[chunk(0, "wr"), chunk(2, "on"), chunk(4, "gagain")]).unwrap();
        assert_eq!(wrong, [ByteRange::new(0, 5)]);
        assert_eq!(store.write(&[chunk(0, "rig"), chunk(3, "ht")]).unwrap(), []);
    }
}
