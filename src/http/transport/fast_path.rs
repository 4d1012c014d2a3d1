//! The fast path: answers a plain request from the bytes of its head, without request and response objects.

use std::fmt;
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};

use super::response::{DirectBody, OnEnd};

/// Answers requests from the bytes of their head.
pub(crate) trait FastPath {
    /// Fills the empty `answer` with the complete response to the request of this complete head, or declines and leaves `answer`
    /// empty; the service then answers the request.
    ///
    /// A request with a body must be declined. The response must be the one that the service would give.
    fn answer(&self, head: &[u8], peer: Peer, answer: &mut FastAnswer) -> Offer;
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether the connection uses TLS.
    pub is_tls: bool,
}

impl fmt::Debug for dyn FastPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FastPath")
    }
}

/// A response of the fast path.
#[derive(Debug, Default)]
pub(crate) struct FastAnswer {
    /// The head, and a small body behind it.
    pub bytes: BytesMut,
    /// A larger body, which is not copied.
    pub body: Option<Bytes>,
    /// A body of files, in place of `body`.
    pub direct: Option<DirectBody>,
    /// Called when the answer has ended.
    pub on_end: Option<OnEnd>,
    /// Whether the connection closes after this answer. Only for a request that asks for it, and the head must announce it.
    pub closes: bool,
}

impl FastAnswer {
    /// The bytes before the body.
    pub(super) fn head_length(&self) -> usize {
        memchr::memmem::find(&self.bytes, b"\r\n\r\n").map_or(self.bytes.len(), |at| at + 4)
    }

    /// Empties the answer, and keeps its buffer.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
    }
}

/// The decision of a fast path on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// The response is in the buffer.
    Answered,
    /// The service answers the request.
    Declined,
}
