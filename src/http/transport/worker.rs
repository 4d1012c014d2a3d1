//! The state that the connections of one worker share, and the thread that they run on.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::{KeepAlive, ServiceConfig};
use actix_rt::Arbiter;
use tokio::sync::watch;

use super::Phase;
use super::admission::Connections;
use super::control::Changeable;
use super::deadlines::Deadlines;
use super::fast_path::{FastAnswer, FastPath};
use super::refusal::RefusalLog;

/// The number of bytes of one read.
const SCRATCH: usize = 16 << 10;

/// The state that all workers of a server share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) changeable: watch::Receiver<Arc<Changeable>>,
    pub(super) connections: Arc<Connections>,
    pub(super) refusals: Option<Arc<dyn RefusalLog>>,
}

/// The state that the connections of one worker share.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Shared,
    changeable: RefCell<Arc<Changeable>>,
    pub(super) fast_path: Option<Rc<dyn FastPath>>,
    /// The settings of actix's codec.
    pub(super) codec: ServiceConfig,
    /// Whether each answer is the last one of its connection.
    pub(super) is_draining: Cell<bool>,
    /// Whether connections that wait for their next request are closed.
    pub(super) closes_idle: Cell<bool>,
    /// Whether connections without a request are closed, too.
    pub(super) is_stopping: Cell<bool>,
    /// All connections read into this buffer, so that a connection without a request needs none.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// Files that cannot stay in the kernel are sent through this buffer. It is empty until there is such a file.
    pub(super) file_buffer: RefCell<Vec<u8>>,
    /// The answer of the fast path, before it is sent.
    pub(super) fast_answer: RefCell<FastAnswer>,
    pub(super) deadlines: RefCell<Deadlines>,
}

impl std::ops::Deref for Worker {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Worker {
    /// A worker of this thread. [`Worker::run_timers`] and [`Worker::follow`] must run for its timers to work.
    pub(super) fn new(shared: Shared, fast_path: Option<Rc<dyn FastPath>>) -> Self {
        let changeable = Arc::clone(&shared.changeable.borrow());
        let shortest = shortest(&changeable);
        Self {
            shared,
            changeable: RefCell::new(changeable),
            fast_path,
            codec: ServiceConfig::new(
                // The loop keeps all times; the codec only needs to know that connections persist.
                KeepAlive::Os,
                Duration::ZERO,
                Duration::ZERO,
                false,
                None,
            ),
            is_draining: Cell::new(false),
            closes_idle: Cell::new(false),
            is_stopping: Cell::new(false),
            scratch: RefCell::new(vec![0; SCRATCH].into()),
            file_buffer: RefCell::default(),
            fast_answer: RefCell::default(),
            deadlines: RefCell::new(Deadlines::new(shortest)),
        }
    }

    /// Wakes connections whose deadline has passed. Never ends.
    pub(super) async fn run_timers(self: Rc<Self>) {
        loop {
            let period = self.deadlines.borrow().period();
            tokio::time::sleep(period).await;
            self.deadlines.borrow_mut().sweep();
        }
    }

    /// The settings that can change.
    pub(super) fn changeable(&self) -> Ref<'_, Changeable> {
        Ref::map(self.changeable.borrow(), |changeable| &**changeable)
    }

    /// Applies changed settings to the connections.
    pub(super) async fn follow_changes(self: Rc<Self>) {
        let mut changes = self.shared.changeable.clone();
        while changes.changed().await.is_ok() {
            let latest = Arc::clone(&changes.borrow_and_update());
            self.deadlines.borrow_mut().set_shortest(shortest(&latest));
            self.changeable.replace(latest);
        }
    }

    /// Applies a drain and a stop to the connections.
    pub(super) async fn follow(self: Rc<Self>, mut phases: watch::Receiver<Phase>) {
        if phases.wait_for(|phase| *phase != Phase::Running).await.is_ok() {
            self.is_draining.set(true);
        }
        if phases.wait_for(|phase| phase.refuses_probes()).await.is_ok() {
            self.closes_idle.set(true);
            self.deadlines.borrow().wake_all();
        }
        if phases.wait_for(|phase| matches!(phase, Phase::Stopping(_))).await.is_ok() {
            self.is_stopping.set(true);
            self.deadlines.borrow().wake_all();
        }
    }
}

/// The shortest limit of a connection that waits for a request.
fn shortest(changeable: &Changeable) -> Duration {
    changeable.limits.head_timeout.min(changeable.limits.keep_alive)
}

/// Starts the thread of a worker.
pub(super) fn start_arbiter(blocking_threads: usize) -> std::io::Result<Arbiter> {
    Arbiter::try_with_tokio_rt(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(blocking_threads.max(1))
            .build()
    })
}
