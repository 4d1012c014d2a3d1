//! Samples of the requested paths, for the page of operators.

use std::cell::Cell;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use crate::balancer::policy::Timestamp;

/// The least time between two samples of a worker. Between them, a request costs one comparison.
const INTERVAL: Duration = Duration::from_millis(20);

/// The number of samples that wait for the reader. More are dropped: they are samples.
const QUEUE: usize = 1024;

/// The longest sample, in bytes.
const LONGEST: usize = 200;

/// Delivers samples to at most one reader.
#[derive(Debug, Default)]
pub(crate) struct PathSamples(ArcSwapOption<mpsc::Sender<Box<[u8]>>>);

impl PathSamples {
    /// The samples from now on. Replaces an earlier reader.
    #[must_use]
    pub(crate) fn read(&self) -> mpsc::Receiver<Box<[u8]>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.0.store(Some(sender.into()));
        receiver
    }
}

/// Takes samples of the requests of one worker.
#[derive(Debug, Default)]
pub(super) struct PathSampler {
    next: Cell<u64>,
}

impl PathSampler {
    /// Takes a sample if the time has come for one.
    #[inline]
    pub(super) fn offer(&self, samples: &PathSamples, path: &[u8], Timestamp(now): Timestamp) {
        if now >= self.next.get() {
            self.next.set(now + INTERVAL.as_nanos() as u64);
            if let Some(sender) = &*samples.0.load() {
                // A full queue drops the sample.
                let _ = sender.try_send(path.get(..LONGEST).unwrap_or(path).into());
            }
        }
    }
}
