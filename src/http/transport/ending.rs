//! The end of a connection: a page where it is refused, then a close that lets the last answer arrive.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use actix_http::StatusCode;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;

use super::clock::{Clock, Purpose};
use super::stream::Stream;
use crate::http::pages::Pages;

/// A close with unread input makes the kernel reset the connection, and the client may lose the page. So
/// input is read and dropped for at most this long,
pub(super) const LINGER: Duration = Duration::from_secs(1);
/// and at most this much.
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
        Self { unsent, closing: Closing::Sending, page }
    }

    /// Closes after an answer that is out already.
    pub(super) fn after_answer() -> Self {
        Self { unsent: Bytes::new(), closing: Closing::Sending, page: None }
    }

    /// The page, where there is one.
    pub(super) fn page(&self) -> Option<Page> {
        self.page
    }

    /// Whether all of it has gone to the kernel.
    pub(super) fn is_sent(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Sends the page if there is one, closes for writing, and waits for the other side to close. Gives the bytes written to
    /// `count`. Once ready, it stays so.
    pub(super) fn poll(
        &mut self,
        stream: &mut Stream,
        clock: &mut Clock,
        cx: &mut Context<'_>,
        mut count: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        loop {
            match self.closing {
                Closing::Sending => {
                    if clock.purpose() != Some(Purpose::Linger) {
                        clock.set(Purpose::Linger, LINGER, cx);
                    } else if clock.expired().is_some() {
                        self.closing = Closing::Done;
                        continue;
                    }
                    while self.unsent.has_remaining() {
                        match ready!(stream.poll_write(cx, &self.unsent))? {
                            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                            written => {
                                self.unsent.advance(written);
                                count(written);
                            }
                        }
                    }
                    ready!(stream.poll_shutdown(cx))?;
                    self.closing = Closing::Lingering { left: LINGER_BYTES };
                }
                Closing::Lingering { left } => {
                    let mut space = [0; 4096];
                    let mut buf = ReadBuf::new(&mut space);
                    let is_over = match stream.poll_read(cx, &mut buf) {
                        Poll::Pending if clock.expired().is_none() => return Poll::Pending,
                        Poll::Pending | Poll::Ready(Err(_)) => true,
                        Poll::Ready(Ok(())) => buf.filled().is_empty(),
                    };
                    self.closing = match left.checked_sub(buf.filled().len()) {
                        Some(left) if !is_over => Closing::Lingering { left },
                        _ => Closing::Done,
                    };
                }
                Closing::Done => return Poll::Ready(Ok(())),
            }
        }
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
