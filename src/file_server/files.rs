//! From a request to its answer: finds the file that the request names, or the reason for an error. [`sending`] makes
//! the answer.
//!
//! `actix_files::Files` is not used: it resolves dot segments, opens files on the thread that serves connections, and
//! follows links out of the root. Its `NamedFile` evaluates conditions and ranges for the files that are opened here.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::{Ready, ready};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderMap, HeaderValue};
use actix_http::{Method, StatusCode};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::{HttpRequest, HttpResponse};
use arc_swap::ArcSwap;
use futures_util::future::{Either, LocalBoxFuture};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::body::CountedBody;
use super::digests::Digests;
use super::file_state::OpenError;
use super::found_file::FoundFile;
use super::listing::Listings;
use super::load::{Flight, Load};
use super::metrics::FileServerCounters;
use super::path::{self, FilePath, PathError, PathKind};
use super::root::Root;
use super::sending::{self, FileAnswer};
use super::stand_in::StandIn;
use super::store::FileStore;
use super::variants::{Representation, Variants};
use crate::http::access_log::{AccessLog, LogEntry};
use crate::http::host::is_host;
use crate::http::pages::Pages;
use crate::http::stop::Phase;
use crate::http::transport::{DateLine, OnEnd, Passage};

/// The file that balancers fetch as their probe.
pub(super) const PROBE: &[u8] = b"plshelp.txt";

/// The file that is sent for its folder.
const INDEX: &[u8] = b"index.html";

/// Value of `Retry-After`, in seconds, in answers to requests that were refused for lack of a resource.
const RETRY_AFTER: u32 = 5;

/// State that all workers of one file server share.
#[derive(Debug)]
pub(super) struct FileServerState {
    pub(super) root: Arc<Root>,
    /// The error pages.
    pub(super) pages: ArcSwap<Pages>,
    /// Value of `Cache-Control` for every file except the probe file.
    pub(super) cache_control: Option<HeaderValue>,
    /// How the bytes of large files get to the socket.
    pub(super) passage: Passage,
    /// Limit of the cache of small files, in bytes for each worker.
    pub(super) cache_bytes: u64,
    pub(super) precompressed: bool,
    /// Permits for the memory of listings; `None` if folders are not listed.
    pub(super) listing_memory: Option<Arc<Semaphore>>,
    pub(super) digests: Option<Arc<Digests>>,
    /// The load over all workers.
    pub(super) load: Arc<Load>,
    pub(super) log: Option<AccessLog>,
    /// The counters of each worker; the length is the number of workers.
    pub(super) counters: Vec<Arc<FileServerCounters>>,
    pub(super) next_worker: AtomicUsize,
    /// The phase of the transport. `None` on the HTTP server of another program; bodies are then streams.
    pub(super) phases: Option<watch::Receiver<Phase>>,
}

/// The file server's state on one HTTP worker.
pub(super) struct Files {
    pub(super) shared: Arc<FileServerState>,
    /// The files.
    pub(super) store: FileStore,
    /// The counters of this worker.
    pub(super) counters: Arc<FileServerCounters>,
    /// The access log, if it is enabled.
    pub(super) log: Option<Rc<AccessLog>>,
    /// Selects precompressed files, if this is enabled.
    pub(super) variants: Option<Variants>,
    /// Lists folders, if this is enabled.
    pub(super) listings: Option<Listings>,
    /// The answer for [`PROBE`] if the folder has no such file.
    probe_file: FoundFile,
    pub(super) stand_in: StandIn,
    pub(super) date: DateLine,
}

/// The future of an answer: ready at once, or after a read from a disk.
pub(super) type Answering = Either<
    Ready<Result<ServiceResponse, actix_web::Error>>,
    LocalBoxFuture<'static, Result<ServiceResponse, actix_web::Error>>,
>;

thread_local! {
    /// The [`Files`] of this worker thread, while a service uses it.
    static OF_THREAD: RefCell<Weak<Files>> = const { RefCell::new(Weak::new()) };
}

impl FileServerState {
    /// Whether the transport of fingerpost serves the files, as opposed to a stock `HttpServer`.
    pub(super) fn is_on_transport(&self) -> bool {
        self.phases.is_some()
    }

    fn is_draining(&self) -> bool {
        self.phases.as_ref().is_some_and(|phases| phases.borrow().refuses_probes())
    }
}

impl Files {
    fn new(shared: &Arc<FileServerState>) -> Self {
        // A worker that replaces a dead one continues its counts.
        let number = shared.next_worker.fetch_add(1, Ordering::Relaxed) % shared.counters.len().max(1);
        let counters = shared.counters.get(number).map(Arc::clone).unwrap_or_default();
        let root = &shared.root;
        let listings = |memory| Listings::new(Arc::clone(root), memory);
        Self {
            store: FileStore::new(
                Arc::clone(root),
                shared.cache_bytes,
                shared.passage,
                Arc::clone(&counters),
            ),
            log: shared.log.clone().map(Rc::new),
            variants: shared.precompressed.then(|| Variants::new(Arc::clone(root), Arc::clone(&counters))),
            listings: shared.listing_memory.clone().map(listings),
            probe_file: sending::embedded_probe(),
            stand_in: StandIn::default(),
            date: DateLine::default(),
            counters,
            shared: Arc::clone(shared),
        }
    }

