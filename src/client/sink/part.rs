//! The part file: locked against a second client, written at any position, renamed when complete.

use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, OFlags, RenameFlags, Uid, renameat_with};

use super::{SinkError, part_path};
use crate::folder::folder_of;

/// Maximum number of attempts to open a part file that another client renames meanwhile.
const MAX_OPENS: usize = 8;

/// What happens to an existing file with the target's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It existed when the download started, and is replaced.
    Replace,
    /// It did not exist; one that appears meanwhile is not replaced.
    Keep,
}

/// Which crashes a finished download survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Durability {
    /// A power failure: the file is synced to the disk.
    #[default]
    Synced,
    /// A crash of the process only: the system writes the file later.
    Cached,
}

/// `NAME.part`, open and locked.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// The target, if its folder accepts no part file: the part file is then a temporary file without a name, and the
    /// complete file is copied to the target.
    in_place: Option<File>,
}

impl PartFile {
    /// Opens or creates the part file of `target` and locks it.
    ///
    /// Existing bytes are kept: the journal shows the caller whether they can be used.
    pub(crate) fn open(target: &Path) -> Result<Self, SinkError> {
        let path = part_path(target);
        // A private file must not be readable for others during the download either.
        let existing = target.metadata().ok().filter(Metadata::is_file);
        let mode = existing.map_or(0o666, |existing| existing.mode() & 0o666 | 0o600);
        for _ in 0..MAX_OPENS {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(mode)
                // A planted link must not lead the writes elsewhere.
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path);
            let file = match file {
                Ok(file) => file,
                Err(source) => match Self::in_place(target, &path, &source)? {
                    Some(part) => return Ok(part),
                    None => return Err(SinkError::Io { action: "create", path, source }),
                },
            };
            lock(&file, &path)?;
            // Another client may have finished and renamed this file between opening and locking.
            let part = Self { file, path: path.clone(), target: target.to_owned(), in_place: None };
            if part.has_its_name() {
                return Ok(part);
            }
        }
        Err(SinkError::Locked { path })
    }

    /// A part file without a name for an existing, writable `target` in a folder that accepts no new file, such as a
    /// bind mount in a read-only folder. `None` if `error` has another cause.
    fn in_place(target: &Path, path: &Path, error: &io::Error) -> Result<Option<Self>, SinkError> {
        let is_refused =
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem);
        if !is_refused || !target.is_file() {
            return Ok(None);
        }
        let Ok(existing) = OpenOptions::new().write(true).open(target) else { return Ok(None) };
        lock(&existing, target)?;
        let failed =
            |source| SinkError::Io { action: "create a temporary file for", path: target.to_owned(), source };
        let file = tempfile::tempfile().map_err(failed)?;
        let (path, target) = (path.to_owned(), target.to_owned());
        Ok(Some(Self { file, path, target, in_place: Some(existing) }))
    }

    /// Whether the path still leads to this file.
    pub(super) fn has_its_name(&self) -> bool {
        self.is_nameless() || is_named(&self.file, &self.path)
    }

    /// Whether this is a temporary file, which no later run can find.
    pub(super) fn is_nameless(&self) -> bool {
        self.in_place.is_some()
    }

    /// The path of the part file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The final path of the file.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Writes all of `bytes` at `offset`.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.file.write_all_at(bytes, offset).map_err(|source| self.failed("write", source))
    }

    /// Cuts or extends the file to `size` bytes.
    pub(crate) fn set_size(&self, size: u64) -> Result<(), SinkError> {
        self.file.set_len(size).map_err(|source| self.failed("resize", source))
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SinkError> {
        self.file.read_exact_at(buffer, offset).map_err(|source| self.failed("read", source))
    }

    /// Current size in bytes.
    pub(crate) fn size(&self) -> Result<u64, SinkError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|source| self.failed("inspect", source))
    }

    /// Free bytes for unprivileged users on the file system; `None` if unknown.
    pub(crate) fn free_space(&self) -> Option<u64> {
        let space = rustix::fs::fstatvfs(&self.file).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Sets the modification time. Errors are ignored: the download does not fail for them.
    pub(crate) fn set_modified(&self, time: std::time::SystemTime) {
        let _ = self.file.set_modified(time);
    }

    /// Syncs all written bytes to the disk.
    pub(crate) fn sync(&self) -> Result<(), SinkError> {
        self.file.sync_data().map_err(|source| self.failed("sync", source))
    }

    /// Gives the complete file its final name, and syncs both.
    ///
    /// If that fails, the part file keeps its own name.
    pub(crate) fn finish(&self, existing: Existing, durability: Durability) -> Result<(), SinkError> {
        if durability == Durability::Synced {
            self.sync()?;
        }
        if !self.has_its_name() {
            return Err(SinkError::Displaced { path: self.path.clone() });
        }
        let renamed = match (&self.in_place, existing) {
            (Some(target), _) => self.copy_to(target),
            (None, Existing::Replace) => self.replace_target(),
            (None, Existing::Keep) => rename_without_replacing(&self.path, &self.target),
        };
        match renamed {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && existing == Existing::Keep => {
                return Err(SinkError::Appeared { path: self.target.clone(), part: self.path.clone() });
            }
            Err(source) => {
                return Err(SinkError::Io { action: "rename to", path: self.target.clone(), source });
            }
        }
        match durability {
            Durability::Synced if self.is_nameless() => Ok(()),
            Durability::Synced => sync_folder(&self.target),
            Durability::Cached => Ok(()),
        }
    }

    /// Replaces the target, and takes over its owner and mode.
    fn replace_target(&self) -> io::Result<()> {
        if let Ok(target) = self.target.metadata() {
            let (owner, group) = (Uid::from_raw(target.uid()), Gid::from_raw(target.gid()));
            // Only root may change the owner; the download does not fail for that.
            let _ = rustix::fs::fchown(&self.file, Some(owner), Some(group));
            let _ = self.file.set_permissions(Permissions::from_mode(target.mode() & 0o777));
        }
        match std::fs::rename(&self.path, &self.target) {
            // A bind mount cannot be replaced, only written to. If that fails, the part file still exists.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                self.copy_to(&OpenOptions::new().write(true).open(&self.target)?)?;
                std::fs::remove_file(&self.path)
            }
            result => result,
        }
    }

    /// Overwrites `target` with this file.
    fn copy_to(&self, mut target: &File) -> io::Result<()> {
        // The position of the handle is 0, because reads and writes have their own positions.
        let size = io::copy(&mut &self.file, &mut target)?;
        target.set_len(size)?;
        let _ = self.file.metadata().and_then(|part| target.set_modified(part.modified()?));
        target.sync_data()
    }

    /// Removes the part file, which a later run could not use.
    pub(crate) fn discard(&self) -> Result<(), SinkError> {
        if self.is_nameless() {
            return Ok(());
        }
        if !self.has_its_name() {
            return Err(SinkError::Displaced { path: self.path.clone() });
        }
        std::fs::remove_file(&self.path).map_err(|source| self.failed("remove", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> SinkError {
        SinkError::Io { action, path: self.path.clone(), source }
    }
}

/// Locks `file`, so that no other client writes to it.
fn lock(file: &File, path: &Path) -> Result<(), SinkError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => SinkError::Locked { path: path.to_owned() },
        TryLockError::Error(source) => SinkError::Io { action: "lock", path: path.to_owned(), source },
    })
}

/// Whether `path` leads to `file`.
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    let (ours, named) = (file.metadata(), std::fs::symlink_metadata(path));
    let is_same = |ours: Metadata, named: Metadata| (ours.dev(), ours.ino()) == (named.dev(), named.ino());
    ours.is_ok_and(|ours| named.is_ok_and(|named| is_same(ours, named)))
}

fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems do not support this flag. A hard link does not replace a file either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        result => Ok(result?),
    }
}

/// Syncs the folder of `path`.
pub(super) fn sync_folder(path: &Path) -> Result<(), SinkError> {
    let folder = folder_of(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| SinkError::Io {
        action: "sync the folder",
        path: folder.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
