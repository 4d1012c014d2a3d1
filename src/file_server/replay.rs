//! The fast path: a plain request gets the head that actix-files made for an equal request before, and a body from
//! memory.
//!
//! Recorded heads belong to one state of a file in the cache of one worker ([`Meta`](super::found_file::Meta)), so they
//! are as fresh as the file and are dropped with it. Only a plain GET is answered from them, or a revalidation with
//! exactly the tag and the date of the recorded answer. All other requests, those for the probe file, and all
//! requests of a server with an access log are answered by the service.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_http::header::{self, HeaderMap, HeaderValue};
use actix_http::{Method, RequestHead, StatusCode};
use actix_web::HttpResponse;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::files::{Files, PROBE, name_of};
use super::found_file::Content;
use super::load::{Flight, RequestKind};
use super::path;
use super::recorded_heads::{ReplayKey, ReplayQuestion, Replays, RepresentationKind};
use super::variants::Representation;
use crate::http::host::is_host;
use crate::http::transport::{DirectBody, FastAnswer, FastPath, Offer, OnEnd, Passage, Peer, Segment};

/// A request with more header lines is answered by the service.
const MOST_HEADERS: usize = 32;

/// Maximum size of a body that is copied behind the head. For a larger body, the copy costs more than a second buffer
/// of the write.
const COPIED: usize = 8 << 10;

/// Names of headers that change the answer or the connection, in lower case.
const DECISIVE: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "if-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "transfer-encoding",
    "upgrade",
];

impl ReplayKey {
    fn new(asked: ReplayQuestion, representation: &Representation<'_>) -> Self {
        let form = match (&representation.encoded, representation.varies) {
            (Some(_), _) => RepresentationKind::Encoded,
            (None, true) => RepresentationKind::Plain,
            (None, false) => RepresentationKind::Only,
        };
        let has_digest = asked == ReplayQuestion::File && representation.found.meta.digest.get().is_some();
        Self { asked, form, has_digest }
    }
}

impl Replays {
    /// Records the head of an answer, if [`ReplayRequest`] recognises the request.
    pub(super) fn record(
        &self,
        request: &RequestHead,
        representation: &Representation<'_>,
        answer: &HttpResponse,
    ) {
        if request.method != Method::GET || matches!(representation.found.content, Content::File(_)) {
            return;
        }
        let length = representation.found.meta.identity.length;
        let field = |name| {
            let mut values = request.headers.get_all(name);
            (values.next(), values.next().is_some())
        };
        let others = [header::IF_MATCH, header::IF_UNMODIFIED_SINCE, header::IF_RANGE, header::RANGE];
        if others.iter().any(|name| request.headers.contains_key(name)) {
            return;
        }
        let (tag, date) = (field(header::IF_NONE_MATCH), field(header::IF_MODIFIED_SINCE));
        let validators = representation.validators();
        let is_equal = |field, own: Option<&HeaderValue>| own.is_some() && field == (own, false);
        let asked = match (answer.status(), tag.0, date.0) {
            (StatusCode::OK, None, None) => ReplayQuestion::File,
            (StatusCode::NOT_MODIFIED, Some(_), None) if is_equal(tag, Some(&validators.etag)) => {
                ReplayQuestion::Tag
            }
            (StatusCode::NOT_MODIFIED, Some(_), Some(_))
                if is_equal(tag, Some(&validators.etag))
                    && is_equal(date, validators.last_modified.as_ref()) =>
            {
                ReplayQuestion::TagAndDate
            }
            _ => return,
        };
        let key = ReplayKey::new(asked, representation);
        if self.find(key).is_none() {
            let length = (asked == ReplayQuestion::File).then_some(length);
            self.insert(key, head_of(answer.status(), length, answer.headers()));
        }
    }
}

