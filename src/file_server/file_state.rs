//! The state of a file on the disk, and the reasons why a file cannot be opened.

use std::fs::File;

use rustix::fs::{self, FileType};
use rustix::io::Errno;

/// Why a file cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenError {
    /// The file does not exist or cannot be served, such as a device or a link out of the root.
    #[error("no such file")]
    Missing,
    /// The path leads to a folder.
    #[error("a folder")]
    Folder,
    /// The server may not read the file.
    #[error("permission denied")]
    Forbidden,
    /// The call would have to wait for a disk.
    #[error("not in memory")]
    WouldBlock,
    /// The served directory is missing.
    #[error("the served directory is gone")]
    RootGone,
    /// The system has no descriptor or memory left.
    #[error("out of descriptors or memory: {0}")]
    Exhausted(Errno),
    /// The disk or the file system failed.
    #[error("cannot read: {0}")]
    Failed(Errno),
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ACCESS | Errno::PERM => Self::Forbidden,
            Errno::AGAIN => Self::WouldBlock,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => Self::Exhausted(errno),
            // Missing, a file in place of a folder, a link out of the root or in a circle, a name that is invalid on
            // this file system, a socket, or a device without a driver.
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::XDEV
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::ILSEQ
            | Errno::NXIO
            | Errno::NODEV => Self::Missing,
            // A network file system without its server fails with one of about a dozen other errors, although the
            // files exist.
            _ => Self::Failed(errno),
        }
    }
}

/// One state of one file. Two equal states have the same bytes, as far as an open file shows it. New or removed links
/// to the file do not change its state.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileState {
    /// The length in bytes.
    pub length: u64,
    /// The time of the last modification.
    pub modified: Time,
    inode: u64,
    device: u64,
    changed: Time,
}

impl PartialEq for FileState {
    fn eq(&self, other: &Self) -> bool {
        let of = |state: &Self| (state.length, state.modified, state.inode, state.device);
        of(self) == of(other)
    }
}

impl Eq for FileState {}

/// A time of the file system: seconds since 1970, and nanoseconds.
pub(super) type Time = (i64, u32);

/// Properties that must be unchanged for known bytes of a file to be valid, even after a restart. The time of the
/// last status change (ctime) is part of it, because many programs set the time of the last modification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The length in bytes.
    pub length: u64,
    /// The time of the last modification.
    pub modified: Time,
    /// The time of the last status change (ctime).
    pub changed: Time,
}

impl FileState {
    /// The current state of an open file.
    pub(super) fn of(file: &File) -> Result<Self, OpenError> {
        let stat = fs::fstat(file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(OpenError::Folder),
            _ => return Err(OpenError::Missing),
        }
        Ok(Self {
            length: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
            inode: stat.st_ino,
            device: stat.st_dev,
            changed: (stat.st_ctime, stat.st_ctime_nsec as u32),
        })
    }

    /// The state of bytes that are part of the program and never change.
    pub(super) fn embedded(length: u64) -> Self {
        Self { length, modified: (0, 0), inode: 0, device: 0, changed: (0, 0) }
    }

    /// The device and the inode, which identify the file on this machine.
    pub(super) fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The properties that are stored beside a digest of the file.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { length: self.length, modified: self.modified, changed: self.changed }
    }
}
