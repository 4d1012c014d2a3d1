//! From a request to its answer: which file it names, or why there is none. [`sending`] has the rest.
//!
//! `actix_files::Files` is not used: it resolves dot segments, opens files on the thread that serves and follows links out
//! of the root. Its `NamedFile` decides about the files that are opened here.

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
use futures_util::future::{Either, LocalBoxFuture};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::access_log::AccessLog;
use super::body::Counted;
use super::digests::Digests;
use super::listing::Listings;
use super::load::{Flight, Load};
use super::metrics::WorkerCounters;
use super::path::{self, FilePath, Kind, PathError};
use super::replay::DateLine;
use super::root::{OpenError, Root};
use super::sending::{self, Sent};
use super::stand_in::StandIn;
use super::store::{Found, Store};
use super::variants::{Representation, Variants};
use crate::http::host::is_host;
use crate::http::pages::Pages;
use crate::http::stop::Phase;
use crate::http::transport::{OnEnd, Passage};

/// The file that balancers fetch as their probe.
pub const PROBE: &[u8] = b"plshelp.txt";

/// The file that is the answer for its folder.
const INDEX: &[u8] = b"index.html";

/// Seconds after which a client may repeat a request that was refused for lack of a resource.
const RETRY_AFTER: u32 = 5;

/// What the workers of one file server share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) root: Arc<Root>,
    /// The pages of errors.
    pub(super) pages: Pages,
    /// Sent with every file but the probe file.
    pub(super) cache_control: Option<HeaderValue>,
    /// How the bytes of large files get to the socket.
    pub(super) passage: Passage,
    /// Memory for small files, for each worker.
    pub(super) cache_bytes: u64,
    pub(super) precompressed: bool,
    /// The memory of listings, if folders are listed.
    pub(super) listing_memory: Option<Arc<Semaphore>>,
    pub(super) digests: Option<Arc<Digests>>,
    /// What is in flight.
    pub(super) load: Arc<Load>,
    pub(super) log: Option<AccessLog>,
    /// What each worker counts, as many as there are workers.
    pub(super) counters: Vec<Arc<WorkerCounters>>,
    pub(super) next_worker: AtomicUsize,
    /// The phase of the transport; `None` if the server of another program serves the files, which then streams the bodies.
    pub(super) phases: Option<watch::Receiver<Phase>>,
}

/// Answers the requests of one HTTP worker.
pub struct Files {
    pub(super) shared: Arc<Shared>,
    /// Where the files come from.
    pub(super) store: Store,
    /// What is in flight, over all workers.
    pub(super) load: Arc<Load>,
    /// What this worker counts.
    pub(super) counters: Arc<WorkerCounters>,
    /// Where answers are logged, if they are.
    pub(super) log: Option<Rc<AccessLog>>,
    /// Finds encoded files beside others, if they are sent.
    pub(super) variants: Option<Variants>,
    /// Lists folders, if they are listed.
    pub(super) listings: Option<Listings>,
    /// The digests of the files, if they are made.
    pub(super) digests: Option<Arc<Digests>>,
    /// The answer for [`PROBE`] if the folder has no such file.
    probe_file: Found,
    pub(super) stand_in: StandIn,
    pub(super) date: DateLine,
}

/// An answer that exists at once, or once a disk has been read.
pub(super) type Answering = Either<
    Ready<Result<ServiceResponse, actix_web::Error>>,
    LocalBoxFuture<'static, Result<ServiceResponse, actix_web::Error>>,
>;

thread_local! {
    /// That of this worker thread, as long as a service uses it.
    static OF_THREAD: RefCell<Weak<Files>> = const { RefCell::new(Weak::new()) };
}

impl Shared {
    /// Whether our transport serves the files.
    pub(super) fn is_on_transport(&self) -> bool {
        self.phases.is_some()
    }

    fn is_draining(&self) -> bool {
        self.phases.as_ref().is_some_and(|phases| *phases.borrow() != Phase::Running)
    }
}

impl Files {
    fn new(shared: &Arc<Shared>) -> Self {
        // A worker that replaces a dead one continues its counts.
        let number = shared.next_worker.fetch_add(1, Ordering::Relaxed) % shared.counters.len().max(1);
        let counters = shared.counters.get(number).map(Arc::clone).unwrap_or_default();
        let (root, load) = (&shared.root, &shared.load);
        let listings = |memory| Listings::new(Arc::clone(root), memory);
        Self {
            store: Store::new(Arc::clone(root), shared.cache_bytes, shared.passage, Arc::clone(&counters)),
            load: Arc::clone(load),
            log: shared.log.clone().map(Rc::new),
            variants: shared.precompressed.then(|| Variants::new(Arc::clone(root), Arc::clone(&counters))),
            listings: shared.listing_memory.clone().map(listings),
            digests: shared.digests.clone(),
            probe_file: sending::embedded_probe(),
            stand_in: StandIn::default(),
            date: DateLine::default(),
            counters,
            shared: Arc::clone(shared),
        }
    }

    /// That of this worker thread: all services of one file server on it share the files in memory.
    pub(super) fn of_thread(shared: &Arc<Shared>) -> Rc<Self> {
        OF_THREAD.with_borrow_mut(|of_thread| {
            if let Some(files) = of_thread.upgrade().filter(|files| Arc::ptr_eq(&files.shared, shared)) {
                return files;
            }
            let files = Rc::new(Self::new(shared));
            *of_thread = Rc::downgrade(&files);
            files
        })
    }

