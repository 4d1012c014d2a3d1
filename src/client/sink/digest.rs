//! Digest of a file whose bytes arrive in any order: bytes at the current position are hashed at once, later
//! bytes are read back when the gap before them closes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;

use super::{PartFile, SinkError};
use crate::client::checksum::{Algorithm, Checksum, ChecksumHasher};
use crate::client::range::ByteRange;

/// Maximum size of one read.
const READ_BACK_BYTES: usize = 1 << 20;

/// Size of the buffer for reading `bytes` bytes.
fn buffer_size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(READ_BACK_BYTES).min(READ_BACK_BYTES)
}

/// Hash of a prefix of the file.
#[derive(Debug, Clone)]
pub(super) struct RunningDigest {
    hasher: ChecksumHasher,
    /// Bytes hashed so far.
    position: u64,
}

impl RunningDigest {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { hasher: ChecksumHasher::new(algorithm), position: 0 }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.hasher.algorithm()
    }

    /// Handles written bytes; they are hashed if they are the next ones.
    pub(super) fn on_write(&mut self, offset: u64, bytes: &[u8]) {
        if offset == self.position {
            self.hasher.update(bytes);
            self.position = self.position.saturating_add(bytes.len() as u64);
        }
    }

    /// Reads back and hashes the bytes up to `end`, which are written without a gap, at most `limit` bytes.
    pub(super) fn catch_up(&mut self, part: &PartFile, end: u64, limit: u64) -> Result<(), SinkError> {
        let end = end.min(self.position.saturating_add(limit));
        if end > self.position {
            read_back(part, ByteRange::new(self.position, end), &mut self.hasher)?;
            self.position = end;
        }
        Ok(())
    }

    /// The digest, if all of a file of `size` bytes was hashed with `algorithm`.
    pub(super) fn of_whole(self, size: u64, algorithm: Algorithm) -> Option<Checksum> {
        (self.position == size && self.algorithm() == algorithm).then(|| self.finish())
    }

    pub(super) fn finish(self) -> Checksum {
        self.hasher.finish()
    }
}

/// The digest of a file that consists of `parts`, in any order.
pub(super) fn of_parts(parts: &[(u64, Bytes)], algorithm: Algorithm) -> Checksum {
    let mut sorted: Vec<&(u64, Bytes)> = parts.iter().collect();
    sorted.sort_by_key(|(offset, _)| *offset);
    let mut hasher = ChecksumHasher::new(algorithm);
    for (_, bytes) in sorted {
        hasher.update(bytes);
    }
    hasher.finish()
}

/// The digest of the bytes of `range` in the file.
pub(super) fn of_range(
    part: &PartFile,
    range: ByteRange,
    algorithm: Algorithm,
) -> Result<Checksum, SinkError> {
    let mut hasher = ChecksumHasher::new(algorithm);
    read_back(part, range, &mut hasher)?;
    Ok(hasher.finish())
}

fn read_back(part: &PartFile, range: ByteRange, hasher: &mut ChecksumHasher) -> Result<(), SinkError> {
    let mut buffer = vec![0; buffer_size(range.len())];
    let mut position = range.start;
    while position < range.end {
        let left = usize::try_from(range.end.saturating_sub(position)).unwrap_or(READ_BACK_BYTES);
        let Some(room) = buffer.get_mut(..left.min(READ_BACK_BYTES)) else { break };
        part.read_at(position, room)?;
        hasher.update(room);
        position = position.saturating_add(room.len() as u64);
    }
    Ok(())
}

/// The digest of a file on the disk. Fails once `is_awaited` returns false.
pub(crate) fn of_file(
    path: &Path,
    algorithm: Algorithm,
    is_awaited: impl Fn() -> bool,
) -> io::Result<Checksum> {
    let mut file = File::open(path)?;
    let mut hasher = ChecksumHasher::new(algorithm);
    let mut buffer = vec![0; buffer_size(file.metadata()?.len().max(1))];
    loop {
        let length = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        match buffer.get(..length) {
            Some(bytes) if !bytes.is_empty() => hasher.update(bytes),
            _ => return Ok(hasher.finish()),
        }
        if !is_awaited() {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_digest_is_not_computed_to_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "I am a file.").unwrap();
        let wanted = of_file(file.path(), Algorithm::Sha256, || true).unwrap();
        assert_eq!(wanted.hex(), "779528095d9b5a9a5fe1c0f9c416664deb12b0b6f7fe415035ba3f32d4fe518a");
        assert!(of_file(file.path(), Algorithm::Sha256, || false).is_err());
    }
}
