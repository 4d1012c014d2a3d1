//! The workers of a server: their start, their replacement, and the stop.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::{Request, Response};
use actix_rt::Arbiter;
use actix_service::{IntoServiceFactory, ServiceFactory};
use tokio::sync::{mpsc, watch};

use super::accept::accept;
use super::admission::{Accepting, Connections};
use super::control::ServingControl;
use super::fast_path::FastPath;
use super::worker::{Shared, Worker};
use super::{Phase, Transport};
use crate::http::listener::Listener;

/// Once the grace of a stop has passed, the workers have this long to end their connections.
const CUT: Duration = Duration::from_secs(1);

/// The pause before a worker that ended is replaced.
const PAUSE: Duration = Duration::from_millis(100);

/// A server that accepts connections.
#[must_use = "connections are served while `run` is awaited"]
pub(crate) struct Serving {
    name: &'static str,
    phases: watch::Receiver<Phase>,
    control: ServingControl,
    /// Starts the worker of this number.
    start: Box<dyn Fn(usize) -> io::Result<Arbiter>>,
    workers: Vec<Arbiter>,
    /// The numbers of workers that ended. At most one for each is queued, so it needs no bound of its own.
    ended: mpsc::UnboundedReceiver<usize>,
}

impl Transport {
    /// Starts to accept connections; they are served while [`Serving::run`] is awaited.
    ///
    /// `factory` runs once for each worker, on its thread, and again if the worker is replaced. It returns a service, and a
    /// fast path for programs that answer plain requests by themselves.
    ///
    /// # Panics
    /// Outside of an actix system.
    pub(crate) fn serve<F, I, S, B>(self, listeners: Vec<Listener>, factory: F) -> io::Result<Serving>
    where
        F: Fn() -> (I, Option<Rc<dyn FastPath>>) + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = ()> + 'static,
        S::Error: Into<Response<BoxBody>> + 'static,
        S::InitError: fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        S::Service: 'static,
        B: MessageBody + 'static,
    {
        let Self { name, workers, blocking_threads, limits, pages, refusals, stop } = self;
        let (control, changeable) = ServingControl::new(limits, pages);
        let shared = Shared { connections: Arc::clone(&control.connections), changeable, refusals };
        listeners.iter().for_each(Listener::prepare);
        let listeners: Vec<_> = listeners.into_iter().map(Arc::new).collect();
        let connections = Arc::clone(&control.connections);
        let phases = stop.phases();
        let (sender, ended) = mpsc::unbounded_channel();
        let start = {
            let (connections, phases) = (Arc::clone(&connections), phases.clone());
            move |number| {
                let accepting: Vec<_> =
                    listeners.iter().map(|listener| (Arc::clone(listener), connections.accept())).collect();
                let arbiter = super::worker::start_arbiter(blocking_threads)?;
                let end = End { number, ended: sender.clone() };
                let (shared, phases, factory) = (shared.clone(), phases.clone(), factory.clone());
                arbiter.spawn_fn(move || {
                    actix_rt::spawn(async move {
                        let _end = end;
                        if let Err(error) = work(shared, accepting, phases, factory).await {
                            tracing::error!(%error, "an HTTP worker failed");
                        }
                    });
                });
                Ok(arbiter)
            }
        };
        let workers = (0..workers).map(&start).collect::<io::Result<_>>()?;
        Ok(Serving { name, phases, control, start: Box::new(start), workers, ended })
    }
}

