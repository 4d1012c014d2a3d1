//! Accepts connections on the thread that serves them.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::{Request, Response};
use actix_rt::task::yield_now;
use actix_service::Service;
use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::sync::watch;

use super::Phase;
use super::admission::Admission;
use super::connection::{Connection, Next};
use super::stream::Stream;
use super::tls::TlsStream;
use super::worker::Worker;
use crate::http::listener::{self, Listener};

/// The number of connections accepted before other tasks of the thread are scheduled.
const BATCH: usize = 32;

/// The pause after the system had no descriptor or memory for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts and serves connections until the server is to stop. Connections that the kernel has ready then are served too.
pub(super) async fn accept<S, B>(
    listener: Arc<Listener>,
    worker: Rc<Worker>,
    service: Rc<S>,
    mut phases: watch::Receiver<Phase>,
) -> io::Result<()>
where
    S: Service<Request> + 'static,
    S::Error: Into<Response<BoxBody>>,
    S::Response: Into<Response<B>>,
    B: MessageBody + 'static,
{
    let registered = listener::watch(listener)?;
    let listener = registered.get_ref();
    let mut stopping = std::pin::pin!(phases.wait_for(|phase| !phase.accepts()));
    let mut is_short = false;
    loop {
        let mut ready = tokio::select! {
            // If the stop handle is gone, the server continues until its thread is stopped.
            Ok(_) = &mut stopping => break,
            ready = registered.readable() => ready?,
        };
        for _ in 0..BATCH {
            match accept_one(listener, &worker) {
                Ok((stream, peer)) => {
                    is_short = false;
                    receive(stream, peer, &worker, &service);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    break;
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    worker.connections.not_accepted.fetch_add(1, Ordering::Relaxed);
                    if !std::mem::replace(&mut is_short, true) {
                        tracing::error!(%error, "cannot accept connections; trying again until it works");
                    }
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
            }
        }
        yield_now().await;
    }
    while let Ok((stream, peer)) = accept_one(listener, &worker) {
        receive(stream, peer, &worker, &service);
    }
    Ok(())
}

/// Takes the next connection that the kernel has ready.
fn accept_one(listener: &Listener, worker: &Worker) -> io::Result<(Stream, Option<SocketAddr>)> {
    let (socket, address) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = address.and_then(|address| SocketAddr::try_from(address).ok());
    Ok(match listener {
        Listener::Tcp(_) => (std::net::TcpStream::from(socket).into(), peer),
        Listener::Tls(_, config) => {
            let socket = std::net::TcpStream::from(socket).into();
            let tls = TlsStream::new(socket, Arc::clone(config), Arc::clone(&worker.connections));
            (Stream::Tls(Box::new(tls)), peer)
        }
        Listener::Unix(_) => (std::os::unix::net::UnixStream::from(socket).into(), None),
    })
}

/// Whether accepting failed because the connection has already ended, and not because of a shortage on this machine.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Serves a new connection. If its request has arrived, it is answered before the event loop knows the socket.
fn receive<S, B>(stream: Stream, peer: Option<SocketAddr>, worker: &Rc<Worker>, service: &Rc<S>)
where
    S: Service<Request> + 'static,
    S::Error: Into<Response<BoxBody>>,
    S::Response: Into<Response<B>>,
    B: MessageBody + 'static,
{
    let cx = &mut Context::from_waker(Waker::noop());
    let (place, admission) = worker.connections.enter(peer.map(|peer| peer.ip()));
    match admission {
        Admission::Granted => {}
        Admission::TooMany => {
            if let Ok(stream) = stream.register() {
                let connection = Connection::new(stream, peer, Rc::clone(worker), place);
                actix_rt::spawn(connection.turn_away());
            }
            return;
        }
        Admission::FarTooMany => {
            return Connection::new(stream, peer, Rc::clone(worker), place).turn_away_at_once(cx);
        }
    }
    let mut connection = Connection::new(stream, peer, Rc::clone(worker), place);
    let next = match connection.poll_next(cx) {
        Poll::Ready(Ok(Next::Close)) if !connection.is_at_risk(cx) => return,
        Poll::Ready(Ok(next)) => Some(next),
        Poll::Ready(Err(_)) => return,
        Poll::Pending => None,
    };
    match connection.register() {
        Ok(mut connection) => {
            let service = Rc::clone(service);
            actix_rt::spawn(async move { connection.serve(next, &*service).await });
        }
        Err(error) => tracing::debug!(%error, "a connection cannot be watched"),
    }
}
