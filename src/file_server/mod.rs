//! The file server: serves a folder, with an error page of its own for every error.
//!
//! - [`path`], [`root`]: which file a request path names, and opening it beneath the root.
//! - [`store`], [`cache`]: files as they are answered, small ones from memory.
//! - [`files`]: from a request to its answer; [`conditions`], [`range`], [`multipart`] decide what is sent of a file.
//! - [`body`]: how the bytes go out.
//! - [`load`]: what the server reports of itself to balancers.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use actix_http::Request;
use actix_service::fn_service;

pub mod body;
pub mod cache;
pub mod conditions;
pub mod files;
pub mod load;
pub mod media;
pub mod multipart;
pub mod path;
pub mod range;
pub mod root;
pub mod settings;
pub mod store;

use crate::cli::ServerArguments;
use crate::http::listener::{self, ListenError};
use crate::http::pages::{Pages, PagesError};
use crate::http::stop::{Interrupts, StopHandle};
use crate::http::transport::Transport;
use crate::settings::SettingsError;
use files::{AnswerPlan, Files};
use load::Load;
use root::{Root, RootError};
use settings::ServerSettings;
use store::{Found, Store};

/// Why a file server cannot run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The folder cannot be served.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The error pages cannot be read.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The port cannot be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system gave no thread or no signals.
    #[error("cannot start the file server")]
    System(#[from] std::io::Error),
}

/// Runs `fingerpost server` until it is told to stop.
pub fn command(arguments: &ServerArguments) -> Result<(), ServerError> {
    let raw = crate::settings::load(arguments.config.config.as_deref(), arguments.overrides())?;
    let settings = ServerSettings::try_from(raw.server)?;
    let grace = settings.drain_timeout;
    let server = FileServer::build(settings)?;
    actix::System::new().block_on(async {
        let stop = StopHandle::default();
        let interrupts = Interrupts::listen()?;
        actix::spawn(interrupts.announce_and_stop(stop.clone(), grace));
        server.run(Bound::announce, stop).await
    })
}

/// A file server that has its port and its folder, and answers once it is run.
///
/// ```
/// use fingerpost::file_server::FileServer;
/// use fingerpost::http::stop::StopHandle;
///
/// # let folder = tempfile::tempdir().unwrap();
/// let mut raw = fingerpost::settings::load(None, Vec::new()).unwrap().server;
/// # raw.root = folder.path().to_owned();
/// raw.host = "127.0.0.1".to_owned();
/// let server = FileServer::build(raw.try_into().unwrap()).unwrap();
/// println!("will serve on {}", server.bound().clients);
/// # actix::System::new().block_on(async {
/// let stop = StopHandle::default();
/// stop.stop(std::time::Duration::ZERO); // From a signal, or from another task.
/// server.run(|_| {}, stop).await.unwrap();
/// # });
/// ```
pub struct FileServer {
    settings: ServerSettings,
    bound: Bound,
    listener: TcpListener,
    root: Arc<Root>,
    pages: Pages,
}

/// Where a file server can be reached.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Where clients connect.
    pub clients: SocketAddr,
}

impl Bound {
    /// Prints the ready line that scripts wait for.
    pub fn announce(&self) {
        println!("Will wait for client connections at port {}", self.clients.port());
    }
}

impl FileServer {
    /// Opens the folder, reads the pages and binds the port.
    pub fn build(settings: ServerSettings) -> Result<Self, ServerError> {
        let root = Arc::new(Root::open(&settings.root)?);
        let pages = match &settings.pages {
            Some(folder) => Pages::load(folder)?,
            None => Pages::built_in(),
        };
        let listener = listener::listen(&settings.host, settings.port)?;
        let bound = Bound { clients: listener.local_addr()? };
        Ok(Self { settings, bound, listener, root, pages })
    }

    /// Where it can be reached.
    #[must_use]
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// Serves until `stop` asks to stop; then finishes what is being sent.
    ///
    /// `ready` is called once connections are accepted.
    pub async fn run(self, ready: impl FnOnce(&Bound), stop: StopHandle) -> Result<(), ServerError> {
        let Self { settings, bound, listener, root, pages } = self;
        let transport = Transport {
            name: "files",
            workers: settings.workers,
            blocking_threads: 4,
            limits: settings.limits,
            pages: pages.clone(),
            stop,
        };
        let load = Arc::new(Load::new(rand::random()));
        let plan = AnswerPlan {
            pages,
            cache_control: settings.cache_control,
            probe_file: Found::embedded(files::PROBE, files::embedded_probe()),
        };
        let cache_bytes = settings.cache_bytes / settings.workers as u64;
        let serving = transport.serve(vec![listener.into()], move || {
            let store = Store::new(Arc::clone(&root), cache_bytes);
            let files = Rc::new(Files::new(store, Arc::clone(&load), plan.clone()));
            fn_service(move |request: Request| files.answer(request))
        })?;
        ready(&bound);
        Ok(serving.run().await?)
    }
}
