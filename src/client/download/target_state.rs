//! What exists at the file's path before the download, and whether it may be replaced.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use crate::client::sink::{Existing, SinkError, part_path};

/// What exists at the path of the file, or of its part file, before the download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetState {
    /// Nothing.
    Free,
    /// A part file of an earlier run.
    Begun,
    /// A file, and possibly a part file.
    Taken,
    /// An output that is written in order and not replaced: standard output, a device, a pipe.
    Sequential,
}

impl TargetState {
    /// Examines `target`; `None` is standard output.
    pub(super) fn of(target: Option<&Path>) -> Result<Self, SinkError> {
        let Some(target) = target else { return Ok(Self::Sequential) };
        if target.symlink_metadata().is_err() {
            let is_begun = part_path(target).symlink_metadata().is_ok();
            return Ok(if is_begun { Self::Begun } else { Self::Free });
        }
        // A dangling link is replaced.
        let Ok(metadata) = target.metadata() else { return Ok(Self::Taken) };
        let kind = metadata.file_type();
        let what = if kind.is_file() {
            return Ok(Self::Taken);
        } else if kind.is_char_device() || kind.is_fifo() {
            return Ok(Self::Sequential);
        } else if kind.is_dir() {
            "a folder"
        } else {
            "neither a file nor a pipe"
        };
        Err(SinkError::NotAFile { path: target.to_owned(), what })
    }

    pub(super) fn existing(self) -> Existing {
        match self {
            Self::Taken => Existing::Replace,
            Self::Free | Self::Begun | Self::Sequential => Existing::Keep,
        }
    }
}
