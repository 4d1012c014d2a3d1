//! Life of a run: start, reading, end, failure.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, LocalBoxFuture};
use rand::RngExt;
use tokio::time::Instant;
use url::Url;

use super::super::error::DownloadError;
use super::super::event::Event;
use super::super::plan::{Action, ByteRange, PlanStatus, RunFailure, RunId, SourceId};
use super::super::sink::Writer;
use super::engine::Engine;
use super::fetch::{Extent, FetchError, Opened, RangeRequest, Shown};
use crate::http::client::{Answer, BodyError, TransportError};

/// A run in progress.
pub(super) struct ActiveRun {
    pub(super) source: SourceId,
    /// The position in the file of the next byte.
    pub(super) offset: u64,
    pub(super) started: Instant,
    pub(super) wanted: RangeRequest,
    abort: AbortHandle,
}

/// The body of an answer that is being read.
pub(super) struct BodyReader {
    pub(super) url: Url,
    pub(super) answer: Answer,
    pub(super) extent: Extent,
    /// Bytes received but not yet allowed by the rate limit; no further bytes are read before they are.
    waiting: Bytes,
}

impl BodyReader {
    pub(super) fn new(opened: Opened) -> Self {
        Self { url: opened.url, answer: opened.answer, extent: opened.extent, waiting: Bytes::new() }
    }
}

pub(super) enum RunEvent {
    Opened {
        run: RunId,
        result: Result<Box<Opened>, FetchError>,
    },
    /// Bytes were read. With a rate limit they are passed on in portions, as a [`RunEvent::Chunk`] each.
    Received {
        run: RunId,
        body: BodyReader,
        bytes: Bytes,
    },
    Chunk {
        run: RunId,
        body: BodyReader,
        bytes: Bytes,
    },
    End {
        run: RunId,
        body: BodyReader,
    },
    Broken {
        run: RunId,
        url: Url,
        error: TransportError,
    },
}

