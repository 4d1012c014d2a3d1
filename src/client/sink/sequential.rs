//! Outputs without positions, which take bytes in order: descriptors such as standard output, devices, named
//! pipes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tokio::sync::Mutex;

use super::digest::RunningDigest;
use super::piece_verifier::PieceVerifier;
use super::{Batch, DigestMode, FileCompletion, SinkError, Store, descriptor};
use crate::client::checksum::{Algorithm, Checksum, Pieces};
use crate::client::identity::ContentIdentity;
use crate::client::range::{ByteRange, RangeSet};

/// A descriptor, or a device or pipe at a path.
#[derive(Debug)]
pub(super) struct SequentialStore {
    output: Mutex<SequentialOutput>,
}

#[derive(Debug)]
struct SequentialOutput {
    /// `None` for standard output.
    path: Option<PathBuf>,
    /// `None` until the first write: opening a pipe waits for its reader.
    file: Option<File>,
    hash: Option<RunningDigest>,
    /// Pieces to verify before they are written, if their digests are known.
    pieces: Option<Box<PieceVerifier>>,
}

impl SequentialStore {
    /// The inherited descriptor `number`; 1 is standard output.
    pub(super) fn descriptor(
        number: i32,
        hashing: DigestMode,
        pieces: Option<Pieces>,
    ) -> Result<Self, SinkError> {
        let path = (number != 1).then(|| PathBuf::from(format!("/dev/fd/{number}")));
        match descriptor::duplicate(number) {
            Ok(file) => Ok(Self::new(path, Some(file), hashing, pieces)),
            Err(source) => Err(match path {
                Some(path) => SinkError::Io { action: "write to", path, source },
                None => SinkError::StandardOutput(source),
            }),
        }
    }

    /// The device or pipe at `path`.
    pub(super) fn named(path: &Path, hashing: DigestMode, pieces: Option<Pieces>) -> Self {
        Self::new(Some(path.to_owned()), None, hashing, pieces)
    }

    fn new(path: Option<PathBuf>, file: Option<File>, hashing: DigestMode, pieces: Option<Pieces>) -> Self {
        let pieces = pieces.map(PieceVerifier::new).map(Box::new);
        Self { output: Mutex::new(SequentialOutput { path, file, hash: hashing.begin(), pieces }) }
    }
}

impl SequentialOutput {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        if let Some(Err(start)) = self.pieces.as_mut().map(|pieces| pieces.verify(bytes)) {
            let name =
                self.path.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
            return Err(SinkError::WrongPiece { name, start });
        }
        if let Some(hash) = &mut self.hash {
            hash.on_write(offset, bytes);
        }
        self.open()?;
        let Some(file) = &mut self.file else { return Err(SinkError::Abandoned) };
        file.write_all(bytes).map_err(|source| match &self.path {
            Some(path) => SinkError::Io { action: "write to", path: path.clone(), source },
            None => SinkError::StandardOutput(source),
        })
    }

    /// Opens the output if nothing was written yet, so that the reader of a pipe sees its end.
    fn open(&mut self) -> Result<(), SinkError> {
        let (None, Some(path)) = (&self.file, &self.path) else { return Ok(()) };
        let failed = |source| SinkError::Io { action: "open", path: path.clone(), source };
        let flags = OFlags::NOCTTY.bits().cast_signed();
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        // A regular file that replaced the device or pipe meanwhile must not be overwritten.
        if !kind.is_char_device() && !kind.is_fifo() {
            return Err(SinkError::NotAFile { path: path.clone(), what: "no longer a device or a pipe" });
        }
        self.file = Some(file);
        Ok(())
    }
}

/// Nothing can be read back, saved or removed.
impl Store for SequentialStore {
    fn begin(&mut self, _: u64, _: Option<u64>, _: DigestMode) -> Result<(), SinkError> {
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<Vec<ByteRange>, SinkError> {
        let mut output = self.output.blocking_lock();
        batch.parts.iter().try_for_each(|(offset, bytes)| output.write(*offset, bytes))?;
        Ok(Vec::new())
    }

    fn save(&self, _: &ContentIdentity, _: &RangeSet) -> Result<(), SinkError> {
        Ok(())
    }

    fn take_back(&self, _: &ContentIdentity, _: &RangeSet) -> Result<(), SinkError> {
        // No byte was written: see `TargetState::Sequential`.
        Ok(())
    }

    fn is_sequential(&self) -> bool {
        true
    }

    fn digest(&self, last: &Batch, size: u64, algorithm: Algorithm) -> Result<Option<Checksum>, SinkError> {
        // `None` if the digest became known after the first bytes.
        let Some(mut running) = self.output.blocking_lock().hash.clone() else { return Ok(None) };
        last.parts.iter().for_each(|(offset, bytes)| running.on_write(*offset, bytes));
        Ok(running.of_whole(size, algorithm))
    }

    fn finish(&self, _: &FileCompletion) -> Result<(), SinkError> {
        self.output.blocking_lock().open()
    }

    fn discard(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Lets a reader that waits at the pipe `path` see an empty file. Does nothing if `path` is not a pipe or has
/// no reader.
pub(crate) fn release_reader(path: &Path) {
    if path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
        // Fails if the pipe has no reader; then there is nothing to do.
        let _ = OpenOptions::new().write(true).custom_flags(flags).open(path);
    }
}
