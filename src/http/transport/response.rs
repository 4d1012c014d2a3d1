//! Announcements of a service to the connection, in the extensions of its response.
//!
//! A service returns an ordinary response that any actix server can stream. If this transport serves it, a [`DirectBody`]
//! replaces the body, and an [`OnEnd`] is called at the end of the answer.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

/// Sent in place of the body of the response, which is dropped unread. The length of all segments becomes the
/// `Content-Length`. A response to HEAD has that length, and nothing is sent.
pub(crate) struct DirectBody {
    /// The segments, in the order in which they are sent.
    pub segments: VecDeque<Segment>,
    /// The way of the bytes of files to the socket.
    pub passage: Passage,
    /// Watches the files; `None` if they are in memory and cannot change.
    pub guard: Option<Rc<dyn FileGuard>>,
}

impl DirectBody {
    /// The number of bytes of all segments.
    pub(crate) fn length(&self) -> u64 {
        self.segments.iter().map(Segment::length).sum()
    }
}

impl fmt::Debug for DirectBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DirectBody").field("segments", &self.segments).finish_non_exhaustive()
    }
}

/// A part of a body.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A part of an open file.
    File { file: Arc<File>, offset: u64, length: u64 },
}

impl Segment {
    /// The number of bytes of the segment.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { length, .. } => *length,
        }
    }
}

/// The way of the bytes of a file to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Within the kernel, with sendfile, if the file system supports it; else as in [`Passage::Memory`].
    Kernel,
    /// Through a buffer.
    Memory,
}

/// Watches the files of one body while they are sent, on the thread of the connection.
pub(crate) trait FileGuard {
    /// Fails if the file is not in the state that the head announced.
    ///
    /// It is called before each attempt to send the last bytes of a segment. After an error the connection ends before the
    /// announced length, so that a client never accepts bytes of two versions as a whole file.
    fn check(&self) -> io::Result<()>;

    /// More bytes of the body were sent.
    fn sent(&self, bytes: u64);

    /// The next bytes of the file are not in memory; another thread reads them.
    fn read_cold(&self);
}

/// Called once, when the answer has ended or was cut.
pub(crate) struct OnEnd(pub Box<dyn FnOnce(AnswerEnd)>);

impl fmt::Debug for OnEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OnEnd")
    }
}

/// The end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AnswerEnd {
    /// The number of bytes of its body that the kernel accepted.
    pub body_sent: u64,
    /// Whether the whole answer was sent.
    pub completion: Completion,
}

/// Whether the whole answer was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    /// The kernel accepted all bytes.
    Whole,
    /// The connection ended earlier.
    Aborted,
}
