//! Sends one answer: rate limit, slow clients, segments, streams. [`file`] sends files.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;

use actix_codec::Encoder as _;
use actix_http::body::MessageBody;
use actix_http::h1::{Codec, Message};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::time::{Instant, sleep, timeout_at};

use super::connection::Connection;
use super::response::{AnswerEnd, Completion, DirectBody, OnEnd, Segment};
use super::stall::{self, Reader, Stall, TICKS};

mod file;

/// Bytes of a stream that are collected before they are sent.
const COLLECTED: usize = 16 << 10;

/// One answer on its way to the socket. Dropping it before [`Sending::end`] reports an aborted answer.
pub(super) struct Sending<'a> {
    connection: &'a mut Connection,
    /// Bytes of the connection that were sent before the body.
    before_body: u64,
    on_end: Option<OnEnd>,
    /// Bytes that the rate of the server allows now.
    allowed: usize,
    watch: Option<Watch>,
}

/// Watches a reader while the socket is full.
struct Watch {
    /// The time of the next check of the client.
    look_at: Instant,
    /// The number of checks after the first one.
    ticks: u32,
    stall: Option<Stall>,
}

impl<'a> Sending<'a> {
    /// Begins an answer whose head has this length.
    pub(super) fn new(connection: &'a mut Connection, head_length: usize, on_end: Option<OnEnd>) -> Self {
        let before_body = connection.tally.sent + head_length as u64;
        Self { connection, before_body, on_end, allowed: 0, watch: None }
    }

    /// The kernel has taken the whole answer.
    pub(super) fn end(mut self) {
        self.report(Completion::Whole);
    }

    fn report(&mut self, completion: Completion) {
        if let Some(OnEnd(call)) = self.on_end.take() {
            call(AnswerEnd {
                body_sent: self.connection.tally.sent.saturating_sub(self.before_body),
                completion,
            });
        }
    }

