//! Opens files beneath the served folder, and nothing else.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

/// The served folder, held open: what its path leads to later does not matter.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    path: PathBuf,
}

/// The folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the folder {}: check that it exists and is readable, or name another one with --root", path.display())]
pub struct RootError {
    path: PathBuf,
    source: io::Error,
}

/// Whether a call may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It may not: for the threads that serve connections.
    Cached,
    /// It may.
    Disk,
}

/// Why a file cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no such file, or it is none that is served: a device, a link that leads out.
    #[error("no such file")]
    Missing,
    /// It is a folder.
    #[error("a folder")]
    Folder,
    /// It may not be read.
    #[error("permission denied")]
    Forbidden,
    /// Only a call that may wait for the disk can tell.
    #[error("not in memory")]
    WouldBlock,
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
            // Not there, no folder on the way; a link that leads out or in circles; a name that no file of this file
            // system can have; a socket, or a device without a driver.
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::XDEV
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::ILSEQ
            | Errno::NXIO
            | Errno::NODEV => Self::Missing,
            // A network file system whose server is gone gives any of a dozen others: the files are there.
            _ => Self::Failed(errno),
        }
    }
}

/// One state of one file. Two that are equal have the same bytes, as far as the file system tells an open file: a name
/// that was given to it or taken from it meanwhile changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Its length in bytes.
    pub length: u64,
    /// Seconds from 1970 to its last modification; 0 for any earlier one.
    pub modified: u64,
    nanoseconds: u32,
    inode: u64,
    device: u64,
    changed: Time,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        let of = |state: &Self| (state.length, state.modified, state.nanoseconds, state.inode, state.device);
        of(self) == of(other)
    }
}

impl Eq for Identity {}

/// A moment as the file system notes it: seconds from 1970, and nanoseconds.
pub type Time = (i64, u32);

/// What one path must still have for its bytes to be those that were read once, be it before a restart. The time of
/// the last change (ctime) is part of it: a program can set the time of the last modification as it likes, and many do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The length in bytes.
    pub length: u64,
    /// The last modification.
    pub modified: Time,
    /// The last change of the file or of what is noted of it.
    pub changed: Time,
}

impl Identity {
    /// The state an open file is in now.
    pub fn of(file: &File) -> Result<Self, OpenError> {
        let stat = fs::fstat(file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(OpenError::Folder),
            _ => return Err(OpenError::Missing),
        }
        Ok(Self {
            length: u64::try_from(stat.st_size).unwrap_or(0),
            modified: u64::try_from(stat.st_mtime).unwrap_or(0),
            nanoseconds: stat.st_mtime_nsec as u32,
            inode: stat.st_ino,
            device: stat.st_dev,
            changed: (stat.st_ctime, stat.st_ctime_nsec as u32),
        })
    }

    /// That of bytes which are no file, and never change.
    #[must_use]
    pub fn embedded(length: u64) -> Self {
        Self { length, modified: 0, nanoseconds: 0, inode: 0, device: 0, changed: (0, 0) }
    }

    /// Which file it is, among those of this machine: its device and its inode.
    #[must_use]
    pub fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// What is kept beside something that was found out about the file's bytes.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let modified = (i64::try_from(self.modified).unwrap_or(i64::MAX), self.nanoseconds);
        Stamp { length: self.length, modified, changed: self.changed }
    }
}

/// Not following what was put there to wait on (a FIFO, a device), and not handed to other programs.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

impl Root {
    /// Opens the folder.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let failed = |source: io::Error| RootError { path: path.to_owned(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        // Opening asks for another permission than listing does; a folder that gives one is half served.
        fs::Dir::read_from(&folder).map_err(|errno| failed(errno.into()))?;
        Ok(Self { folder, path: path.to_owned() })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a regular file below the folder. `path` is relative and has no dot segments.
    pub fn file(&self, path: &[u8], patience: Patience) -> Result<(File, Identity), OpenError> {
        let file = File::from(self.beneath(path, FLAGS, patience)?);
        let identity = Identity::of(&file)?;
        Ok((file, identity))
    }

