//! Reads from the page cache without waiting for a disk.

use std::fs::File;

use rustix::io::Errno;

/// Result of [`read_at`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nowait {
    /// Bytes that were in memory; 0 at the end of the file.
    Read(usize),
    /// The bytes are not in memory.
    NotInMemory,
    /// The system cannot tell: the file system or the kernel has no `RWF_NOWAIT`, or a filter refuses `preadv2`.
    Unknown,
}

/// Reads bytes at an offset, if they can be read without waiting.
#[cfg(target_os = "linux")]
pub(super) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> Result<Nowait, Errno> {
    use std::io::IoSliceMut;

    use rustix::io::{ReadWriteFlags, preadv2, retry_on_intr};

    let flags = ReadWriteFlags::NOWAIT;
    match retry_on_intr(|| preadv2(file, &mut [IoSliceMut::new(bytes)], offset, flags)) {
        Ok(read) => Ok(Nowait::Read(read)),
        Err(Errno::AGAIN) => Ok(Nowait::NotInMemory),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL) => Ok(Nowait::Unknown),
        Err(error) => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn read_at(_: &File, _: &mut [u8], _: u64) -> Result<Nowait, Errno> {
    Ok(Nowait::Unknown)
}
