//! Performs the decisions of the plan, and reports events to it: decide, fetch, store.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use tokio::time::Instant;
use url::Url;

use super::complete::within;
use super::fetch::{FetchError, Fetcher, Opened, Response};
use super::finish::PendingRename;
use super::output::{FileOutput, OpenResult};
use super::query::{AddressQuery, QueryOutcome};
use super::transfers::{BodyReader, RunEvent, Transfers};
use super::{Context, DownloadJob, DownloadReport, FileOrigin, SourceReport, TargetState, Unavailable};
use crate::client::address;
use crate::client::checksum::Checksum;
use crate::client::error::DownloadError;
use crate::client::event::{Event, Observer, Page, WaitStep};
use crate::client::identity;
use crate::client::plan::{
    Action, BalancerPresence, ByteRange, DownloadPlan, Judgement, Note, PlanStatus, RunFailure, RunId,
    SourceId,
};
use crate::client::redirect::RedirectChain;
use crate::client::sink::{Completion, DigestMode, Durability, Progress, Writer};
use crate::http::client::{BodyError, TransportError};

/// A wake-up that is later than this shows that the process was suspended, or was blocked by something other
/// than the servers.
const MAX_LATE: Duration = Duration::from_secs(1);

/// Wait after a 503 without `Retry-After`.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// The end of the network transfer.
pub(super) enum Ending {
    /// The file is complete and verified, and only lacks its name.
    Complete,
    /// The address leads to a Metalink instead of the file.
    Metalink(Url, Box<dyn Response>),
    /// The name chosen by the server exists already.
    NameTaken(std::path::PathBuf),
}

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
    digest: Option<Checksum>,
    started: Instant,
    is_announced: bool,
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
        let mut settings = context.options.plan.clone();
        if output.is_sequential() {
            // An output without positions takes bytes in order, so only one run may be active.
            settings.max_sources = 1;
        }
        let (balancer, pieces) = match &job.origin {
            FileOrigin::Address(_) => (BalancerPresence::Present, None),
            FileOrigin::Mirrors { pieces, .. } => (BalancerPresence::Absent, pieces.clone()),
        };
        Self {
            context,
            job,
            observer,
            fetcher,
            plan: DownloadPlan::new(settings, job.known(), pieces, balancer),
            transfers: Transfers::default(),
            query: AddressQuery::default(),
            output,
            ending: None,
            digest: None,
            started,
            is_announced: false,
        }
    }

    /// Downloads until the file is complete and verified. After a failure, keeps the received bytes if a later run can use
    /// them.
    pub(super) async fn run(&mut self) -> Result<Ending, DownloadError> {
        let result = self.transfer().await;
        self.transfers.retain(|_| false);
        if let Err(error) = &result {
            self.output.give_up(&mut self.plan, error).await;
        }
        result
    }

    async fn transfer(&mut self) -> Result<Ending, DownloadError> {
        self.output.resume(&mut self.plan, self.started).await?;
        if let FileOrigin::Mirrors { urls, unchecked, .. } = &self.job.origin {
            if let (Some(kinds), None) = (unchecked, self.plan.identity().digest) {
                self.observer.notice(&Event::Unchecked { kinds });
            }
            // The Metalink asserts that all of its addresses have the same file.
            let resource = urls.first().map(address::shown).unwrap_or_default();
            for url in urls {
                self.add_source(
                    RedirectChain::new(url.clone(), self.context.options.max_redirects),
                    &resource,
                );
            }
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
                self.restart().await?;
                continue;
            }
            match self.plan.status() {
                PlanStatus::Complete => {
                    if self.is_complete().await? {
                        return Ok(Ending::Complete);
                    }
                    continue;
                }
                PlanStatus::Stuck if self.plan.has_next_lone_source() => {
                    self.output.flush(&mut self.plan).await?;
                    self.plan.use_next_lone_source();
                    self.output.take_back(&self.plan).await?;
                    continue;
                }
                PlanStatus::Stuck => return Err(self.final_error()),
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
                        self.reject_pieces(wrong).await?;
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
                Note::Dropped { source, reason } => Event::Dropped { source: source.0, reason },
                Note::Lost { bytes, reason } => Event::Lost { bytes: *bytes, reason },
            });
        }
    }

    fn add_source(&mut self, chain: RedirectChain, resource: &str) {
        let url = chain.end().clone();
        if let Some(id) = self.plan.add_source(chain, resource) {
            self.observer.notice(&Event::Offered { source: id.0, url: &url });
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
            RunEvent::Opened(Err(FetchError::PastEnd { observed, .. }))
                if self.plan.is_end_of_file(run, &observed, now) => {}
            RunEvent::Opened(Err(error)) => {
                let failure = error.failure();
                let (error, page) = error.into_error();
                self.plan.fail(run, failure, error, page, jitter(), now);
            }
            RunEvent::Received(mut body, bytes) if self.context.limiter.is_some() => {
                body.waiting = bytes;
                self.read(run, body, now);
            }
            RunEvent::Received(body, bytes) | RunEvent::Chunk(body, bytes) => {
                self.keep(run, body, &bytes, now)?
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
        self.plan.fail(run, RunFailure::Passing { retry_after: None }, error, None, jitter(), now);
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
                    self.plan.fail(run, RunFailure::Final, error, None, jitter(), now);
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

    async fn reject_pieces(&mut self, mut wrong: Vec<ByteRange>) -> Result<(), DownloadError> {
        wrong.extend(self.output.flush(&mut self.plan).await?);
        self.plan.reject_pieces(&wrong);
        Ok(self.output.take_back(&self.plan).await?)
    }

    /// Starts again with the version that the servers have now.
    async fn restart(&mut self) -> Result<(), DownloadError> {
        if self.output.is_sequential() && !self.plan.bytes().is_empty() {
            // Written bytes cannot be taken back.
            return Err(DownloadError::KeepsChanging);
        }
        self.output.flush(&mut self.plan).await?;
        self.plan.restart()?;
        Ok(self.output.take_back(&self.plan).await?)
    }

    /// Verifies the file once it has all bytes. If it is wrong, the plan discards the wrong bytes.
    async fn is_complete(&mut self) -> Result<bool, DownloadError> {
        if self.output.writer.is_none() {
            // A file known to be empty needs no request.
            self.output.open(&self.plan.identity().clone(), &self.plan)?;
        }
        if self.output.is_sequential() {
            // A write to a pipe may block forever, so it must be interruptible. The check of a file
            // on the disk must not be left half done.
            let (context, started) = (self.context, self.started);
            return within(context, started, self.is_right()).await?;
        }
        self.is_right().await
    }

    /// The complete file, which only lacks its name.
    pub(super) fn into_pending_rename(mut self) -> Option<PendingRename> {
        let modified = self.plan.identity().last_modified.as_deref();
        let completion = Completion {
            size: self.plan.size().unwrap_or_default(),
            modified: modified.and_then(|date| httpdate::parse_http_date(date).ok()),
            existing: self.output.state.existing(),
            durability: self.context.options.durability,
            is_saved: false,
        };
        Some(PendingRename {
            writer: self.output.writer.take()?,
            bytes: std::mem::take(self.plan.bytes_mut()),
            completion,
            is_sequential: self.output.is_sequential(),
        })
    }

    async fn is_right(&mut self) -> Result<bool, DownloadError> {
        if self.plan.pieces().is_some() {
            let wrong = self.output.flush(&mut self.plan).await?;
            if !wrong.is_empty() {
                self.reject_pieces(wrong).await?;
                return Ok(false);
            }
        }
        let identity = self.plan.identity();
        let promised = identity.digest.map(|(digest, _)| digest);
        let (DigestMode::On(algorithm), Some(writer)) =
            (self.context.options.hashing(identity), &mut self.output.writer)
        else {
            return Ok(true);
        };
        self.digest = writer.digest(algorithm, self.plan.bytes_mut()).await?;
        let (Some(promised), Some(found)) = (promised, self.digest) else { return Ok(true) };
        if promised == found {
            return Ok(true);
        }
        let (found, promised) = (Box::new(found), Box::new(promised));
        let error = DownloadError::WrongChecksum { name: self.output.name(), found, promised, unasked: 0 };
        if self.output.is_sequential() {
            return Err(error);
        }
        self.output.flush(&mut self.plan).await?;
        if !self.plan.reject_file(error) {
            return Err(self.final_error());
        }
        self.output.take_back(&self.plan).await?;
        Ok(false)
    }

    /// The error to report. Shows the error page of the only server.
    fn final_error(&mut self) -> DownloadError {
        let (error, page) = self.plan.final_error();
        if let Some(page) = page {
            self.observer.notice(&Event::Refused { page: &page });
        }
        error
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
            QueryOutcome::Redirect { chain, mirrors, digest, page } => {
                let to = chain.end();
                self.observer.notice(&Event::Redirected { page: &page, to });
                self.plan.set_given_digest(digest);
                // The mirrors of a redirect have the same resource as its target.
                let resource = identity::resource(requested, to);
                let before = self.plan.sources().len();
                let mirrors =
                    mirrors.into_iter().map(|mirror| chain.with_end(mirror.url)).collect::<Vec<_>>();
                for source in std::iter::once(chain).chain(mirrors) {
                    self.add_source(source, &resource);
                }
                let new = self.plan.sources().len().saturating_sub(before);
                self.plan.on_sources_named(new, jitter(), now);
            }
            QueryOutcome::Direct { chain, opened, request, began } => {
                self.plan.set_without_balancer();
                self.plan.on_query_finished(None, jitter(), now);
                if self.plan.sources().is_empty() {
                    let (url, resource) = (chain.end().clone(), identity::resource(requested, chain.end()));
                    self.add_source(chain, &resource);
                    self.observer.notice(&Event::Chosen { source: 0, url: &url, range: request.range });
                    let run = self.plan.adopt(SourceId(0), request, began);
                    self.use_answer(run, *opened, now)?;
                }
            }
            QueryOutcome::Failed(error) => {
                let failure = error.failure();
                let is_unavailable = matches!(error, FetchError::Refused { status: 503, .. });
                let (error, page) = error.into_error();
                return self.on_query_failure(failure, is_unavailable, error, page, now);
            }
            QueryOutcome::Silent => {
                let error = DownloadError::Silent { url: requested.to_string(), after: self.query_timeout() };
                return self.on_query_failure(
                    RunFailure::Passing { retry_after: None },
                    false,
                    error,
                    None,
                    now,
                );
            }
            QueryOutcome::Waiting(countdown) => {
                let left = countdown.left(now);
                self.observer.notice(&Event::Waiting { left, step: WaitStep::Further });
                self.query.count_down(countdown);
            }
            QueryOutcome::Waited => {
                self.plan.reset_query_failures();
                self.plan.on_query_finished(Some(Duration::ZERO), 0.0, now);
            }
        }
        Ok(())
    }

    fn on_query_failure(
        &mut self,
        failure: RunFailure,
        is_unavailable: bool,
        error: DownloadError,
        page: Option<Page>,
        now: Instant,
    ) -> Result<(), DownloadError> {
        let options = &self.context.options;
        let retry_after = match failure {
            RunFailure::Passing { retry_after } => Some(retry_after),
            _ => None,
        };
        let waits = is_unavailable && options.unavailable == Unavailable::Wait;
        let is_final =
            !waits && self.plan.sources().is_empty() && !(options.retry_first && retry_after.is_some());
        if let (DownloadError::Refused { url, status: 404 | 410 }, true) = (&error, is_final) {
            return Err(DownloadError::Missing { name: url.clone(), servers: 1 });
        }
        if let Some(page) = page.as_ref().filter(|_| waits || is_final) {
            self.observer.notice(&Event::Refused { page });
        }
        if is_final {
            return Err(error);
        }
        let retry_after = retry_after.flatten();
        if waits {
            let left = self.query.wait(retry_after.unwrap_or(DEFAULT_WAIT), now);
            self.observer.notice(&Event::Waiting { left, step: WaitStep::First });
        } else {
            self.plan.note_query_error(error, page);
            self.plan.on_query_finished(retry_after, jitter(), now);
        }
        Ok(())
    }

    /// Releases the name of a file that will not be written.
    pub(super) fn release_name(&mut self) {
        self.output.release_name();
    }

    /// The version that was downloaded.
    pub(super) fn identity(&self) -> &identity::ContentIdentity {
        self.plan.identity()
    }

    pub(super) fn fill(&self, report: &mut DownloadReport) {
        if self.output.target.is_some() {
            report.target.clone_from(&self.output.target);
        }
        report.size = self.plan.size();
        report.digest = self.digest;
        let sources = self.plan.sources().iter().enumerate();
        report.sources = sources
            .map(|(index, source)| SourceReport {
                url: source.url().clone(),
                bytes: self.plan.bytes().count_from(SourceId(index)),
                first_byte: source.first_byte,
                errors: source.errors.clone(),
            })
            .collect();
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
