//! The bodies of answers: bytes in memory, or parts of an open file that go out with sendfile.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;

use super::load::InFlight;
use super::multipart::Piece;
use super::range::Part;
use super::root::Identity;
use crate::http::transport::{Link, SendFile, SendState};

/// The file is looked at once more before this many last bytes of a part are sent.
const TAIL: u64 = 16 << 10;

/// Bytes after which it is counted how many have been sent.
const STRIDE: u64 = 1 << 20;

/// The body of an answer of the file server.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes in memory.
    Memory(Bytes),
    /// Parts of an open file, and text around them. Its length stands in the header already.
    File(Box<FileBody>),
    /// The answer to HEAD where GET would get a [`Body::File`]: nothing, under a length that the header has.
    Announced,
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl MessageBody for Body {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        match self {
            Self::Empty => BodySize::Sized(0),
            Self::Memory(bytes) => BodySize::Sized(bytes.len() as u64),
            Self::File(_) | Self::Announced => BodySize::Stream,
        }
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        match self.get_mut() {
            Self::Empty | Self::Announced => Poll::Ready(None),
            Self::Memory(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Memory(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::File(body) => body.poll_next(cx),
        }
    }
}

/// Pieces of one file in one state. Once the file is in another state the body fails, so that an answer never
/// ends well with bytes of both.
#[derive(Debug)]
pub struct FileBody {
    file: Arc<File>,
    identity: Identity,
    pieces: VecDeque<Piece>,
    link: Rc<Link>,
    in_flight: Rc<RefCell<Option<InFlight>>>,
    /// Bytes of the part that is being sent.
    sending: Option<u64>,
}

impl FileBody {
    /// These pieces of a file that was in this state when it was opened, to be sent on `link` and counted by
    /// `in_flight`.
    #[must_use]
    pub fn new(
        file: Arc<File>,
        identity: Identity,
        pieces: VecDeque<Piece>,
        link: Rc<Link>,
        in_flight: Rc<RefCell<Option<InFlight>>>,
    ) -> Self {
        Self { file, identity, pieces, link, in_flight, sending: None }
    }

    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        if let Some(length) = self.sending {
            match self.link.file_state() {
                // The connection asks again once it is done.
                SendState::Sending => return Poll::Pending,
                SendState::Sent => self.count(length),
                SendState::Failed => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            }
            self.sending = None;
        }
        let part = match self.pieces.pop_front() {
            None => return Poll::Ready(None),
            Some(Piece::Text(text)) => {
                self.count(text.len() as u64);
                return Poll::Ready(Some(Ok(text)));
            }
            Some(Piece::File(part)) => part,
        };
        let part = if part.length() > TAIL {
            let end = (part.start + STRIDE).min(part.end - TAIL);
            self.pieces.push_front(Piece::File(Part { start: end, end: part.end }));
            Part { start: part.start, end }
        } else {
            if Identity::of(&self.file) != Ok(self.identity) {
                return Poll::Ready(Some(Err(io::Error::other("the file changed while it was sent"))));
            }
            part
        };
        self.link.send_file(SendFile {
            file: Arc::clone(&self.file),
            offset: part.start,
            length: part.length(),
        });
        self.sending = Some(part.length());
        Poll::Pending
    }

    fn count(&self, sent: u64) {
        if let Some(in_flight) = self.in_flight.borrow_mut().as_mut() {
            in_flight.sent(sent);
        }
    }
}
