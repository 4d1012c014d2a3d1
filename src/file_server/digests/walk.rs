//! Finds all files below a folder, one at a time.

use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::super::file_state::OpenError;
use super::super::path::is_served_name;
use super::super::root::Root;

/// Maximum depth of folders; each needs a descriptor.
const DEEPEST: usize = 64;

/// A walk through all served folders. A folder is read when the walk reaches it, so the memory is limited by the
/// depth.
///
/// The walk follows no links, because they may form circles. A file behind a link is found by requests for it.
#[derive(Debug)]
pub(super) struct Walk {
    way: Vec<Folder>,
    is_begun: bool,
}

#[derive(Debug)]
struct Folder {
    path: Vec<u8>,
    entries: Dir,
}

/// The result of one step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WalkStep {
    /// Probably a file, with its path.
    File(Vec<u8>),
    /// An entry that is not served, or a folder that was entered.
    Passed,
    /// A folder that cannot be read to its end. The walk misses files in it.
    Failed,
    /// A folder below the maximum depth.
    LeftOut,
    /// The end of the walk.
    End,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self { way: Vec::new(), is_begun: false }
    }

    /// Examines the next entry.
    pub(super) fn step(&mut self, root: &Root) -> WalkStep {
        if !self.is_begun {
            self.is_begun = true;
            return self.enter(root, Vec::new());
        }
        let Some(folder) = self.way.last_mut() else {
            return WalkStep::End;
        };
        let entry = match folder.entries.read() {
            Some(Ok(entry)) => entry,
            end => {
                self.way.pop();
                return if end.is_none() { WalkStep::Passed } else { WalkStep::Failed };
            }
        };
        let name = entry.file_name().to_bytes();
        if !is_served_name(name) {
            return WalkStep::Passed;
        }
        let path = match folder.path.as_slice() {
            [] => name.to_owned(),
            folder => [folder, b"/", name].concat(),
        };
        let kind = match entry.file_type() {
            // Some file systems do not report the type.
            FileType::Unknown => folder
                .entries
                .fd()
                .and_then(|fd| statat(fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW))
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            kind => kind,
        };
        match kind {
            FileType::RegularFile | FileType::Symlink => WalkStep::File(path),
            FileType::Directory if self.way.len() >= DEEPEST => WalkStep::LeftOut,
            FileType::Directory => self.enter(root, path),
            _ => WalkStep::Passed,
        }
    }

    fn enter(&mut self, root: &Root, path: Vec<u8>) -> WalkStep {
        match root.folder(&path) {
            Ok(entries) => {
                self.way.push(Folder { path, entries });
                WalkStep::Passed
            }
            Err(OpenError::Missing | OpenError::Forbidden) => WalkStep::Passed,
            Err(_) => WalkStep::Failed,
        }
    }
}

#[cfg(test)]
mod tests;
