//! Statistics of downloads: by file, directory, server and day.
//!
//! Each HTTP worker notes its redirects in a [`DownloadRecorder`] and hands them over once a second. The `StatisticsActor`
//! counts them ([`day`]), saves each day as a file, and answers queries. Without the setting, only samples are noted, for the
//! page of operators.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::Addr;
use arc_swap::ArcSwap;

use crate::balancer::metrics::StatisticsMetrics;
use crate::balancer::policy::Timestamp;

pub(crate) mod actor;
pub(crate) mod day;
pub(crate) mod report;

use actor::{SaveStatistics, StatisticsActor, StatisticsQuery};
use report::{StatisticsReport, TopFiles};

/// The time between two samples of a worker.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// The time after which a worker hands its downloads over.
const HAND_OVER_INTERVAL: Duration = Duration::from_secs(1);

/// The downloads that a worker hands over at a time, at most.
const MOST_IN_BATCH: usize = 1024;

/// The batches that wait for the actor. More are dropped.
const QUEUE: usize = 256;

/// The longest part of a path that is kept, in bytes.
const LONGEST_PATH: usize = 512;

/// A redirect that begins a download.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Download<'a> {
    /// The path of the file.
    pub(crate) path: &'a [u8],
    pub(crate) client: Option<IpAddr>,
    /// The number of the server.
    pub(crate) server: u32,
    /// The size of the file in bytes; 0 if it is unknown.
    pub(crate) bytes: u64,
    /// Whether only a part of the file is requested.
    pub(crate) is_part: bool,
}

/// Downloads in the order of their requests.
#[derive(Debug, Default)]
struct DownloadBatch {
    downloads: Vec<NotedDownload>,
    /// The paths of all downloads, one after the other.
    paths: Vec<u8>,
}

/// A [`Download`] without its path.
#[derive(Debug)]
struct NotedDownload {
    path_length: usize,
    client: Option<IpAddr>,
    server: u32,
    bytes: u64,
    is_part: bool,
}

impl DownloadBatch {
    fn push(&mut self, Download { path, client, server, bytes, is_part }: Download<'_>) {
        let path = path.get(..LONGEST_PATH).unwrap_or(path);
        self.paths.extend_from_slice(path);
        self.downloads.push(NotedDownload { path_length: path.len(), client, server, bytes, is_part });
    }

    fn iter(&self) -> impl Iterator<Item = Download<'_>> {
        let mut paths = &*self.paths;
        self.downloads.iter().map(move |noted| {
            let NotedDownload { client, server, bytes, is_part, .. } = *noted;
            let (path, rest) = paths.split_at_checked(noted.path_length).unwrap_or_default();
            paths = rest;
            Download { path, client, server, bytes, is_part }
        })
    }
}

/// The statistics as the request path and the API see them.
pub(crate) struct Statistics {
    batches: SyncSender<DownloadBatch>,
    /// The number of days that are kept; 0 if only samples are counted.
    days: u32,
    actor: OnceLock<Addr<StatisticsActor>>,
    top: ArcSwap<TopFiles>,
    metrics: StatisticsMetrics,
}

impl Statistics {
    /// Statistics of this number of days, and the queue of downloads.
    fn new(days: u32, metrics: StatisticsMetrics) -> (Self, Receiver<DownloadBatch>) {
        let (batches, receiver) = sync_channel(QUEUE);
        (Self { batches, days, actor: OnceLock::new(), top: ArcSwap::default(), metrics }, receiver)
    }

    /// The most frequent files of the current day.
    pub(crate) fn top(&self) -> Arc<TopFiles> {
        self.top.load_full()
    }

    /// The counts of the last days; `None` if statistics are off, or the balancer ends.
    pub(crate) async fn report(&self, query: StatisticsQuery) -> Option<StatisticsReport> {
        self.actor.get().filter(|_| self.days > 0)?.send(query).await.ok()?
    }

    /// Writes the counts of all downloads that were handed over.
    pub(crate) async fn save(&self) {
        if let Some(actor) = self.actor.get() {
            // The actor ends with the balancer.
            let _ = actor.send(SaveStatistics).await;
        }
    }
}

/// Notes the downloads of one HTTP worker.
pub(crate) struct DownloadRecorder {
    statistics: Arc<Statistics>,
    batch: RefCell<DownloadBatch>,
    /// The time between two notes, and the earliest time of the next one, in nanoseconds.
    interval: u64,
    next: Cell<u64>,
}

impl DownloadRecorder {
    /// A recorder that hands its downloads over at intervals, on this thread, until it is dropped.
    pub(crate) fn start(statistics: Arc<Statistics>) -> Rc<Self> {
        let recorder = Rc::new(Self::new(statistics));
        let weak = Rc::downgrade(&recorder);
        actix_rt::spawn(async move {
            loop {
                tokio::time::sleep(HAND_OVER_INTERVAL).await;
                let Some(recorder) = weak.upgrade() else { break };
                recorder.hand_over();
            }
        });
        recorder
    }

    /// A recorder without downloads.
    fn new(statistics: Arc<Statistics>) -> Self {
        let interval = if statistics.days > 0 { 0 } else { SAMPLE_INTERVAL.as_nanos() as u64 };
        Self { statistics, batch: RefCell::default(), interval, next: Cell::new(0) }
    }

    /// Notes a download, or drops it if it is not due as a sample.
    #[inline]
    pub(crate) fn note<'a>(&self, Timestamp(now): Timestamp, download: impl FnOnce() -> Download<'a>) {
        if now < self.next.get() {
            return;
        }
        self.next.set(now + self.interval);
        let mut batch = self.batch.borrow_mut();
        batch.push(download());
        if batch.downloads.len() >= MOST_IN_BATCH {
            drop(batch);
            self.hand_over();
        }
    }

    /// Hands the noted downloads over.
    fn hand_over(&self) {
        let batch = self.batch.take();
        let count = batch.downloads.len() as u64;
        // The actor polls the queue, so a batch wakes no thread.
        if count > 0 && self.statistics.batches.try_send(batch).is_err() {
            self.statistics.metrics.dropped.inc_by(count);
        }
    }
}

impl Drop for DownloadRecorder {
    fn drop(&mut self) {
        self.hand_over();
    }
}
