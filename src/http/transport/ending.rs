//! The end of a connection: the page of a refusal, and a close that lets the last answer arrive.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use actix_http::StatusCode;
use bytes::{Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio::time::timeout;

use super::connection::{After, Connection};
use super::refusal::{Refusal, RefusalLog, is_head_request, request_line};
use super::response::OnEnd;
use super::sending::Sending;
use super::stall;
use super::stream::Stream;
use crate::http::pages::Pages;

/// If a socket is closed with unread input, the kernel resets the connection, and the client may lose bytes that it has not
/// received yet. Therefore input is read and dropped for this time,
const LINGER: Duration = Duration::from_secs(1);
/// and up to this number of bytes. Both limits start again while the client still receives bytes from the kernel.
const LINGER_BYTES: usize = 256 << 10;

/// The initial congestion window (RFC 6928): an answer up to this size leaves the kernel at once, so a later reset cannot discard
/// it. A part of a longer answer may still be in the kernel, and a reset would discard it.
const AT_ONCE: u64 = 14 << 10;

/// The number of bytes that are read of a request that is refused in any case.
const GLANCE: usize = 1024;

/// A request that is about to be refused, or the part of it that has arrived.
pub(super) struct Refused {
    is_head: bool,
    client: Option<IpAddr>,
    /// The log, and the request line for it.
    log: Option<(Arc<dyn RefusalLog>, Vec<u8>)>,
}

impl Refused {
    pub(super) fn of(connection: &Connection, head: &[u8]) -> Self {
        let client = connection.peer.map(|peer| peer.ip().to_canonical());
        let log = connection.worker.refusals.clone().map(|log| (log, request_line(head).to_vec()));
        Self { is_head: is_head_request(head), client, log }
    }
}

impl Connection {
    /// Answers a connection beyond a limit with the 503 page.
    pub(super) async fn turn_away(mut self) {
        let mut space = [0; GLANCE];
        let mut read = ReadBuf::new(&mut space);
        // The request decides whether the answer has a body (HEAD), and appears in the log.
        let first = std::future::poll_fn(|cx| self.stream.poll_read(cx, &mut read));
        if let Ok(Err(_)) = timeout(LINGER, first).await {
            return;
        }
        self.keep_unread(read.filled());
        let ending = self.refuse(StatusCode::SERVICE_UNAVAILABLE);
        // A client that does not read the page would use a place that the next client needs.
        let _ = timeout(LINGER, ending).await;
    }

    /// Answers a connection far beyond a limit without a wait for it. The 503 page fits into the empty buffer of a new socket. With
    /// TLS, the client would need a handshake first, so it gets no page.
    pub(super) fn turn_away_at_once(mut self, cx: &mut Context<'_>) {
        if !matches!(self.stream, Stream::New(_)) {
            return;
        }
        let mut space = [0; GLANCE];
        let mut read = ReadBuf::new(&mut space);
        // Unread input at the close would reset the connection.
        let _ = self.stream.poll_read(cx, &mut read);
        let (head, page) = encode(StatusCode::SERVICE_UNAVAILABLE, &self.worker.changeable().pages);
        let page = if is_head_request(read.filled()) { Bytes::new() } else { page };
        // The client may have closed already.
        let _ = self.stream.poll_write(cx, &head, &page);
    }

    /// Answers the unread input with the page of this status, and closes.
    pub(super) async fn refuse(&mut self, status: StatusCode) -> io::Result<After> {
        let refused = Refused::of(self, self.unread());
        self.refuse_as(status, refused).await
    }

    /// Answers a request with the page of this status, and closes.
    pub(super) async fn refuse_as(&mut self, status: StatusCode, refused: Refused) -> io::Result<After> {
        self.begin_answer();
        let connections = &self.worker.connections;
        match status {
            StatusCode::REQUEST_TIMEOUT => connections.late_heads.fetch_add(1, Ordering::Relaxed),
            StatusCode::SERVICE_UNAVAILABLE => 0,
            _ => connections.bad_heads.fetch_add(1, Ordering::Relaxed),
        };
        let Refused { is_head, client, log } = refused;
        let (mut head, mut page) = encode(status, &self.worker.changeable().pages);
        if is_head {
            page.clear();
        }
        let on_end = log.map(|(log, line)| {
            OnEnd(Box::new(move |end| {
                log.refused(&Refusal { client, request_line: &line, status, end });
            }))
        });
        let mut sending = Sending::new(self, head.len(), on_end);
        sending.write(&mut head, &mut page).await?;
        sending.end();
        self.linger().await;
        Ok(After::Closed)
    }

    /// Whether sent bytes could be lost if the socket were closed now. After a short answer without unread input, this needs no
    /// system call.
    pub(super) fn is_at_risk(&self, cx: &mut Context<'_>) -> bool {
        let is_suspect = self.tally.sent > AT_ONCE
            || !self.unread().is_empty()
            || (!self.is_ended && self.stream.poll_readable(cx).is_ready());
        is_suspect && self.stream.unacknowledged() != Some(0)
    }

    /// Shuts down the sending side, and waits until the client has closed, has received everything, or reads too slowly.
    pub(super) async fn linger(&mut self) {
        let mut patience = Patience::default();
        let mut left = LINGER_BYTES;
        if std::future::poll_fn(|cx| self.stream.poll_shutdown(cx)).await.is_err() {
            return;
        }
        while timeout(LINGER, std::future::poll_fn(|cx| self.poll_drop_input(cx, &mut left))).await.is_err() {
            if patience.is_over(self) {
                return;
            }
        }
    }

    /// Reads and drops input. Ready once the client has closed, or has sent too much and received everything.
    fn poll_drop_input(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let worker = std::rc::Rc::clone(&self.worker);
        let mut scratch = worker.scratch.borrow_mut();
        loop {
            let mut read = ReadBuf::new(&mut scratch);
            if ready!(self.stream.poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
                return Poll::Ready(());
            }
            *left = match left.checked_sub(read.filled().len()) {
                Some(left) => left,
                None if matches!(self.stream.unacknowledged(), None | Some(0)) => return Poll::Ready(()),
                None => LINGER_BYTES,
            };
        }
    }
}

/// Decides in steps of [`LINGER`] how long a client may still receive the remaining bytes.
#[derive(Debug, Default)]
struct Patience {
    /// The number of received bytes at the start of the current window.
    mark: Option<u64>,
    /// The time since the start of the window.
    waited: Duration,
}

impl Patience {
    /// Checks the progress of the client at the end of a step.
    fn is_over(&mut self, connection: &Connection) -> bool {
        let left = match connection.stream.unacknowledged() {
            None | Some(0) => return true,
            Some(left) => left,
        };
        let limits = connection.worker.changeable().limits;
        let taken = connection.tally.sent.saturating_sub(left);
        let Some(mark) = self.mark else {
            self.mark = Some(taken);
            return false;
        };
        self.waited += LINGER;
        if self.waited < limits.write_timeout {
            return false;
        }
        if taken.saturating_sub(mark) < stall::minimum(limits.minimum_rate, limits.write_timeout) {
            connection.worker.connections.stalled.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        *self = Self { mark: Some(taken), waited: Duration::ZERO };
        false
    }
}

/// The head of a refusal, and its page.
fn encode(status: StatusCode, pages: &Pages) -> (BytesMut, Bytes) {
    let page = pages.html(status);
    let head = format!(
        "HTTP/1.1 {} {}\r\n\
         Content-Length: {}\r\n\
         Connection: close\r\n\
         Content-Type: text/html; charset=utf-8\r\n\
         Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n\
         {}Date: {}\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        page.len(),
        if status == StatusCode::SERVICE_UNAVAILABLE { "Retry-After: 5\r\n" } else { "" },
        httpdate::fmt_http_date(SystemTime::now()),
    );
    (BytesMut::from(head.as_bytes()), page)
}
