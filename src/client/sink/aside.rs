//! What was in the file before a second opinion took its place, so that it can be taken back.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::super::plan::{ByteRange, RangeSet};
use super::{PartFile, SinkError, folder_of};

/// How much is compared, or copied back, at once.
const BLOCK_BYTES: usize = 64 << 10;

/// The first version of bytes that were fetched twice, where the two differ. It has no name: whatever happens to the
/// process, nothing is left of it.
#[derive(Debug)]
pub(super) struct Aside {
    file: File,
    kept: RangeSet,
}

impl Aside {
    /// Room for them on the disk of `part`.
    pub(super) fn new(part: &PartFile) -> Result<Self, SinkError> {
        let file = tempfile::tempfile_in(folder_of(part.path()))
            .map_err(|source| failed("create a file in", part, source))?;
        Ok(Self { file, kept: RangeSet::new() })
    }

    /// Keeps what `part` has at `offset`, where it is not `bytes`, which will take its place.
    pub(super) fn keep(&mut self, part: &PartFile, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let mut before = vec![0; BLOCK_BYTES];
        let mut offset = offset;
        for block in bytes.chunks(BLOCK_BYTES) {
            let range = ByteRange::new(offset, offset.saturating_add(block.len() as u64));
            let Some(room) = before.get_mut(..block.len()) else { break };
            part.read_at(offset, room)?;
            // What is kept already is the first version; this one is not.
            if room != block && self.kept.within(range).is_empty() {
                self.file
                    .write_all_at(room, offset)
                    .map_err(|source| failed("write beside", part, source))?;
                self.kept.insert(range);
            }
            offset = range.end;
        }
        Ok(())
    }

    /// Puts the first version back.
    pub(super) fn take_back(self, part: &PartFile) -> Result<(), SinkError> {
        let mut buffer = vec![0; BLOCK_BYTES];
        for range in self.kept.iter() {
            let mut offset = range.start;
            while offset < range.end {
                let left = usize::try_from(range.end.saturating_sub(offset)).unwrap_or(BLOCK_BYTES);
                let Some(room) = buffer.get_mut(..left.min(BLOCK_BYTES)) else { break };
                self.file
                    .read_exact_at(room, offset)
                    .map_err(|source| failed("read beside", part, source))?;
                part.write_at(offset, room)?;
                offset = offset.saturating_add(room.len() as u64);
            }
        }
        Ok(())
    }
}

fn failed(action: &'static str, part: &PartFile, source: std::io::Error) -> SinkError {
    SinkError::Io { action, path: part.path().to_owned(), source }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is written over, and however often, the first version comes back.
        #[test]
        fn the_first_version_comes_back(
            writes in prop::collection::vec((0_usize..200_000, 1_usize..150_000, any::<u8>()), 0..5),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let part = PartFile::open(&folder.path().join("f")).unwrap();
            let first: Vec<u8> = (0..400_000_u32).map(|index| (index % 251) as u8).collect();
            part.write_at(0, &first).unwrap();
            let mut aside = Aside::new(&part).unwrap();
            let mut seen = RangeSet::new();
            for (offset, length, byte) in writes {
                let range = ByteRange::new(offset as u64, (offset + length) as u64);
                // A byte is fetched a second time at most once.
                if !seen.within(range).is_empty() {
                    continue;
                }
                seen.insert(range);
                let bytes = vec![byte; length];
                aside.keep(&part, offset as u64, &bytes).unwrap();
                part.write_at(offset as u64, &bytes).unwrap();
            }
            aside.take_back(&part).unwrap();
            let mut now = vec![0; first.len()];
            part.read_at(0, &mut now).unwrap();
            prop_assert!(now == first);
        }
    }
}
