//! Performs the decisions of the plan, and reports events to it: decide, fetch, store.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use tokio::time::Instant;
use url::Url;

use super::complete::within;
use super::fetch::{Fetcher, Opened};
use super::finish::{Ending, PendingRename};
use super::output::{DigestComparison, FileOutput, OpenResult};
use super::query::{AddressQuery, QueryOutcome};
use super::transfers::{BodyReader, RunEvent, Transfers};
use super::{Context, DownloadJob, DownloadReport, FileOrigin, TargetState, read_metalink};
use crate::client::checksum::Pieces;
use crate::client::error::DownloadError;
use crate::client::event::{Event, Observer, WaitStep};
use crate::client::identity::ContentIdentity;
use crate::client::metalink;
use crate::client::plan::{
    Action, DownloadPlan, Failure, Judgement, Note, PlanStatus, RangeRequest, RunFailure, RunId,
};
use crate::client::redirect::RedirectChain;
use crate::client::sink::{Durability, MAX_SMALL, Progress, Writer};
use crate::http::client::{BodyError, TransportError};

/// A wake-up that is later than this shows that the process was suspended, or was blocked by something other
/// than the servers.
const MAX_LATE: Duration = Duration::from_secs(1);

/// One download in progress.
pub(super) struct Engine<'a> {
    context: &'a Context,
    job: &'a DownloadJob,
    observer: &'a dyn Observer,
    fetcher: Fetcher,
    plan: DownloadPlan,
    transfers: Transfers,
    query: AddressQuery,
    output: FileOutput<'a>,
    /// An end other than a complete file.
    ending: Option<Ending>,
    started: Instant,
    is_announced: bool,
    /// A Metalink that describes the file.
    description: Option<Url>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        context: &'a Context,
        job: &'a DownloadJob,
        observer: &'a dyn Observer,
        fetcher: Fetcher,
        target: Option<std::path::PathBuf>,
        state: TargetState,
        started: Instant,
    ) -> Self {
        let output = FileOutput::new(context, job, target, state);
        Self {
            context,
            job,
            observer,
            fetcher,
            plan: job.plan(&context.options, output.is_sequential()),
            transfers: Transfers::default(),
            query: AddressQuery::default(),
            output,
            ending: None,
            started,
            is_announced: false,
            description: None,
        }
    }

    /// Downloads until the file is complete and verified. After a failure, keeps the received bytes if a later run can use
    /// them.
    pub(super) async fn run(&mut self) -> Result<Ending, DownloadError> {
        let result = self.transfer().await;
        self.follow_plan();
        self.transfers.retain(|_| false);
        if let Err(error) = &result {
            self.output.give_up(&mut self.plan, error).await;
        }
        result
    }

    async fn transfer(&mut self) -> Result<Ending, DownloadError> {
        self.output.resume(&mut self.plan, self.started).await?;
        if let (FileOrigin::Mirrors { unchecked: Some(kinds), .. }, None) =
            (&self.job.origin, self.plan.identity().digest)
        {
            self.observer.notice(&Event::Unchecked { kinds });
        }
        let options = &self.context.options;
        let after = |time: Option<Duration>| time.and_then(|time| self.started.checked_add(time));
        let (deadline, retry_deadline) = (after(options.max_time), after(options.retry_until));
        let mut next_checkpoint = after(Some(options.checkpoint_every));
        let mut stop = self.context.stop.clone();
        loop {
            let now = Instant::now();
            if retry_deadline.is_some_and(|at| at <= now) {
                self.plan.stop_retrying();
            }
            for action in self.plan.decide(now) {
                self.act(action);
            }
            self.follow_plan();
            if let Some(ending) = self.ending.take() {
                return Ok(ending);
            }
            if self.plan.must_restart() {
                self.output.restart(&mut self.plan).await?;
                continue;
            }
            match self.plan.status() {
                PlanStatus::Complete => match self.output.verify(&mut self.plan, self.started).await? {
                    DigestComparison::Right => return Ok(Ending::Complete),
                    DigestComparison::WrongPieces => continue,
                    DigestComparison::WrongFile(error) => {
                        let pieces = self.described_pieces().await;
                        self.output.reject_file(&mut self.plan, error, pieces).await?;
                        continue;
                    }
                },
                PlanStatus::Stuck if self.plan.has_next_lone_source() => {
                    self.output.use_next_lone_source(&mut self.plan).await?;
                    continue;
                }
                PlanStatus::Stuck => {
                    let (error, page) = self.plan.final_error();
                    if let Some(page) = page {
                        self.observer.notice(&Event::Refused { page: &page });
                    }
                    return Err(error);
                }
                PlanStatus::Working => {}
            }
            let retry_wake = retry_deadline.filter(|&at| at > now);
            let wake = self.plan.next_wake(now).into_iter().chain(deadline).chain(retry_wake).min();
            tokio::select! {
                (run, event) = self.transfers.next() => self.on_run_event(run, event)?,
                outcome = self.query.next() => self.on_query_outcome(outcome)?,
                progress = async {
                    match &mut self.output.writer {
                        Some(writer) => writer.progress(self.plan.bytes_mut()).await,
                        None => std::future::pending().await,
                    }
                } => {
                    if let Progress::Written(wrong) = progress? && !wrong.is_empty() {
                        self.output.reject_pieces(&mut self.plan, wrong).await?;
                    }
                    self.catch_up()?;
                }
                () = reaching(next_checkpoint) => {
                    next_checkpoint = Instant::now().checked_add(options.checkpoint_every);
                    self.output.checkpoint(&self.plan)?;
                }
                () = reaching(wake) => {}
                _ = stop.wait_for(|is_wanted| *is_wanted) => return Err(DownloadError::Interrupted),
            }
            let now = Instant::now();
            if wake.is_some_and(|at| now.saturating_duration_since(at) > MAX_LATE) {
                self.plan.restart_timeouts(now);
            }
            if deadline.is_some_and(|at| at <= now) {
                return Err(DownloadError::TooLong(options.max_time.unwrap_or_default()));
            }
        }
    }

    /// The digests of the pieces of the file, from the Metalink that the balancer named. A file in memory is too small for them.
    async fn described_pieces(&mut self) -> Option<Pieces> {
        let size = self.plan.size().filter(|size| *size > MAX_SMALL as u64)?;
        let chain = RedirectChain::new(self.description.take()?, self.context.options.max_redirects);
        let reading = async {
            let opened = self.fetcher.open(chain, RangeRequest::everything()).await.ok()?;
            metalink::parse(&read_metalink(&opened.facts.url, opened.answer).await.ok()?).ok()
        };
        let file = within(self.context, self.started, reading).await.ok()??.into_iter().next()?;
        let promised = (self.plan.identity().digest, file.identity.digest);
        let contradicts = matches!(promised, (Some((one, _)), Some((other, _))) if one.contradicts(&other));
        file.pieces.filter(|_| file.identity.size == Some(size) && !contradicts)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { run, source, range } => {
                let Some((entry, request)) = self.plan.request(run) else { return };
                self.observer.notice(&Event::Chosen { source: source.0, url: entry.url(), range });
                self.transfers.open(run, self.fetcher.clone(), entry.chain.clone(), request.clone());
            }
            Action::QueryBalancer => {
                let FileOrigin::Address(url) = &self.job.origin else { return };
                let chain = RedirectChain::new(url.clone(), self.context.options.max_redirects);
                let (request, avoid) = (self.plan.query_request(url), self.plan.authorities_to_avoid());
                self.query.ask(self.fetcher.clone(), chain, request, avoid, self.query_timeout());
            }
        }
    }

    /// Reports the decisions of the plan, and closes the connections of ended runs.
    fn follow_plan(&mut self) {
        self.transfers.retain(|run| self.plan.is_running(run));
        for note in self.plan.take_notes() {
            self.observer.notice(&match &note {
                Note::Offered { source, url } => Event::Offered { source: source.0, url },
                Note::Dropped { source, reason } => Event::Dropped { source: source.0, reason },
                Note::Lost { bytes, reason } => Event::Lost { bytes: *bytes, reason },
            });
        }
    }

    fn requested(&self) -> Option<&'a Url> {
        match &self.job.origin {
            FileOrigin::Address(url) => Some(url),
            FileOrigin::Mirrors { .. } => None,
        }
    }

    fn on_run_event(&mut self, run: RunId, event: RunEvent) -> Result<(), DownloadError> {
        let now = Instant::now();
        match event {
            RunEvent::Opened(Ok(opened)) => self.use_answer(run, *opened, now)?,
            RunEvent::Opened(Err(error)) => {
                let past_end = error.past_end.as_ref();
                if !past_end.is_some_and(|observed| self.plan.is_end_of_file(run, observed, now)) {
                    self.plan.fail(run, error.failure, jitter(), now);
                }
            }
            RunEvent::Received(mut body, bytes) if self.context.limiter.is_some() => {
                body.waiting = bytes;
                self.read(run, body, now);
            }
            RunEvent::Received(body, bytes) | RunEvent::Chunk(body, bytes) => {
                self.keep(run, body, &bytes, now)?;
            }
            RunEvent::End(body) => {
                if let Err(missing) = self.plan.on_end_of_body(run, body.extent, now) {
                    self.break_off(run, &body.url, BodyError::Short { missing: Some(missing) }.into(), now);
                }
            }
            RunEvent::Broken(url, error) => self.break_off(run, &url, error, now),
        }
        Ok(())
    }

    fn break_off(&mut self, run: RunId, url: &Url, source: TransportError, now: Instant) {
        let error = DownloadError::Transport { url: url.to_string(), source };
        self.plan.fail(run, Failure::passing(error), jitter(), now);
    }

    /// Accepts an answer and opens the output for it, unless the plan refuses it.
    fn use_answer(&mut self, run: RunId, mut opened: Opened, now: Instant) -> Result<(), DownloadError> {
        match self.plan.judge(run, &mut opened.facts, self.requested(), jitter(), now) {
            Judgement::Accepted => {}
            Judgement::Refused => return Ok(()),
            Judgement::Metalink => {
                self.ending = Some(Ending::Metalink(opened.facts.url, opened.answer));
                return Ok(());
            }
        }
        if self.output.writer.is_none() {
            let identity = self.plan.identity_with(&opened.facts.observed);
            let disposition = opened.answer.head().header("content-disposition");
            match self.output.open_named(&identity, disposition, &self.plan) {
                Ok(OpenResult::Opened) => {}
                Ok(OpenResult::NameTaken(path)) => {
                    self.plan.accept(run, &opened.facts, now);
                    self.ending = Some(Ending::NameTaken(path));
                    return Ok(());
                }
                Err(error) if self.output.may_fit_from_another(&error) => {
                    self.plan.fail(run, Failure::new(RunFailure::Final, error), jitter(), now);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.plan.accept(run, &opened.facts, now);
        if !std::mem::replace(&mut self.is_announced, true) {
            let done = self.plan.bytes().earlier().len();
            self.observer.notice(&Event::Started { size: self.plan.size(), done });
        }
        self.read(run, BodyReader::new(opened), now);
        Ok(())
    }

    /// Reads the next bytes, once the disk has caught up and the rate limit allows the previous bytes.
    fn read(&mut self, run: RunId, mut body: BodyReader, now: Instant) {
        if self.output.writer.as_ref().is_some_and(Writer::is_full) {
            self.plan.pause_timeouts(run);
            self.transfers.hold_back(run, body);
        } else if let Some(limiter) = self.context.limiter.as_ref().filter(|_| !body.waiting.is_empty()) {
            let bytes = body.waiting.split_to(limiter.borrow().read_size().min(body.waiting.len()));
            let until = limiter.borrow_mut().take(bytes.len() as u64, now);
            self.plan.pause_timeouts(run);
            self.transfers.delay(run, body, bytes, until);
        } else {
            self.plan.resume_timeouts(run, now);
            self.transfers.read(run, body);
        }
    }

    fn keep(
        &mut self,
        run: RunId,
        body: BodyReader,
        bytes: &Bytes,
        now: Instant,
    ) -> Result<(), DownloadError> {
        let (source, kept) = self.plan.received(run, bytes.len(), now);
        for (at, range) in kept {
            let end = usize::try_from(range.len()).map_or(bytes.len(), |length| at.saturating_add(length));
            self.observer.notice(&Event::Received { source: source.0, bytes: range.len() });
            if let Some(writer) = &mut self.output.writer {
                writer.push(range.start, bytes.slice(at.min(bytes.len())..end.min(bytes.len())));
            }
        }
        // The last bytes are written together with the digest or the rename.
        if let (Some(writer), PlanStatus::Working) = (&mut self.output.writer, self.plan.status()) {
            writer.start(self.plan.bytes())?;
        }
        if self.plan.is_running(run) {
            self.read(run, body, now);
        }
        Ok(())
    }

    /// Continues after the disk has made progress.
    fn catch_up(&mut self) -> Result<(), DownloadError> {
        let Some(writer) = &mut self.output.writer else { return Ok(()) };
        writer.start(self.plan.bytes())?;
        let (is_full, is_due) = (writer.is_full(), writer.is_checkpoint_due(self.plan.bytes()));
        if is_due && self.context.options.durability == Durability::Synced {
            self.output.checkpoint(&self.plan)?;
        }
        if !is_full {
            let now = Instant::now();
            for (run, body) in self.transfers.take_held_back() {
                self.read(run, body, now);
            }
        }
        Ok(())
    }

    fn query_timeout(&self) -> Duration {
        let settings = &self.context.options.plan;
        // Until a server is known, the address itself is the only source.
        if self.plan.sources().is_empty() { settings.drop_lone_after() } else { settings.drop_after }
    }

    fn on_query_outcome(&mut self, outcome: QueryOutcome) -> Result<(), DownloadError> {
        let now = Instant::now();
        let Some(requested) = self.requested() else { return Ok(()) };
        match outcome {
            QueryOutcome::Redirect { chain, mirrors, digest, description, page } => {
                self.description = self.description.take().or(description);
                self.observer.notice(&Event::Redirected { page: &page, to: chain.end() });
                self.plan.on_redirect(requested, chain, mirrors, digest, jitter(), now);
            }
            QueryOutcome::Direct { chain, opened, request, began } => {
                let (url, range) = (chain.end().clone(), request.range);
                if let Some(run) = self.plan.on_direct_answer(requested, chain, request, began, now) {
                    self.follow_plan();
                    self.observer.notice(&Event::Chosen { source: 0, url: &url, range });
                    self.use_answer(run, *opened, now)?;
                }
            }
            QueryOutcome::Failed(failure) => {
                let context = (self.observer, &*self.context.options);
                self.query.on_failure(&mut self.plan, context, failure, now)?;
            }
            QueryOutcome::Waiting(countdown) => {
                let left = countdown.left(now);
                self.observer.notice(&Event::Waiting { left, step: WaitStep::Further });
                self.query.count_down(countdown);
            }
            QueryOutcome::Waited => self.plan.on_waited(now),
        }
        Ok(())
    }

    /// Releases the name of a file that will not be written.
    pub(super) fn release_name(&mut self) {
        self.output.release_name();
    }

    /// The version that was downloaded.
    pub(super) fn identity(&self) -> &ContentIdentity {
        self.plan.identity()
    }

    /// Fills everything but the outcome.
    pub(super) fn fill(&self, report: &mut DownloadReport) {
        if self.output.target.is_some() {
            report.target.clone_from(&self.output.target);
        }
        report.size = self.plan.size();
        report.digest = self.output.digest;
        report.sources = self.plan.reports();
    }

    /// The complete file, which only lacks its name.
    pub(super) fn into_pending_rename(mut self) -> Option<PendingRename> {
        self.output.into_pending_rename(&mut self.plan)
    }
}

fn jitter() -> f64 {
    rand::rng().random()
}

/// Completes at `at`; never if `at` is `None`, a time beyond the range of the clock.
async fn reaching(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
