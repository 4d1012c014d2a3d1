//! What the file server counts of its own load, over all its workers, and reports on each probe answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::balancer::load_report::{LoadReport, MOST_COUNTED};
use crate::http::transport::Completion;

/// The shortest time over which the rate of bytes is taken.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// The load of one file server. Counts start at zero when it starts and never fall but where they say so.
#[derive(Debug)]
pub struct Load {
    started: Instant,
    boot: u64,
    in_flight: AtomicU32,
    /// Requests that wait for a disk before their answer begins.
    preparing: AtomicU32,
    /// Microseconds after the start at which the first of the requests in flight began.
    busy_since: AtomicU64,
    busy: AtomicU64,
    completed: AtomicU64,
    /// Of `completed`, the probes: they would make the usual download look small.
    probed: AtomicU64,
    aborted: AtomicU64,
    promised: AtomicU64,
    sent: AtomicU64,
    rate: Rate,
    idle: Notify,
}

/// Bytes a second since a moment a little more than [`RATE_WINDOW`] ago.
#[derive(Debug, Default)]
struct Rate {
    taken_at: AtomicU64,
    sent_then: AtomicU64,
    value: AtomicU64,
}

/// Whether a request counts as work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A client's request.
    Client,
    /// A balancer's probe, which is no work of its own.
    Probe,
}

impl Load {
    /// Nothing in flight. `boot` tells this run of the server from any other.
    #[must_use]
    pub fn new(boot: u64) -> Self {
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
            rate: Rate::default(),
            idle: Notify::new(),
        }
    }

    /// A request begins to be answered with a body of so many bytes.
    #[must_use]
    pub fn begin(self: &Arc<Self>, work: Work, body_bytes: u64) -> InFlight {
        if work == Work::Client && self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.busy_since.store(self.micros(), Ordering::Relaxed);
        }
        self.promised.fetch_add(body_bytes, Ordering::Relaxed);
        InFlight { load: Arc::clone(self), work, unsent: body_bytes, is_complete: false }
    }

    /// Client requests being answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A request waits for a disk, until this is dropped; only then it is known what its answer is.
    #[must_use]
    pub fn prepare(self: &Arc<Self>) -> Preparing {
        self.preparing.fetch_add(1, Ordering::Relaxed);
        Preparing(Arc::clone(self))
    }

    /// Whether no client request is being answered, and none waits for a disk.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        // In this order: a request is in flight before it is no more in preparation.
        self.preparing.load(Ordering::Acquire) == 0 && self.in_flight() == 0
    }

    /// Resolves once that is so.
    pub async fn idle(&self) {
        while !self.is_idle() {
            self.idle.notified().await;
        }
    }

    /// Requests answered to their end, probes included.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Requests whose client went away, or was cut, before the end of the answer.
    #[must_use]
    pub fn aborted(&self) -> u64 {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Bytes of bodies given to the kernel.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The report for a probe, which counts itself.
    #[must_use]
    pub fn report(&self) -> LoadReport {
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
            egress: Some(self.rate.take(now, self.sent())),
            boot: Some(self.boot),
        }
    }

    fn micros(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

impl Rate {
    /// The rate of the last whole window; a window ends with the first look after its time.
    fn take(&self, now_micros: u64, sent: u64) -> u64 {
        let taken_at = self.taken_at.load(Ordering::Relaxed);
        let passed = now_micros.saturating_sub(taken_at);
        let is_ours = passed >= RATE_WINDOW.as_micros() as u64
            && self
                .taken_at
                .compare_exchange(taken_at, now_micros, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            let bytes = sent.saturating_sub(self.sent_then.swap(sent, Ordering::Relaxed));
            let rate = u128::from(bytes) * 1_000_000 / u128::from(passed.max(1));
            self.value.store(u64::try_from(rate).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.value.load(Ordering::Relaxed)
    }
}

/// A request that waits for a disk.
#[derive(Debug)]
pub struct Preparing(Arc<Load>);

impl Drop for Preparing {
    fn drop(&mut self) {
        if self.0.preparing.fetch_sub(1, Ordering::Release) == 1 {
            self.0.idle.notify_one();
        }
    }
}

/// A request being answered. Dropped without [`InFlight::complete`], it was aborted.
#[derive(Debug)]
pub struct InFlight {
    load: Arc<Load>,
    work: Work,
    unsent: u64,
    is_complete: bool,
}

impl InFlight {
    /// So many bytes of the body have gone to the kernel.
    pub fn sent(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unsent);
        self.unsent -= bytes;
        self.load.promised.fetch_sub(bytes, Ordering::Relaxed);
        self.load.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The answer is out.
    pub fn complete(mut self) {
        self.sent(self.unsent);
        self.is_complete = true;
    }
}

/// What a request in flight is known by until its answer ends.
#[derive(Debug)]
pub enum Flight {
    /// An answer that is no work: a page.
    None,
    /// An answer that goes out at once.
    Own(InFlight),
    /// An answer whose body counts what it sends.
    Shared(Rc<RefCell<Option<InFlight>>>),
}

impl Flight {
    /// The answer has ended.
    pub fn end(self, completion: Completion) {
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
        if self.work == Work::Probe && self.is_complete {
            load.probed.fetch_add(1, Ordering::Relaxed);
        }
        if self.work == Work::Client {
            let since = load.busy_since.load(Ordering::Relaxed);
            if load.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
                load.busy.fetch_add(load.micros().saturating_sub(since), Ordering::Relaxed);
                load.idle.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(test)
    }

    #[test]
    fn what_is_promised_is_what_was_not_sent() {
        paused(async {
            let load = Arc::new(Load::new(7));
            let mut first = load.begin(Work::Client, 1000);
            let second = load.begin(Work::Client, 50);
            first.sent(300);
            let report = load.report();
            assert_eq!((report.in_flight, report.unsent_bytes), (3, Some(750)));
            first.complete();
            drop(second);
            let report = load.report();
            assert_eq!((report.in_flight, report.unsent_bytes), (1, Some(0)));
            assert_eq!((load.completed(), load.aborted(), load.sent()), (1, 1, 1000));
            assert_eq!(report.boot, Some(7));
        });
    }

    #[test]
    fn busy_is_the_time_with_a_client_in_flight() {
        paused(async {
            let load = Arc::new(Load::new(1));
            let second = Duration::from_secs(1);
            let probe = load.begin(Work::Probe, 10);
            tokio::time::advance(second).await;
            assert_eq!(load.report().busy, Some(Duration::ZERO));
            probe.complete();
            let first = load.begin(Work::Client, 10);
            tokio::time::advance(second).await;
            let other = load.begin(Work::Client, 10);
            first.complete();
            tokio::time::advance(second).await;
            assert_eq!(load.report().busy, Some(2 * second));
            other.complete();
            tokio::time::advance(second).await;
            assert_eq!(load.report().busy, Some(2 * second));
        });
    }

    #[test]
    fn the_rate_is_that_of_the_last_window() {
        let rate = Rate::default();
        assert_eq!(rate.take(500_000, 10_000), 0);
        assert_eq!(rate.take(2_000_000, 10_000), 5_000);
        assert_eq!(rate.take(2_500_000, 90_000), 5_000);
        assert_eq!(rate.take(3_000_000, 90_000), 80_000);
    }
}
