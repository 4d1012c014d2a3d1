//! What a body hands to the connection to be sent without passing through the HTTP layer's buffer.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};

use super::stream::Stream;

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
    /// Whether the body wants to look at the file before every try to send the part, and hands it over anew after a
    /// [`SendState::Partly`].
    pub is_guarded: bool,
}

/// How what was handed over last stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendState {
    /// Bytes remain to be sent.
    Sending,
    /// All bytes have gone to the kernel.
    Sent,
    /// A guarded part could not be sent at once and now could be; whoever handed it over goes on with the rest.
    Partly {
        /// The last bytes of the part, which were not sent.
        left: u64,
    },
    /// The file ended before the part did, or could not be read.
    Failed,
    /// The system, or the file system, cannot send this file by itself; so many bytes of the part remain.
    Unsupported {
        /// The last bytes of the part, which were not sent.
        left: u64,
    },
}

/// Bytes on their way to the socket.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// Straight from a file, with sendfile.
    File {
        /// What remains of it.
        part: SendFile,
        /// Whether it was tried to send it.
        is_tried: bool,
    },
    /// Straight from memory.
    Memory(Bytes),
}

impl Outgoing {
    /// Bytes that remain.
    pub(super) fn left(&self) -> u64 {
        match self {
            Self::File { part, .. } => part.length,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Notes that it was tried to send it.
    pub(super) fn tried(&mut self) {
        if let Self::File { is_tried, .. } = self {
            *is_tried = true;
        }
    }

    /// Whether the body is to be asked before the next try.
    pub(super) fn is_to_be_asked(&self) -> bool {
        matches!(self, Self::File { part: SendFile { is_guarded: true, .. }, is_tried: true })
    }

    /// How many bytes are sent in one turn.
    pub(super) fn turn(&self) -> usize {
        usize::try_from(self.left()).unwrap_or(usize::MAX).min(TURN)
    }

    /// Gives the kernel the next bytes, at most `limit`, and says how many it took; 0 where a file has no more.
    pub(super) fn poll_send(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::File { part, .. } => stream.poll_send_file(cx, part, limit),
            Self::Memory(bytes) => {
                let sent = stream.poll_write(cx, bytes.get(..limit).unwrap_or(bytes));
                if let Poll::Ready(Ok(sent)) = sent {
                    bytes.advance(sent);
                }
                sent
            }
        }
    }
}

impl SendFile {
    /// Gives the kernel the next bytes of the file.
    #[cfg(target_os = "linux")]
    pub(super) fn advance(&mut self, socket: impl std::os::fd::AsFd, limit: usize) -> io::Result<usize> {
        let count = usize::try_from(self.length).unwrap_or(usize::MAX).min(limit);
        let sent = rustix::fs::sendfile(socket, &*self.file, Some(&mut self.offset), count)?;
        self.length = self.length.saturating_sub(sent as u64);
        Ok(sent)
    }

    /// Elsewhere sendfile has other forms, or none; whoever handed the part over reads the file.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn advance(&mut self, _: impl std::os::fd::AsFd, _: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
