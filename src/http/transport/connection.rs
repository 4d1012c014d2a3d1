//! One connection: a loop over its requests.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use actix_http::body::{BoxBody, MessageBody};
use actix_http::{Request, Response, StatusCode};
use actix_service::Service;
use bytes::{Buf as _, BytesMut};
use tokio::io::ReadBuf;

use super::admission::Place;
use super::deadlines::Slot;
use super::fast_path::{FastAnswer, Offer, Peer};
use super::head::{HeadScan, Scan, is_malformed};
use super::response::{AnswerEnd, Completion};
use super::sending::Sending;
use super::stream::Stream;
use super::worker::Worker;

/// The number of requests of one connection that the fast path answers before other connections are scheduled.
const ANSWERS_IN_TURN: usize = 16;

/// An accepted connection. It owns no buffer while it waits for a request.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) worker: Rc<Worker>,
    pub(super) peer: Option<SocketAddr>,
    /// Received bytes that are not part of a request yet, if any.
    unread: Option<Box<Unread>>,
    answers: u32,
    wait: Wait,
    /// Whether the client has closed its side.
    pub(super) is_ended: bool,
    pub(super) tally: Tally,
}

/// The first part of a head, or requests that were sent ahead.
#[derive(Debug, Default)]
struct Unread {
    bytes: BytesMut,
    /// Bytes that `scan` has seen.
    scanned: usize,
    scan: HeadScan,
}

/// Counters and permits that are updated when the connection ends.
#[derive(Debug)]
pub(super) struct Tally {
    /// Bytes sent so far, heads included.
    pub(super) sent: u64,
    /// The entry among the deadlines of the worker.
    slot: Option<Slot>,
    worker: Rc<Worker>,
    _place: Place,
}

/// The event that a connection has a deadline for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// No event.
    No,
    /// The first byte of a request.
    Request,
    /// The rest of a head.
    Head,
}

/// The next step of a connection.
#[derive(Debug)]
pub(super) enum Next {
    /// Has the service answer the request with this head.
    Request(Box<[u8]>),
    /// Sends the rest of an answer of the fast path, of which the kernel took `written` bytes at once.
    Rest { answer: Box<FastAnswer>, written: usize },
    /// Answers with the page of this status and closes.
    Refuse(StatusCode),
    /// Closes without an answer.
    Close,
}

