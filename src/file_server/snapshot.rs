//! Copies of cached files in memory that the kernel can send from without copying them once more.
//!
//! Files of this size cost a quarter less with sendfile than from memory of this program. But a file on a disk may change
//! or leave the page cache between two looks at it; a memfd that nobody else has does neither.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;

/// The smallest file that is worth a copy: below it, a packet for the head alone costs more than copying the bytes.
pub const SMALLEST: u64 = 64 << 10;

/// Descriptors that one worker has for copies.
pub const MOST: usize = 256;

/// A copy of these bytes.
pub fn of(bytes: &[u8]) -> io::Result<File> {
    let file = File::from(create()?);
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

/// The bytes of a copy of so many.
pub fn read(copy: &File, length: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    copy.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.into())
}

#[cfg(target_os = "linux")]
pub(super) fn create() -> io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("fingerpost-file", MemfdFlags::CLOEXEC)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn create() -> io::Result<std::os::fd::OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}