impl Engine<'_> {
    pub(super) fn act(&mut self, now: Instant) {
        for action in self.plan.decide(now) {
            match action {
                Action::Start { run, source, range } => self.start(run, source, range, now),
                // The plan accepts no byte beyond the new end, and ends the run there.
                Action::Shorten { .. } => {}
                Action::Stop { run } => {
                    self.drop_run(run);
                }
                Action::Drop { run, silence } => {
                    if let Some(active) = self.drop_run(run) {
                        let url = self.sources.name(active.source.0);
                        let after = Duration::from_secs(silence.as_secs().max(1));
                        self.note_failure(active.source, DownloadError::Silent { url, after }, None);
                    }
                }
                Action::QueryBalancer => self.query_balancer(),
            }
        }
    }

    pub(super) fn drop_run(&mut self, run: RunId) -> Option<ActiveRun> {
        let active = self.runs.remove(&run)?;
        active.abort.abort();
        self.held_back.retain(|(held, _)| *held != run);
        Some(active)
    }

    fn start(&mut self, run: RunId, source: SourceId, range: ByteRange, now: Instant) {
        let Some(entry) = self.sources.get(source) else { return };
        self.observer.notice(&Event::Chosen { source: source.0, url: entry.chain.end(), range });
        let known = self.identity.validator().filter(|_| self.identity.is_of(&entry.resource));
        let validator = entry.validator.as_deref().or(known).map(ToOwned::to_owned);
        let wanted = RangeRequest { range, size: self.plan.size(), validator };
        let (fetcher, chain, asked) = (self.fetcher.clone(), entry.chain.clone(), wanted.clone());
        let opening = async move {
            let result = fetcher.open(chain, asked).await.map(Box::new);
            RunEvent::Opened { run, result }
        };
        self.begin(run, source, wanted, now);
        self.step(run, Box::pin(opening));
    }

    pub(super) fn begin(&mut self, run: RunId, source: SourceId, wanted: RangeRequest, now: Instant) {
        let (abort, _) = AbortHandle::new_pair();
        let active = ActiveRun { source, offset: wanted.range.start, started: now, wanted, abort };
        self.runs.insert(run, active);
    }

    fn step(&mut self, run: RunId, future: LocalBoxFuture<'static, RunEvent>) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        let (abort, registration) = AbortHandle::new_pair();
        active.abort = abort;
        self.steps.push(Abortable::new(future, registration));
    }

    /// Reads the next bytes, once the disk has caught up and the rate limit allows the previous bytes.
    pub(super) fn read(&mut self, run: RunId, mut body: BodyReader, now: Instant) {
        if self.writer.as_ref().is_some_and(Writer::is_full) {
            self.plan.pause_timeouts(run);
            self.held_back.push((run, body));
            return;
        }
        if let Some(limiter) = self.context.limiter.as_ref().filter(|_| !body.waiting.is_empty()) {
            let bytes = body.waiting.split_to(limiter.borrow().read_size().min(body.waiting.len()));
            let until = limiter.borrow_mut().take(bytes.len() as u64, now);
            self.plan.pause_timeouts(run);
            let paying = async move {
                tokio::time::sleep_until(until).await;
                RunEvent::Chunk { run, body, bytes }
            };
            self.step(run, Box::pin(paying));
            return;
        }
        self.plan.resume_timeouts(run, now);
        let reading = async move {
            match body.answer.chunk().await {
                Ok(Some(bytes)) => RunEvent::Received { run, body, bytes },
                Ok(None) => RunEvent::End { run, body },
                Err(error) => RunEvent::Broken { run, url: body.url, error },
            }
        };
        self.step(run, Box::pin(reading));
    }

    pub(super) fn resume_reading(&mut self) -> Result<(), DownloadError> {
        if let Some(writer) = &mut self.writer {
            writer.start()?;
        }
        if self.writer.as_ref().is_some_and(Writer::is_full) {
            return Ok(());
        }
        let now = Instant::now();
        for (run, body) in std::mem::take(&mut self.held_back) {
            self.read(run, body, now);
        }
        Ok(())
    }

    pub(super) fn take(&mut self, step: RunEvent) -> Result<(), DownloadError> {
        let now = Instant::now();
        match step {
            RunEvent::Opened { run, result: Ok(opened) } => self.judge(run, *opened, now)?,
            RunEvent::Opened { run, result: Err(FetchError::PastEnd { observed, .. }) }
                if self.is_end_of_file(run, &observed, now) => {}
            RunEvent::Opened { run, result: Err(error) } => {
                let failure = error.failure();
                let (error, shown) = error.into_error();
                self.fail(run, failure, error, shown, now);
            }
            RunEvent::Received { run, mut body, bytes } if self.context.limiter.is_some() => {
                body.waiting = bytes;
                self.read(run, body, now);
            }
            RunEvent::Received { run, body, bytes } | RunEvent::Chunk { run, body, bytes } => {
                self.keep(run, body, &bytes, now)?;
            }
            RunEvent::End { run, body } => self.end(run, body, now),
            RunEvent::Broken { run, url, error } => {
                let error = DownloadError::Transport { url: url.to_string(), source: error };
                self.fail(run, RunFailure::Passing { retry_after: None }, error, None, now);
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        run: RunId,
        body: BodyReader,
        bytes: &Bytes,
        now: Instant,
    ) -> Result<(), DownloadError> {
        let Some(active) = self.runs.get_mut(&run) else { return Ok(()) };
        let (base, source) = (active.offset, active.source);
        active.offset = base.saturating_add(bytes.len() as u64);
        let kept = self.plan.received(run, bytes.len() as u64, now);
        let is_complete = self.plan.status() == PlanStatus::Complete;
        for fresh in kept {
            let from = usize::try_from(fresh.start.saturating_sub(base)).unwrap_or(usize::MAX);
            let to = usize::try_from(fresh.end.saturating_sub(base)).unwrap_or(usize::MAX);
            if from >= to || to > bytes.len() {
                continue;
            }
            self.sources.note_supply(source, fresh);
            self.observer.notice(&Event::Received { source: source.0, bytes: fresh.len() });
            if let Some(writer) = &mut self.writer {
                writer.push(fresh.start, bytes.slice(from..to), source.0);
                // The last bytes are written together with the digest or the rename.
                if !is_complete {
                    writer.start()?;
                }
            }
        }
        if self.plan.is_running(run) {
            self.read(run, body, now);
        } else {
            self.runs.remove(&run);
        }
        Ok(())
    }

    /// Handles the end of a body. It may be shorter than announced, or than the file.
    fn end(&mut self, run: RunId, body: BodyReader, now: Instant) {
        let Some(active) = self.runs.get(&run) else { return };
        let (extent, received) = (body.extent, active.offset);
        let least = match extent {
            Extent::Whole => self.plan.least_size(),
            Extent::Part { end } => end,
        };
        if received < least {
            let source = BodyError::Short { missing: Some(least.saturating_sub(received)) }.into();
            let error = DownloadError::Transport { url: body.url.to_string(), source };
            self.fail(run, RunFailure::Passing { retry_after: None }, error, None, now);
            return;
        }
        if extent == Extent::Whole && self.plan.size().is_none() {
            self.plan.set_size(received);
        }
        self.runs.remove(&run);
        self.plan.finished(run, now);
        body.answer.finish();
    }

    pub(super) fn fail(
        &mut self,
        run: RunId,
        failure: RunFailure,
        error: DownloadError,
        shown: Option<Shown>,
        now: Instant,
    ) {
        let Some(active) = self.runs.remove(&run) else { return };
        self.plan.failed(run, failure, rand::rng().random(), now);
        self.note_failure(active.source, error, shown);
    }

    pub(super) fn note_failure(&mut self, source: SourceId, error: DownloadError, shown: Option<Shown>) {
        let reason = crate::telemetry::chain(&error);
        self.observer.notice(&Event::Dropped { source: source.0, reason: &reason });
        self.sources.note_error(source, reason);
        if let Some(entry) = self.sources.get_mut(source) {
            entry.is_missing = matches!(error, DownloadError::Refused { status: 404 | 410, .. });
        }
        if let DownloadError::OtherDigest { .. } = error {
            // A wrong announced digest takes precedence over any other failure.
            self.checksum_error.get_or_insert(error);
            return;
        }
        // Another version is only reported if there is no other failure.
        if self.last_error.is_none() || !matches!(error, DownloadError::OtherVersion { .. }) {
            self.last_error = Some((error, shown));
        }
    }
}
