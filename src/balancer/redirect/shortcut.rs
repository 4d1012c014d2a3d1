//! The short way from a plain request to its redirect: parsed in place, written as bytes, without the objects of the
//! HTTP layer between.
//!
//! It takes the requests that make up nearly all of the traffic: `GET /path HTTP/1.1` with one `Host` and no header
//! that means something for the connection. Everything else, and everything that is not answered by a redirect, is
//! declined and goes the long way through [`RedirectService::answer`]. The two ways give the same answer, byte for
//! byte but for the order of header lines.

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use super::answer;
use super::location::Target;
use super::service::RedirectService;
use crate::balancer::policy::{Avoid, Timestamp};
use crate::http::host::is_host;
use crate::http::transport::{Offer, Shortcut};

/// A request with more header lines goes the long way.
const MOST_HEADERS: usize = 32;

/// What a request must not hold to go the short way, in lower case: it changes the answer or the connection.
const DECISIVE: [&str; 7] = [
    "connection",
    "content-length",
    "expect",
    "fingerpost-avoid",
    "http2-settings",
    "transfer-encoding",
    "upgrade",
];

/// Which bytes are [`is_regular`].
const REGULAR: [bool; 256] = {
    let mut regular = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            regular[byte] = is_regular(byte as u8);
        }
        byte += 1;
    }
    regular
};

/// Characters that may stand in a path and query (RFC 3986, sections 3.3 and 3.4). Whether others are taken is for
/// the long way to say.
const fn is_regular(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%' | b'/' | b'?')
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

/// What the short way keeps from one answer to the next, so that it allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Workbench {
    location: BytesMut,
    page: BytesMut,
    start: Vec<u8>,
    tail: Tail,
}

/// The header lines that all answers have, `Date` the last of them, made anew twice a second.
#[derive(Debug, Default)]
struct Tail {
    made: Option<Timestamp>,
    text: Vec<u8>,
}

impl Shortcut for RedirectService {
    fn answer(&self, head: &[u8], client: Option<IpAddr>, answer: &mut BytesMut) -> Offer {
        let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let Some(target) = plain_target(head, &mut headers) else { return Offer::Declined };
        let Ok(target) = Target::parse(target.as_bytes()) else { return Offer::Declined };
        let table = self.table.load();
        let now = self.plan.clock.timestamp(Instant::now());
        let Some(choice) = self.choose(&table, &target, Avoid::default(), client, now) else {
            return Offer::Declined;
        };

        let mut workbench = self.workbench.borrow_mut();
        let Workbench { location, page, start, tail } = &mut *workbench;
        location.clear();
        target.put_location(choice.backend, location);
        page.clear();
        answer::put_page(&self.plan.pages, self.plan.status, location, page);

        if start.is_empty() {
            let (code, reason) = (self.plan.status.code(), self.plan.status.reason());
            start.extend(format!("HTTP/1.1 {code} {reason}\r\nContent-Length: ").bytes());
        }
        answer.put_slice(start);
        put_number(answer, page.len());
        answer.put_slice(b"\r\nLocation: ");
        answer.put_slice(location);
        if !choice.picks.alternates().is_empty() {
            answer.put_slice(b"\r\nLink: ");
            answer::put_link(&table, &choice.picks, &target, answer);
        }
        answer.put_slice(tail.text(now));
        answer.put_slice(page);
        self.counters.answered(self.plan.status.code());
        Offer::Answered
    }
}

/// Whether a header says what holds without it, as browsers do with each request (RFC 9112, section 9.3).
fn is_needless(header: &httparse::Header<'_>) -> bool {
    header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"keep-alive")
}

/// The target of a request that may go the short way.
fn plain_target<'a>(
    head: &'a [u8],
    headers: &mut [MaybeUninit<httparse::Header<'a>>; MOST_HEADERS],
) -> Option<&'a str> {
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(head, headers).ok()?;
    if !parsed.is_complete() || request.method != Some("GET") || request.version != Some(1) {
        return None;
    }
    let mut hosts = 0;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("host") {
            hosts += 1;
            if !is_host(header.value) {
                return None;
            }
        } else if DECISIVE.iter().any(|name| header.name.eq_ignore_ascii_case(name)) && !is_needless(header) {
            return None;
        }
    }
    // An absolute-form target names a host of its own; the long way knows what that means.
    request.path.filter(|path| {
        hosts == 1
            && path.starts_with('/')
            && path.bytes().all(|byte| REGULAR.get(usize::from(byte)) == Some(&true))
    })
}

impl Tail {
    fn text(&mut self, now: Timestamp) -> &[u8] {
        const FRESH: Duration = Duration::from_millis(500);
        if self.made.is_none_or(|made| Duration::from_nanos(now.0.saturating_sub(made.0)) >= FRESH) {
            self.made = Some(now);
            let date = httpdate::fmt_http_date(SystemTime::now());
            self.text.clear();
            self.text.extend_from_slice(
                b"\r\nCache-Control: no-store\r\nContent-Type: text/html; charset=utf-8\r\nDate: ",
            );
            self.text.extend_from_slice(date.as_bytes());
            self.text.extend_from_slice(b"\r\n\r\n");
        }
        &self.text
    }
}

fn put_number(buffer: &mut BytesMut, number: usize) {
    let mut digits = [0; 20];
    let mut rest = number;
    let mut length = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    buffer.put_slice(digits.get(digits.len() - length..).unwrap_or_default());
}
