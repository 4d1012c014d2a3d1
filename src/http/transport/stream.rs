//! The socket of a connection.

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::queue;
use super::tls::TlsStream;

/// An accepted socket.
#[derive(Debug)]
pub(super) enum Stream {
    /// A TCP socket.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A socket that is not registered with the event loop yet. Many clients are answered without a registration.
    New(Accepted),
    /// A TCP socket with TLS.
    Tls(Box<TlsStream>),
    /// Both ends are in this process.
    #[cfg(any(test, fuzzing))]
    Memory(Memory),
}

/// One end of a pipe in memory.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(super) struct Memory {
    pipe: tokio::io::DuplexStream,
    ahead: Ahead,
}

/// The first byte of a write that found the pipe full. Writing it is the only way to wait for room.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
enum Ahead {
    No,
    Waits(u8),
    Written,
}

#[cfg(any(test, fuzzing))]
impl From<tokio::io::DuplexStream> for Stream {
    fn from(pipe: tokio::io::DuplexStream) -> Self {
        Self::Memory(Memory { pipe, ahead: Ahead::No })
    }
}

#[cfg(any(test, fuzzing))]
impl Memory {
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Ahead::Waits(byte) = self.ahead {
            std::task::ready!(Pin::new(&mut self.pipe).poll_write(cx, &[byte]))?;
            self.ahead = Ahead::Written;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Ahead::Written = std::mem::replace(&mut self.ahead, Ahead::No) {
            return Poll::Ready(Ok(1));
        }
        let written = Pin::new(&mut self.pipe).poll_write(cx, bytes);
        if let (Poll::Pending, Some(first)) = (&written, bytes.first()) {
            self.ahead = Ahead::Waits(*first);
        }
        written
    }
}

/// A non-blocking socket as the kernel returned it.
#[derive(Debug)]
pub(super) struct Accepted {
    socket: AcceptedSocket,
    /// Whether the last read returned everything that had arrived.
    is_drained: bool,
}

#[derive(Debug)]
enum AcceptedSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl From<std::net::TcpStream> for Stream {
    fn from(socket: std::net::TcpStream) -> Self {
        Self::New(Accepted { socket: AcceptedSocket::Tcp(socket), is_drained: false })
    }
}

impl From<std::os::unix::net::UnixStream> for Stream {
    fn from(socket: std::os::unix::net::UnixStream) -> Self {
        Self::New(Accepted { socket: AcceptedSocket::Unix(socket), is_drained: false })
    }
}

/// Applies one expression to every kind of registered socket.
macro_rules! each {
    ($stream:expr, $socket:ident => $action:expr, New($accepted:ident) => $other:expr, Tls($tls:ident) => $over_tls:expr, Memory($memory:ident) => $in_memory:expr) => {
        match $stream {
            Stream::Tcp($socket) => $action,
            Stream::Unix($socket) => $action,
            Stream::New($accepted) => $other,
            Stream::Tls($tls) => $over_tls,
            #[cfg(any(test, fuzzing))]
            Stream::Memory($memory) => $in_memory,
        }
    };
}

impl Stream {
    /// Registers a new socket with the event loop of this thread.
    pub(super) fn register(self) -> io::Result<Self> {
        Ok(match self {
            Self::New(Accepted { socket: AcceptedSocket::Tcp(socket), .. }) => {
                Self::Tcp(TcpStream::from_std(socket)?)
            }
            Self::New(Accepted { socket: AcceptedSocket::Unix(socket), .. }) => {
                Self::Unix(UnixStream::from_std(socket)?)
            }
            Self::Tls(tls) => Self::Tls(Box::new(tls.register()?)),
            registered => registered,
        })
    }

