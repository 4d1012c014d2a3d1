//! Sends one answer: rate limit, slow clients, files in time slices, streams.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use actix_codec::Encoder as _;
use actix_http::body::MessageBody;
use actix_http::h1::{Codec, Message};
use actix_rt::task::{spawn_blocking, yield_now};
use bytes::{Buf as _, Bytes, BytesMut};
use rustix::io::Errno;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::nowait::{self, NowaitRead};
use super::connection::Connection;
use super::response::{AnswerEnd, Completion, DirectBody, FileGuard, OnEnd, Passage, Segment};
use super::stall::{self, Reader, Stall, TICKS};

/// The number of bytes of a file that a connection sends before other connections of its thread are scheduled.
const TURN: u64 = 1 << 20;

/// The last bytes of a part of a file are sent in a separate short call: the file is compared with its earlier state directly
/// before, so a change has hardly any time to remain unnoticed.
const TAIL: u64 = 16 << 10;

/// Bytes that a connection holds in memory if they cannot stay in the kernel. TLS holds them while the socket of a slow
/// reader is full: with 64 KiB, thousands of such readers would take too much memory.
const CHUNK: usize = 32 << 10;

/// Bytes of a stream that are collected before they are sent.
const COLLECTED: usize = 16 << 10;

/// The number of bytes of one read that only brings a file into the page cache.
const READ_AHEAD: usize = 256 << 10;

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
        let Some(pace) = &self.connection.worker.pace else { return wanted };
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
        let limits = &self.connection.worker.limits;
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

    /// Sends a part of a file. The guard checks the file before each attempt to send the last bytes.
    async fn file(
        &mut self,
        file: &Arc<File>,
        part: Range<u64>,
        passage: &mut Passage,
        guard: Option<&dyn FileGuard>,
    ) -> io::Result<()> {
        let mut at = part.start;
        while at < part.end {
            let piece = first(at..part.end, TURN);
            let check = guard.filter(|_| piece.end == part.end);
            let before = at;
            let sent = match passage {
                Passage::Kernel => self.send_file(file, &mut at, piece.end, guard, check).await,
                Passage::Memory => self.read_and_write(file, &mut at, piece.end, check).await,
            };
            if let Some(guard) = guard {
                guard.sent(at - before);
            }
            match sent {
                // Some file systems do not support sendfile.
                Err(error) if *passage == Passage::Kernel && is_unsupported(&error) => {
                    *passage = Passage::Memory;
                }
                sent => sent?,
            }
            if at < part.end {
                yield_now().await;
            }
        }
        Ok(())
    }

    /// Sends a file from `at`, which moves on, to `end` within the kernel. Bytes that are not in memory are read by another
    /// thread first: sendfile would wait for the disk, and all connections of this thread with it.
    async fn send_file(
        &mut self,
        file: &Arc<File>,
        at: &mut u64,
        end: u64,
        guard: Option<&dyn FileGuard>,
        check: Option<&dyn FileGuard>,
    ) -> io::Result<()> {
        if let Some(guard) = guard.filter(|_| !is_cached(file, *at, end)) {
            guard.read_cold();
            let (file, part) = (Arc::clone(file), *at..end);
            blocking(move || read_ahead(&file, part)).await?;
        }
        while *at < end {
            let limit = self.allowance(length(*at, end)).await;
            if let Some(check) = check {
                check.check()?;
            }
            match self.connection.stream.try_send_file(file, at, limit) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(sent) => self.count(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The same without sendfile, through a buffer.
    async fn read_and_write(
        &mut self,
        file: &Arc<File>,
        at: &mut u64,
        end: u64,
        check: Option<&dyn FileGuard>,
    ) -> io::Result<()> {
        while *at < end {
            let most = CHUNK.min(self.connection.stream.most_at_once());
            let limit = self.allowance(length(*at, end)).await.min(most);
            let tried = poll_fn(|cx| Poll::Ready(self.send_cached(cx, file, *at, limit, check)));
            match tried.await {
                Some(Poll::Ready(sent)) => {
                    let sent = sent?;
                    self.count(sent);
                    *at += sent as u64;
                    self.flush().await?;
                }
                Some(Poll::Pending) => self.writable().await?,
                None => {
                    let (file, offset) = (Arc::clone(file), *at);
                    let mut bytes = blocking(move || {
                        let mut bytes = vec![0; limit];
                        file.read_exact_at(&mut bytes, offset)?;
                        Ok(Bytes::from(bytes))
                    })
                    .await?;
                    if let Some(check) = check {
                        check.check()?;
                    }
                    self.write(&mut BytesMut::new(), &mut bytes).await?;
                    *at += limit as u64;
                }
            }
        }
        Ok(())
    }

    /// Sends bytes of a file from `at` on through a buffer of the worker, as far as the kernel takes them. `None` if they are
    /// not in the page cache.
    fn send_cached(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        at: u64,
        limit: usize,
        check: Option<&dyn FileGuard>,
    ) -> Option<Poll<io::Result<usize>>> {
        let worker = Rc::clone(&self.connection.worker);
        let mut buffer = worker.file_buffer.borrow_mut();
        buffer.resize(CHUNK, 0);
        let read = match nowait::read_at(file, buffer.get_mut(..limit)?, at) {
            Ok(NowaitRead::Read(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(NowaitRead::Read(read)) => check.map_or(Ok(()), FileGuard::check).map(|()| read),
            Ok(NowaitRead::NotInMemory | NowaitRead::Unknown) => return None,
            Err(error) => Err(error.into()),
        };
        Some(match read {
            Ok(read) => self.connection.stream.poll_write(cx, buffer.get(..read)?, &[]),
            Err(error) => Poll::Ready(Err(error)),
        })
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

/// At most the first `size` bytes of a part. The last [`TAIL`] bytes of a part are never together with other bytes.
fn first(part: Range<u64>, size: u64) -> Range<u64> {
    if part.end - part.start <= TAIL {
        return part;
    }
    part.start..(part.start + size).min(part.end - TAIL)
}

/// Runs work that may wait for a disk on another thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
}

/// Whether the first and the last byte of a part are in the page cache, and so probably all bytes. True if the system does
/// not report it.
fn is_cached(file: &File, start: u64, end: u64) -> bool {
    let is_byte_cached = |at| nowait::read_at(file, &mut [0], at) != Ok(NowaitRead::NotInMemory);
    is_byte_cached(start) && is_byte_cached(end.saturating_sub(1))
}

/// Waits until the kernel has bytes of a file in memory. A file that ends before is no error here.
fn read_ahead(file: &File, part: Range<u64>) -> io::Result<()> {
    let mut scratch = vec![0; READ_AHEAD.min(length(part.start, part.end))];
    let mut at = part.start;
    while at < part.end {
        match file.read_at(&mut scratch, at)? {
            0 => break,
            read => at += read as u64,
        }
    }
    Ok(())
}

fn length(start: u64, end: u64) -> usize {
    usize::try_from(end - start).unwrap_or(usize::MAX)
}

/// Whether the socket, and not the file, caused an error.
fn is_of_socket(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}

/// Whether sendfile failed because the file system or the kernel has no sendfile, or a filter of system calls refuses it.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
        || error.raw_os_error() == Some(Errno::PERM.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_of_a_part_are_sent_by_themselves() {
        for length in [1, TAIL, TAIL + 1, CHUNK as u64, TURN, TURN + TAIL, 3 * TURN + 7] {
            let mut rest = 5..5 + length;
            let mut piece = first(rest.clone(), TURN);
            while piece.end < rest.end {
                assert!(!piece.is_empty() && piece.end - piece.start <= TURN && piece.start == rest.start);
                rest.start = piece.end;
                piece = first(rest.clone(), TURN);
            }
            assert!(piece == rest && piece.end - piece.start <= TAIL, "{length}");
        }
    }

    #[test]
    fn a_file_that_ends_before_its_part_can_be_read_ahead() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        read_ahead(&file, 5..100).unwrap();
        assert!(is_cached(&file, 0, 10));
    }
}
