//! From a file to the answer: under which conditions, which parts of it, with which headers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{HttpMessage as _, Method, Request, Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::body::{Body, FileBody};
use super::conditions::{self, Outcome};
use super::files::{Files, PROBE};
use super::load::{Flight, Work};
use super::multipart::{self, Piece};
use super::range::{self, Part, Ranges};
use super::snapshot;
use super::source::Source;
use super::store::{Content, Found};
use super::variants::Representation;
use crate::balancer::load_report;
use crate::http::transport::{Link, SendFile};

const LOAD_REPORT: HeaderName = HeaderName::from_static(load_report::HEADER);

/// From this size on, bytes in memory are written from where they are: below it, a copy costs less than that.
const DIRECT: u64 = 8 << 10;

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// An answer, and what it counts for until it ends.
pub(super) struct Sent {
    pub(super) answer: Response<Body>,
    pub(super) flight: Flight,
    /// Memory that its body takes, where that is counted.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

impl From<Response<Body>> for Sent {
    fn from(answer: Response<Body>) -> Self {
        Self { answer, flight: Flight::None, memory: None }
    }
}

impl Files {
    /// The answer with a file, or with the word that the client has it, or parts of it.
    pub(super) fn send(&self, request: &Request, representation: &Representation<'_>) -> Sent {
        let Representation { name, found, varies, encoded } = representation;
        let (validators, content_type) = (representation.validators(), representation.content_type());
        let length = found.meta.identity.length;
        let headers = request.headers();
        let outcome = conditions::evaluate(headers, validators);
        let ranges = match headers.get(header::RANGE) {
            Some(ranges) if outcome == Outcome::Send && *request.method() == Method::GET => {
                range::parse(ranges.as_bytes(), length)
            }
            _ => Ranges::Ignored,
        };
        let mut answer = match (outcome, &ranges) {
            (Outcome::Failed, _) => return self.refuse(StatusCode::PRECONDITION_FAILED).into(),
            (Outcome::NotModified, _) => Response::with_body(StatusCode::NOT_MODIFIED, Body::Empty),
            (_, Ranges::Unsatisfiable) => {
                let mut answer = self.refuse(StatusCode::RANGE_NOT_SATISFIABLE);
                answer.headers_mut().insert(header::CONTENT_RANGE, visible(format!("bytes */{length}")));
                return answer.into();
            }
            (_, Ranges::Parts(_)) => Response::with_body(StatusCode::PARTIAL_CONTENT, Body::Empty),
            (_, Ranges::Ignored) => Response::with_body(StatusCode::OK, Body::Empty),
        };
        let fields = answer.headers_mut();
        fields.insert(header::ETAG, validators.etag.clone());
        if let Some(last_modified) = &validators.last_modified {
            fields.insert(header::LAST_MODIFIED, last_modified.clone());
        }
        if *varies {
            fields.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if let Some(cache_control) = &self.plan.cache_control {
            fields.insert(header::CACHE_CONTROL, cache_control.clone());
        }
        let work = if **name == *PROBE { Work::Probe } else { Work::Client };
        if work == Work::Probe {
            // A stored probe answer would tell of a load, and of a health, that is gone.
            fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            fields.insert(LOAD_REPORT, visible(self.load.report().to_string()));
        }
        if outcome == Outcome::NotModified {
            return answer.into();
        }
        fields.insert(header::CONTENT_TYPE, content_type.clone());
        if let Some(encoded) = encoded {
            let token = HeaderValue::from_static(encoded.coding.token());
            fields.insert(header::CONTENT_ENCODING, token);
        }
        fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(digest) = self.digests.as_ref().and_then(|digests| digests.header(name, &found.meta)) {
            fields.insert(REPR_DIGEST, digest);
        }
        let pieces = match ranges {
            Ranges::Parts(parts) => match parts.as_slice() {
                [part] => {
                    let range = format!("bytes {}-{}/{length}", part.start, part.end.saturating_sub(1));
                    fields.insert(header::CONTENT_RANGE, visible(range));
                    VecDeque::from([Piece::File(*part)])
                }
                parts => {
                    let (content_type, pieces) = multipart::pieces(parts, content_type, length);
                    fields.insert(header::CONTENT_TYPE, content_type);
                    pieces
                }
            },
            Ranges::Ignored | Ranges::Unsatisfiable => {
                VecDeque::from([Piece::File(Part { start: 0, end: length })])
            }
        };
        self.set_body(request, answer, found, work, pieces)
    }

    fn set_body(
        &self,
        request: &Request,
        mut answer: Response<Body>,
        found: &Found,
        work: Work,
        pieces: VecDeque<Piece>,
    ) -> Sent {
        let is_head = *request.method() == Method::HEAD;
        let bytes: u64 = pieces.iter().map(Piece::length).sum();
        let in_flight = self.load.begin(work, if is_head { 0 } else { bytes });
        let length = found.meta.identity.length;
        let (body, flight) = match (&found.content, Link::of(request)) {
            (Content::Memory(file), Some(link)) if bytes >= DIRECT && !is_head => {
                let body = Body::Direct(multipart::gather(pieces, file), Rc::clone(link));
                (body, Flight::Own(in_flight))
            }
            (Content::Memory(file), _) => {
                let body = Body::Memory(multipart::gather(pieces, file));
                let flight = Flight::Own(in_flight);
                return Sent { answer: answer.set_body(body), flight, memory: None };
            }
            (Content::File(_) | Content::Snapshot(_), _) if is_head => {
                (Body::Announced, Flight::Own(in_flight))
            }
            (Content::Snapshot(copy), Some(link)) => {
                let Ok(body) = snapshot_body(copy, length, pieces, link) else {
                    return self.refuse(StatusCode::INTERNAL_SERVER_ERROR).into();
                };
                (body, Flight::Own(in_flight))
            }
            (Content::File(file), Some(link)) => {
                let in_flight = Rc::new(RefCell::new(Some(in_flight)));
                let flight = Flight::Shared(Rc::clone(&in_flight));
                let source = Source { file: Arc::clone(file), identity: found.meta.identity };
                let counters = Arc::clone(&self.counters);
                let passage = self.plan.passage;
                let body = FileBody::new(source, passage, pieces, Rc::clone(link), in_flight, counters);
                (Body::File(Box::new(body)), flight)
            }
            // Every connection of ours has a link.
            (Content::File(_) | Content::Snapshot(_), None) => {
                return self.refuse(StatusCode::INTERNAL_SERVER_ERROR).into();
            }
        };
        answer.head_mut().no_chunking(true);
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
        Sent { answer: answer.set_body(body), flight, memory: None }
    }
}

/// One part straight from a copy; several, which have text between them, gathered in memory.
fn snapshot_body(
    copy: &Arc<File>,
    length: u64,
    pieces: VecDeque<Piece>,
    link: &Rc<Link>,
) -> io::Result<Body> {
    if let (Some(Piece::File(part)), 1) = (pieces.front(), pieces.len()) {
        let (file, offset, length) = (Arc::clone(copy), part.start, part.length());
        let part = SendFile { file, offset, length, is_guarded: false };
        return Ok(Body::Snapshot(Some(part), Rc::clone(link)));
    }
    let bytes = snapshot::read(copy, length)?;
    Ok(Body::Direct(multipart::gather(pieces, &bytes), Rc::clone(link)))
}

/// A header value of visible characters; what is none comes out empty.
fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
