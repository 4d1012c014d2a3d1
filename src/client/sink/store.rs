//! The blocking half of the sink: writes, hashes and verifies bytes, keeps the journal, names the file.
//!
//! [`Writer`](super::Writer) calls it on blocking threads.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::super::checksum::{Algorithm, Checksum};
use super::super::identity::ContentIdentity;
use super::super::plan::{ByteRange, RangeSet};
use super::digest::{self, RunningDigest};
use super::journal::{Journal, ResumeState, claim, journal_path, remove_journal, remove_own};
use super::part::sync_folder;
use super::sequential::SequentialSink;
use super::{Durability, Existing, PartFile, SinkError};

/// Maximum number of bytes read back for the digest with each batch of writes.
const CATCH_UP_BYTES: u64 = 8 << 20;

/// Digests of the pieces of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// Size of each piece but the last, in bytes; at least 1.
    pub length: u64,
    /// The size of the file.
    pub size: u64,
    /// Digests of the pieces, in order.
    pub digests: Arc<[Checksum]>,
}

/// Whether the digest of the whole file is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DigestMode {
    /// The digest is compared or reported.
    On(Algorithm),
    /// The digest is not needed.
    Off,
}

impl DigestMode {
    fn begin(self) -> Option<RunningDigest> {
        match self {
            Self::On(algorithm) => Some(RunningDigest::new(algorithm)),
            Self::Off => None,
        }
    }
}

/// The output of one download.
#[derive(Debug)]
pub(crate) struct DownloadStore {
    backing: Backing,
    written: RangeSet,
    digest: Option<RunningDigest>,
    pieces: Option<Pieces>,
    /// Numbers of verified pieces.
    checked: RangeSet,
    /// The journal of an earlier run, or the one that marks the part file as ours.
    earlier: Option<File>,
}

#[derive(Debug)]
enum Backing {
    Part(PartFile),
    Sequential(SequentialSink),
}

impl DownloadStore {
    /// Opens the part file of `target`, and reads the journal beside it.
    pub(crate) fn open(target: &Path) -> Result<(Self, Option<ResumeState>), SinkError> {
        let journal = journal_path(target);
        // Checked before the download, not at the first checkpoint.
        if let Err(source) = journal.symlink_metadata()
            && source.kind() == std::io::ErrorKind::InvalidFilename
        {
            return Err(SinkError::Io { action: "create", path: journal, source });
        }
        let part = PartFile::open(target)?;
        let remembered = Journal::read(&journal);
        let size = part.size()?;
        if size > 0 && journal.symlink_metadata().is_err() {
            return Err(SinkError::Foreign { path: part.path().to_owned() });
        }
        // A journal with bytes beyond the end of the part file is invalid.
        let remembered = remembered
            .filter(|memory| memory.done.within(ByteRange::new(size, u64::MAX)).is_empty())
            .filter(|memory| !memory.done.is_empty());
        let earlier = remembered.as_ref().and_then(|_| File::open(journal).ok());
        let store = Self { earlier, ..Self::new(Backing::Part(part)) };
        Ok((store, remembered))
    }

    /// Output to the inherited descriptor `number`, in order.
    pub(crate) fn descriptor(
        number: i32,
        hashing: DigestMode,
        pieces: Option<Pieces>,
    ) -> Result<Self, SinkError> {
        Ok(Self::in_order(SequentialSink::descriptor(number)?.in_pieces(pieces), hashing))
    }

    /// Output to the device or pipe at `path`, in order.
    #[must_use]
    pub(crate) fn device(path: &Path, hashing: DigestMode, pieces: Option<Pieces>) -> Self {
        Self::in_order(SequentialSink::named(path).in_pieces(pieces), hashing)
    }

    fn in_order(backing: SequentialSink, hashing: DigestMode) -> Self {
        Self { digest: hashing.begin(), ..Self::new(Backing::Sequential(backing)) }
    }

    fn new(backing: Backing) -> Self {
        Self {
            backing,
            written: RangeSet::new(),
            digest: None,
            pieces: None,
            checked: RangeSet::new(),
            earlier: None,
        }
    }

