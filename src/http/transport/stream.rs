//! The socket under a connection: TCP, or a Unix socket.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_rt::net::TcpStream;
#[cfg(unix)]
use actix_rt::net::UnixStream;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::outgoing::SendFile;
use super::queue;

/// An accepted socket.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// Does the same to the socket, whichever it is.
macro_rules! either {
    ($stream:expr, $socket:ident => $action:expr) => {
        match $stream {
            Stream::Tcp($socket) => $action,
            #[cfg(unix)]
            Stream::Unix($socket) => $action,
        }
    };
}

impl Stream {
    /// The other end; none on a Unix socket.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.peer_addr().ok(),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }

    /// Asks to be woken once there is something to read, without reading it.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => socket.poll_read_ready(cx))
    }

    /// Ready once the kernel may take more.
    pub(super) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => socket.poll_write_ready(cx))
    }

    /// Bytes that were sent and have not arrived, as far as the system can say. What goes into a Unix socket is with the
    /// other end at once.
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        match self {
            Self::Tcp(socket) => queue::unacknowledged(socket),
            #[cfg(unix)]
            Self::Unix(_) => Some(0),
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => Pin::new(socket).poll_read(cx, buf))
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, socket => Pin::new(socket).poll_write(cx, bytes))
    }

    /// Writes the first bytes and then the second, as far as the kernel takes them, in one call.
    pub(super) fn poll_write_both(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let both = [IoSlice::new(first), IoSlice::new(second)];
        either!(self, socket => Pin::new(socket).poll_write_vectored(cx, &both))
    }

    /// Sends the next bytes of a file. Ready with 0 where the file has no more.
    pub(super) fn poll_send_file(
        &self,
        cx: &mut Context<'_>,
        part: &mut SendFile,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_writable(cx))?;
            let sent =
                either!(self, socket => socket.try_io(Interest::WRITABLE, || part.advance(socket, limit)));
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, socket => Pin::new(socket).poll_shutdown(cx))
    }
}

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        // With Nagle's algorithm on, the second answer of a connection waits for a delayed acknowledgement.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Self::Tcp(socket)
    }
}

#[cfg(unix)]
impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Self::Unix(socket)
    }
}
