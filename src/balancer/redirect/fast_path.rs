//! The fast path for plain requests: parses the head in place and writes the answer as bytes, without the request and
//! response objects of the HTTP layer.
//!
//! A plain request is `GET /path HTTP/1.1` with one `Host` and no header that changes the answer, except `Connection:
//! close` and `keep-alive`. Nearly all traffic consists of such requests. Other requests, and requests whose answer is
//! not a redirect, are declined and answered by [`RedirectService::answer`]. Both paths give the same answer, except for
//! the order of the header lines.

use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use super::answer::RedirectStatus;
use super::client::Client;
use super::location::Target;
use super::range::requested_bytes;
use super::service::{RedirectRequest, RedirectService};
use super::{WorkerState, acme, answer, avoid, documents};
use crate::balancer::policy::{Avoid, Timestamp, digest};
use crate::balancer::presence::generation::Location;
use crate::http::host::is_host;
use crate::http::transport::{FastAnswer, FastPath, Offer, Peer};

/// The largest number of header lines of a plain request.
const MOST_HEADERS: usize = 32;

/// Headers that a plain request must not have, in lower case: they change the answer or the connection.
const DECISIVE: [&str; 6] =
    ["content-length", "expect", "fingerpost-avoid", "http2-settings", "transfer-encoding", "upgrade"];

/// [`is_regular`] as a table.
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

/// Characters of a valid path and query (RFC 3986, sections 3.3 and 3.4). Targets with other characters are declined.
const fn is_regular(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'%' | b'/' | b'?')
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

/// Buffers that are reused for each answer, so that the fast path does not allocate.
#[derive(Debug, Default)]
pub(super) struct ResponseScratch {
    location: BytesMut,
    page: BytesMut,
    /// The start of the head of a redirect with this status.
    start: Option<(RedirectStatus, Vec<u8>)>,
    tail: Tail,
}

/// The header lines of all answers, with `Date` as the last one. Renewed twice a second.
#[derive(Debug, Default)]
struct Tail {
    made: Option<Timestamp>,
    text: Vec<u8>,
}

impl FastPath for RedirectService {
    fn answer(&self, head: &[u8], peer: Peer, answer: &mut FastAnswer) -> Offer {
        // Only the other path logs.
        if self.shared.access_log.is_some() {
            return Offer::Declined;
        }
        let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let Some(request) = plain_request(head, &mut headers) else { return Offer::Declined };
        let Ok(target) = Target::parse(request.target.as_bytes()) else { return Offer::Declined };
        let current = self.current.borrow();
        let WorkerState { table, answers: plan } = &*current;
        if plan.serves_challenges && request.target.starts_with(acme::FOLDER) {
            return Offer::Declined;
        }
        let now = plan.clock.timestamp(Instant::now());
        let catalogue = self.shared.presence.as_ref().map(|presence| presence.current());
        let generation = catalogue.as_ref().and_then(|catalogue| catalogue.as_deref());
        let path_hash = digest(target.path());
        let place = generation.map(|generation| generation.locate(target.path(), path_hash));
        if matches!(place, Some(Location::Unknown))
            || (place.is_some() && documents::asks_for_mirrors(&target))
        {
            return Offer::Declined;
        }
        let lines = request.headers.iter().map(|header| (header.name, header.value));
        let client = Client::new(peer.address, peer.is_tls, &plan.trusted_proxies, lines);
        let mut avoid = Avoid::default();
        avoid::add_wanted(&mut avoid, &target, table);
        let wanted = RedirectRequest {
            target: &target,
            path_hash,
            is_head: false,
            range: request.range,
            tag: request.tag,
            avoid,
            client,
        };
        let Some(choice) = self.choose(&current, &wanted, place.as_ref(), now) else {
            return Offer::Declined;
        };

        let mut scratch = self.scratch.borrow_mut();
        let ResponseScratch { location, page, start, tail } = &mut *scratch;
        location.clear();
        target.put_location(choice.backend, location);
        page.clear();
        answer::put_page(&plan.pages, plan.status, location, page);

        let start = match start {
            Some((status, start)) if *status == plan.status => start,
            outdated => {
                let (code, reason) = (plan.status.code(), plan.status.reason());
                let start = format!("HTTP/1.1 {code} {reason}\r\nContent-Length: ").into_bytes();
                &mut outdated.insert((plan.status, start)).1
            }
        };
        answer.closes = request.closes;
        let answer = &mut answer.bytes;
        answer.put_slice(start);
        put_number(answer, page.len());
        if request.closes {
            answer.put_slice(b"\r\nConnection: close");
        }
        answer.put_slice(b"\r\nLocation: ");
        answer.put_slice(location);
        for alternate in answer::alternates(table, &choice.picks) {
            answer.put_slice(b"\r\nLink: ");
            // The path and query of a plain request have no brackets.
            answer::put_link(alternate, target.as_bytes(), answer);
        }
        if let Some(Location::File(file)) = &place {
            documents::lines_of(target.path(), &file.content, |name, value| {
                answer.put_slice(b"\r\n");
                answer.put_slice(name.as_bytes());
                answer.put_slice(b": ");
                answer.put_slice(value);
            });
        }
        answer.put_slice(tail.text(now));
        answer.put_slice(page);
        self.counters.answered(plan.status.code());
        Offer::Answered
    }
}

/// A plain request.
struct FastPathRequest<'a, 'b> {
    target: &'a str,
    headers: &'b [httparse::Header<'a>],
    /// Whether it has `Connection: close`.
    closes: bool,
    /// The largest number of requested bytes; `None` without a range.
    range: Option<u64>,
    /// The entity tag of the client's copy, from `If-None-Match`.
    tag: Option<&'a [u8]>,
}

/// Parses this head; `None` if the request is not a plain one.
fn plain_request<'a, 'b>(
    head: &'a [u8],
    headers: &'b mut [MaybeUninit<httparse::Header<'a>>; MOST_HEADERS],
) -> Option<FastPathRequest<'a, 'b>> {
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(head, headers).ok()?;
    if !parsed.is_complete() || request.method != Some("GET") || request.version != Some(1) {
        return None;
    }
    let (mut hosts, mut closes, mut range, mut tag) = (0, false, None, None);
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
        } else if header.name.eq_ignore_ascii_case("range") {
            range = requested_bytes(header.value);
        } else if header.name.eq_ignore_ascii_case("if-none-match") {
            tag = Some(header.value);
        } else if DECISIVE.iter().any(|name| header.name.eq_ignore_ascii_case(name)) {
            return None;
        }
    }
    // A target in absolute form contains another host. The service handles it.
    let target = request.path.filter(|path| {
        hosts == 1
            && path.starts_with('/')
            && path.bytes().all(|byte| REGULAR.get(usize::from(byte)) == Some(&true))
    })?;
    Some(FastPathRequest { target, headers: request.headers, closes, range, tag })
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