    /// Opens a folder below the folder, or itself where `path` is empty.
    pub fn folder(&self, path: &[u8]) -> Result<fs::Dir, OpenError> {
        let path = if path.is_empty() { b"." } else { path };
        let folder =
            self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Patience::Disk)?;
        Ok(fs::Dir::new(folder)?)
    }

    #[cfg(target_os = "linux")]
    fn beneath(&self, path: &[u8], flags: OFlags, patience: Patience) -> Result<OwnedFd, OpenError> {
        use rustix::fs::ResolveFlags;

        /// How often a path is resolved anew when something on it was renamed meanwhile.
        const ATTEMPTS: u32 = 8;

        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let resolve = match patience {
            Patience::Cached => beneath | ResolveFlags::CACHED,
            Patience::Disk => beneath,
        };
        for _ in 0..ATTEMPTS {
            let opened = retry_on_intr(|| fs::openat2(&self.folder, path, flags, Mode::empty(), resolve));
            match opened {
                Err(Errno::AGAIN) if patience == Patience::Disk => {}
                // A kernel before 5.6, or a filter of system calls that does not know this one; before 5.12
                // the kernel knows no `RESOLVE_CACHED`.
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(path, flags),
                Err(Errno::INVAL) if patience == Patience::Cached => return Err(OpenError::WouldBlock),
                result => return Ok(result?),
            }
        }
        Err(OpenError::Failed(Errno::AGAIN))
    }

    #[cfg(not(target_os = "linux"))]
    fn beneath(&self, path: &[u8], flags: OFlags, patience: Patience) -> Result<OwnedFd, OpenError> {
        match patience {
            Patience::Cached => Err(OpenError::WouldBlock),
            Patience::Disk => self.walk(path, flags),
        }
    }

    /// Opens one segment after another and follows no link at all.
    fn walk(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, OpenError> {
        let way = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder: Option<OwnedFd> = None;
        let mut segments = path.split(|byte| *byte == b'/').peekable();
        while let Some(segment) = segments.next() {
            let flags = if segments.peek().is_some() { way } else { flags | OFlags::NOFOLLOW };
            let from = folder.as_ref().unwrap_or(&self.folder);
            folder = Some(retry_on_intr(|| fs::openat(from, segment, flags, Mode::empty()))?);
        }
        folder.ok_or(OpenError::Missing)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("a.txt"), "hello").unwrap();
        std::fs::write(root.join("sub/b.txt"), "there").unwrap();
        symlink("../../secret", root.join("sub/out")).unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let opened = Root::open(&root).unwrap();
        (folder, opened)
    }

    #[test]
    fn only_regular_files_beneath_the_root_open() {
        let (_folder, root) = tree();
        symlink("sub/b.txt", root.path().join("inside")).unwrap();
        rustix::fs::mkfifoat(&root.folder, "fifo", Mode::RUSR | Mode::WUSR).unwrap();
        for patience in [Patience::Disk, Patience::Cached] {
            let open = |path: &[u8]| root.file(path, patience).map(|(_, identity)| identity.length);
            assert_eq!(open(b"a.txt"), Ok(5));
            assert_eq!(open(b"inside"), Ok(5));
            for path in [&b"sub/out"[..], b"absolute", b"loop", b"fifo", b"nothing", b"a.txt/b", b"../secret"]
            {
                let found = open(path);
                let may_wait = patience == Patience::Cached && found == Err(OpenError::WouldBlock);
                assert!(found == Err(OpenError::Missing) || may_wait, "{} {found:?}", path.escape_ascii());
            }
            assert_eq!(open(b"sub"), Err(OpenError::Folder));
        }
    }

    #[test]
    fn the_way_without_openat2_is_no_wider() {
        let (_folder, root) = tree();
        let open = |path: &[u8]| root.walk(path, FLAGS).map(|_| ());
        assert_eq!(open(b"sub/b.txt"), Ok(()));
        for path in [&b"sub/out"[..], b"absolute", b"loop", b"nothing"] {
            assert_eq!(open(path), Err(OpenError::Missing), "{}", path.escape_ascii());
        }
    }

    #[test]
    fn a_file_system_that_fails_does_not_pass_for_one_without_files() {
        for errno in [
            Errno::IO,
            Errno::STALE,
            Errno::NOTCONN,
            Errno::TIMEDOUT,
            Errno::CONNABORTED,
            Errno::HOSTDOWN,
            Errno::HOSTUNREACH,
            Errno::NODATA,
            Errno::SHUTDOWN,
            Errno::BADMSG,
            Errno::OVERFLOW,
            Errno::BUSY,
        ] {
            assert_eq!(OpenError::from(errno), OpenError::Failed(errno));
        }
    }

    #[test]
    fn a_name_that_no_file_can_have_is_missing() {
        let (_folder, root) = tree();
        for name in [&[b'x'; 256][..], &[b'x'; 5000], b"a\0b"] {
            let found = root.file(name, Patience::Disk).map(|_| ());
            assert_eq!(found, Err(OpenError::Missing), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        let message = Root::open(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(message.contains("/nowhere/at/all"), "{message}");
    }
}
