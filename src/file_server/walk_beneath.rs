//! Opens a path beneath a directory without `openat2`, which kernels before 5.6 lack and filters of system calls may
//! refuse.
//!
//! The path is resolved one component at a time, and the kernel follows no link. Links are read and resolved here, so
//! neither a link nor a concurrent rename leads out of the directory: `..` returns to a directory that was passed and
//! is still open.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};

/// Maximum number of links in one path, as in Linux.
const MAX_LINKS: u32 = 40;

/// Maximum number of directories that are held open for one path. A deeper file counts as missing.
const MAX_DEPTH: usize = 128;

/// Attempts to open a component that another process renames.
const ATTEMPTS: u32 = 8;

/// Flags for a directory within the path. `O_PATH` needs no permission to read the directory, as in the kernel's
/// resolution.
const ON_THE_WAY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open component of the path, or the target of a link.
enum Component {
    Open(OwnedFd),
    Link(Vec<u8>),
}

/// Opens `path` below `root` with these flags. Fails with `EXDEV` if the path leads out of `root`, and with `ELOOP`
/// if it has too many links.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut passed: Vec<OwnedFd> = Vec::new();
    let mut left: VecDeque<Vec<u8>> = components(path).collect();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == b".." {
            passed.pop().ok_or(Errno::XDEV)?;
            continue;
        }
        let parent = passed.last().map_or(root, AsFd::as_fd);
        let is_last = left.is_empty();
        let component = open_component(parent, &name, if is_last { flags } else { ON_THE_WAY })?;
        match component {
            Component::Open(file) if is_last => return Ok(file),
            Component::Open(_) if passed.len() >= MAX_DEPTH => return Err(Errno::NAMETOOLONG),
            Component::Open(directory) => passed.push(directory),
            Component::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.starts_with(b"/") {
                    return Err(Errno::XDEV);
                }
                for name in components(&target).rev() {
                    left.push_front(name);
                }
            }
        }
    }
    // The path ends in a directory that was passed: it ends in `.`, or in a link to that directory.
    let parent = passed.last().map_or(root, AsFd::as_fd);
    retry_on_intr(|| fs::openat(parent, ".", flags | OFlags::NOFOLLOW, Mode::empty()))
}

/// The non-empty components of a path.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.map(<[u8]>::to_vec)
}

fn open_component(parent: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<Component, Errno> {
    for _ in 0..ATTEMPTS {
        match retry_on_intr(|| fs::openat(parent, name, flags | OFlags::NOFOLLOW, Mode::empty())) {
            Ok(file) => return Ok(Component::Open(file)),
            // The component is a link, or a file in place of a directory.
            Err(refused @ (Errno::LOOP | Errno::NOTDIR | Errno::MLINK)) => {
                match fs::readlinkat(parent, name, Vec::new()) {
                    Ok(target) => return Ok(Component::Link(target.into_bytes())),
                    // It is not a link. After `ELOOP` it was a link a moment ago.
                    Err(Errno::INVAL) if refused == Errno::NOTDIR => return Err(refused),
                    Err(Errno::INVAL) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests;
