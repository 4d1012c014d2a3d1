//! One request that the service answers: decoding the head, the service, the head of the answer, its body.

use std::io;

use actix_codec::{Decoder as _, Encoder as _};
use actix_http::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_http::error::ParseError;
use actix_http::h1::{Codec, Message, MessageType};
use actix_http::{ConnectionType, HttpMessage as _, Method, Request, Response, StatusCode, Version};
use actix_service::Service;
use bytes::{Bytes, BytesMut};

use super::connection::{After, Connection};
use super::ending::Refused;
use super::response::{DirectBody, OnEnd};
use super::sending::Sending;

/// A body up to this size is copied behind the head, which costs less than a call with two buffers.
const COPIED: usize = 4 << 10;

/// The body of an answer as the loop sends it.
enum Body<B> {
    /// Nothing follows the head.
    Nothing,
    Memory(Bytes),
    Direct(DirectBody),
    Stream(B),
}

/// An extension of each request that arrived over TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverTls;

impl Connection {
    /// Answers the request with this head.
    pub(super) async fn answer_request<S, B>(&mut self, head: Box<[u8]>, service: &S) -> io::Result<After>
    where
        S: Service<Request>,
        S::Error: Into<Response<BoxBody>>,
        S::Response: Into<Response<B>>,
        B: MessageBody + 'static,
    {
        self.begin_answer();
        let refused = Refused::of(self, &head);
        let mut head = BytesMut::from(Bytes::from(head));
        let mut codec = Codec::new(self.worker.codec.clone());
        let mut request = match codec.decode(&mut head) {
            Ok(Some(Message::Item(request))) => request,
            // The head has more header lines than the parser supports.
            Err(ParseError::TooLarge) => {
                return self.refuse_as(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, refused).await;
            }
            _ => return self.refuse_as(StatusCode::BAD_REQUEST, refused).await,
        };
        drop((head, refused));
        request.head_mut().peer_addr = self.peer;
        if self.stream.is_tls() {
            request.extensions_mut().insert(OverTls);
        }
        let is_head = *request.method() == Method::HEAD;
        let version = request.version();
        // The body of a request is never read, so no request can follow it.
        let has_body = !matches!(codec.message_type(), MessageType::None);
        // Otherwise the codec would confirm a requested upgrade.
        let is_last = has_body || codec.upgrade();

        let ready = std::future::poll_fn(|cx| service.poll_ready(cx)).await;
        let answer = match ready {
            Ok(()) => service.call(request).await,
            Err(error) => Err(error),
        };
        let mut answer = match answer {
            Ok(answer) => answer.into().map_body(|_, body| EitherBody::left(body)),
            Err(error) => error.into().map_body(|_, body| EitherBody::right(body)),
        };

        let (direct, on_end) = {
            let mut extensions = answer.extensions_mut();
            (extensions.remove::<DirectBody>(), extensions.remove::<OnEnd>())
        };
        let (mut answer, body) = answer.into_parts();
        let size = direct.as_ref().map_or_else(|| body.size(), |direct| BodySize::Sized(direct.length()));
        let status = answer.status();
        let is_bodiless = is_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = match direct {
            _ if is_bodiless => Body::Nothing,
            Some(direct) => Body::Direct(direct),
            None => match body.try_into_bytes() {
                Ok(bytes) => Body::Memory(bytes),
                Err(body) => Body::Stream(body),
            },
        };
        let head = answer.head_mut();
        // Simple clients compare header names including upper and lower case.
        head.set_camel_case_headers(true);
        if version < Version::HTTP_11 {
            head.no_chunking(true);
        }
        let ends_with_connection = size == BodySize::Stream && !head.chunked() && !is_bodiless;
        if is_last || ends_with_connection || self.worker.is_draining.get() {
            head.set_connection_type(ConnectionType::Close);
        }
        let mut out = BytesMut::new();
        codec.encode(Message::Item((answer, size)), &mut out)?;
        let keeps = codec.keep_alive();

        let mut sending = Sending::new(self, out.len(), on_end);
        match body {
            Body::Nothing => sending.write(&mut out, &mut Bytes::new()).await?,
            Body::Memory(bytes) if bytes.len() <= COPIED => {
                out.extend_from_slice(&bytes);
                sending.write(&mut out, &mut Bytes::new()).await?;
            }
            Body::Memory(mut bytes) => sending.write(&mut out, &mut bytes).await?,
            Body::Direct(direct) => sending.direct(out, direct).await?,
            Body::Stream(body) => sending.stream(out, body, codec).await?,
        }
        sending.end();
        Ok(if keeps { After::Open } else { After::Close { lingers: has_body } })
    }
}
