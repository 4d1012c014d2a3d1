//! The bodies of answers: bytes in memory, or parts of an open file.
//!
//! Parts of files go out with sendfile. That has the kernel read what is not in memory while the thread waits, and all its
//! connections with it; so such parts are read by another thread first. Where there is no sendfile, every part is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use actix_http::body::{BodySize, MessageBody};
use actix_rt::task::{JoinHandle, spawn_blocking};
use bytes::Bytes;

use super::load::InFlight;
use super::metrics::WorkerCounters;
use super::multipart::Piece;
use super::range::Part;
use super::source::Source;
use crate::http::transport::{Link, SendFile, SendState};

/// The last bytes of a part, which are sent by themselves, in a call that takes no time in which a file could change.
const TAIL: u64 = 16 << 10;

/// Bytes after which it is counted how many have been sent, and looked whether the next ones are in memory.
const STRIDE: u64 = 1 << 20;

/// Bytes that a connection holds in memory where they cannot stay in the kernel.
const CHUNK: u64 = 64 << 10;

/// The body of an answer of the file server.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes in memory.
    Memory(Bytes),
    /// Bytes in memory that are not worth a copy. Their length stands in the header already.
    Direct(Bytes, Rc<Link>),
    /// A part of a file that nobody can change. Its length stands in the header already.
    Snapshot(Option<SendFile>, Rc<Link>),
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
            Self::Direct(..) | Self::Snapshot(..) | Self::File(_) | Self::Announced => BodySize::Stream,
        }
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        match self.get_mut() {
            Self::Empty | Self::Announced => Poll::Ready(None),
            Self::Memory(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Memory(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Direct(bytes, link) => {
                // The connection ends the answer only once it has sent them.
                link.send_bytes(std::mem::take(bytes));
                Poll::Ready(None)
            }
            Self::Snapshot(part, link) => {
                if let Some(part) = part.take() {
                    link.send_file(part);
                }
                Poll::Ready(None)
            }
            Self::File(body) => body.poll_next(cx),
        }
    }
}

/// How the bytes of a file get to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Within the kernel, with sendfile, where the file system can; else as in [`Passage::Memory`].
    Kernel,
    /// Through memory of this program, 64 KiB of it for each connection.
    Memory,
}

/// Pieces of one file in one state. Once the file is in another state the body fails, so that an answer never
/// ends well with bytes of both.
#[derive(Debug)]
pub struct FileBody {
    source: Source,
    passage: Passage,
    pieces: VecDeque<Piece>,
    step: Step,
    link: Rc<Link>,
    in_flight: Rc<RefCell<Option<InFlight>>>,
    counters: Arc<WorkerCounters>,
}

/// What a body waits for.
#[derive(Debug)]
enum Step {
    /// Nothing: the next piece can be begun.
    Next,
    /// A thread that may wait reads this part; it gives the bytes if they are to go through memory.
    Fetching(Part, Then, JoinHandle<io::Result<Option<Bytes>>>),
    /// The connection sends this part.
    Sending(Part),
}

