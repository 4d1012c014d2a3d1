//! The sending side of a connection: files in turns, the server's rate, and readers that take too little.

use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use tokio::time::Instant;

use super::super::clock::Purpose;
use super::super::link::Stage;
use super::super::outgoing::{Outgoing, SendState};
use super::super::stall::{self, Reader, Stall, TICKS};
use super::Connection;

impl Connection {
    /// Writes what came the short way.
    pub(super) fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match self.stream.poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.count_sent(written);
                    if written == self.unsent.len() {
                        self.stall = None;
                        self.link.end_short_answer();
                        // Keeps the room for the next answer.
                        self.unsent.clear();
                    } else {
                        self.unsent.advance(written);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.watch_reader(cx);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Cuts a reader that took too little while the socket was full. The first look begins the window, for it alone tells what
    /// of the bytes sent before was taken already.
    pub(super) fn check_reader(&mut self, ticks: u32, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.is_full {
            // It is not the reader who is waited for.
            self.stall = None;
            return Ok(());
        }
        let limits = &self.link.worker.limits;
        let taken = self.link.sent().saturating_sub(self.stream.unacknowledged().unwrap_or(0));
        let minimum = stall::minimum(limits.minimum_rate, limits.write_timeout);
        let (reader, ticks) = if let Some(stall) = &mut self.stall {
            (stall.tick(taken, ticks, minimum), ticks)
        } else {
            self.stall = Some(Stall::start(taken));
            (Reader::Keeps, 0)
        };
        match reader {
            Reader::Keeps => {
                self.clock.set(Purpose::Write { ticks }, limits.write_timeout / TICKS, cx);
                Ok(())
            }
            Reader::Stalled => {
                self.link.worker.connections.stalled.fetch_add(1, Ordering::Relaxed);
                self.link.stage.set(Stage::Ended);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// The socket is full: the reader is watched from now on.
    pub(super) fn watch_reader(&mut self, cx: &mut Context<'_>) {
        self.is_full = true;
        if !matches!(self.clock.purpose(), Some(Purpose::Write { .. })) {
            self.stall = None;
            self.clock.set(Purpose::Write { ticks: 0 }, self.link.worker.limits.write_timeout / TICKS, cx);
        }
    }

    /// How many of the next bytes may be sent now; pending until there are any.
    pub(super) fn poll_pace(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        let Some(pace) = &self.link.worker.pace else { return Poll::Ready(wanted) };
        if self.allowed == 0 {
            if matches!(self.clock.purpose(), Some(Purpose::Pace { .. })) {
                return Poll::Pending;
            }
            let leave = pace.ask(wanted, Instant::now());
            if !leave.wait.is_zero() {
                // It is not the reader who is slow.
                self.stall = None;
                self.clock.set(Purpose::Pace { bytes: leave.bytes }, leave.wait, cx);
                return Poll::Pending;
            }
            self.allowed = leave.bytes;
        }
        Poll::Ready(wanted.min(self.allowed))
    }

    pub(super) fn count_sent(&mut self, bytes: usize) {
        self.is_full = false;
        self.link.count_sent(bytes);
        self.allowed = self.allowed.saturating_sub(bytes);
    }

    /// Writes bytes of the HTTP layer, together with what the body has handed over from memory, so that the head of a small
    /// answer is no packet of its own. Before a file it is one: in a packet with bytes of the file, it would make all of
    /// them cost half as much again (`MSG_MORE`, 1 MiB).
    pub(super) fn poll_write_answer(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let limit = ready!(self.poll_pace(cx, bytes.len()));
        let mut outgoing = self.link.outgoing.borrow_mut();
        let written = match &mut *outgoing {
            Some(Outgoing::Memory(memory)) if self.link.worker.pace.is_none() => {
                let written = self.stream.poll_write_both(cx, bytes, memory);
                written.map_ok(|written| {
                    let first = written.min(bytes.len());
                    memory.advance(written - first);
                    self.link.count_sent(written - first);
                    first
                })
            }
            _ => self.stream.poll_write(cx, bytes.get(..limit).unwrap_or(bytes)),
        };
        drop(outgoing);
        match &written {
            Poll::Ready(Ok(written)) => self.count_sent(*written),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch_reader(cx),
        }
        written
    }

    /// Sends what the body has handed over, a turn at a time.
    pub(super) fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut outgoing) = self.link.outgoing.take() else { return Poll::Ready(Ok(())) };
        let sent = self.poll_outgoing_turn(cx, &mut outgoing);
        outgoing.tried();
        let Poll::Ready(sent) = sent else {
            self.link.hand_over(outgoing);
            return Poll::Pending;
        };
        let left = outgoing.left();
        let state = match sent {
            Err(error) if is_of_socket(&error) => return Poll::Ready(Err(error)),
            Err(error) if is_unsupported(&error) => SendState::Unsupported { left },
            Err(error) => {
                tracing::warn!(%error, "a file could not be read while it was sent");
                SendState::Failed
            }
            Ok(Turn::Sent(0)) if left > 0 => SendState::Failed,
            Ok(_) if left > 0 && outgoing.is_to_be_asked() => SendState::Partly { left },
            Ok(_) if left > 0 => SendState::Sending,
            Ok(_) => SendState::Sent,
        };
        // The body goes on, or the others have their turn before the next bytes.
        match (state, self.link.is_body_open.get()) {
            (SendState::Sending, _) | (_, true) => cx.waker().wake_by_ref(),
            (SendState::Sent, false) => {}
            // Nobody is left who could go on, so the connection must end before the length that was announced.
            (SendState::Partly { .. } | SendState::Failed | SendState::Unsupported { .. }, false) => {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        if state == SendState::Sending {
            self.link.hand_over(outgoing);
            return Poll::Pending;
        }
        self.link.end_outgoing(state);
        Poll::Ready(Ok(()))
    }

    fn poll_outgoing_turn(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing,
    ) -> Poll<io::Result<Turn>> {
        if outgoing.left() == 0 {
            return Poll::Ready(Ok(Turn::Sent(0)));
        }
        let limit = ready!(self.poll_pace(cx, outgoing.turn()));
        if outgoing.is_to_be_asked() {
            ready!(self.stream.poll_writable(cx))?;
            self.is_full = false;
            return Poll::Ready(Ok(Turn::Ready));
        }
        let sent = outgoing.poll_send(&mut self.stream, cx, limit);
        match &sent {
            Poll::Ready(Ok(sent)) => self.count_sent(*sent),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.watch_reader(cx),
        }
        sent.map_ok(Turn::Sent)
    }
}

/// What a turn came to.
enum Turn {
    /// So many bytes were sent.
    Sent(usize),
    /// Something could be sent.
    Ready,
}

/// Whether the other end of a connection, and not the file, is why nothing can be sent.
fn is_of_socket(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}

/// Whether the file can be read, but not sent by the kernel: some file systems have no way to.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}
