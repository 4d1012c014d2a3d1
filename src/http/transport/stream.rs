//! The socket of a connection.

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::queue;

/// An accepted socket.
#[derive(Debug)]
pub(super) enum Stream {
    /// A TCP socket.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// A socket that the event loop does not know yet: many clients are answered without it ever knowing.
    New(Accepted),
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
    /// Whether the last read got everything that had arrived.
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

/// Does the same to a socket of the event loop, whichever it is.
macro_rules! each {
    ($stream:expr, $socket:ident => $action:expr, New($accepted:ident) => $other:expr, Memory($memory:ident) => $in_memory:expr) => {
        match $stream {
            Stream::Tcp($socket) => $action,
            Stream::Unix($socket) => $action,
            Stream::New($accepted) => $other,
            #[cfg(any(test, fuzzing))]
            Stream::Memory($memory) => $in_memory,
        }
    };
}

impl Stream {
    /// Hands a new socket to the event loop of this thread.
    pub(super) fn register(self) -> io::Result<Self> {
        Ok(match self {
            Self::New(Accepted { socket: AcceptedSocket::Tcp(socket), .. }) => {
                Self::Tcp(TcpStream::from_std(socket)?)
            }
            Self::New(Accepted { socket: AcceptedSocket::Unix(socket), .. }) => {
                Self::Unix(UnixStream::from_std(socket)?)
            }
            registered => registered,
        })
    }

    /// Whether the event loop does not know the socket, so that waiting for it has no end.
    pub(super) fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }

    /// Ready if there may be something to read.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self,
            socket => socket.poll_read_ready(cx),
            New(accepted) => if accepted.is_drained { Poll::Pending } else { Poll::Ready(Ok(())) },
            Memory(_memory) => Poll::Pending)
    }

    /// Ready once the kernel may take more.
    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self,
        socket => socket.poll_write_ready(cx),
        New(_accepted) => Poll::Ready(Ok(())),
        Memory(memory) => memory.poll_writable(cx))
    }

    /// Bytes that were sent and that the other end has not acknowledged, as far as the system knows. The other end of a Unix
    /// socket has everything at once.
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        match self {
            Self::Tcp(socket) => queue::unacknowledged(socket),
            Self::New(Accepted { socket: AcceptedSocket::Tcp(socket), .. }) => queue::unacknowledged(socket),
            _ => Some(0),
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self,
            socket => Pin::new(socket).poll_read(cx, buf),
            New(accepted) => accepted.read(buf),
            Memory(memory) => Pin::new(&mut memory.pipe).poll_read(cx, buf))
    }

    /// Writes the first bytes and then the second, as far as the kernel takes them, in one call.
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
        Memory(memory) => memory.poll_write(cx, only))
    }

    /// Sends bytes of a file from `offset` on, which moves behind them. Gives 0 if the file has no more.
    pub(super) fn try_send_file(&self, file: &File, offset: &mut u64, count: usize) -> io::Result<usize> {
        each!(self,
            socket => socket.try_io(Interest::WRITABLE, || send_file(socket, file, offset, count)),
            New(_accepted) => Err(io::ErrorKind::WouldBlock.into()),
            Memory(_memory) => Err(io::ErrorKind::Unsupported.into()))
    }

    /// Ends the sending side.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self,
            socket => Pin::new(socket).poll_shutdown(cx),
            New(_accepted) => Poll::Ready(Ok(())),
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

#[cfg(target_os = "linux")]
fn send_file(
    socket: impl std::os::fd::AsFd,
    file: &File,
    offset: &mut u64,
    count: usize,
) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(socket, file, Some(offset), count)?)
}

/// Elsewhere sendfile has other forms, or does not exist; the file is read instead.
#[cfg(not(target_os = "linux"))]
fn send_file(_: impl std::os::fd::AsFd, _: &File, _: &mut u64, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}
