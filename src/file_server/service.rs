//! The file server as a service for any actix-web application.

use std::future::{Ready, ready};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use actix_http::header::HeaderValue;
use actix_service::{Service, ServiceFactory};
use actix_web::dev::{AppService, HttpServiceFactory, ResourceDef, ServiceRequest, ServiceResponse};
use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use super::files::{Answering, FileServerState, Files};
use super::listing;
use super::load::Load;
use super::metrics::FileServerCounters;
use super::root::{Root, RootError};
use crate::http::pages::Pages;
use crate::http::transport::Passage;

/// A folder that is served by an actix-web `App`.
///
/// It is a service for [`App::service`](actix_web::App::service) and for `default_service`, in an `App` or a scope.
/// Clones serve the same folder; each worker thread has its own cache of small files.
///
/// ```
/// use actix_web::{App, test};
/// use fingerpost::file_server::FileServer;
///
/// # actix_rt::System::new().block_on(async {
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// std::fs::write(folder.join("hello.txt"), "hello").unwrap();
/// let files = FileServer::builder(folder).listing(true).files().unwrap();
/// let app = test::init_service(App::new().service(files.at("/files"))).await;
///
/// let request = test::TestRequest::get().uri("/files/hello.txt").insert_header(("Range", "bytes=0-3"));
/// let answer = test::call_service(&app, request.to_request()).await;
/// assert_eq!(answer.status(), 206);
/// assert_eq!(answer.headers().get("Content-Range").unwrap(), "bytes 0-3/5");
/// assert_eq!(test::read_body(answer).await, "hell");
///
/// let request = test::TestRequest::get().uri("/files/../secret");
/// assert_eq!(test::call_service(&app, request.to_request()).await.status(), 404);
/// # });
/// ```
///
/// On a stock `HttpServer`, actix-files streams large files with 64 KiB of memory for each download. The parts that
/// belong to the transport of `fingerpost server` are absent: sendfile, the fast path, pages for errors of the HTTP
/// parser, deadlines for request heads, limits for slow readers, and the 503 for probes during a stop.
#[derive(Debug, Clone)]
pub struct FileService {
    shared: Arc<FileServerState>,
    prefix: Arc<str>,
}

impl FileService {
    pub(super) fn new(shared: Arc<FileServerState>) -> Self {
        Self { shared, prefix: Arc::from("") }
    }

    /// The same service below a path, such as `/files`, which is removed from the paths of requests. In a scope, the
    /// path of the scope is part of it.
    #[must_use]
    pub fn at(&self, prefix: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), prefix: Arc::from(prefix.trim_end_matches('/')) }
    }
}

impl HttpServiceFactory for FileService {
    fn register(self, config: &mut AppService) {
        config.register_service(ResourceDef::root_prefix(&self.prefix), None, self, None);
    }
}

impl ServiceFactory<ServiceRequest> for FileService {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Config = ();
    type Service = FileWorkerService;
    type InitError = ();
    type Future = Ready<Result<FileWorkerService, ()>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let files = Files::of_thread(&self.shared);
        ready(Ok(FileWorkerService { files, prefix: Rc::from(&*self.prefix) }))
    }
}

/// A [`FileService`] on one worker thread.
pub struct FileWorkerService {
    files: Rc<Files>,
    prefix: Rc<str>,
}

impl Service<ServiceRequest> for FileWorkerService {
    type Response = ServiceResponse;
    type Error = actix_web::Error;
    type Future = Answering;

    actix_service::always_ready!();

    fn call(&self, request: ServiceRequest) -> Self::Future {
        self.files.answer(&self.prefix, request)
    }
}

/// Collects the settings of a [`FileService`].
#[derive(Debug, Clone)]
pub struct FileServiceBuilder {
    root: PathBuf,
    cache_bytes: u64,
    cache_control: Option<HeaderValue>,
    listing: bool,
    precompressed: bool,
    pages: Pages,
}

impl FileServiceBuilder {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            cache_bytes: 16 << 20,
            cache_control: None,
            listing: false,
            precompressed: false,
            pages: Pages::built_in(),
        }
    }

    /// Limit of the cache of files up to 128 KiB, in bytes for each worker thread. The default is 16 MiB.
    #[must_use]
    pub fn cache_bytes(self, cache_bytes: u64) -> Self {
        Self { cache_bytes, ..self }
    }

    /// The `Cache-Control` of every file. The default is no such header.
    #[must_use]
    pub fn cache_control(self, value: HeaderValue) -> Self {
        Self { cache_control: Some(value), ..self }
    }

    /// Whether folders without `index.html` are listed. The default is false.
    #[must_use]
    pub fn listing(self, listing: bool) -> Self {
        Self { listing, ..self }
    }

    /// Whether `name.br`, `name.zst` and `name.gz` are sent in place of `name` to clients that accept them. The
    /// default is false.
    #[must_use]
    pub fn precompressed(self, precompressed: bool) -> Self {
        Self { precompressed, ..self }
    }

    /// The error pages. The default are those of `fingerpost server`.
    #[must_use]
    pub fn pages(self, pages: Pages) -> Self {
        Self { pages, ..self }
    }

    /// Opens the folder.
    pub fn files(self) -> Result<FileService, RootError> {
        Ok(FileService::new(Arc::new(FileServerState {
            root: Arc::new(Root::open(&self.root)?),
            pages: ArcSwap::from_pointee(self.pages),
            cache_control: self.cache_control,
            passage: Passage::Memory,
            cache_bytes: self.cache_bytes,
            precompressed: self.precompressed,
            listing_memory: self.listing.then(|| Arc::new(Semaphore::new(listing::MEMORY))),
            digests: None,
            load: Arc::new(Load::new(rand::random())),
            log: None,
            counters: vec![Arc::new(FileServerCounters::default())],
            next_worker: AtomicUsize::new(0),
            phases: None,
        })))
    }
}

#[cfg(test)]
mod tests;
