//! From a file to the answer: under which conditions, which parts of it, with which headers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{HttpMessage as _, Method, Request, Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::conditions::{self, Outcome};
use super::files::{Files, PROBE};
use super::load::{Flight, Work};
use super::multipart::{self, Piece};
use super::range::{self, Part, Ranges};
use super::snapshot;
use super::source::{Guard, Source};
use super::store::{Content, Found};
use super::variants::Representation;
use crate::balancer::load_report;
use crate::http::transport::{DirectBody, Passage, Segment};

const LOAD_REPORT: HeaderName = HeaderName::from_static(load_report::HEADER);

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// An answer, and what it counts for until it ends.
pub(super) struct Sent {
    pub(super) answer: Response<BoxBody>,
    pub(super) flight: Flight,
    /// Memory that its body takes, where that is counted.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

impl From<Response<BoxBody>> for Sent {
    fn from(answer: Response<BoxBody>) -> Self {
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
            (Outcome::NotModified, _) => Response::with_body(StatusCode::NOT_MODIFIED, BoxBody::new(())),
            (_, Ranges::Unsatisfiable) => {
                let mut answer = self.refuse(StatusCode::RANGE_NOT_SATISFIABLE);
                answer.headers_mut().insert(header::CONTENT_RANGE, visible(format!("bytes */{length}")));
                return answer.into();
            }
            (_, Ranges::Parts(_)) => Response::with_body(StatusCode::PARTIAL_CONTENT, BoxBody::new(())),
            (_, Ranges::Ignored) => Response::with_body(StatusCode::OK, BoxBody::new(())),
        };
        let fields = answer.headers_mut();
        fields.insert(header::ETAG, validators.etag.clone());
        fields.insert(header::LAST_MODIFIED, validators.last_modified.clone());
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
        mut answer: Response<BoxBody>,
        found: &Found,
        work: Work,
        pieces: VecDeque<Piece>,
    ) -> Sent {
        let is_head = *request.method() == Method::HEAD;
        let bytes: u64 = pieces.iter().map(Piece::length).sum();
        let in_flight = self.load.begin(work, if is_head { 0 } else { bytes });
        let (direct, flight) = match &found.content {
            Content::Memory(file) => {
                let body = BoxBody::new(multipart::gather(pieces, file));
                return Sent { answer: answer.set_body(body), flight: Flight::Own(in_flight), memory: None };
            }
            Content::Snapshot(copy) => {
                let Ok(segments) = segments_of_copy(copy, found.meta.identity.length, pieces) else {
                    return self.refuse(StatusCode::INTERNAL_SERVER_ERROR).into();
                };
                let passage = Passage::Kernel;
                (DirectBody { segments, passage, guard: None }, Flight::Own(in_flight))
            }
            Content::File(file) => {
                let in_flight = Rc::new(RefCell::new(Some(in_flight)));
                let flight = Flight::Shared(Rc::clone(&in_flight));
                let source = Source { file: Arc::clone(file), identity: found.meta.identity };
                let guard = Guard { source, in_flight, counters: Arc::clone(&self.counters) };
                let segments = pieces.into_iter().map(|piece| segment(file, piece)).collect();
                let passage = self.plan.passage;
                (DirectBody { segments, passage, guard: Some(Rc::new(guard)) }, flight)
            }
        };
        answer.extensions_mut().insert(direct);
        Sent { answer, flight, memory: None }
    }
}

fn segment(file: &Arc<File>, piece: Piece) -> Segment {
    match piece {
        Piece::Text(text) => Segment::Bytes(text),
        Piece::File(part) => {
            Segment::File { file: Arc::clone(file), offset: part.start, length: part.length() }
        }
    }
}

/// One part straight from a copy; several, which have text between them, gathered in memory.
fn segments_of_copy(
    copy: &Arc<File>,
    length: u64,
    mut pieces: VecDeque<Piece>,
) -> io::Result<VecDeque<Segment>> {
    if pieces.len() == 1 {
        return Ok(pieces.drain(..).map(|piece| segment(copy, piece)).collect());
    }
    let bytes = snapshot::read(copy, length)?;
    Ok(VecDeque::from([Segment::Bytes(multipart::gather(pieces, &bytes))]))
}

/// A header value of visible characters; what is none comes out empty.
fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
