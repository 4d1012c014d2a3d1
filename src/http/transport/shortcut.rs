//! The short way: a program answers a plain request itself, before the HTTP layer has made objects of it.

use std::fmt;
use std::net::IpAddr;

use bytes::BytesMut;

/// Answers requests from the bytes of their head.
pub trait Shortcut {
    /// Looks at a whole request head and either appends the whole answer to `answer`, or declines and leaves it as
    /// it is; the request then goes to the HTTP layer.
    ///
    /// A request with a body, or one that decides on the connection, must be declined. An answer must be the one that
    /// the HTTP layer's handler would give, and keep the connection open.
    fn answer(&self, head: &[u8], client: Option<IpAddr>, answer: &mut BytesMut) -> Offer;
}

impl fmt::Debug for dyn Shortcut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Shortcut")
    }
}

/// What became of the offer to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// The answer stands in the buffer.
    Answered,
    /// The HTTP layer is to answer.
    Declined,
}
