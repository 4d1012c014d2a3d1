//! In-memory copies of cached files (memfd), which the kernel can send without another copy.
//!
//! Sending files of this size with sendfile costs a quarter less than sending them from memory of the process. A file
//! on a disk may change or leave the page cache between two checks; a memfd of this process does neither.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use rustix::fs::{MemfdFlags, memfd_create};

/// Minimum size of a file for a copy, in bytes: below it, the packet for the head costs more than copying the bytes.
pub(super) const SMALLEST: u64 = 64 << 10;

/// Maximum number of copies of one worker; each has a descriptor.
pub(super) const MOST: usize = 256;

/// Makes a copy of these bytes.
pub(super) fn of(bytes: &[u8]) -> io::Result<File> {
    let file = File::from(create()?);
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

/// Reads the `length` bytes of a copy.
pub(super) fn read(copy: &File, length: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    copy.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.into())
}

/// An empty memfd.
pub(super) fn create() -> io::Result<OwnedFd> {
    Ok(memfd_create("fingerpost-file", MemfdFlags::CLOEXEC)?)
}
