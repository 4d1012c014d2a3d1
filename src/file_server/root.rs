//! Opens files beneath the served directory. No path or link leads out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, retry_on_intr};

use super::file_state::{FileState, OpenError};
use super::walk_beneath;

/// Interval between two checks of the path of the root.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The served directory. It is held open, and only the path below it is resolved for a request. [`Root::refresh`]
/// opens it again after it was replaced, mounted over or removed.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// `None` while no directory can be opened at the path.
    directory: ArcSwapOption<Directory>,
}

/// An open directory, and its identity.
#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    device: u64,
    inode: u64,
}

impl Directory {
    fn open(path: &Path) -> io::Result<Self> {
        let fd = fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // Opening a directory needs another permission than reading its entries. The server needs both.
        fs::Dir::read_from(&fd)?;
        let stat = fs::fstat(&fd)?;
        Ok(Self { fd, device: stat.st_dev, inode: stat.st_ino })
    }
}

/// The directory cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the folder {}: check that it exists and is readable, or name another one with --root", path.display())]
pub struct RootError {
    path: PathBuf,
    source: io::Error,
}

/// Result of [`Root::refresh`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refreshed {
    /// The directory is the one that was open before, or is still missing.
    Unchanged,
    /// Another directory is at the path, and is served from now on.
    Replaced,
    /// No directory can be opened at the path. Requests fail until it can.
    Gone(Errno),
    /// A directory can be opened at the path again.
    Restored,
}

/// Whether a call may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockingIo {
    /// The call may not wait: for threads that serve connections.
    Forbidden,
    /// The call may wait.
    Allowed,
}

/// Does not wait for the other end of a FIFO or for a device, and is not inherited by child processes.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

impl Root {
    /// Opens the directory.
    pub(super) fn open(path: &Path) -> Result<Self, RootError> {
        let directory =
            Directory::open(path).map_err(|source| RootError { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), directory: ArcSwapOption::from_pointee(directory) })
    }

    /// Compares the open directory with the one at its path, and opens the latter if they differ. May wait for a
    /// disk.
    ///
    /// The number of an inode is not used again while the inode is open, so equal numbers mean the same directory.
    pub(super) fn refresh(&self) -> Refreshed {
        let open = self.directory.load();
        let found = fs::stat(&self.path);
        if let (Some(open), Ok(stat)) = (&*open, &found)
            && (stat.st_dev, stat.st_ino) == (open.device, open.inode)
        {
            return Refreshed::Unchanged;
        }
        match (open.is_some(), Directory::open(&self.path)) {
            (was_open, Ok(directory)) => {
                self.directory.store(Some(Arc::new(directory)));
                if was_open { Refreshed::Replaced } else { Refreshed::Restored }
            }
            // A lack of descriptors or memory says nothing about the directory.
            (true, Err(error)) if is_shortage(&error) => Refreshed::Unchanged,
            (true, Err(error)) => {
                self.directory.store(None);
                Refreshed::Gone(Errno::from_io_error(&error).unwrap_or(Errno::IO))
            }
            (false, Err(_)) => Refreshed::Unchanged,
        }
    }

    /// Opens a regular file below the directory. `path` is relative and has no dot segments.
    pub(super) fn file(&self, path: &[u8], blocking_io: BlockingIo) -> Result<(File, FileState), OpenError> {
        let file = File::from(self.beneath(path, FLAGS, blocking_io)?);
        let identity = FileState::of(&file)?;
        Ok((file, identity))
    }

    /// Opens a directory below the root, or the root itself if `path` is empty.
    pub(super) fn folder(&self, path: &[u8]) -> Result<fs::Dir, OpenError> {
        let path = if path.is_empty() { b"." } else { path };
        let folder =
            self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, BlockingIo::Allowed)?;
        Ok(fs::Dir::new(folder)?)
    }

    fn beneath(&self, path: &[u8], flags: OFlags, blocking_io: BlockingIo) -> Result<OwnedFd, OpenError> {
        let directory = self.directory.load();
        directory.as_ref().ok_or(OpenError::RootGone)?.beneath(path, flags, blocking_io)
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

/// Starts a thread that calls [`Root::refresh`] at intervals until the owner of the root drops it. It is not a task
/// of a pool, because a check may block with its file system, and the end of the process must not wait for it.
pub(super) fn keep_fresh(root: &Arc<Root>) -> io::Result<()> {
    let root = Arc::downgrade(root);
    let check = move || {
        while let Some(root) = root.upgrade() {
            log_refreshed(&root.path, root.refresh());
            drop(root);
            std::thread::sleep(CHECK_INTERVAL);
        }
    };
    std::thread::Builder::new().name("root-check".to_owned()).spawn(check).map(drop)
}

fn log_refreshed(path: &Path, refreshed: Refreshed) {
    let path = path.display();
    match refreshed {
        Refreshed::Unchanged => {}
        Refreshed::Replaced => tracing::info!(%path, "the served directory was replaced"),
        Refreshed::Gone(error) => {
            tracing::error!(%path, %error, "the served directory is gone; requests and probes get 503");
        }
        Refreshed::Restored => tracing::info!(%path, "the served directory can be opened again"),
    }
}

impl Directory {
    fn beneath(&self, path: &[u8], flags: OFlags, blocking_io: BlockingIo) -> Result<OwnedFd, OpenError> {
        /// Attempts to resolve a path while other processes rename files.
        const ATTEMPTS: u32 = 8;

        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let resolve = match blocking_io {
            BlockingIo::Forbidden => beneath | ResolveFlags::CACHED,
            BlockingIo::Allowed => beneath,
        };
        for _ in 0..ATTEMPTS {
            let opened = retry_on_intr(|| fs::openat2(&self.fd, path, flags, Mode::empty(), resolve));
            match opened {
                Err(Errno::AGAIN) if blocking_io == BlockingIo::Allowed => {}
                // The kernel is older than 5.6, or a filter of system calls refuses the call.
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(path, flags, blocking_io),
                // A kernel before 5.12 does not know `RESOLVE_CACHED`.
                Err(Errno::INVAL) if blocking_io == BlockingIo::Forbidden => {
                    return Err(OpenError::WouldBlock);
                }
                result => return Ok(result?),
            }
        }
        // Every attempt met a rename somewhere on the file system. The walk does not depend on renames elsewhere.
        self.walk(path, flags, blocking_io)
    }

    fn walk(&self, path: &[u8], flags: OFlags, blocking_io: BlockingIo) -> Result<OwnedFd, OpenError> {
        match blocking_io {
            // Without `openat2`, every call may wait.
            BlockingIo::Forbidden => Err(OpenError::WouldBlock),
            BlockingIo::Allowed => Ok(walk_beneath::open(self.fd.as_fd(), path, flags)?),
        }
    }
}

#[cfg(test)]
mod tests;
