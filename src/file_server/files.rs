//! From a request to its answer: which file, under which conditions, which parts of it.
//!
//! actix-files knows the content types; its way from a path to an answer is not used, for it resolves dot
//! segments, opens on the thread that serves, follows links out of the root, names the inode in the entity tag
//! and sends one range only.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{HttpMessage as _, Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use super::access_log::AccessLog;
use super::body::{Body, FileBody};
use super::conditions::{self, Outcome};
use super::load::{Flight, Load, Work};
use super::metrics::WorkerCounters;
use super::multipart::{self, Piece};
use super::path::{self, FilePath, Kind, PathError};
use super::range::{self, Part, Ranges};
use super::root::OpenError;
use super::store::{Content, Found, Store};
use crate::balancer::load_report;
use crate::http::pages::Pages;
use crate::http::transport::Link;

/// The file that balancers fetch to see whether a server answers.
pub const PROBE: &[u8] = b"plshelp.txt";

/// What a folder is answered with, where it has it.
const INDEX: &[u8] = b"index.html";

/// Seconds after which a client may come back that was turned away for lack of something.
const RETRY_AFTER: u32 = 5;

const LOAD_REPORT: HeaderName = HeaderName::from_static(load_report::HEADER);

/// How all workers answer alike.
#[derive(Debug, Clone)]
pub struct AnswerPlan {
    /// The pages of errors.
    pub pages: Pages,
    /// Sent with every file, where there is one.
    pub cache_control: Option<HeaderValue>,
    /// Answered for [`PROBE`] where the folder has no such file.
    pub probe_file: Found,
}

/// Answers the requests of one HTTP worker.
pub struct Files {
    /// Where the files come from.
    pub store: Store,
    /// What is in flight, over all workers.
    pub load: Arc<Load>,
    /// What this worker counts.
    pub counters: Arc<WorkerCounters>,
    /// Where answers are written down, if anywhere.
    pub log: Option<Rc<AccessLog>>,
    /// How it answers.
    pub plan: AnswerPlan,
}

/// An answer, and what it counts for until it ends.
struct Sent {
    answer: Response<Body>,
    flight: Flight,
}

impl From<Response<Body>> for Sent {
    fn from(answer: Response<Body>) -> Self {
        Self { answer, flight: Flight::None }
    }
}

/// An answer that is there at once, or once a disk has been read.
pub enum Answering {
    /// It is there.
    Now(Ready<Result<Response<Body>, Response<BoxBody>>>),
    /// It has to wait.
    Later(LocalBoxFuture<'static, Result<Response<Body>, Response<BoxBody>>>),
}

impl Future for Answering {
    type Output = Result<Response<Body>, Response<BoxBody>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(answer) => Pin::new(answer).poll(cx),
            Self::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}

impl Files {
    /// The answer to one request.
    pub fn answer(self: &Rc<Self>, request: Request) -> Answering {
        if let Some(sent) = self.answer_now(&request) {
            return Answering::Now(ready(Ok(self.finish(&request, sent))));
        }
        let files = Rc::clone(self);
        Answering::Later(Box::pin(async move {
            let sent = files.answer_from_disk(&request).await;
            Ok(files.finish(&request, sent))
        }))
    }

    /// Counts an answer, and has its end counted and written down.
    fn finish(&self, request: &Request, sent: Sent) -> Response<Body> {
        let Sent { answer, flight } = sent;
        self.counters.answered(answer.status().as_u16());
        let line = self.log.as_ref().map(|log| (Rc::clone(log), log.begin(request, answer.status())));
        if let (Some(link), true) = (Link::of(request), line.is_some() || !matches!(flight, Flight::None)) {
            link.on_end(move |end| {
                flight.end(end.completion);
                if let Some((log, entry)) = line {
                    log.end(&entry, end);
                }
            });
        }
        answer
    }