/// The state of a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It waits for the next request.
    Open,
    /// It closes. The client may still send if it `lingers`.
    Close { lingers: bool },
    /// It is closed.
    Closed,
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: Option<SocketAddr>, worker: Rc<Worker>, place: Place) -> Self {
        Self {
            stream,
            worker: Rc::clone(&worker),
            peer,
            unread: None,
            answers: 0,
            wait: Wait::No,
            is_ended: false,
            tally: Tally { sent: 0, slot: None, worker, _place: place },
        }
    }

    /// Registers the socket with the event loop of this thread.
    pub(super) fn register(self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.register()?, ..self })
    }

    /// Serves requests until the connection ends. `next` is the first step, if it is known already.
    pub(super) async fn serve<S, B>(&mut self, mut next: Option<Next>, service: &S)
    where
        S: Service<Request>,
        S::Error: Into<Response<BoxBody>>,
        S::Response: Into<Response<B>>,
        B: MessageBody + 'static,
    {
        loop {
            let step = match next.take() {
                Some(next) => Ok(next),
                None => std::future::poll_fn(|cx| self.poll_next(cx)).await,
            };
            // The futures below are large and short-lived; a connection without a request has none of them.
            let after = match step {
                Ok(Next::Request(head)) => Box::pin(self.answer_request(head, service)).await,
                Ok(Next::Rest { answer, written }) => Box::pin(self.send_rest(answer, written)).await,
                Ok(Next::Refuse(status)) => Box::pin(self.refuse(status)).await,
                Ok(Next::Close) => Ok(After::Close { lingers: false }),
                Err(error) => Err(error),
            };
            match after {
                Ok(After::Open) => {}
                Ok(After::Close { lingers }) => {
                    let is_tls = self.stream.is_tls();
                    if lingers || std::future::poll_fn(|cx| Poll::Ready(self.is_at_risk(cx))).await {
                        let lingering = self.worker.connections.linger();
                        Box::pin(self.linger()).await;
                        drop(lingering);
                    } else if is_tls {
                        // The alert lets the client distinguish this end from one that an attacker caused.
                        let _ = std::future::poll_fn(|cx| self.stream.poll_shutdown(cx)).await;
                    }
                    return;
                }
                Ok(After::Closed) => return,
                Err(error) => {
                    tracing::debug!(%error, "connection ended early");
                    return;
                }
            }
        }
    }

    /// Received bytes that are not part of a request yet.
    pub(super) fn unread(&self) -> &[u8] {
        self.unread.as_ref().map_or(&[], |unread| &unread.bytes)
    }

    /// Reads heads and answers plain requests with the fast path, until another step is necessary.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        let mut unread = self.unread.take().map_or_else(Unread::default, |unread| *unread);
        let next = self.poll_heads(cx, &mut unread);
        if !unread.bytes.is_empty() {
            self.unread = Some(Box::new(unread));
        }
        next
    }

    fn poll_heads(&mut self, cx: &mut Context<'_>, unread: &mut Unread) -> Poll<io::Result<Next>> {
        let worker = Rc::clone(&self.worker);
        let address = self.peer.map(|peer| peer.ip());
        let mut scratch = worker.scratch.borrow_mut();
        for _ in 0..ANSWERS_IN_TURN {
            let mut read = ReadBuf::new(&mut scratch);
            if unread.scanned == unread.bytes.len() {
                let is_partial = unread.scanned > 0;
                let Poll::Ready(result) = self.stream.poll_read(cx, &mut read) else {
                    return self.poll_wait(cx, is_partial);
                };
                result?;
                if read.filled().is_empty() {
                    self.is_ended = true;
                    // An end within a head makes the request malformed; an end between two requests is normal.
                    let next = if is_partial { Next::Refuse(StatusCode::BAD_REQUEST) } else { Next::Close };
                    return Poll::Ready(Ok(next));
                }
                if self.stream.is_plain_at_tls_port() {
                    unread.bytes.extend_from_slice(read.filled());
                    return Poll::Ready(Ok(Next::Refuse(StatusCode::BAD_REQUEST)));
                }
                if is_partial {
                    unread.bytes.extend_from_slice(read.filled());
                }
            }
            // Nearly every head arrives in one piece, and is not copied then.
            let bytes = if unread.bytes.is_empty() { read.filled() } else { &unread.bytes };
            let unseen = bytes.get(unread.scanned..).unwrap_or_default();
            let end = match unread.scan.feed(unseen, worker.changeable().limits.head) {
                Scan::Complete(end) => unread.scanned + end,
                other => {
                    if unread.bytes.is_empty() {
                        unread.bytes.extend_from_slice(read.filled());
                    }
                    unread.scanned = unread.bytes.len();
                    match other {
                        Scan::Refused(status) => return Poll::Ready(Ok(Next::Refuse(status))),
                        _ if is_malformed(&unread.bytes) => {
                            return Poll::Ready(Ok(Next::Refuse(StatusCode::BAD_REQUEST)));
                        }
                        _ => continue,
                    }
                }
            };
            let head = bytes.get(..end).unwrap_or(bytes);
            let mut answer = worker.fast_answer.borrow_mut();
            let peer = Peer { address, is_tls: self.stream.is_tls() };
            let declined = match offer(&worker, head, peer, &mut answer) {
                Offer::Declined => Some(Box::from(head)),
                Offer::Answered => None,
            };
            if unread.bytes.is_empty() {
                unread.bytes.extend_from_slice(read.filled().get(end..).unwrap_or_default());
            } else {
                unread.bytes.advance(end);
            }
            unread.scanned = 0;
            unread.scan = HeadScan::default();
            self.wait = Wait::No;
            if let Some(head) = declined {
                return Poll::Ready(Ok(Next::Request(head)));
            }
            if let Some(next) = self.send_at_once(cx, &mut answer) {
                return Poll::Ready(Ok(next));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Keeps bytes that will not become a request.
    pub(super) fn keep_unread(&mut self, bytes: &[u8]) {
        self.unread = Some(Box::new(Unread { bytes: bytes.into(), ..Unread::default() }));
    }

    /// Sends the part of an answer of the fast path that the kernel accepts at once. Returns the next step, `None` if it is the
    /// next request.
    fn send_at_once(&mut self, cx: &mut Context<'_>, answer: &mut FastAnswer) -> Option<Next> {
        if answer.direct.is_some() {
            return Some(Next::Rest { answer: Box::new(std::mem::take(answer)), written: 0 });
        }
        let body = answer.body.as_deref().unwrap_or_default();
        let length = answer.bytes.len() + body.len();
        match self.stream.poll_write(cx, &answer.bytes, body) {
            Poll::Ready(Ok(written)) if written == length && self.stream.poll_flush(cx).is_ready() => {
                self.tally.sent += length as u64;
                self.answers = self.answers.wrapping_add(1);
                if let Some(on_end) = answer.on_end.take() {
                    let body_sent = length.saturating_sub(answer.head_length()) as u64;
                    (on_end.0)(AnswerEnd { body_sent, completion: Completion::Whole });
                }
                answer.closes.then_some(Next::Close)
            }
            // An error occurs again when the rest is sent.
            other => {
                let written = if let Poll::Ready(Ok(written)) = other { written } else { 0 };
                Some(Next::Rest { answer: Box::new(std::mem::take(answer)), written })
            }
        }
    }

    /// Sends the rest of an answer of the fast path.
    async fn send_rest(&mut self, answer: Box<FastAnswer>, written: usize) -> io::Result<After> {
        self.begin_answer();
        let head_length = answer.head_length();
        let FastAnswer { mut bytes, body, direct, on_end, closes } = *answer;
        let mut body = body.unwrap_or_default();
        let mut sending = Sending::new(self, head_length, on_end);
        if let Some(direct) = direct {
            sending.direct(bytes, direct).await?;
        } else {
            sending.took(written, &mut bytes, &mut body);
            sending.write(&mut bytes, &mut body).await?;
        }
        sending.end();
        Ok(if closes { After::Close { lingers: false } } else { After::Open })
    }

    /// Records that the connection no longer waits for a request.
    pub(super) fn begin_answer(&mut self) {
        self.answers = self.answers.wrapping_add(1);
        self.wait = Wait::No;
        if let Some(slot) = self.tally.slot {
            self.worker.deadlines.borrow_mut().clear(slot);
        }
    }

    /// Waits for the next bytes, unless their deadline has passed or the server is stopping.
    fn poll_wait(&mut self, cx: &mut Context<'_>, is_partial: bool) -> Poll<io::Result<Next>> {
        if self.stream.is_new() {
            return Poll::Pending;
        }
        let mut deadlines = self.worker.deadlines.borrow_mut();
        let slot = *self.tally.slot.get_or_insert_with(|| deadlines.enter(cx.waker().clone()));
        let limits = self.worker.changeable().limits;
        let (wait, limit) = match self.answers {
            _ if is_partial => (Wait::Head, limits.head_timeout),
            0 => (Wait::Request, limits.head_timeout),
            _ => (Wait::Request, limits.keep_alive),
        };
        if self.wait != wait {
            self.wait = wait;
            deadlines.set(slot, limit);
        } else if deadlines.is_over(slot) {
            let is_late = wait == Wait::Head;
            let next = if is_late { Next::Refuse(StatusCode::REQUEST_TIMEOUT) } else { Next::Close };
            return Poll::Ready(Ok(next));
        }
        // A connection without a request so far may be a probe, which must learn of the drain.
        let is_unwanted =
            self.worker.is_stopping.get() || (self.worker.closes_idle.get() && self.answers > 0);
        if wait == Wait::Request && is_unwanted { Poll::Ready(Ok(Next::Close)) } else { Poll::Pending }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.worker.deadlines.borrow_mut().leave(slot);
        }
        self.worker.connections.sent.fetch_add(self.sent, Ordering::Relaxed);
    }
}

/// Offers a complete head to the fast path, unless the server drains or has a rate limit: the fast path supports neither.
fn offer(worker: &Worker, head: &[u8], peer: Peer, answer: &mut FastAnswer) -> Offer {
    match &worker.fast_path {
        Some(fast_path) if !worker.is_draining.get() && worker.changeable().pace.is_none() => {
            answer.clear();
            fast_path.answer(head, peer, answer)
        }
        _ => Offer::Declined,
    }
}
