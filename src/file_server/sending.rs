//! From a file to its answer: actix-files decides, and this module adds our entity tag, error pages and the body.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use actix_files::NamedFile;
use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{Method, StatusCode};
use actix_web::dev::ServiceRequest;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::OwnedSemaphorePermit;

use super::body::{self, GuardedFile, HeadBody};
use super::file_state::{FileState, OpenError};
use super::files::{Files, PROBE};
use super::found_file::{Content, FoundFile};
use super::load::{Flight, RequestKind};
use super::memfd_copy;
use super::multipart::{self, Piece};
use super::range::FilePart;
use super::rewrite::Rewritten;
use super::variants::Representation;
use crate::http::transport::{DirectBody, FileGuard, Passage};
use crate::load_report;

const LOAD_REPORT: HeaderName = HeaderName::from_static(load_report::HEADER);

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// An answer, and its entry in the load until it ends.
pub(super) struct FileAnswer {
    pub(super) answer: HttpResponse,
    pub(super) flight: Flight,
    /// The guard of a body that actix streams.
    pub(super) guard: Option<Rc<GuardedFile>>,
    /// The memory permit of the body, if its memory is limited.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

impl From<HttpResponse> for FileAnswer {
    fn from(answer: HttpResponse) -> Self {
        Self { answer, flight: Flight::None, guard: None, memory: None }
    }
}

impl Files {
    /// The answer for a file. actix-files decides about the status and the part that is sent.
    pub(super) fn send(
        &self,
        request: &mut ServiceRequest,
        representation: &Representation<'_>,
    ) -> FileAnswer {
        let Representation { name, found, varies, encoded } = representation;
        let (validators, meta) = (representation.validators(), &found.meta);
        let length = meta.identity.length;
        let file = match self.file_to_evaluate(found) {
            Ok(file) => file,
            Err(error) => return self.fail(request, name, error),
        };
        let rewritten = Rewritten::apply(request, validators, length);
        // actix-files needs its own `Last-Modified` only to evaluate a condition on the date. Ours replaces it in the answer.
        let needs_date = validators.modified.is_some() && Rewritten::has_date(request.headers());
        let decided = file
            .use_etag(false)
            .use_last_modified(needs_date)
            .disable_content_disposition()
            .set_content_type(representation.media_type().clone())
            .into_response(request.request());
        let parts = rewritten.restore(request);
        let status = decided.status();
        let mut answer = match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED => decided,
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let mut answer = self.refuse(status);
                if let Some(range) = decided.headers().get(header::CONTENT_RANGE) {
                    answer.headers_mut().insert(header::CONTENT_RANGE, range.clone());
                }
                return answer.into();
            }
            status => return self.refuse(status).into(),
        };
        let fields = answer.headers_mut();
        fields.insert(header::ETAG, validators.etag.clone());
        match &validators.last_modified {
            Some(last_modified) => fields.insert(header::LAST_MODIFIED, last_modified.clone()),
            None => fields.remove(header::LAST_MODIFIED),
        };
        if *varies {
            fields.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        let work = if **name == *PROBE { RequestKind::Probe } else { RequestKind::Client };
        if work == RequestKind::Probe {
            // A stored answer to a probe would report an outdated load and health.
            fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            fields.insert(LOAD_REPORT, visible(self.shared.load.report().to_string()));
        } else if let Some(cache_control) = &self.shared.cache_control {
            fields.insert(header::CACHE_CONTROL, cache_control.clone());
        }
        if status == StatusCode::NOT_MODIFIED {
            fields.remove(header::CONTENT_TYPE);
            fields.remove(header::ACCEPT_RANGES);
            return answer.into();
        }
        if let Some(encoded) = encoded {
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoded.coding.token()));
        }
        fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(digest) = self.shared.digests.as_ref().and_then(|digests| digests.header(name, meta)) {
            fields.insert(REPR_DIGEST, digest);
        }
        let pieces = match parts.as_slice() {
            [part] if status == StatusCode::PARTIAL_CONTENT => VecDeque::from([Piece::File(*part)]),
            parts if status == StatusCode::PARTIAL_CONTENT => {
                let (content_type, pieces) = multipart::pieces(parts, representation.media_type(), length);
                fields.insert(header::CONTENT_TYPE, content_type);
                fields.remove(header::CONTENT_RANGE);
                pieces
            }
            _ => VecDeque::from([Piece::File(FilePart { start: 0, end: length })]),
        };
        self.set_body(request.request(), answer, found, work, pieces)
    }

    /// The file that actix-files evaluates. actix-files does not open a file itself.
    fn file_to_evaluate(&self, found: &FoundFile) -> Result<NamedFile, OpenError> {
        let meta = &found.meta;
        let file = match &found.content {
            Content::File(file) => file.try_clone(),
            Content::Memory(_) | Content::MemfdCopy(_) => {
                let modified = meta.validators.modified.unwrap_or(SystemTime::UNIX_EPOCH);
                self.stand_in.show(meta.identity.length, modified)
            }
        };
        // The media type is known, so the name has no effect; a fixed one saves work.
        let named =
            file.and_then(|file| NamedFile::from_file(file, "file")).map_err(|error| open_error(&error))?;
        let is_changed =
            matches!(found.content, Content::File(_)) && !is_of(named.metadata(), &meta.identity);
        if is_changed { Err(OpenError::WouldBlock) } else { Ok(named) }
    }

    fn set_body(
        &self,
        request: &HttpRequest,
        mut answer: HttpResponse,
        found: &FoundFile,
        work: RequestKind,
        pieces: VecDeque<Piece>,
    ) -> FileAnswer {
        let is_head = *request.method() == Method::HEAD;
        let bytes: u64 = pieces.iter().map(Piece::length).sum();
        let in_flight = self.shared.load.begin(work, if is_head { 0 } else { bytes });
        let is_of_ours = self.shared.is_on_transport();
        let (body, in_flight) = match &found.content {
            _ if is_head => (BoxBody::new(HeadBody(bytes)), in_flight),
            Content::Memory(file) => (BoxBody::new(multipart::gather(pieces, file)), in_flight),
            Content::MemfdCopy(copy) if is_of_ours => {
                let segments = body::segments(pieces, copy);
                let direct = DirectBody { segments, passage: Passage::Kernel, guard: None };
                answer.extensions_mut().insert(direct);
                (BoxBody::new(HeadBody(bytes)), in_flight)
            }
            Content::MemfdCopy(copy) => match memfd_copy::read(copy, found.meta.identity.length) {
                Ok(file) => (BoxBody::new(multipart::gather(pieces, &file)), in_flight),
                Err(_) => return self.refuse(StatusCode::INTERNAL_SERVER_ERROR).into(),
            },
            Content::File(file) => {
                let in_flight = Rc::new(RefCell::new(Some(in_flight)));
                let flight = Flight::Shared(Rc::clone(&in_flight));
                let watched = Rc::new(GuardedFile {
                    file: Arc::clone(file),
                    identity: found.meta.identity,
                    in_flight,
                    counters: Arc::clone(&self.counters),
                });
                return self.set_file_body(answer, flight, watched, pieces, is_of_ours);
            }
        };
        FileAnswer { flight: Flight::Own(in_flight), ..answer.set_body(body).into() }
    }

    fn set_file_body(
        &self,
        mut answer: HttpResponse,
        flight: Flight,
        watched: Rc<GuardedFile>,
        pieces: VecDeque<Piece>,
        is_of_ours: bool,
    ) -> FileAnswer {
        if is_of_ours {
            let segments = body::segments(pieces, &watched.file);
            let guard: Option<Rc<dyn FileGuard>> = Some(watched);
            answer.extensions_mut().insert(DirectBody { segments, passage: self.shared.passage, guard });
            return FileAnswer { flight, ..answer.into() };
        }
        // For one part, actix-files has already set the body.
        if pieces.len() > 1 {
            answer = answer.set_body(body::stream(pieces, Arc::clone(&watched.file)));
        }
        FileAnswer { flight, guard: Some(watched), ..answer.into() }
    }
}

/// Whether the metadata of a file is that of this state, as far as actix-files uses it.
fn is_of(metadata: &Metadata, identity: &FileState) -> bool {
    let stamp = identity.stamp();
    let modified = if metadata.mtime() < 0 { 0 } else { metadata.mtime() };
    (metadata.len(), modified, metadata.mtime_nsec())
        == (stamp.length, stamp.modified.0, i64::from(stamp.modified.1))
}

fn open_error(error: &io::Error) -> OpenError {
    error.raw_os_error().map_or(OpenError::Failed(Errno::IO), |code| Errno::from_raw_os_error(code).into())
}

/// A header value of visible ASCII characters; any other text results in an empty value.
fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// The embedded probe file, for a folder without one.
pub(super) fn embedded_probe() -> FoundFile {
    FoundFile::embedded(PROBE, Bytes::from_static(include_bytes!("../../files/plshelp.txt")))
}
