//! The end of a connection: a page where it is refused, then a close that lets the last answer arrive.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use actix_http::StatusCode;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

use super::admission::{Connections, Lingering};
use super::clock::{Clock, Purpose};
use super::link::Link;
use super::stall;
use super::stream::Stream;
use crate::http::pages::Pages;

/// A close with unread input makes the kernel reset the connection, and what the client has not taken yet is lost. So
/// input is read and dropped for this long,
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// and this much of it. Where the kernel then still holds something for a client that goes on taking, both begin anew.
const LINGER_BYTES: usize = 256 << 10;

/// Whether the request was a HEAD, whose answer has no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Page,
    None,
}

/// A connection on its way out.
#[derive(Debug)]
pub(super) struct Ending {
    unsent: Bytes,
    closing: Closing,
    page: Option<Page>,
    patience: Patience,
    _lingering: Option<Lingering>,
}

/// What a refused connection was answered with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    /// The bytes of the answer before its body.
    pub(super) head_length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Sending,
    Lingering { left: usize },
    Done,
}

impl Ending {
    /// Refuses with the page of this status.
    pub(super) fn with_page(status: StatusCode, body: Body, pages: &Pages) -> Self {
        let (unsent, head_length) = encode(status, body, pages);
        let page = Some(Page { status, head_length: head_length as u64 });
        Self { unsent, closing: Closing::Sending, page, patience: Patience::default(), _lingering: None }
    }

    /// Closes after an answer that is out already.
    pub(super) fn after_answer(connections: &Arc<Connections>) -> Self {
        Self {
            unsent: Bytes::new(),
            closing: Closing::Sending,
            page: None,
            patience: Patience::default(),
            _lingering: Some(connections.linger()),
        }
    }

    /// The page, where there is one.
    pub(super) fn page(&self) -> Option<Page> {
        self.page
    }

    /// Whether all of it has gone to the kernel.
    pub(super) fn is_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends the page if there is one, closes for writing, and waits until the other side has closed, or has taken all, or
    /// takes too little. Once ready, it stays so.
    pub(super) fn poll(
        &mut self,
        stream: &mut Stream,
        clock: &mut Clock,
        cx: &mut Context<'_>,
        link: &Link,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.closing == Closing::Done {
                return Poll::Ready(Ok(()));
            }
            if clock.purpose() != Some(Purpose::Linger) {
                clock.set(Purpose::Linger, LINGER, cx);
            } else if clock.expired().is_some() {
                if self.patience.is_over(stream.unacknowledged(), link) {
                    self.closing = Closing::Done;
                }
                continue;
            }
            match self.closing {
                Closing::Sending => {
                    while self.unsent.has_remaining() {
                        match ready!(stream.poll_write(cx, &self.unsent))? {
                            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                            written => {
                                self.unsent.advance(written);
                                link.count_sent(written);
                            }
                        }
                    }
                    ready!(stream.poll_shutdown(cx))?;
                    self.closing = Closing::Lingering { left: LINGER_BYTES };
                }
                Closing::Lingering { left } => {
                    let mut space = [0; 4096];
                    let mut buf = ReadBuf::new(&mut space);
                    let is_over = match ready!(stream.poll_read(cx, &mut buf)) {
                        Ok(()) => buf.filled().is_empty(),
                        Err(_) => true,
                    };
                    self.closing = match left.checked_sub(buf.filled().len()) {
                        _ if is_over => Closing::Done,
                        Some(left) => Closing::Lingering { left },
                        None if matches!(stream.unacknowledged(), None | Some(0)) => Closing::Done,
                        None => Closing::Lingering { left: LINGER_BYTES },
                    };
                }
                Closing::Done => {}
            }
        }
    }
}

/// How long a client may still take what is left, in steps of [`LINGER`].
#[derive(Debug, Default)]
struct Patience {
    /// What had been taken when the current window began.
    mark: Option<u64>,
    /// The time since then.
    waited: Duration,
}

impl Patience {
    /// Looks at the client at the end of a step, so many bytes not having arrived.
    fn is_over(&mut self, unacknowledged: Option<u64>, link: &Link) -> bool {
        let left = match unacknowledged {
            None | Some(0) => return true,
            Some(left) => left,
        };
        let limits = &link.worker.limits;
        let taken = link.sent().saturating_sub(left);
        let Some(mark) = self.mark else {
            self.mark = Some(taken);
            return false;
        };
        self.waited += LINGER;
        if self.waited < limits.write_timeout {
            return false;
        }
        if taken.saturating_sub(mark) < stall::minimum(limits.minimum_rate, limits.write_timeout) {
            link.worker.connections.stalled.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        *self = Self { mark: Some(taken), waited: Duration::ZERO };
        false
    }
}

/// The whole answer as it goes out, and how long its head is.
fn encode(status: StatusCode, body: Body, pages: &Pages) -> (Bytes, usize) {
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
    let mut answer = BytesMut::with_capacity(head.len() + page.len());
    answer.extend_from_slice(head.as_bytes());
    if body == Body::Page {
        answer.extend_from_slice(&page);
    }
    (answer.freeze(), head.len())
}
