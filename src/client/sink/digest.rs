//! SHA-256 of a file whose bytes come in any order: what comes in order is hashed as it lands, the rest is read back
//! when the gap before it closes.

use sha2::{Digest, Sha256};

use super::super::identity::Sha256Digest;
use super::super::plan::{ByteRange, RangeSet};
use super::{PartFile, SinkError};

/// How much is read back at once.
const READ_BACK_BYTES: usize = 1 << 20;

/// The hash of the file's beginning.
#[derive(Debug)]
pub(super) struct RunningDigest {
    hasher: Sha256,
    /// Bytes hashed so far.
    position: u64,
}

impl RunningDigest {
    pub(super) fn new() -> Self {
        Self { hasher: Sha256::new(), position: 0 }
    }

    /// Bytes landed; they count if they are the next ones.
    pub(super) fn landed(&mut self, offset: u64, bytes: &[u8]) {
        if offset == self.position {
            self.hasher.update(bytes);
            self.position = self.position.saturating_add(bytes.len() as u64);
        }
    }

    /// Reads back what follows in `written`, at most `limit` bytes.
    pub(super) fn catch_up(
        &mut self,
        part: &PartFile,
        written: &RangeSet,
        limit: u64,
    ) -> Result<(), SinkError> {
        let reach = self.position.saturating_add(limit);
        let ahead = written.within(ByteRange::new(self.position, reach));
        let Some(next) = ahead.first().filter(|next| next.start == self.position) else { return Ok(()) };
        let mut buffer = vec![0; READ_BACK_BYTES];
        while self.position < next.end {
            let left = usize::try_from(next.end.saturating_sub(self.position)).unwrap_or(READ_BACK_BYTES);
            let Some(room) = buffer.get_mut(..left.min(READ_BACK_BYTES)) else { break };
            part.read_at(self.position, room)?;
            self.hasher.update(&*room);
            self.position = self.position.saturating_add(room.len() as u64);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Sha256Digest {
        Sha256Digest(self.hasher.finalize().into())
    }
}

/// The digest of the bytes of `range` as they are in the file.
pub(super) fn of_range(part: &PartFile, range: ByteRange) -> Result<Sha256Digest, SinkError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BACK_BYTES];
    let mut position = range.start;
    while position < range.end {
        let left = usize::try_from(range.end.saturating_sub(position)).unwrap_or(READ_BACK_BYTES);
        let Some(room) = buffer.get_mut(..left.min(READ_BACK_BYTES)) else { break };
        part.read_at(position, room)?;
        hasher.update(&*room);
        position = position.saturating_add(room.len() as u64);
    }
    Ok(Sha256Digest(hasher.finalize().into()))
}

/// The digest of a file on the disk.
pub fn of_file(path: &std::path::Path) -> std::io::Result<Sha256Digest> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut HashWriter(&mut hasher))?;
    Ok(Sha256Digest(hasher.finalize().into()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