    /// Creates an empty part file of `target`. Leaves nothing behind if that fails.
    pub(crate) fn create(
        target: &Path,
        size: Option<u64>,
        hashing: DigestMode,
        pieces: Option<Pieces>,
    ) -> Result<Self, SinkError> {
        let (mut store, _) = Self::open(target)?;
        if let Err(error) = store.begin(&RangeSet::new(), size, hashing, pieces) {
            // The part file is empty; the first failure is reported.
            let _ = store.discard(target, None);
            return Err(error);
        }
        Ok(store)
    }

    /// Starts with the bytes `done`; their pieces must still be [checked](Self::check).
    pub(crate) fn begin(
        &mut self,
        done: &RangeSet,
        size: Option<u64>,
        hashing: DigestMode,
        pieces: Option<Pieces>,
    ) -> Result<(), SinkError> {
        self.written = done.clone();
        self.digest = hashing.begin();
        self.pieces = pieces;
        self.checked = RangeSet::new();
        let Backing::Part(part) = &self.backing else { return Ok(()) };
        // Unused bytes in the file are overwritten, so their space counts as free.
        let room = if done.is_empty() { part.size()? } else { 0 };
        let wanted = size.map(|size| size.saturating_sub(done.len()));
        if let (Some(wanted), Some(free)) = (wanted, part.free_space())
            && wanted > free.saturating_add(room)
        {
            return Err(SinkError::NoSpace { path: part.path().to_owned(), wanted, free });
        }
        if done.is_empty() {
            // The journal must not list the old content any more; the new one marks the file as ours.
            self.earlier = Some(claim(part.target())?);
            // Some file systems sync a truncated file when it is closed.
            if room > 0 {
                part.set_size(0)?;
            }
        }
        Ok(())
    }

    /// Verifies the complete pieces that touch `range`. Returns the wrong ones, which are marked as missing.
    pub(crate) fn check(&mut self, range: ByteRange) -> Result<Vec<ByteRange>, SinkError> {
        self.check_pieces(std::iter::once(range))
    }

    /// Writes `batch`. Returns the pieces that turned out wrong.
    pub(crate) fn write(&mut self, batch: &[(u64, Bytes)]) -> Result<Vec<ByteRange>, SinkError> {
        for (offset, bytes) in batch {
            match &mut self.backing {
                Backing::Part(part) => part.write_at(*offset, bytes)?,
                Backing::Sequential(output) => output.write(bytes)?,
            }
            self.written.insert(ByteRange::new(*offset, offset.saturating_add(bytes.len() as u64)));
            if let Some(digest) = &mut self.digest {
                digest.on_write(*offset, bytes);
            }
        }
        let Backing::Part(part) = &self.backing else { return Ok(Vec::new()) };
        if let Some(digest) = &mut self.digest {
            digest.catch_up(part, &self.written, CATCH_UP_BYTES)?;
        }
        let written_ranges = batch
            .iter()
            .map(|(offset, bytes)| ByteRange::new(*offset, offset.saturating_add(bytes.len() as u64)));
        self.check_pieces(written_ranges)
    }

    /// Verifies the complete, unverified pieces that touch `written_ranges`.
    fn check_pieces(
        &mut self,
        written_ranges: impl Iterator<Item = ByteRange>,
    ) -> Result<Vec<ByteRange>, SinkError> {
        let (Some(pieces), Backing::Part(part)) = (&self.pieces, &self.backing) else {
            return Ok(Vec::new());
        };
        let mut wrong = Vec::new();
        for range in written_ranges.filter(|range| !range.is_empty()) {
            let last = range.end.saturating_sub(1);
            for number in range.start / pieces.length..=last / pieces.length {
                let start = number.saturating_mul(pieces.length);
                let piece = ByteRange::new(start, start.saturating_add(pieces.length).min(pieces.size));
                let known = usize::try_from(number).ok().and_then(|number| pieces.digests.get(number));
                let (Some(known), false) = (known, piece.is_empty()) else { continue };
                let is_whole = self.written.within(piece).first() == Some(&piece);
                if !is_whole || !self.checked.within(ByteRange::new(number, number + 1)).is_empty() {
                    continue;
                }
                if digest::of_range(part, piece, known.algorithm())? == *known {
                    self.checked.insert(ByteRange::new(number, number + 1));
                } else {
                    // Removed at once, so that another chunk of the same piece does not report it again.
                    self.written.remove(piece);
                    wrong.push(piece);
                }
            }
        }
        if !wrong.is_empty() {
            self.restart_digest();
        }
        Ok(wrong)
    }