    /// Sends all bytes of both buffers, and empties them.
    pub(super) async fn write(&mut self, first: &mut BytesMut, second: &mut Bytes) -> io::Result<()> {
        while first.has_remaining() || second.has_remaining() {
            let limit = self.allowance(first.len() + second.len()).await;
            let head = first.get(..limit).unwrap_or(first);
            let body = second.get(..limit - head.len()).unwrap_or(second);
            let stream = &mut self.connection.stream;
            let tried = poll_fn(|cx| match stream.poll_write(cx, head, body) {
                Poll::Ready(written) => Poll::Ready(Some(written)),
                Poll::Pending => Poll::Ready(None),
            });
            match tried.await {
                Some(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Some(written) => self.took(written?, first, second),
                None => self.writable().await?,
            }
        }
        self.flush().await
    }

    /// Waits until the kernel has everything that was written.
    async fn flush(&mut self) -> io::Result<()> {
        loop {
            let stream = &mut self.connection.stream;
            match poll_fn(|cx| Poll::Ready(stream.poll_flush(cx))).await {
                Poll::Ready(flushed) => return flushed,
                Poll::Pending => self.writable().await?,
            }
        }
    }

    /// Removes the bytes that the kernel accepted from both buffers.
    pub(super) fn took(&mut self, written: usize, first: &mut BytesMut, second: &mut Bytes) {
        let of_first = written.min(first.len());
        first.advance(of_first);
        second.advance((written - of_first).min(second.len()));
        self.count(written);
    }

    fn count(&mut self, written: usize) {
        self.connection.tally.sent += written as u64;
        self.allowed = self.allowed.saturating_sub(written);
    }

    /// Waits until the rate limit allows at least a part of `wanted` bytes, and returns the number of allowed bytes.
    async fn allowance(&mut self, wanted: usize) -> usize {
        let Some(pace) = self.connection.worker.changeable().pace.clone() else { return wanted };
        if self.allowed == 0 {
            let leave = pace.ask(wanted, Instant::now());
            if !leave.wait.is_zero() {
                // The client did not cause this delay.
                self.watch = None;
                sleep(leave.wait).await;
            }
            self.allowed = leave.bytes;
        }
        wanted.min(self.allowed)
    }

    /// Waits until the kernel accepts more bytes. Fails if the client reads too slowly meanwhile.
    async fn writable(&mut self) -> io::Result<()> {
        let limits = self.connection.worker.changeable().limits;
        let tick = limits.write_timeout / TICKS;
        let minimum = stall::minimum(limits.minimum_rate, limits.write_timeout);
        // An overdue check means that the socket was not full at that time.
        self.watch.take_if(|watch| watch.look_at <= Instant::now());
        loop {
            let watch = self.watch.get_or_insert_with(|| Watch {
                look_at: Instant::now() + tick,
                ticks: 0,
                stall: None,
            });
            let stream = &mut self.connection.stream;
            if let Ok(ready) = timeout_at(watch.look_at, poll_fn(|cx| stream.poll_writable(cx))).await {
                return ready;
            }
            watch.look_at += tick;
            // Acknowledged bytes show the progress of the client; the kernel accepts bytes in large steps.
            let taken = self.connection.tally.sent.saturating_sub(stream.unacknowledged().unwrap_or(0));
            match &mut watch.stall {
                // The number of bytes received before the window is known only at its first check.
                None => watch.stall = Some(Stall::start(taken)),
                Some(stall) => {
                    watch.ticks += 1;
                    if stall.tick(taken, watch.ticks, minimum) == Reader::Stalled {
                        self.connection.worker.connections.stalled.fetch_add(1, Ordering::Relaxed);
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    /// Sends a head and the segments behind it.
    pub(super) async fn direct(&mut self, mut head: BytesMut, body: DirectBody) -> io::Result<()> {
        let DirectBody { segments, mut passage, guard } = body;
        for segment in segments {
            match segment {
                Segment::Bytes(mut bytes) => {
                    let length = bytes.len() as u64;
                    self.write(&mut head, &mut bytes).await?;
                    if let Some(guard) = &guard {
                        guard.sent(length);
                    }
                }
                Segment::File { file, offset, length } => {
                    // If the head shares a packet with bytes of the file, sending these bytes costs half as much again.
                    self.write(&mut std::mem::take(&mut head), &mut Bytes::new()).await?;
                    let part = offset..offset.saturating_add(length);
                    let sent = self.file(&file, part, &mut passage, guard.as_deref()).await;
                    if let Err(error) = &sent
                        && !is_of_socket(error)
                    {
                        tracing::warn!(%error, "a file could not be read while it was sent");
                    }
                    sent?;
                }
            }
        }
        self.write(&mut head, &mut Bytes::new()).await
    }

    /// Sends a head and the chunks of a stream behind it.
    pub(super) async fn stream<B: MessageBody>(
        &mut self,
        mut out: BytesMut,
        body: B,
        mut codec: Codec,
    ) -> io::Result<()> {
        let mut body = pin!(body);
        loop {
            let next = match poll_fn(|cx| Poll::Ready(body.as_mut().poll_next(cx))).await {
                Poll::Ready(next) => next,
                Poll::Pending => {
                    self.write(&mut out, &mut Bytes::new()).await?;
                    poll_fn(|cx| body.as_mut().poll_next(cx)).await
                }
            };
            match next {
                // An empty chunk would be the end.
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => codec.encode(Message::Chunk(Some(chunk)), &mut out)?,
                Some(Err(error)) => {
                    let error: Box<dyn std::error::Error> = error.into();
                    tracing::warn!(%error, "the body of an answer failed");
                    return Err(io::ErrorKind::Other.into());
                }
                None => break,
            }
            if out.len() >= COLLECTED {
                self.write(&mut out, &mut Bytes::new()).await?;
            }
        }
        codec.encode(Message::Chunk(None), &mut out)?;
        self.write(&mut out, &mut Bytes::new()).await
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.report(Completion::Aborted);
    }
}

/// Whether the socket, and not the file, caused an error.
fn is_of_socket(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}
