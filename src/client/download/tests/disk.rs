//! An output in memory.

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::*;
use crate::client::checksum::ChecksumHasher;
use crate::client::sink::{Batch, DigestMode, FileCompletion, Finish, ResumeState, Store, WholeFile};

/// A part file in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryFile {
    pub(super) bytes: Vec<u8>,
    pub(super) journal: Option<(ContentIdentity, RangeSet)>,
    /// The complete file under its name.
    pub(super) named: Option<Vec<u8>>,
    pub(super) is_discarded: bool,
    /// Size of the disk.
    pub(super) room: u64,
}

#[derive(Debug, Clone)]
pub(super) struct MemoryDisk(pub(super) Arc<Mutex<MemoryFile>>);

impl Storage for MemoryDisk {
    fn open(&self, _: &std::path::Path) -> Result<(Box<dyn Store>, Option<ResumeState>), SinkError> {
        let journal = self.0.try_lock().unwrap().journal.clone();
        let state = journal.map(|(identity, done)| ResumeState { identity, done });
        Ok((Box::new(self.clone()), state))
    }

    fn finish_small(&self, _: WholeFile) -> LocalBoxFuture<'_, Result<Finish, SinkError>> {
        async { Ok(Finish::Declined) }.boxed_local()
    }
}

pub(super) fn hash(bytes: &[u8], algorithm: Algorithm) -> Checksum {
    let mut hasher = ChecksumHasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

impl Store for MemoryDisk {
    fn begin(&mut self, present: u64, _: Option<u64>, _: DigestMode) -> Result<(), SinkError> {
        let mut file = self.0.try_lock().unwrap();
        if present == 0 {
            (file.bytes, file.journal) = (Vec::new(), None);
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<Vec<ByteRange>, SinkError> {
        let mut file = self.0.blocking_lock();
        for (offset, bytes) in &batch.parts {
            let (start, end) = (*offset as usize, *offset as usize + bytes.len());
            if end as u64 > file.room {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(SinkError::Io { action: "write", path: "f.part".into(), source });
            }
            // A byte that the journal lists must be taken back before it is overwritten.
            let range = ByteRange::new(start as u64, end as u64);
            assert!(file.journal.iter().all(|(_, done)| done.within(range).is_empty()));
            let size = file.bytes.len().max(end);
            file.bytes.resize(size, 0);
            file.bytes[start..end].copy_from_slice(bytes);
        }
        let of = |range: &ByteRange| &file.bytes[range.start as usize..range.end as usize];
        let pieces = batch.follow_up.pieces.iter();
        Ok(pieces
            .filter(|(piece, known)| hash(of(piece), known.algorithm()) != *known)
            .map(|(piece, _)| *piece)
            .collect())
    }

    fn save(&self, identity: &ContentIdentity, done: &RangeSet) -> Result<(), SinkError> {
        self.0.blocking_lock().journal = Some((identity.clone(), done.clone()));
        Ok(())
    }

    fn take_back(&self, identity: &ContentIdentity, right: &RangeSet) -> Result<(), SinkError> {
        self.save(identity, right)
    }

    fn is_sequential(&self) -> bool {
        false
    }

    fn digest(&self, _: &Batch, size: u64, algorithm: Algorithm) -> Result<Option<Checksum>, SinkError> {
        let file = self.0.blocking_lock();
        assert_eq!(file.bytes.len() as u64, size);
        Ok(Some(hash(&file.bytes, algorithm)))
    }

    fn finish(&self, ending: &FileCompletion) -> Result<(), SinkError> {
        let mut file = self.0.blocking_lock();
        assert_eq!(file.bytes.len() as u64, ending.size);
        (file.named, file.journal) = (Some(file.bytes.clone()), None);
        Ok(())
    }

    fn discard(&self) -> Result<(), SinkError> {
        let mut file = self.0.blocking_lock();
        (file.journal, file.is_discarded) = (None, true);
        Ok(())
    }
}
