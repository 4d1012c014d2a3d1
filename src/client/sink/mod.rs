//! Where the bytes go: a part file beside the target, given the target's name only when it is complete.

mod part;

use std::io;
use std::path::PathBuf;

pub use part::{Existing, PartFile};

use super::exit_code::GetCode;

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
            Self::Io { .. } | Self::Appeared { .. } | Self::StandardOutput(_) => GetCode::WriteError,
        }
    }
}
