//! The connection type for awc: limits, counts and normalises the bytes of a server to a form that awc accepts.
//!
//! awc decodes bodies and pools connections. It cannot distinguish an interim response from the final one, accepts at
//! most 96 header lines, and takes the early end of a connection for the end of a body. It therefore gets a
//! replacement head with the framing only. The real head is in the [`Exchange`].

use std::cell::Cell;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_rt::net::{ActixStream, Ready};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::error::{BodyError, TransportError, is_broken_connection};
use super::exchange::{Exchange, Reuse};
use super::head::{Framing, Head};

/// Maximum number of bytes that one read may take beyond the end of a head.
const SMALL_READ_BYTES: usize = 16 * 1024;

/// Maximum length of all interim responses before the final one, in bytes, as in curl.
const MAX_INTERIM_BYTES: usize = 300 * 1024;

/// The last bytes of the last chunk and its trailers.
const CHUNKS_END: [u8; 4] = *b"\r\n\r\n";

/// The byte stream of a connection, after TLS was removed.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

#[derive(Debug)]
enum WirePhase {
    /// No request is active.
    Idle,
    /// Waiting for the head of the response.
    Head {
        interim_bytes: usize,
        searched: usize,
    },
    /// Reading a body with this number of missing bytes.
    Length {
        left: u64,
    },
    /// Reading a body of chunks, whose end awc finds. Stores the last bytes so far.
    Chunked {
        tail: [u8; 4],
    },
    UntilClose,
    /// The connection must not be used again.
    Spent,
}

