//! The short way from a plain request to its redirect: parsed in place, written as bytes, without the objects of the
//! HTTP layer between.
//!
//! It takes the requests that make up nearly all of the traffic: `GET /path HTTP/1.1` with one `Host` and no header
//! that changes the answer, `Connection: close` and `keep-alive` excepted. Everything else, and everything that is not answered by a redirect, is
//! declined and goes the long way through [`RedirectService::answer`]. The two ways give the same answer, byte for
//! byte but for the order of header lines.

use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use super::answer;
use super::client::Client;
use super::location::Target;
use super::service::{RedirectService, Wanted};
use crate::balancer::policy::{Avoid, Timestamp};
use crate::http::host::is_host;
use crate::http::transport::{FastAnswer, FastPath, Offer};

/// A request with more header lines goes the long way.
const MOST_HEADERS: usize = 32;

/// Headers that a request on the fast path must not have, in lower case: they change the answer or the connection.
const DECISIVE: [&str; 6] =
    ["content-length", "expect", "fingerpost-avoid", "http2-settings", "transfer-encoding", "upgrade"];

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

impl FastPath for RedirectService {
    fn answer(&self, head: &[u8], peer: Option<IpAddr>, answer: &mut FastAnswer) -> Offer {
        let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let Some(request) = plain_request(head, &mut headers) else { return Offer::Declined };
        let Ok(target) = Target::parse(request.target.as_bytes()) else { return Offer::Declined };
        let plan = &self.shared.answers;
        let table = self.table.borrow();
        let now = plan.clock.timestamp(Instant::now());
        let lines = request.headers.iter().map(|header| (header.name, header.value));
        let client = Client::new(peer, false, &plan.trusted_proxies, lines);
        let wanted = Wanted { target: &target, is_head: false, avoid: Avoid::default(), client };
        let Some(choice) = self.choose(&table, &wanted, now) else {
            return Offer::Declined;
        };

        let mut workbench = self.workbench.borrow_mut();
        let Workbench { location, page, start, tail } = &mut *workbench;
        location.clear();
        target.put_location(choice.backend, location);
        page.clear();
        answer::put_page(&plan.pages, plan.status, location, page);

        if start.is_empty() {
            let (code, reason) = (plan.status.code(), plan.status.reason());
            start.extend(format!("HTTP/1.1 {code} {reason}\r\nContent-Length: ").bytes());
        }
        answer.closes = request.closes;
        let answer = &mut answer.bytes;
        answer.put_slice(start);
        put_number(answer, page.len());
        if request.closes {
            answer.put_slice(b"\r\nConnection: close");
        }
        answer.put_slice(b"\r\nLocation: ");
        answer.put_slice(location);
        for alternate in answer::alternates(&table, &choice.picks) {
            answer.put_slice(b"\r\nLink: ");
            answer::put_link(alternate, &target, answer);
        }
        answer.put_slice(tail.text(now));
        answer.put_slice(page);
        self.counters.answered(plan.status.code());
        Offer::Answered
    }
}

/// A request that may take the fast path.
struct PlainRequest<'a, 'b> {
    target: &'a str,
    headers: &'b [httparse::Header<'a>],
    /// Whether it asks for the end of the connection.
    closes: bool,
}

/// The request with this head, if it may take the fast path.
fn plain_request<'a, 'b>(
    head: &'a [u8],
    headers: &'b mut [MaybeUninit<httparse::Header<'a>>; MOST_HEADERS],
) -> Option<PlainRequest<'a, 'b>> {
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(head, headers).ok()?;
    if !parsed.is_complete() || request.method != Some("GET") || request.version != Some(1) {
        return None;
    }
    let (mut hosts, mut closes) = (0, false);
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("host") {
            hosts += 1;
            if !is_host(header.value) {
                return None;
            }
        } else if header.name.eq_ignore_ascii_case("connection") {
            // Browsers send `keep-alive` with each request, although it is the default (RFC 9112, section 9.3).
            let asks_to_close = header.value.eq_ignore_ascii_case(b"close");
            if !asks_to_close && !header.value.eq_ignore_ascii_case(b"keep-alive") {
                return None;
            }
            closes |= asks_to_close;
        } else if DECISIVE.iter().any(|name| header.name.eq_ignore_ascii_case(name)) {
            return None;
        }
    }
    // An absolute-form target names a host of its own, which the service knows how to read.
    let target = request.path.filter(|path| {
        hosts == 1
            && path.starts_with('/')
            && path.bytes().all(|byte| REGULAR.get(usize::from(byte)) == Some(&true))
    })?;
    Some(PlainRequest { target, headers: request.headers, closes })
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
