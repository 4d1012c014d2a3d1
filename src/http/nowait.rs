//! Reads from the page cache without waiting for a disk, for the file server and the transport.

use std::fs::File;
use std::io::IoSliceMut;

use rustix::io::{Errno, ReadWriteFlags, preadv2, retry_on_intr};

/// Result of [`read_at`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NowaitRead {
    /// Number of bytes that were read; 0 at the end of the file.
    Read(usize),
    /// The bytes are not in memory.
    NotInMemory,
    /// Unknown: the file system or the kernel has no `RWF_NOWAIT`, or a filter of system calls refuses `preadv2`.
    Unknown,
}

/// Reads bytes at `offset`, if the page cache has them.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> Result<NowaitRead, Errno> {
    let flags = ReadWriteFlags::NOWAIT;
    match retry_on_intr(|| preadv2(file, &mut [IoSliceMut::new(bytes)], offset, flags)) {
        Ok(read) => Ok(NowaitRead::Read(read)),
        Err(Errno::AGAIN) => Ok(NowaitRead::NotInMemory),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL) => Ok(NowaitRead::Unknown),
        Err(error) => Err(error),
    }
}
