//! Bytes of a file on their way to the socket without passing through this program.

use std::fs::File;
use std::io;
use std::sync::Arc;

/// Bytes a connection sends before it lets the others of its thread have their turn.
const TURN: usize = 2 << 20;

/// A part of a file to be sent.
#[derive(Debug)]
pub struct SendFile {
    /// The file.
    pub file: Arc<File>,
    /// Where the part begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// How a [`SendFile`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendState {
    /// Bytes remain to be sent.
    Sending,
    /// All bytes have gone to the kernel.
    Sent,
    /// The file ended before the part did, or could not be read.
    Failed,
}

impl SendFile {
    /// How many bytes are sent in one turn.
    #[cfg(target_os = "linux")]
    pub(super) fn turn(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX).min(TURN)
    }

    /// Gives the kernel the next bytes, at most `limit`, and says how many it took, 0 where the file has no more.
    #[cfg(target_os = "linux")]
    pub(super) fn advance(&mut self, socket: impl std::os::fd::AsFd, limit: usize) -> io::Result<usize> {
        let count = self.turn().min(limit);
        let sent = rustix::fs::sendfile(socket, &*self.file, Some(&mut self.offset), count)?;
        self.length = self.length.saturating_sub(sent as u64);
        Ok(sent)
    }
}
