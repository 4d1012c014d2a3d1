//! What the dispatcher of actix reads and writes in place of a socket.
//!
//! The dispatcher has no hook for the errors of its parser, for the time a later head takes, nor for readers
//! that stall. All of these can be seen here, because every poll of the dispatcher reads first and flushes
//! last, and a handler's call is announced by [`service`](super::service):
//!
//! - One head at a time goes to the parser; what a client pipelines waits here until its answer is out. So
//!   bytes written while no handler has the request can only be the parser's own error, and its status is
//!   all that is taken of it: the page goes out in its place.
//! - The body of a request is not read at all: every answer is the same without it, and the last of its connection.
//! - A flush while a head is unfinished means that the head did not come whole: only then is time set for it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use actix_http::StatusCode;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::{Clock, Purpose};
use super::ending::Ending;
use super::head::{HeadScan, Scan};
use super::link::{Completion, Link, Stage, Worker};
use super::refusal::RequestLine;
use super::shortcut::Offer;
use super::stall::Stall;
use super::stream::Stream;

/// Requests answered the short way before other connections get their turn.
const SHORT_ANSWERS_IN_TURN: usize = 16;

/// What the dispatcher says to a client that waits with its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

mod closing;
mod refusing;
mod sending;

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    peer: Option<SocketAddr>,
    /// An answer that came the short way and is not written yet.
    unsent: BytesMut,
    link: Rc<Link>,
    scan: HeadScan,
    /// Kept only for those who log refusals.
    line: RequestLine,
    /// Whether the parser has been given a head to its end.
    is_head_whole: bool,
    /// What was read beyond the end of the head.
    ahead: BytesMut,
    /// Whether the kernel said that there is more to read, while nobody wanted it.
    is_input_waiting: bool,
    clock: Clock,
    /// Whether the kernel took nothing when it was given bytes last.
    is_full: bool,
    /// What the reader took lately, once it was looked at while the socket was full.
    stall: Option<Stall>,
    /// Bytes that the server's rate allows to be sent now.
    allowed: usize,
    answers: u32,
    ending: Option<Ending>,
    /// The number under which the worker knows this connection's task.
    task: Option<usize>,
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: Option<SocketAddr>, worker: Rc<Worker>) -> Self {
        Self {
            stream,
            peer,
            unsent: BytesMut::new(),
            link: Rc::new(Link::new(worker)),
            scan: HeadScan::default(),
            line: RequestLine::default(),
            is_head_whole: false,
            ahead: BytesMut::new(),
            is_input_waiting: false,
            clock: Clock::default(),
            is_full: false,
            stall: None,
            allowed: 0,
            answers: 0,
            ending: None,
            task: None,
        }
    }

    pub(super) fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// Acts on the timer; an error ends the connection at once.
    fn check_clock(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // An ending looks at its time itself, and would not see what is taken here.
        if self.ending.is_some() {
            return Ok(());
        }
        let Some(purpose) = self.clock.expired() else { return Ok(()) };
        match (purpose, self.link.stage.get()) {
            (Purpose::Idle { answers }, Stage::Idle) if answers == self.answers => {
                self.link.stage.set(Stage::Ended);
            }
            (Purpose::Head, Stage::Head) => self.end_with(StatusCode::REQUEST_TIMEOUT),
            (Purpose::Write { ticks }, _) => return self.check_reader(ticks + 1, cx),
            (Purpose::Pace { bytes }, _) => self.allowed = bytes,
            _ => {}
        }
        Ok(())
    }

    /// Reads some of the next head, never beyond its end.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Head>> {
        let scan = if self.ahead.is_empty() {
            let before = buf.filled().len();
            match self.stream.poll_read(cx, buf) {
                Poll::Ready(Ok(())) => {}
                Poll::Pending if self.is_to_close() => {
                    self.link.stage.set(Stage::Ended);
                    return Poll::Ready(Ok(Head::ForParser));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            let read = buf.filled().get(before..).unwrap_or_default();
            if read.is_empty() {
                // Half a head and no more: malformed, where nothing at all is an ordinary end.
                if self.link.stage.get() == Stage::Head {
                    self.end_with(StatusCode::BAD_REQUEST);
                }
                return Poll::Ready(Ok(Head::ForParser));
            }
            let scan = scan_head(&mut self.scan, &mut self.line, &self.link.worker, read);
            if let Scan::Complete(end) = scan
                && offer(&self.link, self.peer, read.get(..end), &mut self.unsent) == Offer::Answered
            {
                self.ahead.extend_from_slice(read.get(end..).unwrap_or_default());
                buf.set_filled(before);
                return Poll::Ready(Ok(Head::Answered));
            }
            match scan {
                Scan::Complete(end) if end < read.len() => {
                    self.ahead.extend_from_slice(read.get(end..).unwrap_or_default());
                    buf.set_filled(before + end);
                }
                Scan::Refused(_) => buf.set_filled(before),
                Scan::Partial | Scan::Complete(_) => {}
            }
            scan
        } else {
            let length = self.ahead.len().min(buf.remaining());
            let next = self.ahead.get(..length).unwrap_or_default();
            let scan = scan_head(&mut self.scan, &mut self.line, &self.link.worker, next);
            if let Scan::Complete(end) = scan
                && offer(&self.link, self.peer, next.get(..end), &mut self.unsent) == Offer::Answered
            {
                self.ahead.advance(end);
                return Poll::Ready(Ok(Head::Answered));
            }
            let taken = match scan {
                Scan::Complete(end) => end,
                Scan::Partial => length,
                Scan::Refused(_) => 0,
            };
            buf.put_slice(next.get(..taken).unwrap_or_default());
            self.ahead.advance(taken);
            scan
        };
        match scan {
            Scan::Refused(status) => self.end_with(status),
            Scan::Complete(_) | Scan::Partial => {
                self.link.stage.set(Stage::Head);
                self.is_head_whole = matches!(scan, Scan::Complete(_));
            }
        }
        Poll::Ready(Ok(Head::ForParser))
    }

    /// Whether plain requests have a shorter way than through the HTTP layer.
    pub(super) fn has_short_way(&self) -> bool {
        self.link.worker.shortcut.is_some()
    }

    /// Answers requests the short way until something comes that is for the HTTP layer, which then finds all of it
    /// unread. Until then the connection needs none.
    pub(super) fn poll_short_way(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let link = Rc::clone(&self.link);
        let mut space = link.worker.space.borrow_mut();
        let mut buf = ReadBuf::new(&mut space);
        let Poll::Ready(read) = Pin::new(&mut *self).poll_read(cx, &mut buf) else {
            self.set_clock(cx);
            return Poll::Pending;
        };
        read?;
        if !buf.filled().is_empty() {
            let mut unread = BytesMut::from(buf.filled());
            unread.extend_from_slice(&self.ahead);
            self.ahead = unread;
            self.link.stage.set(Stage::Idle);
            self.is_head_whole = false;
            self.scan = HeadScan::default();
            self.line.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads heads, and answers those that can be answered the short way, until one is for the parser.
    fn poll_heads(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        for _ in 0..SHORT_ANSWERS_IN_TURN {
            // Answers go out in order, and what a client has not taken keeps it from asking for more.
            ready!(self.poll_unsent(cx))?;
            match ready!(self.poll_head(cx, buf))? {
                Head::ForParser => return Poll::Ready(Ok(())),
                Head::Answered => {
                    self.answers = self.answers.wrapping_add(1);
                    self.scan = HeadScan::default();
                    self.line.clear();
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sets the time for whatever the connection waits for, where it is not set yet.
    fn set_clock(&mut self, cx: &mut Context<'_>) {
        let limits = &self.link.worker.limits;
        let (purpose, time) = match (self.link.stage.get(), self.clock.purpose()) {
            (Stage::Idle, Some(Purpose::Idle { .. }))
            | (Stage::Head, Some(Purpose::Head))
            | (Stage::Answering | Stage::Ended, _) => return,
            // The reader has time of its own while it takes an answer.
            (Stage::Idle, Some(Purpose::Write { .. })) if !self.unsent.is_empty() => return,
            (Stage::Idle, _) if self.answers == 0 => (Purpose::Idle { answers: 0 }, limits.head_timeout),
            (Stage::Idle, _) => (Purpose::Idle { answers: self.answers }, limits.keep_alive),
            (Stage::Head, _) => (Purpose::Head, limits.head_timeout),
        };
        self.clock.set(purpose, time, cx);
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.task.is_none() {
            this.task = Some(this.link.worker.register(cx.waker()));
        }
        this.check_clock(cx)?;
        match this.link.stage.get() {
            Stage::Ended => Poll::Ready(Ok(())),
            Stage::Idle | Stage::Head if !this.is_head_whole => this.poll_heads(cx, buf),
            Stage::Idle | Stage::Head | Stage::Answering => {
                // The dispatcher returns here before the parser has seen the head, and again while an answer
                // is made and sent. The next request stays where it is, but the task must hear of it. So does a body:
                // what the parser has read of it, and what comes after it, could no longer be kept apart from the answer.
                if !this.is_input_waiting && this.stream.poll_readable(cx).is_ready() {
                    this.is_input_waiting = true;
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Nothing is read any more once the client has closed its side.
        this.check_clock(cx)?;
        if this.link.stage.get() == Stage::Head {
            this.end_with(refusing::parser_status(bytes));
        }
        if this.ending.is_some() {
            ready!(this.poll_ending(cx))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        // No body is read, so nobody is to wait with it, nor to send it.
        if bytes.starts_with(CONTINUE) && this.link.sent_of_answer() == 0 {
            return Poll::Ready(Ok(CONTINUE.len()));
        }
        this.link.see_answer(bytes);
        this.poll_write_answer(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_clock(cx)?;
        ready!(this.poll_outgoing(cx))?;
        match this.link.stage.get() {
            Stage::Answering if !this.link.is_body_open.get() => this.end_answer(cx),
            // The parser does not take the head for whole, so it reads on.
            Stage::Head if this.is_head_whole => {
                this.is_head_whole = false;
                cx.waker().wake_by_ref();
            }
            _ => {}
        }
        ready!(this.poll_ending(cx))?;
        this.set_clock(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.linger_if_needed(cx);
        ready!(this.poll_ending(cx))?;
        this.stream.poll_shutdown(cx)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.report_refusal();
        self.link.end_answer(Completion::Aborted);
        let worker = &self.link.worker;
        if let Some(task) = self.task {
            worker.forget(task);
        }
        worker.connections.sent.fetch_add(self.link.sent(), Ordering::Relaxed);
    }
}

/// What became of a head, as far as it was read.
enum Head {
    /// The parser gets what was read, or the end.
    ForParser,
    /// It was whole, and its answer waits to be written.
    Answered,
}

/// Looks at the next bytes of a head.
fn scan_head(scan: &mut HeadScan, line: &mut RequestLine, worker: &Worker, bytes: &[u8]) -> Scan {
    if worker.refusals.is_some() {
        line.feed(bytes);
    }
    scan.feed(bytes, worker.limits.head)
}

/// Offers a whole head to the program, unless more is to be said of its answer than the program knows.
fn offer(link: &Link, peer: Option<SocketAddr>, head: Option<&[u8]>, answer: &mut BytesMut) -> Offer {
    let worker = &link.worker;
    match (&worker.shortcut, head) {
        (Some(shortcut), Some(head))
            if link.stage.get() == Stage::Idle && !worker.is_draining.get() && worker.pace.is_none() =>
        {
            shortcut.answer(head, peer.map(|peer| peer.ip()), answer)
        }
        _ => Offer::Declined,
    }
}
