//! The [`Store`] of a file on the disk: part file, journal and running digest.

use std::fs::File;
use std::io;
use std::path::Path;

use tokio::sync::Mutex;

use super::digest::{self, RunningDigest};
use super::journal::{self, ResumeState, claim, journal_path, remove_own};
use super::part::sync_folder;
use super::{Batch, DigestMode, FileCompletion, PartFile, SinkError, Store};
use crate::client::checksum::{Algorithm, Checksum};
use crate::client::identity::ContentIdentity;
use crate::client::range::{ByteRange, RangeSet};

/// Maximum number of bytes read back for the digest with each batch of writes.
const CATCH_UP_BYTES: u64 = 8 << 20;

/// A part file with its journal.
#[derive(Debug)]
pub(super) struct PartStore {
    part: PartFile,
    /// The digest of the first bytes of the file, if it is wanted.
    hash: Mutex<Option<RunningDigest>>,
    /// Our journal, by which it is distinguished from that of another client.
    journal: Mutex<Option<File>>,
}

impl PartStore {
    /// Opens the part file of `target`, and reads the journal beside it.
    pub(super) fn open(target: &Path) -> Result<(Self, Option<ResumeState>), SinkError> {
        let path = journal_path(target);
        // Checked before the download, not at the first checkpoint.
        if let Err(source) = path.symlink_metadata()
            && source.kind() == io::ErrorKind::InvalidFilename
        {
            return Err(SinkError::Io { action: "create", path, source });
        }
        let part = PartFile::open(target)?;
        let size = part.size()?;
        if size > 0 && path.symlink_metadata().is_err() {
            return Err(SinkError::Foreign { path: part.path().to_owned() });
        }
        // A journal with bytes beyond the end of the part file is invalid.
        let earlier = journal::read(&path)
            .filter(|state| !part.is_nameless() && !state.done.is_empty())
            .filter(|state| state.done.within(ByteRange::new(size, u64::MAX)).is_empty());
        let own = earlier.as_ref().and_then(|_| File::open(path).ok());
        Ok((Self { part, hash: Mutex::default(), journal: Mutex::new(own) }, earlier))
    }

    fn prepare(&mut self, present: u64, size: Option<u64>) -> Result<(), SinkError> {
        let part = &self.part;
        // Unused bytes in the file are overwritten, so their space counts as free.
        let room = if present == 0 { part.size()? } else { 0 };
        if let (Some(size), Some(free)) = (size, part.free_space()) {
            let wanted = size.saturating_sub(present);
            if wanted > free.saturating_add(room) {
                return Err(SinkError::NoSpace { path: part.path().to_owned(), wanted, free });
            }
        }
        if present == 0 && !part.is_nameless() {
            // The journal must not list the old content any more; the new one marks the file as ours.
            *self.journal.get_mut() = Some(claim(part.target())?);
            // Some file systems sync a truncated file when it is closed.
            if room > 0 {
                part.set_size(0)?;
            }
        }
        Ok(())
    }

    fn write_journal(&self, identity: &ContentIdentity, done: &RangeSet) -> Result<(), SinkError> {
        let (target, mut own) = (self.part.target(), self.journal.blocking_lock());
        if !self.part.has_its_name() {
            remove_own(target, own.as_ref());
            return Err(SinkError::Displaced { path: self.part.path().to_owned() });
        }
        let written = journal::write(target, identity, done);
        *own = Some(written.map_err(|source| SinkError::Io {
            action: "write",
            path: journal_path(target),
            source,
        })?);
        Ok(())
    }

    fn discard_with(&self, journal: Option<&File>) -> Result<(), SinkError> {
        if !self.part.is_nameless() && self.part.has_its_name() {
            journal::remove(self.part.target());
        } else {
            remove_own(self.part.target(), journal);
        }
        self.part.discard()
    }
}

impl Store for PartStore {
    fn begin(&mut self, present: u64, size: Option<u64>, hashing: DigestMode) -> Result<(), SinkError> {
        *self.hash.get_mut() = hashing.begin();
        let prepared = self.prepare(present, size);
        if prepared.is_err() && present == 0 {
            // The part file is empty; the first failure is reported.
            let _ = self.discard_with(None);
        }
        prepared
    }

    fn write(&self, batch: &Batch) -> Result<Vec<ByteRange>, SinkError> {
        let mut hash = self.hash.blocking_lock();
        for (offset, bytes) in &batch.parts {
            self.part.write_at(*offset, bytes)?;
            if let Some(hash) = &mut *hash {
                hash.on_write(*offset, bytes);
            }
        }
        if let Some(hash) = &mut *hash {
            hash.catch_up(&self.part, batch.follow_up.prefix, CATCH_UP_BYTES)?;
        }
        drop(hash);
        let mut wrong = Vec::new();
        for (piece, known) in &batch.follow_up.pieces {
            if digest::of_range(&self.part, *piece, known.algorithm())? != *known {
                wrong.push(*piece);
            }
        }
        Ok(wrong)
    }

    fn save(&self, identity: &ContentIdentity, done: &RangeSet) -> Result<(), SinkError> {
        if self.part.is_nameless() {
            return Ok(());
        }
        self.part.sync()?;
        self.write_journal(identity, done)
    }

    fn take_back(&self, identity: &ContentIdentity, right: &RangeSet) -> Result<(), SinkError> {
        // The hash may include the wrong bytes.
        let mut hash = self.hash.blocking_lock();
        *hash = hash.take().map(|hash| RunningDigest::new(hash.algorithm()));
        if self.part.is_nameless() {
            return Ok(());
        }
        let nothing = ContentIdentity::default();
        let result = self.write_journal(if right.is_empty() { &nothing } else { identity }, right);
        match result {
            Ok(()) => sync_folder(self.part.target()),
            Err(SinkError::Io { action, path, source }) => {
                // No journal is better than a wrong one; the first failure is reported.
                let _ = std::fs::remove_file(&path).map(|()| sync_folder(&path));
                Err(SinkError::Io { action, path, source })
            }
            Err(error) => Err(error),
        }
    }

    fn is_sequential(&self) -> bool {
        false
    }

    fn digest(&self, _: &Batch, size: u64, algorithm: Algorithm) -> Result<Option<Checksum>, SinkError> {
        let mut hash = self.hash.blocking_lock();
        let running = hash.take().filter(|running| running.algorithm() == algorithm);
        // If the digest became known late, the whole file is read back.
        let mut running = running.unwrap_or_else(|| RunningDigest::new(algorithm));
        running.catch_up(&self.part, size, u64::MAX)?;
        // A repair needs a new hash.
        *hash = Some(RunningDigest::new(algorithm));
        Ok(Some(running.finish()))
    }

    fn finish(&self, ending: &FileCompletion) -> Result<(), SinkError> {
        let part = &self.part;
        if part.size()? != ending.size {
            part.set_size(ending.size)?;
        }
        if let Some(modified) = ending.modified {
            part.set_modified(modified);
        }
        let own = self.journal.blocking_lock();
        let finished = part.finish(ending.existing, ending.durability);
        match finished {
            Ok(()) if !part.is_nameless() => journal::remove(part.target()),
            Err(SinkError::Displaced { .. }) => remove_own(part.target(), own.as_ref()),
            // The complete part file belongs to the user now: no later run may overwrite it.
            Err(SinkError::Appeared { .. }) if !ending.is_saved => remove_own(part.target(), own.as_ref()),
            Ok(()) | Err(_) => {}
        }
        finished
    }

    fn discard(&self) -> Result<(), SinkError> {
        self.discard_with(self.journal.blocking_lock().as_ref())
    }
}