    /// The [`Files`] of this worker thread. All services of one file server on this thread share its cache.
    pub(super) fn of_thread(shared: &Arc<FileServerState>) -> Rc<Self> {
        OF_THREAD.with_borrow_mut(|of_thread| {
            if let Some(files) = of_thread.upgrade().filter(|files| Arc::ptr_eq(&files.shared, shared)) {
                return files;
            }
            let files = Rc::new(Self::new(shared));
            *of_thread = Rc::downgrade(&files);
            files
        })
    }

    /// Answers one request, whose path begins with `prefix`.
    pub(super) fn answer(self: &Rc<Self>, prefix: &Rc<str>, mut request: ServiceRequest) -> Answering {
        if let Some(sent) = self.answer_now(prefix, &mut request) {
            let answer = self.finish(request.request(), sent);
            return Either::Left(ready(Ok(request.into_response(answer))));
        }
        let (files, prefix) = (Rc::clone(self), Rc::clone(prefix));
        let preparing = self.shared.load.prepare();
        Either::Right(Box::pin(async move {
            let sent = files.answer_from_disk(&prefix, &mut request).await;
            // `finish` has counted the request in the load by now.
            drop(preparing);
            let answer = files.finish(request.request(), sent);
            Ok(request.into_response(answer))
        }))
    }

    /// Adds an answer to the load, and has its end counted and logged.
    fn finish(&self, request: &HttpRequest, sent: FileAnswer) -> HttpResponse {
        let FileAnswer { mut answer, flight, guard, memory } = sent;
        self.counters.answered(answer.status().as_u16());
        if !self.shared.is_on_transport() {
            // Only the body observes the end of an answer on another server.
            return match flight {
                Flight::None => answer,
                flight => {
                    answer.map_body(|_, body| BoxBody::new(CountedBody::new(body, guard, flight, memory)))
                }
            };
        }
        let line =
            self.log.as_ref().map(|log| (Rc::clone(log), LogEntry::of(request.head(), answer.status())));
        if line.is_some() || memory.is_some() || !matches!(flight, Flight::None) {
            answer.extensions_mut().insert(OnEnd(Box::new(move |end| {
                drop(memory);
                flight.end(end.completion);
                if let Some((log, entry)) = line {
                    log.end(&entry, end);
                }
            })));
        }
        answer
    }

    /// Answers one request, or returns `None` if this requires a read from a disk.
    fn answer_now(&self, prefix: &str, request: &mut ServiceRequest) -> Option<FileAnswer> {
        if request.headers().get(header::HOST).is_some_and(|host| !is_host(host.as_bytes())) {
            return Some(self.refuse(StatusCode::BAD_REQUEST).into());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(self.refuse(StatusCode::NOT_IMPLEMENTED).into());
        }
        let uri = request.uri().clone();
        let path = match uri.path().strip_prefix(prefix) {
            // The mount point itself, without its slash.
            Some("") if !prefix.is_empty() => {
                return Some(self.redirect_to_folder(prefix, request.request()).into());
            }
            Some(path) => path,
            None => return Some(self.refuse(StatusCode::NOT_FOUND).into()),
        };
        let path = match path::parse(path) {
            Ok(path) => path,
            Err(PathError::Malformed) => return Some(self.refuse(StatusCode::BAD_REQUEST).into()),
            Err(PathError::Unserved) => return Some(self.refuse(StatusCode::NOT_FOUND).into()),
        };
        if *path.bytes == *PROBE && self.shared.is_draining() {
            let mut answer = self.refuse(StatusCode::SERVICE_UNAVAILABLE);
            answer.head_mut().reason = Some("Draining");
            return Some(answer.into());
        }
        let name = name_of(&path);
        match self.store.get(&name, Instant::now()) {
            Ok(found) => {
                let plain = Representation::plain(name, found);
                let representation = match self.variants_of(&plain) {
                    Some(variants) => {
                        variants.select(&self.store, accepted(request.headers()), plain).ok()?
                    }
                    None => plain,
                };
                Some(self.send_recorded(request, &representation))
            }
            Err(OpenError::WouldBlock | OpenError::Folder) => None,
            Err(OpenError::Missing) if path.kind == PathKind::Folder && self.listings.is_some() => None,
            Err(error) => Some(self.fail(request, &name, error)),
        }
    }

