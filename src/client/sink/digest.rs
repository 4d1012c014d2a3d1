//! Digest of a file whose bytes arrive in any order: bytes at the current position are hashed at once, later
//! bytes are read back when the gap before them closes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;

use super::super::checksum::{Algorithm, Checksum, ChecksumHasher};
use super::super::plan::{ByteRange, RangeSet};
use super::{PartFile, SinkError};

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

    /// Reads back and hashes the bytes of `written` that follow the position, at most `limit` bytes.
    pub(super) fn catch_up(
        &mut self,
        part: &PartFile,
        written: &RangeSet,
        limit: u64,
    ) -> Result<(), SinkError> {
        let reach = self.position.saturating_add(limit);
        let ahead = written.within(ByteRange::new(self.position, reach));
        let Some(next) = ahead.first().filter(|next| next.start == self.position) else { return Ok(()) };
        let mut buffer = vec![0; buffer_size(next.end.saturating_sub(self.position))];
        while self.position < next.end {
            let left = usize::try_from(next.end.saturating_sub(self.position)).unwrap_or(READ_BACK_BYTES);
            let Some(room) = buffer.get_mut(..left.min(READ_BACK_BYTES)) else { break };
            part.read_at(self.position, room)?;
            self.hasher.update(room);
            self.position = self.position.saturating_add(room.len() as u64);
        }
        Ok(())
    }

    /// The digest of a file of `size` bytes after `batch` is written; `None` if bytes would have to be read
    /// back for it.
    pub(super) fn of(mut self, batch: &[(u64, Bytes)], size: u64, algorithm: Algorithm) -> Option<Checksum> {
        if self.algorithm() != algorithm {
            return None;
        }
        for (offset, bytes) in batch {
            self.on_write(*offset, bytes);
        }
        (self.position == size).then(|| self.finish())
    }

    pub(super) fn finish(self) -> Checksum {
        self.hasher.finish()
    }
}

/// The digest of the bytes of `range` in the file.
pub(super) fn of_range(
    part: &PartFile,
    range: ByteRange,
    algorithm: Algorithm,
) -> Result<Checksum, SinkError> {
    let mut hasher = ChecksumHasher::new(algorithm);
    let mut buffer = vec![0; buffer_size(range.len())];
    let mut position = range.start;
    while position < range.end {
        let left = usize::try_from(range.end.saturating_sub(position)).unwrap_or(READ_BACK_BYTES);
        let Some(room) = buffer.get_mut(..left.min(READ_BACK_BYTES)) else { break };
        part.read_at(position, room)?;
        hasher.update(room);
        position = position.saturating_add(room.len() as u64);
    }
    Ok(hasher.finish())
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