/// Runs a worker on its thread until the thread is stopped.
async fn work<F, I, S, B>(
    shared: Shared,
    listeners: Vec<(Arc<Listener>, Accepting)>,
    phases: watch::Receiver<Phase>,
    factory: F,
) -> io::Result<()>
where
    F: Fn() -> (I, Option<Rc<dyn FastPath>>),
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = ()>,
    S::Error: Into<Response<BoxBody>> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let (service, fast_path) = factory();
    let service = service.into_factory().new_service(()).await;
    let service = Rc::new(service.map_err(|error| io::Error::other(format!("{error:?}")))?);
    let worker = Rc::new(Worker::new(shared, fast_path));
    actix_rt::spawn(Rc::clone(&worker).follow(phases.clone()));
    actix_rt::spawn(Rc::clone(&worker).follow_changes());
    let accepting = listeners.into_iter().map(|(listener, accepting)| {
        let (worker, service, phases) = (Rc::clone(&worker), Rc::clone(&service), phases.clone());
        async move {
            // A panic while a new connection is answered ends only this connection.
            loop {
                let accept =
                    accept(Arc::clone(&listener), Rc::clone(&worker), Rc::clone(&service), phases.clone());
                match actix_rt::spawn(accept).await {
                    Ok(ended) => break ended.map(|()| drop(accepting)),
                    Err(panicked) => tracing::debug!(%panicked, "accepting starts again"),
                }
            }
        }
    });
    let accepted = futures_util::future::try_join_all(accepting);
    tokio::select! {
        Err(error) = accepted => Err(error),
        // The timers never end, so a worker that no longer accepts continues until its thread is stopped.
        () = Rc::clone(&worker).run_timers() => Ok(()),
    }
}

/// Reports the end of a worker, whatever ended it.
struct End {
    number: usize,
    ended: mpsc::UnboundedSender<usize>,
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.ended.send(self.number);
    }
}

impl Serving {
    /// Its connections, counted.
    pub(crate) fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.control.connections)
    }

    /// Changes its settings while it runs.
    pub(crate) fn control(&self) -> ServingControl {
        self.control.clone()
    }

    /// Serves until the stop handle is used, and then until every answer is sent or the grace has passed. Answers that
    /// are cut then have reported their end.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let connections = self.connections();
        let mut phases = self.phases.clone();
        tokio::select! {
            Ok(_) = phases.wait_for(|phase| !phase.accepts()) => {}
            () = self.replace_workers() => {}
        }
        // The listeners close once the last worker has taken the connections that wait there.
        self.start = Box::new(|_| Err(io::Error::other("the server is being stopped")));
        tokio::select! {
            () = connections.emptied() => {}
            () = grace(&mut phases) => {}
        }
        for worker in &self.workers {
            worker.stop();
        }
        let cut = async {
            for _ in &self.workers {
                self.ended.recv().await;
            }
            connections.emptied().await;
        };
        // The connections of a worker that is stuck end with the process.
        let _ = tokio::time::timeout(CUT, cut).await;
        Ok(())
    }

    /// Replaces workers that end, for ever.
    async fn replace_workers(&mut self) {
        loop {
            let Some(number) = self.ended.recv().await else { return std::future::pending().await };
            self.control.connections.workers_replaced.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                server = self.name,
                number,
                "an HTTP worker ended; starting another in its place"
            );
            let Some(worker) = self.workers.get_mut(number) else { continue };
            // If only its task ended, its thread and its connections end now.
            worker.stop();
            loop {
                tokio::time::sleep(PAUSE).await;
                match (self.start)(number) {
                    Ok(started) => break *worker = started,
                    Err(error) => tracing::error!(%error, "cannot start an HTTP worker; trying again"),
                }
            }
        }
    }
}

/// Resolves once the grace of a stop has passed, even if it is shortened meanwhile.
async fn grace(phases: &mut watch::Receiver<Phase>) {
    // After a hand-over, the stop follows later.
    if phases.wait_for(|phase| matches!(phase, Phase::Stopping(_))).await.is_err() {
        return;
    }
    let began = tokio::time::Instant::now();
    loop {
        let Phase::Stopping(grace) = *phases.borrow_and_update() else { return };
        tokio::select! {
            () = tokio::time::sleep_until(began + grace) => return,
            changed = phases.changed() => if changed.is_err() { return },
        }
    }
}
