//! Performs the actions of the plan, and reports events to it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Abortable, LocalBoxFuture};
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::super::address;
use super::super::checksum::{Algorithm, Checksum};
use super::super::error::DownloadError;
use super::super::event::{Event, Observer};
use super::super::identity::ContentIdentity;
use super::super::plan::{BalancerPresence, DownloadPlan, PlanStatus, RangeSet, RunId, SourceId};
use super::super::redirect::RedirectChain;
use super::super::sink::{DigestMode, Durability, SinkError, Writer};
use super::complete::within;
use super::fetch::{Fetcher, Shown};
use super::finish::PendingRename;
use super::query::QueryOutcome;
use super::refetch::Refetch;
use super::runs::{ActiveRun, BodyReader, RunEvent};
use super::sources::Sources;
use super::target_state::TargetState;
use super::{Context, DownloadJob, DownloadReport, FileOrigin, Reporting, known};
use crate::http::client::Answer;

/// A wake-up that is later than this shows that the process was suspended, or was blocked by something other
/// than the servers.
const MAX_LATE: Duration = Duration::from_secs(1);

/// One download in progress.
pub(super) struct Engine<'a> {
    pub(super) context: &'a Context,
    pub(super) job: &'a DownloadJob,
    pub(super) observer: &'a dyn Observer,
    pub(super) fetcher: Fetcher,
    pub(super) target: Option<PathBuf>,
    pub(super) identity: ContentIdentity,
    pub(super) plan: DownloadPlan,
    pub(super) sources: Sources,
    pub(super) runs: HashMap<RunId, ActiveRun>,
    pub(super) steps: FuturesUnordered<Abortable<LocalBoxFuture<'static, RunEvent>>>,
    /// Answers that are not read until the disk has caught up.
    pub(super) held_back: Vec<(RunId, BodyReader)>,
    pub(super) query: Option<LocalBoxFuture<'static, QueryOutcome>>,
    pub(super) writer: Option<Writer>,
    pub(super) target_state: TargetState,
    /// The path that was reserved late, once the name of the file was known.
    reserved: Option<PathBuf>,
    /// The Metalink that a server sent instead of the file.
    pub(super) metalink: Option<Answer>,
    /// Sources that have another version of the file.
    pub(super) other_versions: Vec<SourceId>,
    pub(super) restarts: usize,
    pub(super) refetch: Refetch,
    /// Requests to the balancer since the last restart.
    pub(super) queries: usize,
    pub(super) last_error: Option<(DownloadError, Option<Shown>)>,
    pub(super) checksum_error: Option<DownloadError>,
    digest: Option<Checksum>,
    pub(super) started: Instant,
    is_announced: bool,
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        context: &'a Context,
        job: &'a DownloadJob,
        observer: &'a dyn Observer,
        fetcher: Fetcher,
        target: Option<PathBuf>,
        target_state: TargetState,
        started: Instant,
    ) -> Self {
        let identity = known(job);
        // An output without positions has no part file and cannot be resumed.
        let target = target.filter(|_| target_state != TargetState::Sequential);
        let balancer = match &job.origin {
            FileOrigin::Address(_) => BalancerPresence::Present,
            FileOrigin::Mirrors { .. } => BalancerPresence::Absent,
        };
        let plan = DownloadPlan::new(
            Self::plan_settings(context, target.is_some()),
            identity.size,
            &RangeSet::new(),
            balancer,
        );
        Self {
            context,
            job,
            observer,
            fetcher,
            target,
            identity,
            plan,
            sources: Sources::default(),
            runs: HashMap::new(),
            steps: FuturesUnordered::new(),
            held_back: Vec::new(),
            query: None,
            writer: None,
            target_state,
            reserved: None,
            metalink: None,
            other_versions: Vec::new(),
            restarts: 0,
            refetch: Refetch::default(),
            queries: 0,
            last_error: None,
            checksum_error: None,
            digest: None,
            started,
            is_announced: false,
        }
    }

    pub(super) fn plan_settings(context: &Context, has_positions: bool) -> super::PlanSettings {
        let mut settings = context.options.plan.clone();
        if !has_positions {
            // An output without positions takes bytes in order, so only one run may be active.
            settings.max_sources = 1;
        }
        settings
    }

    /// Downloads until the file is complete, checked, and has its name.
    pub(super) async fn run(&mut self) -> Result<(), DownloadError> {
        self.resume().await?;
        if let FileOrigin::Mirrors { urls, unchecked, .. } = &self.job.origin {
            if let (Some(kinds), None) = (unchecked, self.identity.digest) {
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
        let checkpoint_every = self.context.options.checkpoint_every;
        let mut next_checkpoint = self.started.checked_add(checkpoint_every);
        let deadline = self.context.options.max_time.and_then(|time| self.started.checked_add(time));
        let retry_deadline = self.context.options.retry_until.and_then(|time| self.started.checked_add(time));
        let mut ending = self.context.stop.clone();
        loop {
            let now = Instant::now();
            if retry_deadline.is_some_and(|at| at <= now) {
                self.plan.stop_retrying();
            }
            self.act(now);
            if self.must_restart() {
                self.restart().await?;
                continue;
            }
            match self.plan.status() {
                PlanStatus::Complete => {
                    // A write to a pipe may block forever, so it must be interruptible. The check of a file
                    // on the disk must not be left half done.
                    let is_right = if self.target_state == TargetState::Sequential {
                        within(self.context, self.started, self.is_right()).await??
                    } else {
                        self.is_right().await?
                    };
                    if is_right {
                        return Ok(());
                    }
                    continue;
                }
                PlanStatus::Stuck if self.give_up_lone_source().await? => continue,
                PlanStatus::Stuck => return Err(self.final_error()),
                PlanStatus::Working => {}
            }
            let wake = self
                .plan
                .next_wake(now)
                .into_iter()
                .chain(deadline)
                .chain(retry_deadline.filter(|&at| at > now));
            let wake = wake.min();
            tokio::select! {
                Some(step) = self.steps.next(), if !self.steps.is_empty() => {
                    if let Ok(step) = step {
                        self.take(step)?;
                    }
                }
                outcome = async {
                    match self.query.as_mut() {
                        Some(query) => query.await,
                        None => std::future::pending().await,
                    }
                } => {
                    self.query = None;
                    self.on_query_outcome(outcome)?;
                }
                wrong = async {
                    match self.writer.as_mut() {
                        Some(writer) => writer.progress().await,
                        None => std::future::pending().await,
                    }
                } => {
                    let wrong = wrong?;
                    self.reject_pieces(&wrong).await?;
                    self.checkpoint_early()?;
                    self.resume_reading()?;
                }
                () = reaching(next_checkpoint) => {
                    next_checkpoint = Instant::now().checked_add(checkpoint_every);
                    self.checkpoint()?;
                }
                () = reaching(wake) => {}
                _ = ending.wait_for(|is_wanted| *is_wanted) => return Err(DownloadError::Interrupted),
            }
            if wake.is_some_and(|at| Instant::now().saturating_duration_since(at) > MAX_LATE) {
                self.plan.restart_timeouts(Instant::now());
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Err(DownloadError::TooLong(self.context.options.max_time.unwrap_or_default()));
            }
        }
    }

    pub(super) fn hashing(&self) -> DigestMode {
        let is_wanted = self.identity.digest.is_some() || self.context.options.reporting == Reporting::Always;
        if is_wanted { DigestMode::On(self.algorithm()) } else { DigestMode::Off }
    }

    /// The algorithm of the known digest, or SHA-256.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.identity.digest.map_or(Algorithm::Sha256, |(digest, _)| digest.algorithm())
    }

    pub(super) fn pieces(&self) -> Option<super::Pieces> {
        match &self.job.origin {
            FileOrigin::Mirrors { pieces, .. } => pieces.clone(),
            FileOrigin::Address(_) => None,
        }
    }

    pub(super) fn has_pieces(&self) -> bool {
        matches!(&self.job.origin, FileOrigin::Mirrors { pieces: Some(_), .. })
    }

    pub(super) fn add_source(&mut self, chain: RedirectChain, resource: &str) {
        let url = chain.end().clone();
        if let Some(id) = self.sources.add(chain, resource) {
            self.plan.add_source();
            self.observer.notice(&Event::Offered { source: id.0, url: &url });
        }
    }

    fn checkpoint(&mut self) -> Result<(), DownloadError> {
        if self.identity.size.is_none() || !self.identity.can_be_resumed() {
            return Ok(());
        }
        if let Some(writer) = &mut self.writer {
            writer.checkpoint(&self.identity, |index| self.sources.name(index))?;
        }
        Ok(())
    }

    /// Starts a checkpoint before it is due, so that less is left to sync at the end.
    fn checkpoint_early(&mut self) -> Result<(), DownloadError> {
        let is_due = self.writer.as_ref().is_some_and(Writer::is_checkpoint_due);
        if is_due && self.context.options.durability == Durability::Synced {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Reports the start of the transfer, once.
    pub(super) fn announce(&mut self) {
        if !std::mem::replace(&mut self.is_announced, true) {
            self.observer
                .notice(&Event::Started { size: self.plan.size(), done: self.sources.resumed.len() });
        }
    }

    /// Ends all runs. Returns a verified file that only lacks its name; after a failure, keeps the received
    /// bytes if a later run can use them, and removes them otherwise.
    pub(super) async fn conclude(
        &mut self,
        outcome: Result<(), DownloadError>,
    ) -> Result<Option<PendingRename>, DownloadError> {
        let runs: Vec<RunId> = self.runs.keys().copied().collect();
        for run in runs {
            self.drop_run(run);
        }
        match (outcome, self.writer.take()) {
            (Ok(()), writer) => Ok(writer.map(|writer| PendingRename {
                writer,
                size: self.plan.size().unwrap_or_default(),
                modified: self
                    .identity
                    .last_modified
                    .as_deref()
                    .and_then(|date| httpdate::parse_http_date(date).ok()),
                target_state: self.target_state,
                durability: self.context.options.durability,
            })),
            (Err(error), None) => Err(error),
            // Unwritten bytes are dropped: a write to a pipe without a reader would block forever.
            (Err(error), Some(_)) if self.target_state == TargetState::Sequential => Err(error),
            (Err(error), Some(mut writer)) => {
                let is_wrong = matches!(error, DownloadError::WrongChecksum { .. });
                let is_displaced = matches!(error, DownloadError::Sink(SinkError::Displaced { .. }));
                let is_of_use = self.identity.size.is_some()
                    && self.identity.can_be_resumed()
                    && !is_wrong
                    && !matches!(error, DownloadError::Sink(_));
                // The first failure is reported; a failure to clean up is not.
                let _ = if is_of_use {
                    writer.save_all(&self.identity, |index| self.sources.name(index)).await
                } else if !is_wrong && !is_displaced && writer.has_journal() {
                    // The disk may have space again later, and every line of the journal is true.
                    Ok(())
                } else {
                    writer.discard().await
                };
                Err(error)
            }
        }
    }

    /// Uses the name chosen by a server. No existing file of that name is replaced, unless the address has
    /// the same name.
    pub(super) fn use_server_name(&mut self, target: PathBuf) -> Result<(), DownloadError> {
        if self.job.name().as_ref() == Some(&target) {
            return self.reserve_name();
        }
        self.context.reserved_paths.reserve(&target)?;
        self.target_state = TargetState::of(Some(&target))?;
        self.target = Some(target.clone());
        match self.target_state {
            TargetState::Free | TargetState::TransferOutcome => Ok(()),
            TargetState::Taken | TargetState::Sequential => Err(DownloadError::NameTaken { path: target }),
        }
    }

    pub(super) fn is_named_later(&self) -> bool {
        self.job.is_named_later(self.context.options.naming)
    }

    /// Reserves the name of the address, which was not reserved while a server could choose another name.
    pub(super) fn reserve_name(&mut self) -> Result<(), DownloadError> {
        let Some(name) = self.job.name() else { return Ok(()) };
        self.context.reserved_paths.reserve(&name)?;
        self.reserved = Some(name);
        Ok(())
    }

    /// Releases the path that [`reserve_name`](Self::reserve_name) reserved, if any.
    pub(super) fn release_name(&mut self) {
        if let Some(name) = self.reserved.take() {
            self.context.reserved_paths.release(&name);
        }
    }

    pub(super) fn set_digest(&mut self, digest: Option<Checksum>) {
        self.digest = digest;
    }

    pub(super) fn fill(&self, report: &mut DownloadReport) {
        if self.target.is_some() {
            report.target.clone_from(&self.target);
        }
        report.size = self.plan.size();
        report.digest = self.digest;
        report.sources = self.sources.reports();
    }
}

/// Completes at `at`; never if `at` is `None`, a time beyond the range of the clock.
async fn reaching(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