    /// The answer to one request, whose path begins with `prefix`.
    pub(super) fn answer(self: &Rc<Self>, prefix: &Rc<str>, mut request: ServiceRequest) -> Answering {
        if let Some(sent) = self.answer_now(prefix, &mut request) {
            let answer = self.finish(request.request(), sent);
            return Either::Left(ready(Ok(request.into_response(answer))));
        }
        let (files, prefix) = (Rc::clone(self), Rc::clone(prefix));
        let preparing = self.load.prepare();
        Either::Right(Box::pin(async move {
            let sent = files.answer_from_disk(&prefix, &mut request).await;
            // The answer is counted from now on.
            drop(preparing);
            let answer = files.finish(request.request(), sent);
            Ok(request.into_response(answer))
        }))
    }

    /// Counts an answer, and has its end counted and logged.
    fn finish(&self, request: &HttpRequest, sent: Sent) -> HttpResponse {
        let Sent { mut answer, flight, guard, memory } = sent;
        self.counters.answered(answer.status().as_u16());
        if !self.shared.is_on_transport() {
            // On another server only the body notices the end of its answer.
            return match flight {
                Flight::None => answer,
                flight => answer.map_body(|_, body| BoxBody::new(Counted::new(body, guard, flight, memory))),
            };
        }
        let line = self.log.as_ref().map(|log| (Rc::clone(log), log.begin(request.head(), answer.status())));
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

    /// The answer to one request, unless a disk must be read for it.
    fn answer_now(&self, prefix: &str, request: &mut ServiceRequest) -> Option<Sent> {
        if request.headers().get(header::HOST).is_some_and(|host| !is_host(host.as_bytes())) {
            return Some(self.refuse(StatusCode::BAD_REQUEST).into());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(self.refuse(StatusCode::NOT_IMPLEMENTED).into());
        }
        let uri = request.uri().clone();
        let path = match uri.path().strip_prefix(prefix) {
            // The mount itself, without its slash.
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
            Err(OpenError::Missing) if path.kind == Kind::Folder && self.listings.is_some() => None,
            Err(error) => Some(self.fail(request, &name, error)),
        }
    }

    /// The answer to a request whose path names a file or folder, from a thread that may wait for a disk.
    async fn answer_from_disk(&self, prefix: &str, request: &mut ServiceRequest) -> Sent {
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
                (Some(listings), Kind::Folder, OpenError::Missing | OpenError::Folder) => {
                    self.list(listings, request, prefix, &path.bytes).await
                }
                (Some(_), Kind::File, OpenError::Folder) => {
                    self.redirect_to_folder(prefix, request.request()).into()
                }
                (None, Kind::File, OpenError::Folder) if self.store.read(&index_of(&path)).await.is_ok() => {
                    self.redirect_to_folder(prefix, request.request()).into()
                }
                _ => self.fail(request, &name, error),
            },
        }
    }

    /// The answer with a file, kept for the fast path.
    fn send_recorded(&self, request: &mut ServiceRequest, representation: &Representation<'_>) -> Sent {
        let sent = self.send(request, representation);
        if self.shared.is_on_transport() && *representation.name != *PROBE {
            representation.found.meta.replays.record(request.head(), representation, &sent.answer);
        }
        sent
    }

    /// Finds encoded files, if they are wanted. All servers answer a probe alike.
    pub(super) fn variants_of(&self, plain: &Representation<'_>) -> Option<&Variants> {
        self.variants.as_ref().filter(|_| *plain.name != *PROBE)
    }

    /// A folder's name without its slash: relative links of its page would lead beside it.
    fn redirect_to_folder(&self, prefix: &str, request: &HttpRequest) -> HttpResponse {
        // With `//` in front it would lead to another host.
        let mut location = format!("{}/", path::merge_slashes(request.path()));
        // With a slash after it, the first folder of this name is left out.
        if location.strip_prefix(prefix) == Some("/files/") {
            location.push_str("files/");
        }
        if let Some(query) = request.uri().query() {
            location.push('?');
            location.push_str(query);
        }
        let Ok(value) = HeaderValue::try_from(&location) else { return self.refuse(StatusCode::NOT_FOUND) };
        let status = StatusCode::MOVED_PERMANENTLY;
        let page = self.shared.pages.redirect(status, &location);
        let mut answer = self.refuse(status).set_body(BoxBody::new(page));
        answer.headers_mut().insert(header::LOCATION, value);
        answer
    }

    /// The page of a status.
    pub(super) fn refuse(&self, status: StatusCode) -> HttpResponse {
        let mut answer = HttpResponse::from(self.shared.pages.answer(status).map_into_boxed_body());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        answer
    }

    /// The answer if a file cannot be opened.
    pub(super) fn fail(&self, request: &mut ServiceRequest, name: &[u8], error: OpenError) -> Sent {
        match error {
            OpenError::Missing if name == PROBE => {
                return self.send(request, &Representation::plain(name, self.probe_file.clone()));
            }
            OpenError::Missing | OpenError::Folder => self.refuse(StatusCode::NOT_FOUND),
            OpenError::Forbidden => self.refuse(StatusCode::FORBIDDEN),
            // The file is being written, or the served directory is gone: to probes as well, because another server may
            // have the files.
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

/// The values of `Accept-Encoding`.
fn accepted(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(header::ACCEPT_ENCODING).map(HeaderValue::as_bytes)
}

/// The path of the file that a request names.
pub(super) fn name_of<'a>(path: &'a FilePath<'_>) -> Cow<'a, [u8]> {
    match path.kind {
        Kind::File => Cow::Borrowed(&path.bytes),
        Kind::Folder => Cow::Owned(index_of(path)),
    }
}

/// The path of a folder's index.
fn index_of(path: &FilePath<'_>) -> Vec<u8> {
    if path.bytes.is_empty() { INDEX.to_vec() } else { [&path.bytes, &b"/"[..], INDEX].concat() }
}
