//! TLS on the socket of a connection. The first byte of the client starts the handshake, so a silent connection has no
//! session.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use tokio::io::ReadBuf;

use super::admission::Connections;
use super::stream::Stream;

/// The first byte of a client that starts a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// The bytes of one record. With the bytes that the encryption adds, a record fits into 16 KiB of the allocator.
const RECORD: usize = (16 << 10) - 64;

/// A client that has taken this number of bytes without a wait gets two records with one call.
const FAST: usize = 256 << 10;

/// A socket with TLS.
#[derive(Debug)]
pub(super) struct TlsStream {
    socket: Stream,
    session: Session,
    /// Bytes that the session has accepted and that the kernel has not taken.
    held: usize,
    /// Bytes that were written since the kernel last took only a part.
    without_wait: usize,
    /// Whether the sending side of the socket ends once the kernel has taken them.
    is_ending: bool,
    handshake: Handshake,
}

/// Counts a handshake by its result.
#[derive(Debug)]
struct Handshake {
    is_under_way: bool,
    connections: Arc<Connections>,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        if self.is_under_way {
            self.connections.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
enum Session {
    /// The client has not sent anything.
    Waiting(Arc<ServerConfig>),
    Started(Box<ServerConnection>),
    /// The client does not use TLS.
    Plain,
}

/// Reads and writes a socket as the task of a context.
struct Polled<'a, 'b> {
    socket: &'a mut Stream,
    cx: &'a mut Context<'b>,
}

impl TlsStream {
    /// The handshake on this socket is counted in `connections`.
    pub(super) fn new(socket: Stream, config: Arc<ServerConfig>, connections: Arc<Connections>) -> Self {
        let handshake = Handshake { is_under_way: false, connections };
        Self {
            socket,
            session: Session::Waiting(config),
            held: 0,
            without_wait: 0,
            is_ending: false,
            handshake,
        }
    }

    /// Registers the socket with the event loop of this thread.
    pub(super) fn register(self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.register()?, ..self })
    }

    pub(super) fn socket(&self) -> &Stream {
        &self.socket
    }

    /// Whether the client sends plain bytes.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.session, Session::Plain)
    }

    /// Bytes that the session has accepted and that the kernel has not taken.
    pub(super) fn held(&self) -> u64 {
        self.held as u64
    }

    /// The number of bytes to encrypt at a time. Encrypted bytes that a slow client does not take stay in memory.
    pub(super) fn most_at_once(&self) -> usize {
        if self.without_wait < FAST { RECORD } else { 2 * RECORD }
    }

    pub(super) fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_writable(cx)
    }

    /// Completes the handshake if necessary, then reads decrypted bytes.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A handshake takes several steps, so the socket must be registered with the event loop.
        if self.socket.is_new() {
            return Poll::Pending;
        }
        if let Session::Waiting(config) = &self.session {
            ready!(self.socket.poll_read(cx, buf))?;
            match buf.filled().first() {
                None => return Poll::Ready(Ok(())),
                Some(&HANDSHAKE) => {
                    let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                    self.session = Session::Started(Box::new(session));
                    self.handshake.is_under_way = true;
                    let mut first = buf.filled();
                    while !first.is_empty() {
                        self.read_tls(&mut first)?;
                        self.process(cx)?;
                    }
                    buf.clear();
                }
                Some(_) => self.session = Session::Plain,
            }
        }
        loop {
            let Session::Started(session) = &mut self.session else {
                return if buf.filled().is_empty() {
                    self.socket.poll_read(cx, buf)
                } else {
                    Poll::Ready(Ok(()))
                };
            };
            match session.reader().read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Many clients close without the alert that announces it. Between two requests that is an end.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
            // If the kernel accepts no more bytes, the task is woken once it does.
            if let Poll::Ready(flushed) = self.poll_flush(cx) {
                flushed?;
            }
            let Self { socket, session: Session::Started(session), .. } = self else { continue };
            match session.read_tls(&mut Polled { socket, cx }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                read => read?,
            };
            self.process(cx)?;
        }
    }

    fn read_tls(&mut self, bytes: &mut &[u8]) -> io::Result<usize> {
        match &mut self.session {
            Session::Started(session) => session.read_tls(bytes),
            _ => Ok(0),
        }
    }

    /// Processes the records that have arrived. If they are invalid, the client gets an alert.
    fn process(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Session::Started(session) = &mut self.session else { return Ok(()) };
        if let Err(error) = session.process_new_packets() {
            let _ = self.poll_flush(cx);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        let Handshake { is_under_way, connections } = &mut self.handshake;
        if *is_under_way && !session.is_handshaking() {
            *is_under_way = false;
            connections.handshakes.fetch_add(1, Ordering::Relaxed);
            if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                connections.handshakes_resumed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Encrypts as many of the bytes as the session holds at a time, and writes them as far as the kernel takes them.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        both: &[io::IoSlice<'_>; 2],
    ) -> Poll<io::Result<usize>> {
        // The tickets of a handshake, in contrast, leave together with the first answer.
        if self.held > 0 {
            ready!(self.poll_flush(cx))?;
        }
        let most = self.most_at_once();
        let Session::Started(session) = &mut self.session else {
            let [first, second] = both;
            return self.socket.poll_write(cx, first, second);
        };
        // The session would hold bytes back until the end of the handshake, and nothing waits for that here.
        if self.handshake.is_under_way {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        let [first, second] = both;
        let first = first.get(..most).unwrap_or(first);
        let second = second.get(..most - first.len()).unwrap_or(second);
        let mut writer = session.writer();
        let written = match (first.is_empty(), second.is_empty()) {
            (true, _) => writer.write(second),
            (_, true) => writer.write(first),
            _ => writer.write_vectored(&[io::IoSlice::new(first), io::IoSlice::new(second)]),
        }?;
        self.held = written;
        match self.poll_flush(cx) {
            Poll::Ready(flushed) => {
                flushed?;
                self.without_wait = self.without_wait.saturating_add(written);
            }
            Poll::Pending => self.without_wait = 0,
        }
        Poll::Ready(Ok(written))
    }

    /// Ready once the kernel has taken all bytes that the session holds.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, session: Session::Started(session), .. } = self else {
            return Poll::Ready(Ok(()));
        };
        while session.wants_write() {
            match session.write_tls(&mut Polled { socket, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.held = self.held.saturating_sub(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.held = 0;
        if self.is_ending {
            ready!(self.socket.poll_shutdown(cx))?;
            self.is_ending = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Announces the end of the sending side. The socket is shut down now, or by the read that flushes the last bytes.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Session::Started(session) = &mut self.session else { return self.socket.poll_shutdown(cx) };
        session.send_close_notify();
        self.is_ending = true;
        match self.poll_flush(cx) {
            Poll::Pending => Poll::Ready(Ok(())),
            flushed @ Poll::Ready(_) => flushed,
        }
    }
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(bytes);
        match self.socket.poll_read(self.cx, &mut buf) {
            Poll::Ready(read) => read.map(|()| buf.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        blocking(self.socket.poll_write(self.cx, bytes, &[]))
    }

    fn write_vectored(&mut self, list: &[io::IoSlice<'_>]) -> io::Result<usize> {
        blocking(self.socket.poll_write_records(self.cx, list))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocking(written: Poll<io::Result<usize>>) -> io::Result<usize> {
    match written {
        Poll::Ready(written) => written,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