/// The IO type of awc's connections.
pub(super) struct Wire {
    /// `None` once the connection is closed.
    io: Option<Box<dyn Io>>,
    phase: WirePhase,
    /// Whether the connection may carry another request after this response.
    is_reusable: bool,
    /// Whether a request was sent on this connection before.
    is_used: bool,
    /// Bytes that were read and not yet passed to awc.
    buffer: BytesMut,
    /// The rest of the replacement head.
    for_awc: Bytes,
    exchange: Option<Rc<Exchange>>,
    /// The number of open connections of the client, this one included.
    open: Rc<Cell<usize>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Wire").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(io: Box<dyn Io>, open: Rc<Cell<usize>>) -> Self {
        open.set(open.get().saturating_add(1));
        Self {
            io: Some(io),
            phase: WirePhase::Idle,
            is_reusable: false,
            is_used: false,
            buffer: BytesMut::new(),
            for_awc: Bytes::new(),
            exchange: None,
            open,
        }
    }

    fn fail(&mut self, error: TransportError) -> io::Error {
        let kind = match &error {
            TransportError::Receive(error) => error.kind(),
            _ => io::ErrorKind::InvalidData,
        };
        self.close();
        if let Some(exchange) = &self.exchange {
            exchange.fail(error);
        }
        kind.into()
    }

    fn close(&mut self) {
        self.phase = WirePhase::Spent;
        self.io = None;
    }

    /// Ends a complete response.
    fn end(&mut self) {
        if self.is_reusable && self.buffer.is_empty() {
            self.phase = WirePhase::Idle;
        } else {
            // Bytes beyond the end belong to no request and could be mistaken for the next response.
            self.close();
        }
        if let Some(exchange) = &self.exchange {
            exchange.may_be_complete.set(true);
        }
    }

    /// Reads at most `room` bytes into the buffer; 0 at the end of the connection.
    fn poll_fill(&mut self, context: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(0)) };
        let mut space = [MaybeUninit::uninit(); SMALL_READ_BYTES];
        let mut space = ReadBuf::uninit(space.get_mut(..room.min(SMALL_READ_BYTES)).unwrap_or_default());
        ready!(Pin::new(io).poll_read(context, &mut space))?;
        self.buffer.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Reads up to the end of the final head, and prepares the replacement head.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(exchange) = self.exchange.clone() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        loop {
            let WirePhase::Head { interim_bytes, searched } = &mut self.phase else {
                return Poll::Ready(Ok(()));
            };
            match Head::take_from(&mut self.buffer, searched) {
                Err(error) => return Poll::Ready(Err(self.fail(error.into()))),
                Ok(Some(head)) if head.is_interim() => {
                    *interim_bytes = interim_bytes.saturating_add(head.raw().len());
                    if *interim_bytes > MAX_INTERIM_BYTES {
                        return Poll::Ready(Err(self.fail(TransportError::EndlessInterim)));
                    }
                }
                Ok(Some(head)) => return Poll::Ready(self.begin_body(&exchange, head)),
                Ok(None) => {
                    let is_answered = *interim_bytes > 0 || !self.buffer.is_empty();
                    let read = match ready!(self.poll_fill(context, SMALL_READ_BYTES)) {
                        Ok(read) => read,
                        Err(error) => return Poll::Ready(Err(self.fail(TransportError::Receive(error)))),
                    };
                    if read == 0 {
                        let error =
                            if is_answered { TransportError::HalfHead } else { TransportError::EmptyReply };
                        return Poll::Ready(Err(self.fail(error)));
                    }
                    if exchange.first_byte.get().is_none() {
                        exchange.first_byte.set(exchange.sent_at.get().map(|at| at.elapsed()));
                    }
                }
            }
        }
    }

    fn begin_body(&mut self, exchange: &Exchange, head: Head) -> io::Result<()> {
        let framing = match head.framing() {
            // Some servers send a body in response to HEAD, which could be mistaken for the next response.
            Ok(_) if exchange.is_head_request => Framing::Length(0),
            Ok(framing) => framing,
            Err(error) => return Err(self.fail(error.into())),
        };
        self.is_reusable = head.keeps_alive()
            && !exchange.is_head_request
            && head.status != 101
            && framing != Framing::UntilClose;
        match framing {
            Framing::Length(0) => self.end(),
            Framing::Length(left) => self.phase = WirePhase::Length { left },
            Framing::Chunked => self.phase = WirePhase::Chunked { tail: [0; 4] },
            Framing::UntilClose => self.phase = WirePhase::UntilClose,
        }
        self.for_awc = framing.head_for_awc(self.is_reusable && !matches!(self.phase, WirePhase::Spent));
        exchange.head.replace(Some(head));
        Ok(())
    }

    fn poll_body(&mut self, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = self.exchange.as_ref().map_or(usize::MAX, |exchange| exchange.read_size);
        let before = buf.filled().len();
        let mut result = Ok(());
        if self.buffer.is_empty() && buf.remaining() <= most {
            // Reads directly into awc's buffer.
            if let Some(io) = &mut self.io {
                result = ready!(Pin::new(io).poll_read(context, buf));
            }
        } else {
            if self.buffer.is_empty() {
                result = ready!(self.poll_fill(context, most)).map(|_| ());
            }
            let take = self.buffer.len().min(buf.remaining());
            buf.put_slice(self.buffer.get(..take).unwrap_or_default());
            self.buffer.advance(take);
        }
        match result {
            Ok(()) => {}
            // Without a close notice of TLS, the end is an early end if more bytes were announced.
            Err(error) if is_broken_connection(&error) && self.missing().is_some() => {
                let error = self.missing().map_or(TransportError::Receive(error), TransportError::Body);
                return Poll::Ready(Err(self.fail(error)));
            }
            Err(error) => return Poll::Ready(Err(self.fail(TransportError::Receive(error)))),
        }
        match self.follow(buf.filled().get(before..).unwrap_or_default()) {
            Ok(taken) => {
                buf.set_filled(before + taken);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                buf.set_filled(before);
                Poll::Ready(Err(self.fail(error.into())))
            }
        }
    }

    /// The error for an end of the connection now; `None` if it would be the end of the body.
    fn missing(&self) -> Option<BodyError> {
        match self.phase {
            WirePhase::Length { left } => Some(BodyError::Short { missing: Some(left) }),
            WirePhase::Chunked { .. } => Some(BodyError::Short { missing: None }),
            _ => None,
        }
    }

    /// Updates the state for the bytes `got` of a body, and returns the number of those that belong to it.
    fn follow(&mut self, got: &[u8]) -> Result<usize, BodyError> {
        if got.is_empty() {
            if let Some(error) = self.missing() {
                return Err(error);
            }
            self.end();
            return Ok(0);
        }
        match &mut self.phase {
            WirePhase::Length { left } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(got.len());
                *left = left.saturating_sub(taken as u64);
                if *left == 0 {
                    self.is_reusable &= taken == got.len();
                    self.end();
                }
                Ok(taken)
            }
            WirePhase::Chunked { tail } => {
                for byte in got.get(got.len().saturating_sub(tail.len())..).unwrap_or_default() {
                    tail.rotate_left(1);
                    if let Some(last) = tail.last_mut() {
                        *last = *byte;
                    }
                }
                let may_be_complete = *tail == CHUNKS_END && self.buffer.is_empty();
                if let Some(exchange) = &self.exchange {
                    exchange.may_be_complete.set(may_be_complete);
                }
                Ok(got.len())
            }
            _ => Ok(got.len()),
        }
    }

    /// Whether the connection may carry another request. After a chunked body, awc may already have dropped bytes
    /// beyond the end, so the last bytes that the wire saw must be the end of the chunks.
    fn is_at_rest(&self) -> bool {
        let is_over = match self.phase {
            WirePhase::Idle => true,
            WirePhase::Chunked { tail } => tail == CHUNKS_END && self.is_reusable,
            _ => false,
        };
        is_over && self.buffer.is_empty() && self.for_awc.is_empty()
    }

    /// The read of awc's pool before it uses a kept connection. If it returns bytes or the end, the pool drops the
    /// connection.
    fn poll_check(
        &mut self,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        reuse: Reuse,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Some(io) if reuse == Reuse::Allowed => {
                ready!(Pin::new(io).poll_read(context, buf))?;
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.open.set(self.open.get().saturating_sub(1));
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if let Some(current) = Exchange::current()
            && !wire.exchange.as_ref().is_some_and(|own| Rc::ptr_eq(own, &current))
        {
            let reuse = if wire.is_at_rest() { current.reuse } else { Reuse::Refused };
            return wire.poll_check(context, buf, reuse);
        }
        loop {
            if !wire.for_awc.is_empty() {
                let take = wire.for_awc.len().min(buf.remaining());
                buf.put_slice(&wire.for_awc.split_to(take));
                return Poll::Ready(Ok(()));
            }
            match wire.phase {
                WirePhase::Idle | WirePhase::Spent => return Poll::Ready(Ok(())),
                WirePhase::Head { .. } => ready!(wire.poll_head(context))?,
                WirePhase::Length { .. } | WirePhase::Chunked { .. } | WirePhase::UntilClose => {
                    return wire.poll_body(context, buf);
                }
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.is_at_rest()
            && let Some(exchange) = Exchange::current()
        {
            exchange.is_kept.set(wire.is_used);
            exchange.sent_at.set(Some(Instant::now()));
            wire.exchange = Some(exchange);
            wire.is_used = true;
            wire.phase = WirePhase::Head { interim_bytes: 0, searched: 0 };
        }
        match (&mut wire.io, &wire.phase) {
            (Some(io), WirePhase::Head { .. }) => {
                let written = ready!(Pin::new(io).poll_write(context, bytes));
                Poll::Ready(written.map_err(|error| {
                    let kind = error.kind();
                    wire.fail(TransportError::Send(error));
                    kind.into()
                }))
            }
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Some(io) => Pin::new(io).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Some(io) => Pin::new(io).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl ActixStream for Wire {
    fn poll_read_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        Poll::Ready(Ok(Ready::READABLE))
    }

    fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        Poll::Ready(Ok(Ready::WRITABLE))
    }
}
