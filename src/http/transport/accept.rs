//! Takes accepted sockets in: counts them, refuses one too many, hands the others to the HTTP layer.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::StatusCode;
use actix_service::{Service, ServiceFactory};
use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;

use super::admission::{Admission, Place};
use super::connection::Connection;
use super::link::Worker;
use super::stream::Stream;

/// A connection and the address of its other end, as the HTTP layer of actix takes them.
type Accepted = (Connection, Option<SocketAddr>);

/// Makes an [`Acceptor`] around the HTTP layer.
pub(super) struct AcceptorFactory<H> {
    pub(super) http: H,
    pub(super) worker: Rc<Worker>,
}

impl<H, I> ServiceFactory<I> for AcceptorFactory<H>
where
    H: ServiceFactory<Accepted, Config = (), Response = ()>,
    H::Service: 'static,
    H::Future: 'static,
    <H::Service as Service<Accepted>>::Future: 'static,
    H::Error: std::fmt::Display + 'static,
    I: Into<Stream>,
{
    type Response = ();
    type Error = ();
    type Config = ();
    type Service = Acceptor<H::Service>;
    type InitError = H::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let http = self.http.new_service(());
        let worker = Rc::clone(&self.worker);
        Box::pin(async move { Ok(Acceptor { http: Rc::new(http.await?), worker }) })
    }
}

/// Serves accepted sockets.
pub(super) struct Acceptor<H> {
    http: Rc<H>,
    worker: Rc<Worker>,
}

impl<H, I> Service<I> for Acceptor<H>
where
    H: Service<Accepted, Response = ()> + 'static,
    H::Future: 'static,
    H::Error: std::fmt::Display + 'static,
    I: Into<Stream>,
{
    type Response = ();
    type Error = ();
    type Future = LocalBoxFuture<'static, Result<(), ()>>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        self.http.poll_ready(cx).map_err(|_| ())
    }

    fn call(&self, socket: I) -> Self::Future {
        let stream: Stream = socket.into();
        let peer = stream.peer();
        let (place, admission) = self.worker.connections.enter(peer.map(|peer| peer.ip()));
        let worker = Rc::clone(&self.worker);
        match admission {
            Admission::Granted => {}
            Admission::TooMany => {
                return Box::pin(async move {
                    let _place = place;
                    // Whether the page still arrives is up to the client.
                    let _ = Connection::refuse(stream, peer, worker, StatusCode::SERVICE_UNAVAILABLE).await;
                    Ok(())
                });
            }
            Admission::FarTooMany => return Box::pin(std::future::ready(Ok(()))),
        }
        let mut connection = Connection::new(stream, peer, Rc::clone(&worker));
        let http = Rc::clone(&self.http);
        let serving = async move {
            if connection.has_short_way()
                && let Err(error) = poll_fn(|cx| connection.poll_short_way(cx)).await
            {
                tracing::debug!(%error, "connection ended early");
                return;
            }
            if let Err(error) = http.call((connection, peer)).await {
                tracing::debug!(%error, "connection ended early");
            }
        };
        Box::pin(Served { serving, worker, _place: place })
    }
}

pin_project! {
    /// Serves a connection, and ends once the worker ends them all.
    ///
    /// A type of its own, since an async block that waits for `serving` would have room for it twice.
    struct Served<F> {
        #[pin]
        serving: F,
        worker: Rc<Worker>,
        // Given back once the connection is gone: fields are dropped in their order.
        _place: Place,
    }
}

impl<F: Future<Output = ()>> Future for Served<F> {
    type Output = Result<(), ()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.worker.is_cut.get() { Poll::Ready(Ok(())) } else { this.serving.poll(cx).map(Ok) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use actix_http::{Request, Response};
    use actix_service::fn_service;

    use crate::http::listener;
    use crate::http::transport::Transport;

    #[test]
    fn every_connection_has_ended_once_the_grace_has_passed() {
        let listener = listener::listen("127.0.0.1", 0).unwrap();
        let address = listener.local_addr().unwrap();
        actix_rt::System::new().block_on(async {
            let answer = |_: Request| async {
                Ok::<_, Response<actix_http::body::BoxBody>>(Response::ok().set_body("x".repeat(32 << 20)))
            };
            let transport = Transport { workers: 1, ..Transport::default() };
            let serving = transport.serve(vec![listener.into()], move || fn_service(answer)).unwrap();
            let (stop, connections) = (serving.stop_handle(), serving.connections());
            let client = std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
                stream.read_exact(&mut [0; 12]).unwrap();
                stop.stop(Duration::ZERO);
                stream
            });
            serving.run().await.unwrap();
            assert_eq!(connections.live(), 0);
            drop(client.join().unwrap());
        });
    }
}
