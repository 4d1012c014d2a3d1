//! Sends files in time slices, with sendfile or through a buffer.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_rt::task::{spawn_blocking, yield_now};
use bytes::{Bytes, BytesMut};
use rustix::io::Errno;

use super::Sending;
use crate::http::nowait::{self, NowaitRead};
use crate::http::transport::response::{FileGuard, Passage};

/// The number of bytes of a file that a connection sends before other connections of its thread are scheduled.
const TURN: u64 = 1 << 20;

/// The last bytes of a part of a file are sent in a separate short call: the file is compared with its earlier state directly
/// before, so a change has hardly any time to remain unnoticed.
const TAIL: u64 = 16 << 10;

/// Bytes that a connection holds in memory if they cannot stay in the kernel. TLS holds them while the socket of a slow
/// reader is full: with 64 KiB, thousands of such readers would take too much memory.
const CHUNK: usize = 32 << 10;

/// The number of bytes of one read that only brings a file into the page cache.
const READ_AHEAD: usize = 256 << 10;

impl Sending<'_> {
    /// Sends a part of a file. The guard checks the file before each attempt to send the last bytes.
    pub(super) async fn file(
        &mut self,
        file: &Arc<File>,
        part: Range<u64>,
        passage: &mut Passage,
        guard: Option<&dyn FileGuard>,
    ) -> io::Result<()> {
        let mut at = part.start;
        while at < part.end {
            // Without a guard, the file cannot change.
            let piece = if guard.is_some() { first(at..part.end) } else { at..part.end.min(at + TURN) };
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
}

/// At most the first [`TURN`] bytes of a part. The last [`TAIL`] bytes of a part are never together with other bytes.
fn first(part: Range<u64>) -> Range<u64> {
    if part.end - part.start <= TAIL {
        return part;
    }
    part.start..(part.start + TURN).min(part.end - TAIL)
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
            let mut piece = first(rest.clone());
            while piece.end < rest.end {
                assert!(!piece.is_empty() && piece.end - piece.start <= TURN && piece.start == rest.start);
                rest.start = piece.end;
                piece = first(rest.clone());
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
