//! The connection under both programs: actix-http over an IO type of our own.
//!
//! The HTTP layer of actix answers malformed requests with an empty page, gives time to the first request head
//! only, and never cuts a reader that stalls. A [`Transport`] adds what is missing around the socket and
//! leaves parsing and encoding to actix:
//!
//! - every error of the parser gets its page: 400, 408, 414, 431, and 505 for a major version other than 1;
//! - every request head has a deadline, the first as well as any later one;
//! - readers that take less than [`Limits::minimum_rate`] are cut;
//! - connections beyond the limit get the 503 page, not silence;
//! - header names go out in Camel-Case, and `TCP_NODELAY` is on;
//! - a stop lets answers under way finish, and closes idle connections at once.
//!
//! A request whose head comes in one read costs one look at its bytes: no timer, no allocation, no system call.
//!
//! # How to use it
//!
//! The factory runs once for each worker thread and listener, on that thread. It makes a plain service of
//! `actix_http`, which may hold what is not `Send`. [`pages`](crate::http::pages) has the answers to errors.
//!
//! ```
//! use actix_http::{Request, Response, StatusCode};
//! use actix_service::fn_service;
//! use fingerpost::http::{listener, pages::Pages, transport::Transport};
//!
//! # actix_rt::System::new().block_on(async {
//! let listener = listener::listen("127.0.0.1", 0).unwrap();
//! let pages = Pages::built_in();
//! let transport = Transport { name: "example", workers: 1, pages: pages.clone(), ..Transport::default() };
//! let serving = transport
//!     .serve(vec![listener.into()], move || {
//!         let pages = pages.clone();
//!         fn_service(move |_request: Request| {
//!             let answer = pages.answer(StatusCode::NOT_FOUND);
//!             async move { Ok::<_, Response<actix_http::body::BoxBody>>(answer) }
//!         })
//!     })
//!     .unwrap();
//! let stop = serving.stop_handle();
//! stop.stop(std::time::Duration::from_secs(5)); // From a signal, or from another task.
//! serving.run().await.unwrap();
//! # });
//! ```
//!
//! An actix-web application goes the same way: `map_config(App::new().., |_| AppConfig::default())`.

use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_server::Server;
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use tokio::sync::watch;

mod accept;
mod admission;
mod clock;
mod connection;
mod direct;
mod ending;
pub mod head;
mod link;
mod outgoing;
mod pace;
mod queue;
mod refusal;
mod response;
mod service;
mod shortcut;
mod stall;
mod stream;
#[cfg(test)]
mod tests;

pub use admission::{Connections, REFUSED_AT_ONCE};
pub use link::{AnswerEnd, Completion, Link};
pub use outgoing::{SendFile, SendState};
pub use refusal::{Refusal, RefusalLog};
pub use response::{DirectBody, FileGuard, OnEnd, Passage, Segment};
pub use shortcut::{Offer, Shortcut};

use self::accept::AcceptorFactory;
use self::connection::Connection;
use self::head::HeadLimits;
use self::link::{Shared, Worker};
use self::pace::Pace;
use self::service::WatchedFactory;
use super::listener::Listener;
use super::pages::Pages;
use super::stop::{Phase, StopHandle};

/// Once the grace of a stop has passed, the workers have this long to end what is left.
const CUT: Duration = Duration::from_secs(1);

/// What a client may take of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections in all; one more gets the 503 page.
    pub connections: usize,
    /// Connections from one IPv4 address or IPv6 /64 network; one more gets the 503 page.
    pub connections_per_address: u32,
    /// The size of a request head.
    pub head: HeadLimits,
    /// The time for a request head from its first byte, and for the first byte of a connection.
    pub head_timeout: Duration,
    /// The time a connection is kept open without a request. It ends between one and two of them.
    pub keep_alive: Duration,
    /// A reader has this long to take what [`Limits::minimum_rate`] asks; at least one byte. Taken is what its system
    /// acknowledged, where ours can tell.
    pub write_timeout: Duration,
    /// Bytes a second that a reader must take on average over one [`Limits::write_timeout`].
    pub minimum_rate: u64,
    /// Bytes a second that all connections have together, heads included.
    pub rate: Option<NonZeroU64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 1_000,
            head: HeadLimits { line: 8 << 10, total: 64 << 10 },
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(10),
            write_timeout: Duration::from_mins(2),
            minimum_rate: 0,
            rate: None,
        }
    }
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct Transport {
    /// The name in log lines.
    pub name: &'static str,
    /// Worker threads; 0 means one for each processor.
    pub workers: usize,
    /// Threads for blocking calls, for each worker.
    pub blocking_threads: usize,
    /// What a client may take.
    pub limits: Limits,
    /// What is answered where no handler is asked.
    pub pages: Pages,
    /// Hears of every request that no handler hears of.
    pub refusals: Option<Arc<dyn RefusalLog>>,
    /// Stops it; servers that share a handle stop together.
    pub stop: StopHandle,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            name: "http",
            workers: 0,
            blocking_threads: 1,
            limits: Limits::default(),
            pages: Pages::built_in(),
            refusals: None,
            stop: StopHandle::default(),
        }
    }
}