/// The head of an answer as the connection writes it, without the line of `Date`.
fn head_of(status: StatusCode, length: Option<u64>, headers: &HeaderMap) -> Bytes {
    let mut head = BytesMut::with_capacity(512);
    let reason = status.canonical_reason().unwrap_or_default();
    head.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
    if let Some(length) = length {
        head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
    }
    for (name, value) in headers {
        let mut is_first = true;
        for byte in name.as_str().bytes() {
            head.extend_from_slice(&[if is_first { byte.to_ascii_uppercase() } else { byte }]);
            is_first = byte == b'-';
        }
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.freeze()
}

impl FastPath for Files {
    fn answer(&self, head: &[u8], _: Peer, answer: &mut FastAnswer) -> Offer {
        self.replay(head, answer).map_or(Offer::Declined, |()| Offer::Answered)
    }
}

impl Files {
    /// Answers a request from a recorded head; `None` if there is no such head.
    fn replay(&self, head: &[u8], answer: &mut FastAnswer) -> Option<()> {
        if self.log.is_some() {
            return None;
        }
        let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let request = ReplayRequest::parse(head, &mut headers)?;
        let path = path::parse(request.path).ok()?;
        let name = name_of(&path);
        if *name == *PROBE {
            // Each answer to a probe has its own load report.
            return None;
        }
        let now = Instant::now();
        let found = self.store.get_cached(&name, now)?;
        let plain = Representation::plain(name, found);
        let representation = match self.variants_of(&plain) {
            Some(variants) => variants.select(&self.store, request.accepted(), plain).ok()?,
            None => plain,
        };
        let content = &representation.found.content;
        if matches!(content, Content::File(_)) {
            return None;
        }
        let validators = representation.validators();
        let asked = match (request.tag, request.date) {
            (None, None) => ReplayQuestion::File,
            (Some(tag), None) if validators.etag == tag => ReplayQuestion::Tag,
            (Some(tag), Some(date))
                if validators.etag == tag
                    && validators.last_modified.as_ref().is_some_and(|own| own == date) =>
            {
                ReplayQuestion::TagAndDate
            }
            _ => return None,
        };
        if let Some(digests) = &self.shared.digests {
            // `header` requests an unknown digest. The head must contain a digest that has become known since it was
            // recorded.
            let _ = digests.header(&representation.name, &representation.found.meta);
        }
        let key = ReplayKey::new(asked, &representation);
        let head = representation.found.meta.replays.find(key)?;
        answer.closes = request.closes;
        answer.bytes.extend_from_slice(&head);
        if request.closes {
            answer.bytes.extend_from_slice(b"Connection: close\r\n");
        }
        self.date.put(now, &mut answer.bytes);
        if asked == ReplayQuestion::File {
            self.counters.answered(StatusCode::OK.as_u16());
            let length = representation.found.meta.identity.length;
            let in_flight = self.shared.load.begin(RequestKind::Client, length);
            match content {
                Content::Memory(bytes) if bytes.len() <= COPIED => {
                    answer.bytes.extend_from_slice(bytes);
                    in_flight.complete();
                    return Some(());
                }
                Content::Memory(bytes) => answer.body = Some(bytes.clone()),
                Content::MemfdCopy(copy) | Content::File(copy) => {
                    let segment = Segment::File { file: Arc::clone(copy), offset: 0, length };
                    let (segments, passage) = (VecDeque::from([segment]), Passage::Kernel);
                    answer.direct = Some(DirectBody { segments, passage, guard: None });
                }
            }
            answer.on_end = Some(OnEnd(Box::new(|end| Flight::Own(in_flight).end(end.completion))));
        } else {
            self.counters.answered(StatusCode::NOT_MODIFIED.as_u16());
        }
        Some(())
    }
}

/// A GET without a condition, or with a condition on one entity tag.
struct ReplayRequest<'h, 'b> {
    path: &'b str,
    headers: &'h [httparse::Header<'b>],
    /// The value of `If-None-Match`.
    tag: Option<&'b [u8]>,
    /// The value of `If-Modified-Since`.
    date: Option<&'b [u8]>,
    /// Whether the client requests the end of the connection.
    closes: bool,
}

impl<'h, 'b> ReplayRequest<'h, 'b> {
    fn parse(
        head: &'b [u8],
        headers: &'h mut [MaybeUninit<httparse::Header<'b>>; MOST_HEADERS],
    ) -> Option<Self> {
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(head, headers).ok()?;
        if !parsed.is_complete() || request.method != Some("GET") || request.version != Some(1) {
            return None;
        }
        let target =
            request.path.filter(|target| target.starts_with('/') && target.bytes().all(is_regular))?;
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let (mut hosts, mut tag, mut date, mut closes) = (0, None, None, false);
        for header in request.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                hosts += 1;
                if !is_host(header.value) {
                    return None;
                }
            } else if is("if-none-match") {
                if tag.replace(header.value).is_some() {
                    return None;
                }
            } else if is("if-modified-since") {
                if date.replace(header.value).is_some() {
                    return None;
                }
            } else if is("connection") && header.value.eq_ignore_ascii_case(b"close") {
                closes = true;
            } else if DECISIVE.into_iter().any(is) && !is_keep_alive(header) {
                return None;
            }
        }
        (hosts == 1).then_some(Self { path, headers: request.headers, tag, date, closes })
    }

    /// The values of `Accept-Encoding`.
    fn accepted(&self) -> impl Iterator<Item = &'b [u8]> {
        let accepted =
            self.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("accept-encoding"));
        accepted.map(|header| header.value)
    }
}

/// Whether a header only repeats the default, as browsers send it with each request (RFC 9112, section 9.3).
fn is_keep_alive(header: &httparse::Header<'_>) -> bool {
    header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"keep-alive")
}

/// Whether a byte may appear in a path and query (RFC 3986, sections 3.3 and 3.4). The service handles targets with
/// other bytes.
fn is_regular(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'/' | b'?' | b':' | b'@')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// The line of `Date` and the empty line, formatted at most twice a second.
#[derive(Debug, Default)]
pub(super) struct DateLine(RefCell<Option<(Instant, String)>>);

impl DateLine {
    fn put(&self, now: Instant, head: &mut BytesMut) {
        const FRESH: Duration = Duration::from_millis(500);
        let mut line = self.0.borrow_mut();
        let is_fresh = line.as_ref().is_some_and(|(made, _)| now.saturating_duration_since(*made) < FRESH);
        if !is_fresh {
            let date = httpdate::fmt_http_date(SystemTime::now());
            *line = Some((now, format!("Date: {date}\r\n\r\n")));
        }
        if let Some((_, line)) = &*line {
            head.extend_from_slice(line.as_bytes());
        }
    }
}