    /// Marks wrong bytes as missing; they will be written again.
    pub(crate) fn forget(&mut self, range: ByteRange) {
        self.written.remove(range);
        // The hash may include them.
        self.restart_digest();
    }

    /// Rewrites the journal so that it lists `right` only, and returns it. `None` if `right` is empty: then
    /// the journal lists no bytes. If it cannot be rewritten, it is removed.
    pub(crate) fn correct_journal(
        &self,
        journal: Option<&File>,
        identity: &ContentIdentity,
        right: &RangeSet,
    ) -> Result<Option<Journal>, SinkError> {
        let Backing::Part(part) = &self.backing else { return Ok(None) };
        let target = part.target();
        if !part.has_its_name() {
            remove_own(target, journal.or(self.earlier.as_ref()));
            return Err(SinkError::Displaced { path: part.path().to_owned() });
        }
        if right.is_empty() {
            claim(target)?;
            return Ok(None);
        }
        let path = journal_path(target);
        match Journal::create(&path, identity, right) {
            Ok(journal) => sync_folder(target).map(|()| Some(journal)),
            Err(source) => {
                // No journal is better than a wrong one; the first failure is reported.
                let _ = remove_journal(target);
                Err(SinkError::Io { action: "write", path, source })
            }
        }
    }

    /// The hash of the prefix written so far, if a digest is computed.
    pub(super) fn running_digest(&self) -> Option<RunningDigest> {
        self.digest.clone()
    }

    fn restart_digest(&mut self) {
        self.digest = self.digest.as_ref().map(|running| RunningDigest::new(running.algorithm()));
    }

    /// The digest of all written bytes; `None` for an output in order that has not computed it from the
    /// start.
    pub(crate) fn digest(&mut self, algorithm: Algorithm) -> Result<Option<Checksum>, SinkError> {
        let running = self.digest.take().filter(|running| running.algorithm() == algorithm);
        let mut running = match (running, &self.backing) {
            (Some(running), _) => running,
            // The digest became known late: the whole file is read back.
            (None, Backing::Part(_)) => RunningDigest::new(algorithm),
            (None, Backing::Sequential(_)) => return Ok(None),
        };
        if let Backing::Part(part) = &self.backing {
            running.catch_up(part, &self.written, u64::MAX)?;
        }
        // A repair needs a new hash.
        self.digest = Some(RunningDigest::new(algorithm));
        Ok(Some(running.finish()))
    }

    /// Gives the file its name and removes the journal.
    pub(crate) fn finish(
        &mut self,
        target: &Path,
        size: u64,
        modified: Option<SystemTime>,
        existing: Existing,
        durability: Durability,
        journal: Option<&File>,
    ) -> Result<(), SinkError> {
        let part = match &mut self.backing {
            Backing::Part(part) => part,
            Backing::Sequential(output) => return output.open(),
        };
        if part.size()? != size {
            part.set_size(size)?;
        }
        if let Some(modified) = modified {
            part.set_modified(modified);
        }
        let finished = part.finish(existing, durability);
        match finished {
            Ok(()) => {
                // A journal without part file is ignored, so a failure is harmless.
                let _ = std::fs::remove_file(journal_path(target));
            }
            Err(SinkError::Displaced { .. }) => remove_own(target, journal.or(self.earlier.as_ref())),
            // The complete part file belongs to the user now: no later run may overwrite it.
            Err(SinkError::Appeared { .. }) if journal.is_none() => remove_own(target, self.earlier.as_ref()),
            Err(_) => {}
        }
        finished
    }

    /// Removes the part file and the journal, which no later run could use.
    pub(crate) fn discard(&self, target: &Path, journal: Option<&File>) -> Result<(), SinkError> {
        let Backing::Part(part) = &self.backing else { return Ok(()) };
        if part.has_its_name() {
            let _ = std::fs::remove_file(journal_path(target));
        } else {
            remove_own(target, journal.or(self.earlier.as_ref()));
        }
        part.discard()
    }

    /// Written bytes that were not found wrong.
    pub(super) fn written(&self) -> &RangeSet {
        &self.written
    }

    /// A handle for a checkpoint; `None` for an output in order.
    pub(super) fn second_handle(&self) -> Option<Result<File, SinkError>> {
        match &self.backing {
            Backing::Part(part) => Some(part.second_handle()),
            Backing::Sequential(_) => None,
        }
    }
}
