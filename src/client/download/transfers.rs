//! The exchanges with servers: one future for each run, for its next step.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable, LocalBoxFuture};
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use url::Url;

use super::fetch::{FetchError, Fetcher, Opened, Response};
use crate::client::plan::{Extent, RangeRequest, RunId};
use crate::client::redirect::RedirectChain;
use crate::http::client::TransportError;

/// The body of an answer that is being read.
pub(super) struct BodyReader {
    pub(super) url: Url,
    pub(super) extent: Extent,
    answer: Box<dyn Response>,
    /// Bytes received but not yet allowed by the rate limit; no further bytes are read before they are.
    pub(super) waiting: Bytes,
}

impl BodyReader {
    pub(super) fn new(opened: Opened) -> Self {
        Self {
            url: opened.facts.url,
            extent: opened.facts.extent,
            answer: opened.answer,
            waiting: Bytes::new(),
        }
    }
}

/// A completed step of a run.
pub(super) enum RunEvent {
    /// The head of the answer was received.
    Opened(Result<Box<Opened>, Box<FetchError>>),
    /// Bytes were read. With a rate limit they are passed on in portions, as a [`RunEvent::Chunk`] each.
    Received(BodyReader, Bytes),
    /// Bytes may be used.
    Chunk(BodyReader, Bytes),
    /// The body is complete.
    End(BodyReader),
    /// The exchange failed.
    Broken(Url, TransportError),
}

/// All exchanges of one download.
#[derive(Default)]
pub(super) struct Transfers {
    steps: FuturesUnordered<Abortable<LocalBoxFuture<'static, (RunId, RunEvent)>>>,
    aborts: HashMap<RunId, AbortHandle>,
    /// Answers that are not read until the disk has caught up.
    held_back: Vec<(RunId, BodyReader)>,
}

impl Transfers {
    /// Sends the request of a run.
    pub(super) fn open(&mut self, run: RunId, fetcher: Fetcher, chain: RedirectChain, request: RangeRequest) {
        self.step(run, async move { RunEvent::Opened(fetcher.open(chain, request).await.map(Box::new)) });
    }

    /// Reads the next bytes.
    pub(super) fn read(&mut self, run: RunId, mut body: BodyReader) {
        self.step(run, async move {
            match body.answer.chunk().await {
                Ok(Some(bytes)) => RunEvent::Received(body, bytes),
                Ok(None) => RunEvent::End(body),
                Err(error) => RunEvent::Broken(body.url, error),
            }
        });
    }

    /// Passes `bytes` on at the time `until`.
    pub(super) fn delay(&mut self, run: RunId, body: BodyReader, bytes: Bytes, until: Instant) {
        self.step(run, async move {
            tokio::time::sleep_until(until).await;
            RunEvent::Chunk(body, bytes)
        });
    }

    /// Does not read from the answer until [`take_held_back`](Self::take_held_back).
    pub(super) fn hold_back(&mut self, run: RunId, body: BodyReader) {
        self.held_back.push((run, body));
    }

    pub(super) fn take_held_back(&mut self) -> Vec<(RunId, BodyReader)> {
        std::mem::take(&mut self.held_back)
    }

    /// The next completed step. Never completes without an exchange.
    pub(super) async fn next(&mut self) -> (RunId, RunEvent) {
        loop {
            match self.steps.next().await {
                Some(Ok(step)) => return step,
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Closes the connections of all runs for which `is_running` is false.
    pub(super) fn retain(&mut self, is_running: impl Fn(RunId) -> bool) {
        self.held_back.retain(|(run, _)| is_running(*run));
        self.aborts.retain(|run, abort| {
            let is_kept = is_running(*run);
            if !is_kept {
                abort.abort();
            }
            is_kept
        });
    }

    fn step(&mut self, run: RunId, event: impl Future<Output = RunEvent> + 'static) {
        let (abort, registration) = AbortHandle::new_pair();
        self.aborts.insert(run, abort);
        let step: LocalBoxFuture<'static, _> = Box::pin(async move { (run, event.await) });
        self.steps.push(Abortable::new(step, registration));
    }
}