impl Transport {
    /// Starts to accept connections; they are served while [`Serving::run`] is awaited.
    ///
    /// `factory` runs once for each worker thread and listener, on that thread.
    ///
    /// # Panics
    /// Outside of an actix or tokio runtime.
    pub fn serve<F, I, S, B>(self, listeners: Vec<Listener>, factory: F) -> io::Result<Serving>
    where
        F: Fn() -> I + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = ()> + 'static,
        S::Error: Into<Response<BoxBody>> + 'static,
        S::InitError: fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        S::Future: 'static,
        <S::Service as Service<Request>>::Future: 'static,
        B: MessageBody + 'static,
    {
        self.serve_with_shortcut(listeners, move || (factory(), None))
    }

    /// The same for a program that answers plain requests itself.
    ///
    /// # Panics
    /// Outside of an actix or tokio runtime.
    pub fn serve_with_shortcut<F, I, S, B>(self, listeners: Vec<Listener>, factory: F) -> io::Result<Serving>
    where
        F: Fn() -> (I, Option<Rc<dyn Shortcut>>) + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = ()> + 'static,
        S::Error: Into<Response<BoxBody>> + 'static,
        S::InitError: fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        S::Future: 'static,
        <S::Service as Service<Request>>::Future: 'static,
        B: MessageBody + 'static,
    {
        let connections =
            Arc::new(Connections::new(self.limits.connections, self.limits.connections_per_address));
        let stop = self.stop;
        let phases = stop.phases();
        let workers = match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        };
        let mut builder = Server::build()
            .workers(workers.min(512))
            .worker_max_blocking_threads(self.blocking_threads.max(1))
            // Connections are counted here, and one too many is answered; actix would leave it waiting.
            .max_concurrent_connections(usize::MAX >> 1)
            // How long a stop takes is decided in `Serving::run`; actix would cut every answer after 30 s.
            .shutdown_timeout(u64::MAX)
            .disable_signals();
        let cut = watch::Sender::new(false);
        let is_cut = cut.subscribe();
        let (limits, pages, refusals) = (self.limits, self.pages, self.refusals);
        let pace = limits.rate.map(Pace::new).map(Arc::new);
        let service = {
            let connections = Arc::clone(&connections);
            let phases = phases.clone();
            move || {
                let (handler, shortcut) = factory();
                let worker = Rc::new(Worker::new(Shared {
                    limits: limits.clone(),
                    pages: pages.clone(),
                    connections: Arc::clone(&connections),
                    pace: pace.clone(),
                    shortcut,
                    refusals: refusals.clone(),
                }));
                actix_rt::spawn(drain_when_asked(Rc::clone(&worker), phases.clone(), is_cut.clone()));
                let http = HttpService::build()
                    // Each of these times is kept by the connection, without a timer for each request.
                    .keep_alive(KeepAlive::Os)
                    .client_request_timeout(Duration::ZERO)
                    .on_connect_ext(|connection: &Connection, data| {
                        data.insert(Rc::clone(connection.link()));
                    })
                    .h1(WatchedFactory::new(handler.into_factory()));
                AcceptorFactory { http, worker }
            }
        };
        for listener in listeners {
            builder = match listener {
                Listener::Tcp(listener) => builder.listen(self.name, listener, service.clone())?,
                Listener::Unix(listener) => builder.listen_uds(self.name, listener, service.clone())?,
            };
        }
        Ok(Serving { server: builder.run(), stop, phases, cut, connections })
    }
}

/// A server that accepts connections.
#[must_use = "connections are served while `run` is awaited"]
pub struct Serving {
    server: Server,
    stop: StopHandle,
    phases: watch::Receiver<Phase>,
    /// Tells the workers that the grace has passed.
    cut: watch::Sender<bool>,
    connections: Arc<Connections>,
}

impl Serving {
    /// Stops this server.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Its connections, counted.
    #[must_use]
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// Serves until the stop handle is used, and then until every answer is out or the grace has passed. Answers that
    /// are cut then have heard of their end.
    pub async fn run(mut self) -> io::Result<()> {
        let handle = self.server.handle();
        let asked = self.phases.wait_for(|phase| matches!(phase, Phase::Stopping(_)));
        tokio::select! {
            ended = &mut self.server => return ended,
            _ = asked => {}
        }
        // Closes the listeners at once. That the workers are done is seen here sooner than there.
        let stopped = handle.stop(true);
        tokio::select! {
            ended = &mut self.server => ended,
            () = self.connections.emptied() => Ok(()),
            () = async { stopped.await; std::future::pending().await } => Ok(()),
            () = grace(&mut self.phases) => {
                self.cut.send_replace(true);
                // Should a worker be stuck, its connections end with the process.
                let _ = tokio::time::timeout(CUT, self.connections.emptied()).await;
                Ok(())
            }
        }
    }
}

/// Resolves once the grace of a stop has passed, be it shortened meanwhile.
async fn grace(phases: &mut watch::Receiver<Phase>) {
    let began = tokio::time::Instant::now();
    loop {
        let Phase::Stopping(grace) = *phases.borrow_and_update() else { return };
        tokio::select! {
            () = tokio::time::sleep_until(began + grace) => return,
            changed = phases.changed() => if changed.is_err() { return },
        }
    }
}

async fn drain_when_asked(
    worker: Rc<Worker>,
    mut phases: watch::Receiver<Phase>,
    mut is_cut: watch::Receiver<bool>,
) {
    if phases.wait_for(|phase| *phase != Phase::Running).await.is_ok() {
        worker.drain();
    }
    if phases.wait_for(|phase| matches!(phase, Phase::Stopping(_))).await.is_ok() {
        worker.stop();
    }
    if is_cut.wait_for(|is_cut| *is_cut).await.is_ok() {
        worker.cut();
    }
}
