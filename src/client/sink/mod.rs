//! Where the bytes go: a part file beside the target, given the target's name only when it is complete.

mod descriptor;
pub mod digest;
mod finisher;
mod in_order;
pub mod journal;
mod part;
mod passing;
mod sent;
mod store;
mod writer;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use finisher::Finisher;
pub use in_order::release_reader;
pub use part::{Durability, Existing, PartFile};
pub use store::{Hashing, Pieces, Store};
pub use writer::{MAX_SMALL, Writer};

use super::exit_code::GetCode;

/// What the names of the files beside a target end with: part file, journal, the next journal.
pub const BESIDE: [&str; 3] = [".part", ".part.journal", ".part.new"];

/// The part file of `target`.
#[must_use]
pub fn part_path(target: &Path) -> PathBuf {
    beside(target, ".part")
}

/// `target` with `suffix` behind its name.
#[must_use]
pub fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(target.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

/// The most links that are followed.
const MAX_LINKS: usize = 40;

/// The destination of bytes for `path`: an open descriptor that it names or leads to, or a path. A link to a file, or to a name that
/// is free, stays a link.
#[must_use]
pub fn destination(path: &Path) -> Destination {
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
    // A device or a pipe is opened by the name that the user knows.
    let is_replaced = to.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) || !path.exists();
    Destination::Path(if is_replaced { to } else { path.to_owned() })
}

/// The destination of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To the inherited descriptor of this number.
    Descriptor(i32),
    /// To the file, device or pipe of this name.
    Path(PathBuf),
}

/// Whether the descriptor `number` is open.
pub fn check_descriptor(number: i32) -> Result<(), SinkError> {
    in_order::InOrder::descriptor(number).map(|_| ())
}

/// The folder that `target` is in.
fn folder_of(target: &Path) -> &Path {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Why the file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The part file is of another program.
    #[error(
        "{} is there without a journal: it may be of another program; remove it, or choose another name with -o",
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
    /// A file got the target's name while the download ran.
    #[error("{} appeared during the download and was not replaced; the download is in {}", path.display(), part.display())]
    Appeared {
        /// The target.
        path: PathBuf,
        /// The part file, complete.
        part: PathBuf,
    },
    /// What has the name cannot be replaced by a file, and is none that could be written to.
    #[error("{} is {what}: choose another name with -o, or a folder with --output-dir", path.display())]
    NotAFile {
        /// The target.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The part file is another one than was written.
    #[error("{} was removed or replaced by something else during the download", path.display())]
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
    /// A thread that writes came to an end of its own.
    #[error("a thread that writes the file stopped")]
    Worker(#[source] tokio::task::JoinError),
    /// The file is no longer open, after a failure before.
    #[error("the file was given up after a failure")]
    Abandoned,
    /// A piece of what takes bytes in order is wrong: what was written cannot be taken back.
    #[error(
        "the piece of {name} that begins at byte {start} has a wrong digest; what came before it is right"
    )]
    WrongPiece {
        /// What is written to.
        name: String,
        /// Its first byte.
        start: u64,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    StandardOutput(#[source] io::Error),
}

impl SinkError {
    /// The code that the process ends with.
    #[must_use]
    pub fn code(&self) -> GetCode {
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
    fn a_wrong_piece_is_reported_once_however_many_chunks_landed_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let digest = |bytes: &[u8]| {
            let mut running = digest::RunningDigest::new(Algorithm::Sha256);
            running.landed(0, bytes);
            running.finish()
        };
        let digests: [Checksum; 2] = [digest(b"right"), digest(b"again")];
        let pieces = Pieces { length: 5, size: 10, digests: digests.into() };
        let target = folder.path().join("f");
        let mut store = Store::create(&target, Some(10), Hashing::Off, Some(pieces)).unwrap();
        let chunk = |offset, text: &'static str| (offset, Bytes::from(text));
        let wrong = store.write(&[chunk(0, "wr"), chunk(2, "on"), chunk(4, "gagain")]).unwrap();
        assert_eq!(wrong, [ByteRange::new(0, 5)]);
        assert_eq!(store.write(&[chunk(0, "rig"), chunk(3, "ht")]).unwrap(), []);
    }
}
