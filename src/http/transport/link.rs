//! What a connection and the handler of its requests know of each other. Both run on one thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use actix_http::Request;
use bytes::Bytes;

use super::admission::Connections;
use super::outgoing::{Outgoing, SendFile, SendState};
use super::pace::Pace;
use super::refusal::RefusalLog;
use super::shortcut::Shortcut;
use super::{Limits, Pages};

/// Where a connection is between two requests. At most one request is under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing of the next request has come.
    Idle,
    /// Bytes of a head have gone to the parser, which has made no request of them yet.
    Head,
    /// A handler has the request, or its answer is being sent.
    Answering,
    /// Nothing more is read.
    Ended,
}

/// One connection as its handlers see it; [`Link::of`] finds it.
pub struct Link {
    pub(super) stage: Cell<Stage>,
    /// Whether the answer's body, or the answer itself, is still to come.
    pub(super) is_body_open: Cell<bool>,
    /// Whether the request has a body. Nobody reads it, so the request is the last one.
    pub(super) has_request_body: Cell<bool>,
    pub(super) sent: Cell<u64>,
    /// What was sent before the current answer.
    sent_before: Cell<u64>,
    /// The length of the current answer's head, once that is written.
    head_length: Cell<u64>,
    /// What the body has handed over to be sent.
    pub(super) outgoing: RefCell<Option<Outgoing>>,
    send_state: Cell<SendState>,
    on_end: RefCell<Option<OnEnd>>,
    pub(super) worker: Rc<Worker>,
}

type OnEnd = Box<dyn FnOnce(AnswerEnd)>;

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerEnd {
    /// Bytes of its body that the kernel took.
    pub body_sent: u64,
    /// Whether that was all of it.
    pub completion: Completion,
}

/// Whether all of an answer was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// It was.
    Whole,
    /// The connection ended before.
    Aborted,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("stage", &self.stage).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(worker: Rc<Worker>) -> Self {
        Self {
            stage: Cell::new(Stage::Idle),
            is_body_open: Cell::new(false),
            has_request_body: Cell::new(false),
            sent: Cell::new(0),
            sent_before: Cell::new(0),
            head_length: Cell::new(0),
            outgoing: RefCell::new(None),
            send_state: Cell::new(SendState::Sent),
            on_end: RefCell::new(None),
            worker,
        }
    }

    /// The connection a request came in on; none where the request did not come through a
    /// [`Transport`](super::Transport).
    #[must_use]
    pub fn of(request: &Request) -> Option<&Rc<Self>> {
        request.conn_data::<Rc<Self>>()
    }

    /// Bytes written to this connection so far, heads included.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Whether the server has been asked to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.worker.is_draining.get()
    }

    /// Calls this once the answer to the current request has been sent, or the connection has ended before.
    pub fn on_end(&self, call: impl FnOnce(AnswerEnd) + 'static) {
        *self.on_end.borrow_mut() = Some(Box::new(call));
    }

    /// Sends a part of a file after what the body has given before. Only for a body of the current answer,
    /// which is asked again once [`Link::send_state`] has changed.
    pub fn send_file(&self, part: SendFile) {
        self.hand_over(Outgoing::File { part, is_tried: false });
    }

    /// The same with bytes in memory, which go out from where they are.
    pub fn send_bytes(&self, bytes: Bytes) {
        self.hand_over(Outgoing::Memory(bytes));
    }

    pub(super) fn hand_over(&self, outgoing: Outgoing) {
        self.send_state.set(SendState::Sending);
        *self.outgoing.borrow_mut() = Some(outgoing);
    }

    /// How the last [`Link::send_file`] or [`Link::send_bytes`] stands.
    #[must_use]
    pub fn send_state(&self) -> SendState {
        self.send_state.get()
    }

    /// Nothing is left to do for what was handed over.
    pub(super) fn end_outgoing(&self, state: SendState) {
        self.send_state.set(state);
    }

    /// Bytes written since the last answer ended.
    pub(super) fn sent_of_answer(&self) -> u64 {
        self.sent.get().saturating_sub(self.sent_before.get())
    }

    /// The current answer is out, or will never be.
    pub(super) fn end_answer(&self, completion: Completion) {
        let sent = self.sent_of_answer();
        self.sent_before.set(self.sent.get());
        let head = self.head_length.take();
        let call = self.on_end.borrow_mut().take();
        if let Some(call) = call {
            call(AnswerEnd { body_sent: sent.saturating_sub(head), completion });
        }
    }

    /// An answer that came the short way is out.
    pub(super) fn end_short_answer(&self) {
        self.sent_before.set(self.sent.get());
    }

    /// Sees the bytes of the current answer before they are written, the first of which are its head.
    pub(super) fn see_answer(&self, bytes: &[u8]) {
        if self.head_length.get() == 0 && self.on_end.borrow().is_some() {
            let end = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
            self.head_length.set(end as u64);
        }
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    /// A handler gets a request of this connection.
    pub(super) fn begin_answer(&self, has_request_body: bool) {
        self.stage.set(Stage::Answering);
        self.is_body_open.set(true);
        if has_request_body {
            self.has_request_body.set(true);
        }
    }

    /// Whether this answer is the last one of the connection.
    pub(super) fn must_close(&self) -> bool {
        self.has_request_body.get() || self.is_draining()
    }
}

