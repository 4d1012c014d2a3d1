//! Life of a run: start, reading, end, failure.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, LocalBoxFuture};
use rand::RngExt;
use tokio::time::Instant;
use url::Url;

use super::super::error::DownloadError;
use super::super::event::Event;
use super::super::plan::{Action, ByteRange, Failure, RunId, SourceId, Standing};
use super::super::sink::Writer;
use super::engine::Engine;
use super::fetch::{Extent, OpenError, Opened, Shown, Wanted};
use crate::http::client::{Answer, BodyError, TransportError};

/// A run in progress.
pub(super) struct ActiveRun {
    pub(super) source: SourceId,
    /// The position in the file of the next byte.
    pub(super) offset: u64,
    pub(super) started: Instant,
    pub(super) wanted: Wanted,
    abort: AbortHandle,
}

/// The body of an answer that is being read.
pub(super) struct Flow {
    pub(super) url: Url,
    pub(super) answer: Answer,
    pub(super) extent: Extent,
    /// Bytes received but not yet allowed by the rate limit; no further bytes are read before they are.
    unpaid: Bytes,
}

impl Flow {
    pub(super) fn new(opened: Opened) -> Self {
        Self { url: opened.url, answer: opened.answer, extent: opened.extent, unpaid: Bytes::new() }
    }
}

pub(super) enum Step {
    Opened {
        run: RunId,
        result: Result<Box<Opened>, OpenError>,
    },
    /// Bytes were read. With a rate limit they are passed on in portions, as a [`Step::Chunk`] each.
    Came {
        run: RunId,
        flow: Flow,
        bytes: Bytes,
    },
    Chunk {
        run: RunId,
        flow: Flow,
        bytes: Bytes,
    },
    End {
        run: RunId,
        flow: Flow,
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
                Action::Ask => self.ask(),
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
        self.observer.notice(&Event::Chosen { source: source.0, url: entry.trail.end(), range });
        let known = self.identity.validator().filter(|_| self.identity.is_of(&entry.resource));
        let validator = entry.validator.as_deref().or(known).map(ToOwned::to_owned);
        let wanted = Wanted { range, size: self.plan.size(), validator };
        let (fetcher, trail, asked) = (self.fetcher.clone(), entry.trail.clone(), wanted.clone());
        let opening = async move {
            let result = fetcher.open(trail, asked).await.map(Box::new);
            Step::Opened { run, result }
        };
        self.begin(run, source, wanted, now);
        self.step(run, Box::pin(opening));
    }

    pub(super) fn begin(&mut self, run: RunId, source: SourceId, wanted: Wanted, now: Instant) {
        let (abort, _) = AbortHandle::new_pair();
        let active = ActiveRun { source, offset: wanted.range.start, started: now, wanted, abort };
        self.runs.insert(run, active);
    }

    fn step(&mut self, run: RunId, future: LocalBoxFuture<'static, Step>) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        let (abort, registration) = AbortHandle::new_pair();
        active.abort = abort;
        self.steps.push(Abortable::new(future, registration));
    }

    /// Reads the next bytes, once the disk has caught up and the rate limit allows the previous bytes.
    pub(super) fn read(&mut self, run: RunId, mut flow: Flow, now: Instant) {
        if self.writer.as_ref().is_some_and(Writer::is_full) {
            self.plan.turned_away(run);
            self.held_back.push((run, flow));
            return;
        }
        if let Some(limiter) = self.context.limiter.as_ref().filter(|_| !flow.unpaid.is_empty()) {
            let bytes = flow.unpaid.split_to(limiter.borrow().read_size().min(flow.unpaid.len()));
            let until = limiter.borrow_mut().take(bytes.len() as u64, now);
            self.plan.turned_away(run);
            let paying = async move {
                tokio::time::sleep_until(until).await;
                Step::Chunk { run, flow, bytes }
            };
            self.step(run, Box::pin(paying));
            return;
        }
        self.plan.listened(run, now);
        let reading = async move {
            match flow.answer.chunk().await {
                Ok(Some(bytes)) => Step::Came { run, flow, bytes },
                Ok(None) => Step::End { run, flow },
                Err(error) => Step::Broken { run, url: flow.url, error },
            }
        };
        self.step(run, Box::pin(reading));
    }

    pub(super) fn listen_again(&mut self) -> Result<(), DownloadError> {
        if let Some(writer) = &mut self.writer {
            writer.start()?;
        }
        if self.writer.as_ref().is_some_and(Writer::is_full) {
            return Ok(());
        }
        let now = Instant::now();
        for (run, flow) in std::mem::take(&mut self.held_back) {
            self.read(run, flow, now);
        }
        Ok(())
    }

    pub(super) fn take(&mut self, step: Step) -> Result<(), DownloadError> {
        let now = Instant::now();
        match step {
            Step::Opened { run, result: Ok(opened) } => self.judge(run, *opened, now)?,
            Step::Opened { run, result: Err(OpenError::PastEnd { observed, .. }) }
                if self.is_end(run, &observed, now) => {}
            Step::Opened { run, result: Err(error) } => {
                let failure = error.failure();
                let (error, shown) = error.into_error();
                self.fail(run, failure, error, shown, now);
            }
            Step::Came { run, mut flow, bytes } if self.context.limiter.is_some() => {
                flow.unpaid = bytes;
                self.read(run, flow, now);
            }
            Step::Came { run, flow, bytes } | Step::Chunk { run, flow, bytes } => {
                self.keep(run, flow, &bytes, now)?;
            }
            Step::End { run, flow } => self.end(run, flow, now),
            Step::Broken { run, url, error } => {
                let error = DownloadError::Transport { url: url.to_string(), source: error };
                self.fail(run, Failure::Passing { retry_after: None }, error, None, now);
            }
        }
        Ok(())
    }

    fn keep(&mut self, run: RunId, flow: Flow, bytes: &Bytes, now: Instant) -> Result<(), DownloadError> {
        let Some(active) = self.runs.get_mut(&run) else { return Ok(()) };
        let (base, source) = (active.offset, active.source);
        active.offset = base.saturating_add(bytes.len() as u64);
        let kept = self.plan.received(run, bytes.len() as u64, now);
        let is_complete = self.plan.standing() == Standing::Complete;
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
            self.read(run, flow, now);
        } else {
            self.runs.remove(&run);
        }
        Ok(())
    }

    /// Handles the end of a body. It may be shorter than announced, or than the file.
    fn end(&mut self, run: RunId, flow: Flow, now: Instant) {
        let Some(active) = self.runs.get(&run) else { return };
        let (extent, came) = (flow.extent, active.offset);
        let least = match extent {
            Extent::Whole => self.plan.least_size(),
            Extent::Part { end } => end,
        };
        if came < least {
            let source = BodyError::Short { missing: Some(least.saturating_sub(came)) }.into();
            let error = DownloadError::Transport { url: flow.url.to_string(), source };
            self.fail(run, Failure::Passing { retry_after: None }, error, None, now);
            return;
        }
        if extent == Extent::Whole && self.plan.size().is_none() {
            self.plan.size_is(came);
        }
        self.runs.remove(&run);
        self.plan.finished(run, now);
        flow.answer.finish();
    }

    pub(super) fn fail(
        &mut self,
        run: RunId,
        failure: Failure,
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
        if let Some(entry) = self.sources.get(source) {
            self.observer.notice(&Event::Dropped {
                source: source.0,
                url: entry.trail.end(),
                reason: &reason,
            });
        }
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
