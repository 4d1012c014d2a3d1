//! The listeners of the live page: browsers that get its changes.

use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::telemetry::metric::metrics;

/// The largest number of listeners.
pub(super) const MOST_LISTENERS: usize = 32;

/// The number of messages that wait for a listener. A listener that is further behind is cut.
pub(super) const QUEUE: usize = 8;

metrics! {
    /// The metrics of the listeners.
    pub(super) struct ListenerMetrics {
        pub(super) open: Gauge = "page_listeners", "Browsers that show the live page";
        pub(super) refused: Counter = "page_listeners_refused",
            "Browsers that get no live page, because there are too many listeners";
        pub(super) cut: Counter = "page_listeners_cut",
            "Listeners of the live page that were cut because they read too slowly";
    }
}

/// The messages for one listener. It counts as a listener until its connection ends.
pub(in crate::balancer::admin) struct Messages {
    messages: mpsc::Receiver<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Messages {
    /// The next message; `None` if the listener was too slow.
    pub(in crate::balancer::admin) async fn next(&mut self) -> Option<Bytes> {
        self.messages.recv().await
    }
}

/// The open listeners.
pub(super) struct Listeners {
    pub(super) senders: Vec<mpsc::Sender<Bytes>>,
    pub(super) metrics: ListenerMetrics,
    permits: Arc<Semaphore>,
}

impl Listeners {
    pub(super) fn new(metrics: ListenerMetrics) -> Self {
        Self { senders: Vec::new(), metrics, permits: Arc::new(Semaphore::new(MOST_LISTENERS)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Adds a listener, which gets `first` at once; `None` if there are too many.
    pub(super) fn add(&mut self, first: Bytes) -> Option<Messages> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.metrics.refused.inc();
            return None;
        };
        let (sender, messages) = mpsc::channel(QUEUE);
        // The queue is empty, so the message fits.
        let _ = sender.try_send(first);
        self.senders.push(sender);
        Some(Messages { messages, _permit: permit })
    }

    /// Removes the listeners whose connection has ended.
    pub(super) fn forget_closed(&mut self) {
        let open = MOST_LISTENERS.saturating_sub(self.permits.available_permits());
        self.metrics.open.set(open.try_into().unwrap_or(i64::MAX));
        self.senders.retain(|sender| !sender.is_closed());
    }

    /// Sends a message to every listener. A listener that is too far behind is cut.
    pub(super) fn send(&mut self, message: &Bytes) {
        self.senders.retain(|sender| match sender.try_send(message.clone()) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                self.metrics.cut.inc();
                false
            }
        });
    }
}