    /// Whether the client and this program use TLS.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(tls) if !tls.is_plain())
    }

    /// Whether the client sends plain bytes to a port for TLS.
    pub(super) fn is_plain_at_tls_port(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.is_plain())
    }

    /// Whether the socket is not registered with the event loop, so that a wait for it would never end.
    pub(super) fn is_new(&self) -> bool {
        match self {
            Self::New(_) => true,
            Self::Tls(tls) => tls.socket().is_new(),
            _ => false,
        }
    }

    /// Ready if there may be something to read.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self,
            socket => socket.poll_read_ready(cx),
            New(accepted) => if accepted.is_drained { Poll::Pending } else { Poll::Ready(Ok(())) },
            Tls(tls) => tls.socket().poll_readable(cx),
            Memory(_memory) => Poll::Pending)
    }

    /// Ready once the kernel may accept more bytes.
    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self,
        socket => socket.poll_write_ready(cx),
        New(_accepted) => Poll::Ready(Ok(())),
        Tls(tls) => tls.poll_writable(cx),
        Memory(memory) => memory.poll_writable(cx))
    }

    /// The number of sent bytes that the other end has not acknowledged; `None` if the system does not report it. A Unix socket
    /// delivers everything at once.
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        match self {
            Self::Tcp(socket) => queue::unacknowledged(socket),
            Self::New(Accepted { socket: AcceptedSocket::Tcp(socket), .. }) => queue::unacknowledged(socket),
            Self::Tls(tls) => tls.socket().unacknowledged().map(|queued| queued + tls.held()),
            _ => Some(0),
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self,
            socket => Pin::new(socket).poll_read(cx, buf),
            New(accepted) => accepted.read(buf),
            Tls(tls) => tls.poll_read(cx, buf),
            Memory(memory) => Pin::new(&mut memory.pipe).poll_read(cx, buf))
    }

    /// Writes both buffers in one call, as far as the kernel accepts them.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let both = [IoSlice::new(first), IoSlice::new(second)];
        let only = if first.is_empty() { second } else { first };
        let is_one = first.is_empty() || second.is_empty();
        each!(self,
        socket => if is_one {
            Pin::new(socket).poll_write(cx, only)
        } else {
            Pin::new(socket).poll_write_vectored(cx, &both)
        },
        New(accepted) => accepted.write(&both, only, is_one),
        Tls(tls) => tls.poll_write(cx, &both),
        Memory(memory) => memory.poll_write(cx, only))
    }

    /// Writes the encrypted records of a session.
    pub(super) fn poll_write_records(
        &mut self,
        cx: &mut Context<'_>,
        records: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, records),
            // Records go to a TCP socket that the event loop knows.
            _ => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Ready once the kernel has accepted everything that was written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => tls.poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// The number of bytes that one write takes at most.
    pub(super) fn most_at_once(&self) -> usize {
        match self {
            Self::Tls(tls) => tls.most_at_once(),
            _ => usize::MAX,
        }
    }

    /// Sends bytes of a file from `offset`, and moves `offset` behind them. Returns 0 at the end of the file.
    pub(super) fn try_send_file(&self, file: &File, offset: &mut u64, count: usize) -> io::Result<usize> {
        each!(self,
            socket => socket.try_io(Interest::WRITABLE, || send_file(socket, file, offset, count)),
            New(_accepted) => Err(io::ErrorKind::WouldBlock.into()),
            // The bytes have to be encrypted.
            Tls(_tls) => Err(io::ErrorKind::Unsupported.into()),
            Memory(_memory) => Err(io::ErrorKind::Unsupported.into()))
    }

    /// Ends the sending side.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self,
            socket => Pin::new(socket).poll_shutdown(cx),
            New(_accepted) => Poll::Ready(Ok(())),
            Tls(tls) => tls.poll_shutdown(cx),
            Memory(memory) => Pin::new(&mut memory.pipe).poll_shutdown(cx))
    }
}

impl Accepted {
    fn read(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_drained {
            return Poll::Pending;
        }
        let room = buf.initialize_unfilled();
        let length = room.len();
        let read = match &mut self.socket {
            AcceptedSocket::Tcp(socket) => socket.read(room),
            AcceptedSocket::Unix(socket) => socket.read(room),
        };
        self.is_drained = !matches!(read, Ok(read) if read == length || read == 0);
        tried(read).map_ok(|read| buf.advance(read))
    }

    fn write(&mut self, both: &[IoSlice<'_>], only: &[u8], is_one: bool) -> Poll<io::Result<usize>> {
        tried(match (&mut self.socket, is_one) {
            (AcceptedSocket::Tcp(socket), true) => socket.write(only),
            (AcceptedSocket::Tcp(socket), false) => socket.write_vectored(both),
            (AcceptedSocket::Unix(socket), true) => socket.write(only),
            (AcceptedSocket::Unix(socket), false) => socket.write_vectored(both),
        })
    }
}

fn tried(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

fn send_file(
    socket: impl std::os::fd::AsFd,
    file: &File,
    offset: &mut u64,
    count: usize,
) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(socket, file, Some(offset), count)?)
}