    /// Answers a request for a file or folder; a thread that may wait for a disk opens it.
    async fn answer_from_disk(&self, prefix: &str, request: &mut ServiceRequest) -> FileAnswer {
        let uri = request.uri().clone();
        let Ok(path) = path::parse(uri.path().strip_prefix(prefix).unwrap_or_default()) else {
            return self.refuse(StatusCode::BAD_REQUEST).into();
        };
        let name = name_of(&path);
        match self.store.read(&name).await {
            Ok(found) => {
                let plain = Representation::plain(name, found);
                let representation = match self.variants_of(&plain) {
                    Some(variants) => {
                        variants.select_from_disk(&self.store, accepted(request.headers()), plain).await
                    }
                    None => plain,
                };
                self.send_recorded(request, &representation)
            }
            Err(error) => match (&self.listings, path.kind, error) {
                (Some(listings), PathKind::Folder, OpenError::Missing | OpenError::Folder) => {
                    self.list(listings, request, prefix, &path.bytes).await
                }
                (Some(_), PathKind::File, OpenError::Folder) => {
                    self.redirect_to_folder(prefix, request.request()).into()
                }
                (None, PathKind::File, OpenError::Folder)
                    if self.store.read(&index_of(&path)).await.is_ok() =>
                {
                    self.redirect_to_folder(prefix, request.request()).into()
                }
                _ => self.fail(request, &name, error),
            },
        }
    }

    /// Sends a file, and records the head for the fast path.
    fn send_recorded(&self, request: &mut ServiceRequest, representation: &Representation<'_>) -> FileAnswer {
        let sent = self.send(request, representation);
        if self.shared.is_on_transport() && *representation.name != *PROBE {
            representation.found.meta.replays.record(request.head(), representation, &sent.answer);
        }
        sent
    }

    /// The selection of precompressed files, if it applies. It never applies to probes, so that all servers answer
    /// them alike.
    pub(super) fn variants_of(&self, plain: &Representation<'_>) -> Option<&Variants> {
        self.variants.as_ref().filter(|_| *plain.name != *PROBE)
    }

    /// Redirects from the name of a folder without its slash: relative links in its page would be resolved against
    /// the parent.
    fn redirect_to_folder(&self, prefix: &str, request: &HttpRequest) -> HttpResponse {
        // A `Location` that begins with `//` would lead to another host.
        let mut location = format!("{}/", path::merge_slashes(request.path()));
        // One more slash at the end makes the parser omit the first folder of this name.
        if location.strip_prefix(prefix) == Some("/files/") {
            location.push_str("files/");
        }
        if let Some(query) = request.uri().query() {
            location.push('?');
            location.push_str(query);
        }
        let Ok(value) = HeaderValue::try_from(&location) else { return self.refuse(StatusCode::NOT_FOUND) };
        let status = StatusCode::MOVED_PERMANENTLY;
        let page = self.shared.pages.load().redirect(status, &location);
        let mut answer = self.refuse(status).set_body(BoxBody::new(page));
        answer.headers_mut().insert(header::LOCATION, value);
        answer
    }

    /// An answer with the error page of a status.
    pub(super) fn refuse(&self, status: StatusCode) -> HttpResponse {
        let mut answer = HttpResponse::from(self.shared.pages.load().answer(status).map_into_boxed_body());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        answer
    }

    /// The answer if a file cannot be opened.
    pub(super) fn fail(&self, request: &mut ServiceRequest, name: &[u8], error: OpenError) -> FileAnswer {
        match error {
            OpenError::Missing if name == PROBE => {
                return self.send(request, &Representation::plain(name, self.probe_file.clone()));
            }
            OpenError::Missing | OpenError::Folder => self.refuse(StatusCode::NOT_FOUND),
            OpenError::Forbidden => self.refuse(StatusCode::FORBIDDEN),
            // The file is being written, or the served directory is missing. Probes get this answer too, because
            // another server may have the files.
            OpenError::WouldBlock | OpenError::RootGone => self.refuse(StatusCode::SERVICE_UNAVAILABLE),
            OpenError::Exhausted(errno) => {
                tracing::warn!(%errno, "no descriptor or memory left to open a file");
                self.refuse(StatusCode::SERVICE_UNAVAILABLE)
            }
            OpenError::Failed(errno) => {
                tracing::error!(%errno, path = %name.escape_ascii(), "a file cannot be read");
                self.refuse(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
        .into()
    }
}

/// The values of all `Accept-Encoding` lines.
fn accepted(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::ACCEPT_ENCODING).map(HeaderValue::as_bytes)
}

/// The path of the file that a request names.
pub(super) fn name_of<'a>(path: &'a FilePath<'_>) -> Cow<'a, [u8]> {
    match path.kind {
        PathKind::File => Cow::Borrowed(&path.bytes),
        PathKind::Folder => Cow::Owned(index_of(path)),
    }
}

/// The path of a folder's index.
fn index_of(path: &FilePath<'_>) -> Vec<u8> {
    if path.bytes.is_empty() { INDEX.to_vec() } else { [&path.bytes, &b"/"[..], INDEX].concat() }
}