/// What the connections of one worker thread share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Shared,
    pub(super) is_draining: Cell<bool>,
    /// Whether connections are not even waited for to ask a first time.
    pub(super) is_stopping: Cell<bool>,
    /// Whether connections end at once.
    pub(super) is_cut: Cell<bool>,
    /// What the connections read into before they need room of their own.
    pub(super) space: RefCell<Vec<u8>>,
    tasks: RefCell<Tasks>,
}

/// Bytes read at once before a connection needs the HTTP layer.
const SPACE: usize = 16 << 10;

/// What a worker is started with.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) pages: Pages,
    pub(super) connections: Arc<Connections>,
    pub(super) pace: Option<Arc<Pace>>,
    pub(super) shortcut: Option<Rc<dyn Shortcut>>,
    pub(super) refusals: Option<Arc<dyn RefusalLog>>,
}

impl std::ops::Deref for Worker {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// The tasks of the open connections, to be woken when the server is to stop.
#[derive(Debug, Default)]
struct Tasks {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Worker {
    pub(super) fn new(shared: Shared) -> Self {
        let space = if shared.shortcut.is_some() { SPACE } else { 0 };
        Self {
            shared,
            is_draining: Cell::new(false),
            is_stopping: Cell::new(false),
            is_cut: Cell::new(false),
            space: RefCell::new(vec![0; space]),
            tasks: RefCell::default(),
        }
    }

    /// Tells every connection that its current answer is its last.
    pub(super) fn drain(&self) {
        self.is_draining.set(true);
        self.wake_all();
    }

    /// Tells those too that have not asked for anything yet.
    pub(super) fn stop(&self) {
        self.is_stopping.set(true);
        self.drain();
    }

    /// Ends every connection, whatever it is doing.
    pub(super) fn cut(&self) {
        self.is_cut.set(true);
        self.wake_all();
    }

    fn wake_all(&self) {
        for waker in self.tasks.borrow().wakers.iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Remembers a connection's task until the number is given back with [`Worker::forget`].
    pub(super) fn register(&self, waker: &Waker) -> usize {
        let mut tasks = self.tasks.borrow_mut();
        let waker = Some(waker.clone());
        if let Some(number) = tasks.free.pop() {
            if let Some(place) = tasks.wakers.get_mut(number) {
                *place = waker;
            }
            return number;
        }
        tasks.wakers.push(waker);
        tasks.wakers.len() - 1
    }

    pub(super) fn forget(&self, number: usize) {
        let mut tasks = self.tasks.borrow_mut();
        if let Some(place) = tasks.wakers.get_mut(number) {
            *place = None;
            tasks.free.push(number);
        }
    }
}
