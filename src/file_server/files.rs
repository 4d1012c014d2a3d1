//! From a request to its answer: which file it is, or why there is none. [`sending`](super::sending) goes on from there.
//!
//! actix-files knows the content types; its way from a path to an answer is not used, for it resolves dot
//! segments, opens on the thread that serves, follows links out of the root, names the inode in the entity tag
//! and sends one range only.

use std::borrow::Cow;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_http::body::BoxBody;
use actix_http::header::{self, HeaderValue};
use actix_http::{HttpMessage as _, Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

use super::access_log::AccessLog;
use super::digests::Digests;
use super::listing::Listings;
use super::load::{Flight, Load};
use super::metrics::WorkerCounters;
use super::path::{self, FilePath, Kind, PathError};
use super::root::OpenError;
use super::sending::Sent;
use super::store::{Found, Store};
use super::variants::{Representation, Variants};
use crate::http::host::is_host;
use crate::http::pages::Pages;
use crate::http::stop::Phase;
use crate::http::transport::{OnEnd, Passage};

/// The file that balancers fetch to see whether a server answers.
pub const PROBE: &[u8] = b"plshelp.txt";

/// What a folder is answered with, where it has it.
const INDEX: &[u8] = b"index.html";

/// Seconds after which a client may come back that was turned away for lack of something.
const RETRY_AFTER: u32 = 5;

/// How all workers answer alike.
#[derive(Debug, Clone)]
pub struct AnswerPlan {
    /// The pages of errors.
    pub pages: Pages,
    /// Sent with every file, where there is one.
    pub cache_control: Option<HeaderValue>,
    /// How the bytes of large files get to the socket.
    pub passage: Passage,
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
    /// What finds encoded files beside others, if they are sent.
    pub(super) variants: Option<Variants>,
    /// What lists folders, if they are listed.
    pub(super) listings: Option<Listings>,
    /// The digests of the files, if they are made.
    pub digests: Option<Arc<Digests>>,
    /// Whether the server is being stopped.
    pub phases: watch::Receiver<Phase>,
    /// How it answers.
    pub plan: AnswerPlan,
}

/// An answer that is there at once, or once a disk has been read.
pub enum Answering {
    /// It is there.
    Now(Ready<Result<Response<BoxBody>, Response<BoxBody>>>),
    /// It has to wait.
    Later(LocalBoxFuture<'static, Result<Response<BoxBody>, Response<BoxBody>>>),
}

impl Future for Answering {
    type Output = Result<Response<BoxBody>, Response<BoxBody>>;

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
        let preparing = self.load.prepare();
        Answering::Later(Box::pin(async move {
            let sent = files.answer_from_disk(&request).await;
            // What it counts as from now on is part of the answer.
            drop(preparing);
            Ok(files.finish(&request, sent))
        }))
    }

    /// Counts an answer, and has its end counted and written down.
    fn finish(&self, request: &Request, sent: Sent) -> Response<BoxBody> {
        let Sent { mut answer, flight, memory } = sent;
        self.counters.answered(answer.status().as_u16());
        let line = self.log.as_ref().map(|log| (Rc::clone(log), log.begin(request, answer.status())));
        let has_end = line.is_some() || memory.is_some() || !matches!(flight, Flight::None);
        if has_end {
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

    /// The answer to one request, unless a disk has to be waited for.
    fn answer_now(&self, request: &Request) -> Option<Sent> {
        if request.headers().get(header::HOST).is_some_and(|host| !is_host(host.as_bytes())) {
            return Some(self.refuse(StatusCode::BAD_REQUEST).into());
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(self.refuse(StatusCode::NOT_IMPLEMENTED).into());
        }
        let path = match path::parse(request.path()) {
            Ok(path) => path,
            Err(PathError::Malformed) => return Some(self.refuse(StatusCode::BAD_REQUEST).into()),
            Err(PathError::Unserved) => return Some(self.refuse(StatusCode::NOT_FOUND).into()),
        };
        if *path.bytes == *PROBE && *self.phases.borrow() != Phase::Running {
            let mut answer = self.refuse(StatusCode::SERVICE_UNAVAILABLE);
            answer.head_mut().reason = Some("Draining");
            return Some(answer.into());
        }
        let name = name_of(&path);
        match self.store.get(&name, Instant::now()) {
            Ok(found) => match self.represent(request, Representation::plain(name, found)) {
                Ok(representation) => Some(self.send(request, &representation)),
                Err(_) => None,
            },
            Err(OpenError::WouldBlock | OpenError::Folder) => None,
            Err(OpenError::Missing) if path.kind == Kind::Folder && self.listings.is_some() => None,
            Err(error) => Some(self.fail(request, &name, error)),
        }
    }

    /// The answer to a request whose path was fine, from a thread that may wait for a disk.
    async fn answer_from_disk(&self, request: &Request) -> Sent {
        let Ok(path) = path::parse(request.path()) else {
            return self.refuse(StatusCode::BAD_REQUEST).into();
        };
        let name = name_of(&path);
        match self.store.read(&name).await {
            Ok(found) => {
                let plain = Representation::plain(name, found);
                let representation = match self.variants_of(&plain) {
                    Some(variants) => variants.select_from_disk(&self.store, request.headers(), plain).await,
                    None => plain,
                };
                self.send(request, &representation)
            }
            Err(error) => match (&self.listings, path.kind, error) {
                (Some(listings), Kind::Folder, OpenError::Missing | OpenError::Folder) => {
                    self.list(listings, request, &path.bytes).await
                }
                (Some(_), Kind::File, OpenError::Folder) => self.redirect_to_folder(request).into(),
                (None, Kind::File, OpenError::Folder) if self.store.read(&index_of(&path)).await.is_ok() => {
                    self.redirect_to_folder(request).into()
                }
                _ => self.fail(request, &name, error),
            },
        }
    }

    /// The representation of a file that this request wants, unless a disk has to be waited for.
    fn represent<'a>(
        &self,
        request: &Request,
        plain: Representation<'a>,
    ) -> Result<Representation<'a>, OpenError> {
        match self.variants_of(&plain) {
            Some(variants) => variants.select(&self.store, request.headers(), plain),
            None => Ok(plain),
        }
    }

    /// What finds encoded files, where they are wanted. A probe is to be answered alike by every server.
    fn variants_of(&self, plain: &Representation<'_>) -> Option<&Variants> {
        self.variants.as_ref().filter(|_| *plain.name != *PROBE)
    }

    /// A folder's name without its slash: the links of its page would lead beside it.
    fn redirect_to_folder(&self, request: &Request) -> Response<BoxBody> {
        // The path holds no empty segment, so this cannot lead to another host.
        let mut location = format!("{}/", request.path());
        // With a slash after it, the first folder called so is left out.
        if location == "/files/" {
            location.push_str("files/");
        }
        if let Some(query) = request.uri().query() {
            location.push('?');
            location.push_str(query);
        }
        let Ok(value) = HeaderValue::try_from(&location) else { return self.refuse(StatusCode::NOT_FOUND) };
        let status = StatusCode::MOVED_PERMANENTLY;
        let mut answer =
            self.refuse(status).set_body(BoxBody::new(self.plan.pages.redirect(status, &location)));
        answer.headers_mut().insert(header::LOCATION, value);
        answer
    }

    /// The page of a status.
    pub(super) fn refuse(&self, status: StatusCode) -> Response<BoxBody> {
        let mut answer = self.plan.pages.answer(status).map_into_boxed_body();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        answer
    }

    /// The answer where a file cannot be had.
    pub(super) fn fail(&self, request: &Request, name: &[u8], error: OpenError) -> Sent {
        match error {
            OpenError::Missing if name == PROBE => {
                return self.send(request, &Representation::plain(name, self.plan.probe_file.clone()));
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
                tracing::error!(%errno, path = %name.escape_ascii(), "a file cannot be read");
                self.refuse(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
        .into()
    }
}

/// The path of the file that a request names.
fn name_of<'a>(path: &'a FilePath<'_>) -> Cow<'a, [u8]> {
    match path.kind {
        Kind::File => Cow::Borrowed(&path.bytes),
        Kind::Folder => Cow::Owned(index_of(path)),
    }
}

/// The path of a folder's index.
fn index_of(path: &FilePath<'_>) -> Vec<u8> {
    if path.bytes.is_empty() { INDEX.to_vec() } else { [&path.bytes, &b"/"[..], INDEX].concat() }
}

/// The embedded probe file, for a folder that has none.
pub(super) fn embedded_probe() -> Bytes {
    Bytes::from_static(include_bytes!("../../files/plshelp.txt"))
}
