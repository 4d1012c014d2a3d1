//! Sits between the parser and a handler: tells the connection when a request begins and when its answer ends.

use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_http::{ConnectionType, Payload, Request, Response};
use actix_service::{Service, ServiceFactory};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;

use super::direct;
use super::link::Link;

/// Makes a [`Watched`] service of what the program's factory makes.
pub(super) struct WatchedFactory<S, B> {
    inner: S,
    body: PhantomData<B>,
}

impl<S, B> WatchedFactory<S, B> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, body: PhantomData }
    }
}

impl<S, B> ServiceFactory<Request> for WatchedFactory<S, B>
where
    S: ServiceFactory<Request, Config = ()>,
    S::Error: Into<Response<BoxBody>>,
    S::Response: Into<Response<B>>,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = Response<Tracked<EitherBody<B>>>;
    type Error = Response<BoxBody>;
    type Config = ();
    type Service = Watched<S::Service, B>;
    type InitError = S::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, (): ()) -> Self::Future {
        let inner = self.inner.new_service(());
        Box::pin(async move { Ok(Watched { inner: inner.await?, body: PhantomData }) })
    }
}

/// A service whose requests and answers the connection knows of.
pub(super) struct Watched<S, B> {
    inner: S,
    body: PhantomData<B>,
}

impl<S, B> Service<Request> for Watched<S, B>
where
    S: Service<Request>,
    S::Error: Into<Response<BoxBody>>,
    S::Response: Into<Response<B>>,
    B: MessageBody + 'static,
{
    type Response = Response<Tracked<EitherBody<B>>>;
    type Error = Response<BoxBody>;
    type Future = Answer<S::Future, B>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&self, mut request: Request) -> Self::Future {
        let has_body = !matches!(request.payload(), Payload::None);
        let link = Link::of(&request).cloned();
        if let Some(link) = &link {
            link.begin_answer(has_body);
        }
        let is_head = request.method() == actix_http::Method::HEAD;
        let asks_for_upgrade = request.head().connection_type() == ConnectionType::Upgrade;
        Answer { inner: self.inner.call(request), link, is_head, asks_for_upgrade, body: PhantomData }
    }
}

pin_project! {
    /// An answer in the making.
    pub(super) struct Answer<F, B> {
        #[pin]
        inner: F,
        link: Option<Rc<Link>>,
        is_head: bool,
        asks_for_upgrade: bool,
        body: PhantomData<B>,
    }
}

impl<F, R, E, B> Future for Answer<F, B>
where
    F: Future<Output = Result<R, E>>,
    R: Into<Response<B>>,
    E: Into<Response<BoxBody>>,
    B: MessageBody + 'static,
{
    type Output = Result<Response<Tracked<EitherBody<B>>>, Response<BoxBody>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = match ready!(this.inner.poll(cx)) {
            Ok(answer) => answer.into().map_body(|_, body| EitherBody::left(body)),
            Err(error) => error.into().map_body(|_, body| EitherBody::right(body)),
        };
        let head = answer.head_mut();
        // Simple clients compare header names letter by letter.
        head.set_camel_case_headers(true);
        let link = this.link.take();
        // The HTTP layer would echo the wish to upgrade, and close the connection after the answer without saying so.
        if *this.asks_for_upgrade || link.as_ref().is_some_and(|link| link.must_close()) {
            head.set_connection_type(ConnectionType::Close);
        }
        if let Some(link) = &link {
            answer = direct::attach(answer, link, *this.is_head);
        }
        Poll::Ready(Ok(answer.map_body(|_, body| Tracked { body, end: End(link) })))
    }
}

/// Tells the connection that a body has been handed over whole, or dropped.
struct End(Option<Rc<Link>>);

impl Drop for End {
    fn drop(&mut self) {
        if let Some(link) = &self.0 {
            link.is_body_open.set(false);
        }
    }
}

pin_project! {
    /// A body whose end the connection hears of.
    pub(super) struct Tracked<B> {
        #[pin]
        body: B,
        end: End,
    }
}

impl<B: MessageBody> MessageBody for Tracked<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.project().body.poll_next(cx)
    }
}
