//! Adapter until the connection is a loop: gives a response with a [`DirectBody`] a body that hands the segments to the
//! [`Link`].

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_http::Response;
use actix_http::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_http::header::{self, HeaderValue};
use actix_rt::task::{JoinHandle, spawn_blocking};
use bytes::Bytes;

use super::link::Link;
use super::outgoing::{SendFile, SendState};
use super::response::{DirectBody, FileGuard, OnEnd, Passage, Segment};

/// The last bytes of a guarded segment, which are sent by themselves, in a call that takes no time in which a file could
/// change.
const TAIL: u64 = 16 << 10;

/// Bytes after which the sent ones are counted, and the page cache is asked for the next ones.
const STRIDE: u64 = 1 << 20;

/// Bytes that a connection holds in memory if the kernel cannot send from the file.
const CHUNK: u64 = 64 << 10;

/// From this size on, bytes in memory are written from their place: below it, a copy costs less.
const UNCOPIED: u64 = 8 << 10;

/// Bytes read at once only to have them in the page cache.
const SCRATCH: usize = 256 << 10;

/// Takes the extensions of a response, and replaces its body if one of them asks for it.
pub(super) fn attach<B: MessageBody + 'static>(
    mut answer: Response<EitherBody<B>>,
    link: &Rc<Link>,
    is_head: bool,
) -> Response<EitherBody<B>> {
    let (direct, on_end) = {
        let mut extensions = answer.extensions_mut();
        (extensions.remove::<DirectBody>(), extensions.remove::<OnEnd>())
    };
    if let Some(OnEnd(call)) = on_end {
        link.on_end(call);
    }
    if let Some(direct) = direct {
        let length = direct.length();
        if is_head {
            return with_stream(answer, length, BoxBody::new(Nothing));
        }
        let can_send_file = direct.passage == Passage::Kernel;
        let DirectBody { segments, guard, .. } = direct;
        let link = Rc::clone(link);
        return with_stream(
            answer,
            length,
            BoxBody::new(LinkBody { segments, guard, step: Step::Next, can_send_file, link }),
        );
    }
    match answer.body().size() {
        BodySize::Sized(length) if length >= UNCOPIED && !is_head => {
            let mut bytes = None;
            let answer = answer.map_body(|_, body| match body.try_into_bytes() {
                Ok(whole) => {
                    bytes = Some(whole);
                    EitherBody::right(BoxBody::new(()))
                }
                Err(body) => body,
            });
            let Some(bytes) = bytes else { return answer };
            let segments = VecDeque::from([Segment::Bytes(bytes)]);
            let link = Rc::clone(link);
            let body = LinkBody { segments, guard: None, step: Step::Next, can_send_file: true, link };
            with_stream(answer, length, BoxBody::new(body))
        }
        _ => answer,
    }
}

fn with_stream<B: MessageBody>(
    mut answer: Response<EitherBody<B>>,
    length: u64,
    body: BoxBody,
) -> Response<EitherBody<B>> {
    answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    answer.head_mut().no_chunking(true);
    answer.set_body(EitherBody::right(body))
}

/// The answer to HEAD.
struct Nothing;

impl MessageBody for Nothing {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        Poll::Ready(None)
    }
}

/// Segments on their way. Their length is already in the header.
struct LinkBody {
    segments: VecDeque<Segment>,
    guard: Option<Rc<dyn FileGuard>>,
    step: Step,
    can_send_file: bool,
    link: Rc<Link>,
}

enum Step {
    /// The next segment can begin.
    Next,
    /// A thread that may wait reads this part; it gives the bytes if they go through memory.
    Fetching(Part, JoinHandle<io::Result<Option<Bytes>>>),
    /// The connection sends this many bytes of memory.
    SendingBytes(u64),
    /// The connection sends this part of a file.
    Sending(Part),
}

#[derive(Clone)]
struct Part {
    file: Arc<File>,
    offset: u64,
    length: u64,
    is_last: bool,
}