impl FileBody {
    /// These pieces of a file, to be sent on `link` and counted by `in_flight`.
    #[must_use]
    pub fn new(
        source: Source,
        passage: Passage,
        pieces: VecDeque<Piece>,
        link: Rc<Link>,
        in_flight: Rc<RefCell<Option<InFlight>>>,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        Self { source, passage, pieces, step: Step::Next, link, in_flight, counters }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        loop {
            match &mut self.step {
                Step::Fetching(part, then, fetching) => {
                    let (part, then) = (*part, *then);
                    let fetched = match ready!(Pin::new(fetching).poll(cx)) {
                        Ok(fetched) => fetched,
                        Err(panicked) => Err(io::Error::other(panicked)),
                    };
                    match fetched {
                        Ok(Some(bytes)) => self.link.send_bytes(bytes),
                        Ok(None) => self.send_file(part, then),
                        Err(error) => {
                            tracing::warn!(%error, "a file could not be read while it was sent");
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                    self.step = Step::Sending(part);
                }
                Step::Sending(part) => {
                    let part = *part;
                    match self.link.send_state() {
                        // The connection asks again once it is done.
                        SendState::Sending => return Poll::Pending,
                        SendState::Sent => self.count(part.length()),
                        SendState::Failed => {
                            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                        }
                        SendState::Partly { left } => self.put_back(part, left),
                        SendState::Unsupported { left } => {
                            self.passage = Passage::Memory;
                            self.put_back(part, left);
                        }
                    }
                    self.step = Step::Next;
                }
                Step::Next => match self.pieces.pop_front() {
                    None => return Poll::Ready(None),
                    Some(Piece::Text(text)) => {
                        self.count(text.len() as u64);
                        return Poll::Ready(Some(Ok(text)));
                    }
                    Some(Piece::File(part)) => self.step = self.begin(part)?,
                },
            }
        }
    }

    /// Begins to send the first bytes of a part, and leaves the others for the next time.
    fn begin(&mut self, part: Part) -> io::Result<Step> {
        let stride = first(part, STRIDE);
        let is_cached = self.passage == Passage::Kernel && self.source.is_cached(stride);
        let begun = if self.passage == Passage::Memory { first(part, CHUNK) } else { stride };
        if begun.end < part.end {
            self.pieces.push_front(Piece::File(Part { start: begun.end, end: part.end }));
        }
        // Whoever gets the last bytes has got the whole file; so it is looked at before every try to send them.
        let then = if begun.end < part.end { Then::Nothing } else { Then::Look };
        if is_cached {
            if then == Then::Look {
                self.source.look()?;
            }
            self.send_file(begun, then);
            return Ok(Step::Sending(begun));
        }
        let (source, passage) = (self.source.clone(), self.passage);
        if passage == Passage::Kernel {
            self.counters.cold_reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Step::Fetching(
            begun,
            then,
            spawn_blocking(move || {
                let bytes = match passage {
                    Passage::Kernel => source.fault_in(begun).map(|()| None),
                    Passage::Memory => source.read(begun).map(Some),
                }?;
                if then == Then::Look {
                    source.look()?;
                }
                Ok(bytes)
            }),
        ))
    }

    /// The last bytes of a part were not sent; they are begun anew.
    fn put_back(&mut self, part: Part, left: u64) {
        self.count(part.length().saturating_sub(left));
        let rest = Part { start: part.end.saturating_sub(left), end: part.end };
        self.pieces.push_front(Piece::File(rest));
    }

    fn send_file(&self, part: Part, then: Then) {
        let (file, offset, length) = (Arc::clone(&self.source.file), part.start, part.length());
        self.link.send_file(SendFile { file, offset, length, is_guarded: then == Then::Look });
    }

    fn count(&self, sent: u64) {
        if let Some(in_flight) = self.in_flight.borrow_mut().as_mut() {
            in_flight.sent(sent);
        }
    }
}

/// Whether the file is looked at before bytes of it are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Look,
    Nothing,
}

/// At most the first `size` bytes of a part, and never its last ones together with others.
fn first(part: Part, size: u64) -> Part {
    if part.length() <= TAIL {
        return part;
    }
    Part { start: part.start, end: (part.start + size).min(part.end - TAIL) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_goes_out_in_strides_and_its_last_bytes_by_themselves() {
        for length in [1, TAIL, TAIL + 1, CHUNK, STRIDE, STRIDE + TAIL, 3 * STRIDE + 7] {
            let mut rest = Part { start: 5, end: 5 + length };
            let mut begun = first(rest, STRIDE);
            while begun.end < rest.end {
                assert!(begun.length() > 0 && begun.length() <= STRIDE && begun.start == rest.start);
                rest.start = begun.end;
                begun = first(rest, STRIDE);
            }
            assert!(begun == rest && begun.length() <= TAIL, "{length}");
        }
    }
}
