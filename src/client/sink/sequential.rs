//! Outputs without positions, which take bytes in order: descriptors such as standard output, devices, named
//! pipes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::piece_verifier::PieceVerifier;
use super::{Pieces, SinkError, descriptor};

/// A descriptor, or a device or pipe at a path.
#[derive(Debug)]
pub(super) struct SequentialSink {
    /// `None` for standard output.
    path: Option<PathBuf>,
    /// `None` until the first write: opening a pipe waits for its reader.
    file: Option<File>,
    /// Pieces to verify, if their digests are known.
    pieces: Option<Box<PieceVerifier>>,
}

impl SequentialSink {
    /// The inherited descriptor `number`; 1 is standard output.
    pub(super) fn descriptor(number: i32) -> Result<Self, SinkError> {
        let path = (number != 1).then(|| PathBuf::from(format!("/dev/fd/{number}")));
        match descriptor::duplicate(number) {
            Ok(file) => Ok(Self { path, file: Some(file), pieces: None }),
            Err(source) => Err(match path {
                Some(path) => SinkError::Io { action: "write to", path, source },
                None => SinkError::StandardOutput(source),
            }),
        }
    }

    pub(super) fn named(path: &Path) -> Self {
        Self { path: Some(path.to_owned()), file: None, pieces: None }
    }

    /// Adds pieces to verify before they are written.
    pub(super) fn in_pieces(self, pieces: Option<Pieces>) -> Self {
        Self { pieces: pieces.map(PieceVerifier::new).map(Box::new), ..self }
    }

    /// Writes the next bytes. Fails without writing them if they complete a wrong piece.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        if let Some(Err(start)) = self.pieces.as_mut().map(|pieces| pieces.verify(bytes)) {
            let name =
                self.path.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
            return Err(SinkError::WrongPiece { name, start });
        }
        self.open()?;
        let Some(file) = &mut self.file else { return Err(SinkError::Abandoned) };
        file.write_all(bytes).map_err(|source| match &self.path {
            Some(path) => SinkError::Io { action: "write to", path: path.clone(), source },
            None => SinkError::StandardOutput(source),
        })
    }

    /// Opens the output if nothing was written yet, so that the reader of a pipe sees its end.
    pub(super) fn open(&mut self) -> Result<(), SinkError> {
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

/// Lets a reader that waits at the pipe `path` see an empty file. Does nothing if `path` is not a pipe or has
/// no reader.
pub(crate) fn release_reader(path: &Path) {
    if path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
        // Fails if the pipe has no reader; then there is nothing to do.
        let _ = OpenOptions::new().write(true).custom_flags(flags).open(path);
    }
}
