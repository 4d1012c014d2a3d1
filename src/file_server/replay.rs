//! The fast path: a plain request gets the head that actix-files made for an equal request before, and a body from
//! memory.
//!
//! Recorded heads belong to one state of a file in the cache of one worker ([`Meta`](super::found_file::Meta)), so they
//! are as fresh as the file and are dropped with it. Only a plain GET is answered from them, or a revalidation with
//! exactly the tag and the date of the recorded answer. All other requests, those for the probe file, and all
//! requests of a server with an access log are answered by the service.

use std::collections::VecDeque;
use std::sync::Arc;

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
use crate::http::transport::{
    DirectBody, FastAnswer, FastPath, NO_LINES, Offer, OnEnd, Passage, Peer, PlainRequest, Segment,
};

/// Maximum size of a body that is copied behind the head. For a larger body, the copy costs more than a second buffer
/// of the write.
const COPIED: usize = 8 << 10;

/// Names of headers that change the answer, in lower case.
const DECISIVE: [&str; 4] = ["if-match", "if-range", "if-unmodified-since", "range"];

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
        let (mut lines, mut tag, mut date) = (NO_LINES, None, None);
        let request = PlainRequest::parse(head, &mut lines, |header| {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let is_decisive = if is("if-none-match") {
                tag.replace(header.value).is_some()
            } else if is("if-modified-since") {
                date.replace(header.value).is_some()
            } else {
                DECISIVE.into_iter().any(is)
            };
            (!is_decisive).then_some(())
        })?;
        let path = request.target.split_once('?').map_or(request.target, |(path, _)| path);
        let path = path::parse(path).ok()?;
        let name = name_of(&path);
        if *name == *PROBE {
            // Each answer to a probe has its own load report.
            return None;
        }
        let now = Instant::now();
        let found = self.store.get_cached(&name, now)?;
        let plain = Representation::plain(name, found);
        let representation = match self.variants_of(&plain) {
            Some(variants) => {
                let lines = request.headers.iter();
                let accepted = lines.filter(|line| line.name.eq_ignore_ascii_case("accept-encoding"));
                variants.select(&self.store, accepted.map(|line| line.value), plain).ok()?
            }
            None => plain,
        };
        let content = &representation.found.content;
        if matches!(content, Content::File(_)) {
            return None;
        }
        let validators = representation.validators();
        let asked = match (tag, date) {
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
