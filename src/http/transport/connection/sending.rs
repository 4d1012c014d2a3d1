//! The sending side of a connection: files in turns, the server's rate, and readers that take too little.

use std::io;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Buf as _;
use tokio::time::Instant;

use super::super::clock::Purpose;
use super::super::link::Stage;
#[cfg(target_os = "linux")]
use super::super::sendfile::SendState;
use super::super::stall::{Reader, Stall, TICKS};
use super::Connection;

impl Connection {
    /// Writes what came the short way.
    pub(super) fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match self.stream.poll_write(cx, &self.unsent) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.link.count_sent(written);
                    if written == self.unsent.len() {
                        self.stall = None;
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

    /// Cuts a reader that took too little while the socket was full.
    pub(super) fn check_reader(&mut self, ticks: u32, cx: &mut Context<'_>) -> io::Result<()> {
        let limits = &self.link.worker.limits;
        let Some(stall) = &mut self.stall else { return Ok(()) };
        let minimum = (limits.minimum_rate * limits.write_timeout.as_secs()).max(1);
        match stall.tick(self.link.sent(), ticks, minimum) {
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
        if self.stall.is_none() {
            self.stall = Some(Stall::start(self.link.sent()));
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
        self.link.count_sent(bytes);
        self.allowed = self.allowed.saturating_sub(bytes);
    }

    /// Sends the part of a file that the body has asked for, a turn at a time.
    #[cfg(target_os = "linux")]
    pub(super) fn poll_file(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut part) = self.link.file.take() else { return Poll::Ready(Ok(())) };
        let sent = match self.poll_pace(cx, part.turn()) {
            Poll::Ready(0) => Poll::Ready(Ok(0)),
            Poll::Ready(limit) => match self.stream.poll_send_file(cx, &mut part, limit) {
                Poll::Pending => {
                    self.watch_reader(cx);
                    Poll::Pending
                }
                sent @ Poll::Ready(_) => sent,
            },
            Poll::Pending => Poll::Pending,
        };
        let state = match sent {
            Poll::Pending => {
                self.link.send_file(part);
                return Poll::Pending;
            }
            Poll::Ready(Err(error)) if is_of_socket(&error) => return Poll::Ready(Err(error)),
            Poll::Ready(Err(error)) => {
                tracing::warn!(%error, "a file could not be read while it was sent");
                SendState::Failed
            }
            Poll::Ready(Ok(0)) if part.length > 0 => SendState::Failed,
            Poll::Ready(Ok(sent)) => {
                self.count_sent(sent);
                if part.length == 0 { SendState::Sent } else { SendState::Sending }
            }
        };
        // The body goes on, or the others have their turn before the next bytes.
        cx.waker().wake_by_ref();
        if state == SendState::Sending {
            self.link.send_file(part);
            return Poll::Pending;
        }
        self.link.end_file(state);
        Poll::Ready(Ok(()))
    }

    /// Only a [`SendFile`](super::SendFile) makes files, and on this system there is none.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn poll_file(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Whether the other end of a connection, and not the file, is why nothing can be sent.
#[cfg(target_os = "linux")]
fn is_of_socket(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}