impl MessageBody for LinkBody {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        let this = self.get_mut();
        loop {
            match &mut this.step {
                Step::Fetching(part, fetching) => {
                    let part = part.clone();
                    let fetched = ready!(Pin::new(fetching).poll(cx)).map_err(io::Error::other)?;
                    let fetched = fetched.inspect_err(|error| {
                        tracing::warn!(%error, "a file could not be read while it was sent");
                    })?;
                    this.check(&part)?;
                    match fetched {
                        Some(bytes) => this.link.send_bytes(bytes),
                        None => this.send_file(&part),
                    }
                    this.step = Step::Sending(part);
                }
                Step::SendingBytes(length) => {
                    let length = *length;
                    match this.link.send_state() {
                        SendState::Sending => return Poll::Pending,
                        SendState::Sent => this.count(length),
                        _ => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                    }
                    this.step = Step::Next;
                }
                Step::Sending(part) => {
                    let part = part.clone();
                    match this.link.send_state() {
                        SendState::Sending => return Poll::Pending,
                        SendState::Sent => this.count(part.length),
                        SendState::Failed => {
                            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                        }
                        SendState::Partly { left } => this.put_back(part, left),
                        SendState::Unsupported { left } => {
                            this.can_send_file = false;
                            this.put_back(part, left);
                        }
                    }
                    this.step = Step::Next;
                }
                Step::Next => match this.segments.pop_front() {
                    None => return Poll::Ready(None),
                    Some(Segment::Bytes(bytes)) => {
                        let length = bytes.len() as u64;
                        this.link.send_bytes(bytes);
                        if this.segments.is_empty() {
                            // The connection ends the answer only once it has sent them.
                            this.count(length);
                            return Poll::Ready(None);
                        }
                        this.step = Step::SendingBytes(length);
                        return Poll::Pending;
                    }
                    Some(Segment::File { file, offset, length }) => {
                        if this.guard.is_none() && this.segments.is_empty() && this.can_send_file {
                            this.link.send_file(SendFile { file, offset, length, is_guarded: false });
                            return Poll::Ready(None);
                        }
                        this.step = this.begin(file, offset, length)?;
                    }
                },
            }
        }
    }
}

impl LinkBody {
    /// Begins to send the first bytes of a part, and leaves the others for the next time.
    fn begin(&mut self, file: Arc<File>, offset: u64, length: u64) -> io::Result<Step> {
        let size = if self.can_send_file { STRIDE } else { CHUNK };
        let first = if length <= TAIL { length } else { size.min(length - TAIL) };
        let part = Part { file, offset, length: first, is_last: first == length };
        if !part.is_last {
            let rest = Segment::File {
                file: Arc::clone(&part.file),
                offset: offset + first,
                length: length - first,
            };
            self.segments.push_front(rest);
        }
        if self.can_send_file && (self.guard.is_none() || is_cached(&part)) {
            self.check(&part)?;
            self.send_file(&part);
            return Ok(Step::Sending(part));
        }
        if let (Some(guard), true) = (&self.guard, self.can_send_file) {
            guard.read_cold();
        }
        let (reading, is_kept) = (part.clone(), !self.can_send_file);
        Ok(Step::Fetching(part, spawn_blocking(move || read(&reading, is_kept))))
    }

    /// The last bytes complete the file for the client, so the file is compared before each attempt to send them.
    fn check(&self, part: &Part) -> io::Result<()> {
        match &self.guard {
            Some(guard) if part.is_last => guard.check(),
            _ => Ok(()),
        }
    }

    fn put_back(&mut self, part: Part, left: u64) {
        let sent = part.length.saturating_sub(left);
        self.count(sent);
        let rest = Segment::File { file: part.file, offset: part.offset + sent, length: left };
        self.segments.push_front(rest);
    }

    fn send_file(&self, part: &Part) {
        let (file, offset, length) = (Arc::clone(&part.file), part.offset, part.length);
        let is_guarded = part.is_last && self.guard.is_some();
        self.link.send_file(SendFile { file, offset, length, is_guarded });
    }

    fn count(&self, sent: u64) {
        if let Some(guard) = &self.guard {
            guard.sent(sent);
        }
    }
}

/// Reads a part, waiting for the disk if necessary; gives the bytes if they are kept.
fn read(part: &Part, is_kept: bool) -> io::Result<Option<Bytes>> {
    let size = usize::try_from(part.length).unwrap_or(usize::MAX);
    if is_kept {
        let mut bytes = vec![0; size];
        part.file.read_exact_at(&mut bytes, part.offset)?;
        return Ok(Some(bytes.into()));
    }
    let mut scratch = vec![0; SCRATCH.min(size)];
    let mut at = 0;
    while at < part.length {
        match part.file.read_at(&mut scratch, part.offset + at)? {
            // The file is shorter now, which sendfile reports.
            0 => break,
            read => at += read as u64,
        }
    }
    Ok(None)
}

/// Whether the first and the last byte of a part are in the page cache. True if the file system does not tell.
#[cfg(target_os = "linux")]
fn is_cached(part: &Part) -> bool {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let last = (part.offset + part.length).saturating_sub(1);
    [part.offset, last].into_iter().all(|at| {
        let mut byte = [0];
        let read = preadv2(&*part.file, &mut [io::IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT);
        read != Err(Errno::AGAIN)
    })
}

#[cfg(not(target_os = "linux"))]
fn is_cached(_: &Part) -> bool {
    true
}
