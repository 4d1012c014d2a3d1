//! Plain requests, which a fast path answers from the bytes of their head.
//!
//! A plain request is `GET /path HTTP/1.1` with one `Host` and no header that changes the answer, except `Connection:
//! close` and `keep-alive`. Nearly all traffic consists of such requests.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::time::Instant;

use crate::http::host::{byte_table, is_host};

/// The largest number of header lines of a plain request.
const MOST_HEADERS: usize = 32;

/// Room for the header lines of a plain request.
pub(crate) type HeaderLines<'a> = [MaybeUninit<httparse::Header<'a>>; MOST_HEADERS];

/// Empty [`HeaderLines`].
pub(crate) const NO_LINES: HeaderLines<'static> = [const { MaybeUninit::uninit() }; MOST_HEADERS];

/// Headers that a plain request must not have, in lower case: they announce a body or change the connection.
const DECISIVE: [&str; 5] = ["content-length", "expect", "http2-settings", "transfer-encoding", "upgrade"];

/// Characters of a valid path and query (RFC 3986, sections 3.3 and 3.4). Targets with other characters are declined.
const REGULAR: [bool; 256] =
    byte_table(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%/?!$&'()*+,;=:@");

/// A plain request.
pub(crate) struct PlainRequest<'a, 'b> {
    /// Path and query.
    pub target: &'a str,
    /// All header lines.
    pub headers: &'b [httparse::Header<'a>],
    /// Whether it has `Connection: close`.
    pub closes: bool,
}

impl<'a, 'b> PlainRequest<'a, 'b> {
    /// Parses this head; `None` if the request is not a plain one. `look` is called with each header that this function does
    /// not know, and returns `None` to decline the request.
    pub(crate) fn parse(
        head: &'a [u8],
        lines: &'b mut HeaderLines<'a>,
        mut look: impl FnMut(&httparse::Header<'a>) -> Option<()>,
    ) -> Option<Self> {
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(head, lines).ok()?;
        if !parsed.is_complete() || request.method != Some("GET") || request.version != Some(1) {
            return None;
        }
        let (mut hosts, mut closes) = (0, false);
        for header in request.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                hosts += 1;
                is_host(header.value).then_some(())?;
            } else if is("connection") {
                // Browsers send `keep-alive` with each request, although it is the default (RFC 9112, section 9.3).
                let asks_to_close = header.value.eq_ignore_ascii_case(b"close");
                (asks_to_close || header.value.eq_ignore_ascii_case(b"keep-alive")).then_some(())?;
                closes |= asks_to_close;
            } else if DECISIVE.into_iter().any(is) {
                return None;
            } else {
                look(header)?;
            }
        }
        // A target in absolute form contains another host. The service handles it.
        let target = request.path.filter(|path| {
            hosts == 1
                && path.starts_with('/')
                && path.bytes().all(|byte| REGULAR.get(usize::from(byte)) == Some(&true))
        })?;
        Some(Self { target, headers: request.headers, closes })
    }
}

/// The header `Date` and the end of a head, renewed twice a second.
#[derive(Debug, Default)]
pub(crate) struct DateLine(RefCell<Option<(Instant, String)>>);

impl DateLine {
    /// Appends them to `head`.
    pub(crate) fn put(&self, now: Instant, head: &mut BytesMut) {
        const FRESH: Duration = Duration::from_millis(500);
        let mut line = self.0.borrow_mut();
        let line = match &mut *line {
            Some((made, line)) if now.saturating_duration_since(*made) < FRESH => line,
            outdated => {
                let date = httpdate::fmt_http_date(SystemTime::now());
                &mut outdated.insert((now, format!("Date: {date}\r\n\r\n"))).1
            }
        };
        head.extend_from_slice(line.as_bytes());
    }
}