    /// The answer to one request, unless a disk has to be waited for.
    fn answer_now(&self, request: &Request) -> Option<Sent> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(self.refuse(StatusCode::NOT_IMPLEMENTED).into());
        }
        let path = match path::parse(request.path()) {
            Ok(path) => path,
            Err(PathError::Malformed) => return Some(self.refuse(StatusCode::BAD_REQUEST).into()),
            Err(PathError::Unserved) => return Some(self.refuse(StatusCode::NOT_FOUND).into()),
        };
        if *path.bytes == *PROBE && Link::of(request).is_some_and(|link| link.is_draining()) {
            let mut answer = self.refuse(StatusCode::SERVICE_UNAVAILABLE);
            answer.head_mut().reason = Some("Draining");
            return Some(answer.into());
        }
        let found = match path.kind {
            Kind::File => self.store.get(&path.bytes, Instant::now()),
            Kind::Folder => self.store.get(&index_of(&path), Instant::now()),
        };
        match found {
            Ok(found) => Some(self.send(request, &path, &found)),
            Err(OpenError::WouldBlock | OpenError::Folder) => None,
            Err(error) => Some(self.fail(request, &path, error)),
        }
    }

    /// The answer to a request whose path was fine, from a thread that may wait for a disk.
    async fn answer_from_disk(&self, request: &Request) -> Sent {
        let Ok(path) = path::parse(request.path()) else {
            return self.refuse(StatusCode::BAD_REQUEST).into();
        };
        let found = match path.kind {
            Kind::File => self.store.read(&path.bytes).await,
            Kind::Folder => self.store.read(&index_of(&path)).await,
        };
        match found {
            Ok(found) => self.send(request, &path, &found),
            Err(OpenError::Folder) if self.store.read(&index_of(&path)).await.is_ok() => {
                self.redirect_to_folder(request).into()
            }
            Err(error) => self.fail(request, &path, error),
        }
    }

    /// A folder's name without its slash: the links of its index would lead beside it.
    fn redirect_to_folder(&self, request: &Request) -> Response<Body> {
        // The path holds no empty segment, so this cannot lead to another host.
        let mut location = format!("{}/", request.path());
        if let Some(query) = request.uri().query() {
            location.push('?');
            location.push_str(query);
        }
        let Ok(value) = HeaderValue::try_from(&location) else { return self.refuse(StatusCode::NOT_FOUND) };
        let status = StatusCode::MOVED_PERMANENTLY;
        let mut answer =
            self.refuse(status).set_body(Body::from(self.plan.pages.redirect(status, &location)));
        answer.headers_mut().insert(header::LOCATION, value);
        answer
    }

    /// The page of a status.
    fn refuse(&self, status: StatusCode) -> Response<Body> {
        let mut answer = self.plan.pages.answer(status).map_body(|_, page| Body::from(page));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        answer
    }

    /// The answer where a file cannot be had.
    fn fail(&self, request: &Request, path: &FilePath<'_>, error: OpenError) -> Sent {
        match error {
            OpenError::Missing if *path.bytes == *PROBE => {
                return self.send(request, path, &self.plan.probe_file);
            }
            OpenError::Missing | OpenError::Folder => self.refuse(StatusCode::NOT_FOUND),
            OpenError::Forbidden => self.refuse(StatusCode::FORBIDDEN),
            // It is being written at this moment.
            OpenError::WouldBlock => self.refuse(StatusCode::SERVICE_UNAVAILABLE),
            OpenError::Exhausted(errno) => {
                tracing::warn!(%errno, "no descriptor or memory left to open a file");
                self.refuse(StatusCode::SERVICE_UNAVAILABLE)
            }
            OpenError::Failed(errno) => {
                tracing::error!(%errno, path = %path.bytes.escape_ascii(), "a file cannot be read");
                self.refuse(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
        .into()
    }

    /// The answer with a file, or with the word that the client has it, or parts of it.
    fn send(&self, request: &Request, path: &FilePath<'_>, found: &Found) -> Sent {
        let meta = &found.meta;
        let length = meta.identity.length;
        let headers = request.headers();
        let outcome = conditions::evaluate(headers, &meta.validators);
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
        fields.insert(header::ETAG, meta.validators.etag.clone());
        fields.insert(header::LAST_MODIFIED, meta.validators.last_modified.clone());
        if let Some(cache_control) = &self.plan.cache_control {
            fields.insert(header::CACHE_CONTROL, cache_control.clone());
        }
        let work = if *path.bytes == *PROBE { Work::Probe } else { Work::Client };
        if work == Work::Probe {
            // A stored probe answer would tell of a load, and of a health, that is gone.
            fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            fields.insert(LOAD_REPORT, visible(self.load.report().to_string()));
        }
        if outcome == Outcome::NotModified {
            return answer.into();
        }
        fields.insert(header::CONTENT_TYPE, meta.content_type.clone());
        fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let pieces = match ranges {
            Ranges::Parts(parts) => match parts.as_slice() {
                [part] => {
                    let range = format!("bytes {}-{}/{length}", part.start, part.end.saturating_sub(1));
                    fields.insert(header::CONTENT_RANGE, visible(range));
                    VecDeque::from([Piece::File(*part)])
                }
                parts => {
                    let (content_type, pieces) = multipart::pieces(parts, &meta.content_type, length);
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
        let (body, flight) = match (&found.content, Link::of(request)) {
            (Content::Memory(file), _) => {
                let body = Body::Memory(multipart::gather(pieces, file));
                return Sent { answer: answer.set_body(body), flight: Flight::Own(in_flight) };
            }
            (Content::File(_), _) if is_head => (Body::Announced, Flight::Own(in_flight)),
            (Content::File(file), Some(link)) => {
                let in_flight = Rc::new(RefCell::new(Some(in_flight)));
                let flight = Flight::Shared(Rc::clone(&in_flight));
                let (file, identity) = (Arc::clone(file), found.meta.identity);
                let body = FileBody::new(file, identity, pieces, Rc::clone(link), in_flight);
                (Body::File(Box::new(body)), flight)
            }
            // Every connection of ours has a link.
            (Content::File(_), None) => return self.refuse(StatusCode::INTERNAL_SERVER_ERROR).into(),
        };
        answer.head_mut().no_chunking(true);
        answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
        Sent { answer: answer.set_body(body), flight }
    }
}

/// The path of a folder's index.
fn index_of(path: &FilePath<'_>) -> Vec<u8> {
    if path.bytes.is_empty() { INDEX.to_vec() } else { [&path.bytes, &b"/"[..], INDEX].concat() }
}

/// A header value of visible characters; what is none comes out empty.
fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// The embedded probe file, for a folder that has none.
pub(super) fn embedded_probe() -> Bytes {
    Bytes::from_static(include_bytes!("../../files/plshelp.txt"))
}
