//! Response bodies: bytes in memory, parts of files that the connection sends, and parts of files that actix streams.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use actix_http::body::{BodySize, BoxBody, MessageBody, SizedStream};
use actix_rt::task::spawn_blocking;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::file_state::FileState;
use super::load::{Flight, InFlight};
use super::metrics::FileServerCounters;
use super::multipart::Piece;
use super::range::FilePart;
use crate::http::transport::{Completion, FileGuard, Segment};

/// Size of one read of a stream, in bytes.
const CHUNK: u64 = 64 << 10;

/// The body of an answer to HEAD: no bytes, with the length of the body of the same GET.
#[derive(Debug)]
pub(super) struct HeadBody(pub(super) u64);

impl MessageBody for HeadBody {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.0)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        Poll::Ready(None)
    }
}

/// Guards the file of one answer: checks that the file is unchanged, and counts the bytes that are sent.
#[derive(Debug)]
pub(super) struct GuardedFile {
    pub(super) file: Arc<File>,
    pub(super) identity: FileState,
    pub(super) in_flight: Rc<RefCell<Option<InFlight>>>,
    pub(super) counters: Arc<FileServerCounters>,
}

impl FileGuard for GuardedFile {
    fn check(&self) -> io::Result<()> {
        if FileState::of(&self.file) == Ok(self.identity) {
            return Ok(());
        }
        Err(io::Error::other("the file changed while it was sent"))
    }

    fn sent(&self, bytes: u64) {
        if let Some(in_flight) = self.in_flight.borrow_mut().as_mut() {
            in_flight.sent(bytes);
        }
    }

    fn read_cold(&self) {
        self.counters.cold_reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// Converts pieces to segments for the connection. `file` holds their bytes from its start.
pub(super) fn segments(pieces: VecDeque<Piece>, file: &Arc<File>) -> VecDeque<Segment> {
    let segment = |piece| match piece {
        Piece::Text(text) => Segment::Bytes(text),
        Piece::File(part) => {
            Segment::File { file: Arc::clone(file), offset: part.start, length: part.length() }
        }
    };
    pieces.into_iter().map(segment).collect()
}

/// Converts pieces to a stream that reads the file in the blocking pool.
pub(super) fn stream(pieces: VecDeque<Piece>, file: Arc<File>) -> BoxBody {
    let length = pieces.iter().map(Piece::length).sum();
    let chunks = stream::try_unfold((pieces, file), |(mut pieces, file)| async move {
        let chunk = match pieces.pop_front() {
            None => return Ok(None),
            Some(Piece::Text(text)) => text,
            Some(Piece::File(part)) => {
                let end = part.end.min(part.start + CHUNK);
                if end < part.end {
                    pieces.push_front(Piece::File(FilePart { start: end, end: part.end }));
                }
                let (source, mut bytes) = (Arc::clone(&file), vec![0; (end - part.start) as usize]);
                let reading =
                    spawn_blocking(move || source.read_exact_at(&mut bytes, part.start).map(|()| bytes));
                reading.await.map_err(io::Error::other)??.into()
            }
        };
        Ok::<_, io::Error>(Some((chunk, (pieces, file))))
    });
    BoxBody::new(SizedStream::new(length, chunks))
}

/// A body that actix streams, with the request's entry in the load report.
pub(super) struct CountedBody {
    inner: BoxBody,
    left: u64,
    guard: Option<Rc<GuardedFile>>,
    flight: Flight,
    _memory: Option<OwnedSemaphorePermit>,
}

impl CountedBody {
    /// Calls `guard` before the last bytes leave the stream, and completes `flight` with them.
    pub(super) fn new(
        inner: BoxBody,
        guard: Option<Rc<GuardedFile>>,
        flight: Flight,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let left = match inner.size() {
            BodySize::Sized(length) => length,
            BodySize::None | BodySize::Stream => 0,
        };
        let mut counted = Self { inner, left, guard, flight, _memory: memory };
        if left == 0 {
            counted.end();
        }
        counted
    }

    fn end(&mut self) {
        std::mem::replace(&mut self.flight, Flight::None).end(Completion::Whole);
    }
}

impl MessageBody for CountedBody {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.inner.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        let Some(chunk) = ready!(this.inner.as_pin_mut().poll_next(cx)) else {
            // The answer to HEAD has a length and no bytes.
            this.end();
            return Poll::Ready(None);
        };
        let chunk = chunk.inspect_err(|error| {
            tracing::warn!(%error, "a file could not be read while it was sent");
        })?;
        this.left = this.left.saturating_sub(chunk.len() as u64);
        if let Some(guard) = &this.guard {
            if this.left == 0 {
                guard.check()?;
            }
            guard.sent(chunk.len() as u64);
        }
        if this.left == 0 {
            this.end();
        }
        Poll::Ready(Some(Ok(chunk)))
    }
}

#[cfg(test)]
mod tests;
