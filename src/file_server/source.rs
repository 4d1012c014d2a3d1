//! An open file that an answer is sent from, and reading it where the kernel does not send it by itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;

use super::nowait::{self, Nowait};
use super::range::Part;
use super::root::Identity;

/// Bytes that are read at once only to have them in memory.
const SCRATCH: usize = 256 << 10;

/// An open file, and the state it was in when the answer was begun.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub file: Arc<File>,
    /// Its state.
    pub identity: Identity,
}

impl Source {
    /// Whether the file is still in its state.
    pub fn look(&self) -> io::Result<()> {
        if Identity::of(&self.file) == Ok(self.identity) {
            return Ok(());
        }
        Err(io::Error::other("the file changed while it was sent"))
    }

    /// Whether a part is in memory, judged by its first and its last byte. True if the system cannot tell.
    #[must_use]
    pub fn is_cached(&self, part: Part) -> bool {
        let is_byte_cached = |at| nowait::read_at(&self.file, &mut [0], at) != Ok(Nowait::NotInMemory);
        is_byte_cached(part.start) && is_byte_cached(part.end.saturating_sub(1))
    }

    /// Waits until the kernel has a part in memory.
    pub fn fault_in(&self, part: Part) -> io::Result<()> {
        let mut scratch = vec![0; SCRATCH.min(length(part))];
        let mut at = part.start;
        while at < part.end {
            match self.file.read_at(&mut scratch, at)? {
                // The file is shorter now; whoever sends it will see.
                0 => break,
                read => at += read as u64,
            }
        }
        Ok(())
    }

    /// Reads a part, waiting for the disk where it must; an error where the file has become too short for it.
    pub fn read(&self, part: Part) -> io::Result<Bytes> {
        let mut bytes = vec![0; length(part)];
        self.file.read_exact_at(&mut bytes, part.start)?;
        Ok(bytes.into())
    }
}

fn length(part: Part) -> usize {
    usize::try_from(part.length()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bytes: &[u8]) -> (tempfile::NamedTempFile, Source) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let open = file.reopen().unwrap();
        let identity = Identity::of(&open).unwrap();
        (file, Source { file: Arc::new(open), identity })
    }

    #[test]
    fn a_part_is_read_whole_or_not_at_all() {
        let (_file, source) = source(b"0123456789");
        assert_eq!(source.read(Part { start: 2, end: 5 }).unwrap(), "234");
        let error = source.read(Part { start: 8, end: 11 }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        source.fault_in(Part { start: 8, end: 11 }).unwrap();
        assert!(source.is_cached(Part { start: 0, end: 10 }));
    }

    #[test]
    fn a_file_that_changed_is_no_longer_what_was_begun() {
        let (file, source) = source(b"0123456789");
        source.look().unwrap();
        file.as_file().set_len(5).unwrap();
        assert!(source.look().is_err());
    }
}
