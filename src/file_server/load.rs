//! The load of the file server over all its workers, and the report of it in each answer to a probe.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::http::transport::Completion;
use crate::load_report::{LoadReport, MOST_COUNTED};

/// The load of one file server. Counters start at 0 and never decrease unless documented otherwise.
#[derive(Debug)]
pub(super) struct Load {
    started: Instant,
    boot: u64,
    in_flight: AtomicU32,
    /// Requests that wait for a read from a disk before their answer begins. Decreases.
    preparing: AtomicU32,
    /// Microseconds after the start at which the first of the requests in flight began.
    busy_since: AtomicU64,
    busy: AtomicU64,
    completed: AtomicU64,
    /// Probes among `completed`. They are subtracted, because they would lower the average size of a download.
    probed: AtomicU64,
    aborted: AtomicU64,
    promised: AtomicU64,
    sent: AtomicU64,
    idle: Notify,
}

/// The kind of a request, as far as the load is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A request of a client.
    Client,
    /// A probe of a balancer. It does not count as load.
    Probe,
}

impl Load {
    /// A load without requests. `boot` identifies this run of the server.
    pub(super) fn new(boot: u64) -> Self {
        Self {
            started: Instant::now(),
            boot: boot & MOST_COUNTED,
            in_flight: AtomicU32::new(0),
            preparing: AtomicU32::new(0),
            busy_since: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            probed: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            promised: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            idle: Notify::new(),
        }
    }

    /// Counts a request that is answered with a body of `body_bytes` bytes.
    pub(super) fn begin(self: &Arc<Self>, work: RequestKind, body_bytes: u64) -> InFlight {
        if work == RequestKind::Client && self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.busy_since.store(self.micros(), Ordering::Relaxed);
        }
        self.promised.fetch_add(body_bytes, Ordering::Relaxed);
        InFlight { load: Arc::clone(self), work, unsent: body_bytes, is_complete: false }
    }

    /// The identity of this run of the server.
    pub(super) fn boot(&self) -> u64 {
        self.boot
    }

    /// The number of client requests that are being answered.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request that waits for a read from a disk, until the result is dropped. The answer is not known
    /// before.
    pub(super) fn prepare(self: &Arc<Self>) -> Preparing {
        self.preparing.fetch_add(1, Ordering::Relaxed);
        Preparing(Arc::clone(self))
    }

    /// Whether no client request is being answered or waits for a disk.
    pub(super) fn is_idle(&self) -> bool {
        // The order matters: a request is counted as in flight before it stops being counted as in preparation.
        self.preparing.load(Ordering::Acquire) == 0 && self.in_flight() == 0
    }

    /// Waits until [`is_idle`](Self::is_idle) is true.
    pub(super) async fn idle(&self) {
        while !self.is_idle() {
            self.idle.notified().await;
        }
    }

    /// Requests that were answered completely, probes included.
    pub(super) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Requests whose client disconnected or was disconnected before the end of the answer.
    pub(super) fn aborted(&self) -> u64 {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that were written to the kernel.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The report for the answer to a probe. The probe itself is part of the counts.
    pub(super) fn report(&self) -> LoadReport {
        let now = self.micros();
        let mut busy = self.busy.load(Ordering::Relaxed);
        let in_flight = self.in_flight();
        if in_flight > 0 {
            busy += now.saturating_sub(self.busy_since.load(Ordering::Relaxed));
        }
        LoadReport {
            in_flight: in_flight.saturating_add(1),
            unsent_bytes: Some(self.promised.load(Ordering::Relaxed)),
            completed: Some(self.completed().saturating_sub(self.probed.load(Ordering::Relaxed))),
            busy: Some(Duration::from_micros(busy)),
            sent_bytes: Some(self.sent()),
            boot: Some(self.boot),
        }
    }

    fn micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

/// Guard of a request that waits for a disk.
#[derive(Debug)]
pub(super) struct Preparing(Arc<Load>);

impl Drop for Preparing {
    fn drop(&mut self) {
        if self.0.preparing.fetch_sub(1, Ordering::Release) == 1 {
            self.0.idle.notify_one();
        }
    }
}

/// A request that is being answered. Dropping it without [`InFlight::complete`] counts it as aborted.
#[derive(Debug)]
pub(super) struct InFlight {
    load: Arc<Load>,
    work: RequestKind,
    unsent: u64,
    is_complete: bool,
}

impl InFlight {
    /// Counts bytes of the body that were written to the kernel.
    pub(super) fn sent(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unsent);
        self.unsent -= bytes;
        self.load.promised.fetch_sub(bytes, Ordering::Relaxed);
        self.load.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts the request as answered completely.
    pub(super) fn complete(mut self) {
        self.sent(self.unsent);
        self.is_complete = true;
    }
}

/// The load entry of an answer, until the answer ends.
#[derive(Debug)]
pub(super) enum Flight {
    /// The answer is a page, which is not counted.
    None,
    /// The answer is sent at once.
    Own(InFlight),
    /// The body of the answer counts the bytes that it sends.
    Shared(Rc<RefCell<Option<InFlight>>>),
}

impl Flight {
    /// Counts the end of the answer.
    pub(super) fn end(self, completion: Completion) {
        let in_flight = match self {
            Self::None => None,
            Self::Own(in_flight) => Some(in_flight),
            Self::Shared(in_flight) => in_flight.borrow_mut().take(),
        };
        if let Some(in_flight) = in_flight.filter(|_| completion == Completion::Whole) {
            in_flight.complete();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let load = &self.load;
        load.promised.fetch_sub(self.unsent, Ordering::Relaxed);
        let ended = if self.is_complete { &load.completed } else { &load.aborted };
        ended.fetch_add(1, Ordering::Relaxed);
        if self.work == RequestKind::Probe && self.is_complete {
            load.probed.fetch_add(1, Ordering::Relaxed);
        }
        if self.work == RequestKind::Client {
            let since = load.busy_since.load(Ordering::Relaxed);
            if load.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
                load.busy.fetch_add(load.micros().saturating_sub(since), Ordering::Relaxed);
                load.idle.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests;
