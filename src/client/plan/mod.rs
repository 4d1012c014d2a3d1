//! Assigns byte ranges to sources: failover, hedging, several sources with work stealing. Pure: its inputs
//! are events with their times, its outputs are actions.
//!
//! Missing bytes that no active run covers are *free*. An idle source takes free bytes first. If there are
//! none and a second source saves enough time, it takes the tail of the run with the most time left, in
//! proportion to the two rates. Near the end, a run that is too short to split is fetched twice, and the
//! bytes that arrive first are kept.
//!
//! Invariants: every missing byte is free or within a run; a byte is accepted once; a source has at most one
//! run; the end of a run never moves up.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

mod decide;
mod query;
mod range;
mod run;
mod settings;
mod share;
#[cfg(test)]
mod simulation;
mod source;

use query::BalancerQuery;
use run::{Race, Rival, Run, RunPhase, TimeoutState};

pub(super) use range::{ByteRange, RangeSet};
pub(super) use settings::PlanSettings;
pub(super) use source::{Availability, PlanSource, RangeSupport, RunFailure};

/// Index of a source, in the order of addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SourceId(pub usize);

/// Number of a run, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RunId(pub u64);

/// An action to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Request `range` from `source`. If `range` starts at 0 and covers the whole file as far as it is known,
    /// a request without a range suffices.
    Start {
        /// The new run.
        run: RunId,
        /// The source.
        source: SourceId,
        /// The bytes; the end is `u64::MAX` while the size is unknown.
        range: ByteRange,
    },
    /// The run now ends at `end`, before the end of its request.
    Shorten {
        /// The run.
        run: RunId,
        /// The new end, exclusive.
        end: u64,
    },
    /// The run is no longer needed.
    Stop {
        /// The run.
        run: RunId,
    },
    /// The run timed out, and the failure of its source is recorded.
    Drop {
        /// The run.
        run: RunId,
        /// Time since the last byte.
        silence: Duration,
    },
    /// Query the balancer for other sources; the answer is passed to [`DownloadPlan::on_sources_named`] or [`DownloadPlan::on_query_finished`].
    QueryBalancer,
}

/// Status of the download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlanStatus {
    /// A request is active, or will be at [`DownloadPlan::next_wake`].
    Working,
    /// No byte is missing.
    Complete,
    /// No source is left for the missing bytes.
    Stuck,
}

/// Whether a balancer can name other sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BalancerPresence {
    /// A balancer can.
    Present,
    /// The address is that of a server.
    Absent,
}

/// Whether the file may be requested in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    /// A change of the file would be detected.
    Allowed,
    /// A change would not be detected, so that only a whole answer of one source is safe.
    Forbidden,
}

/// The plan of one download.
#[derive(Debug)]
pub(super) struct DownloadPlan {
    settings: PlanSettings,
    sources: Vec<PlanSource>,
    runs: BTreeMap<RunId, Run>,
    next_run: u64,
    size: Option<u64>,
    missing: RangeSet,
    parts: Parts,
    balancer: BalancerPresence,
    query: BalancerQuery,
    /// Whether a second source was found worthwhile; from then on, idle sources help.
    is_shared: bool,
}

impl DownloadPlan {
    /// A plan for a file of which the bytes `done` are present. An unknown size may be set later.
    #[must_use]
    pub(super) fn new(
        settings: PlanSettings,
        size: Option<u64>,
        done: &RangeSet,
        balancer: BalancerPresence,
    ) -> Self {
        let mut missing = RangeSet::of(ByteRange::new(0, size.unwrap_or(u64::MAX)));
        for range in done.iter() {
            missing.remove(range);
        }
        Self {
            settings,
            sources: Vec::new(),
            runs: BTreeMap::new(),
            next_run: 0,
            size,
            missing,
            parts: Parts::Forbidden,
            balancer,
            query: BalancerQuery::default(),
            is_shared: false,
        }
    }

    /// Adds a source that may be used at once.
    pub(super) fn add_source(&mut self) -> SourceId {
        self.sources.push(PlanSource::new());
        SourceId(self.sources.len().saturating_sub(1))
    }

    /// The state of a source.
    #[must_use]
    pub(super) fn source(&self, source: SourceId) -> Option<&PlanSource> {
        self.sources.get(source.0)
    }

    /// The bytes that are not present.
    #[must_use]
    pub(super) fn missing(&self) -> &RangeSet {
        &self.missing
    }

    /// The size, once known.
    #[must_use]
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Sets whether parts may be requested.
    pub(super) fn allow_parts(&mut self, parts: Parts) {
        self.parts = parts;
    }

    /// Sets the size of the file, in bytes.
    pub(super) fn set_size(&mut self, size: u64) {
        self.size = Some(size);
        self.missing.remove(ByteRange::new(size, u64::MAX));
        for run in self.runs.values_mut() {
            run.end = run.end.min(size);
        }
    }

    /// Forgets the size, which belonged to another version. No byte may be present.
    pub(super) fn forget_size(&mut self) {
        let Some(size) = self.size.take() else { return };
        self.missing = RangeSet::of(ByteRange::new(0, u64::MAX));
        for run in self.runs.values_mut().filter(|run| run.end == size) {
            run.end = u64::MAX;
        }
    }

    /// The runs whose answers have started.
    pub(super) fn answered(&self) -> impl Iterator<Item = RunId> + '_ {
        self.runs.iter().filter(|(_, run)| run.phase == RunPhase::Streaming).map(|(id, _)| *id)
    }

    /// Marks wrong bytes as missing again.
    pub(super) fn discard(&mut self, range: ByteRange) {
        self.missing.insert(range.intersection(&ByteRange::new(0, self.size.unwrap_or(u64::MAX))));
    }

    /// Excludes the source from further requests.
    pub(super) fn exclude(&mut self, source: SourceId) {
        if let Some(source) = self.sources.get_mut(source.0) {
            source.availability = Availability::Excluded;
        }
    }

    /// Whether the source is excluded.
    #[must_use]
    pub(super) fn is_excluded(&self, source: SourceId) -> bool {
        self.source(source).is_none_or(|source| source.availability == Availability::Excluded)
    }

    /// Readmits an excluded source.
    pub(super) fn readmit(&mut self, source: SourceId) {
        if let Some(source) = self.sources.get_mut(source.0) {
            source.availability = Availability::Ready;
            source.failures = 0;
        }
    }

    /// Adds a run that is already active: the given address itself answered with the file.
    pub(super) fn adopt(&mut self, source: SourceId, range: ByteRange, now: Instant) -> RunId {
        self.begin(source, range, None, now)
    }

    /// Handles the head of an answer; its body begins at byte `start`.
    pub(super) fn on_response_head(&mut self, id: RunId, start: u64, now: Instant) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.next = start;
        run.phase = RunPhase::Streaming;
        let latency = now.duration_since(run.started);
        run.last_activity = now;
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.on_response_head(latency, now);
        }
    }

    /// Shortens the run to the end announced by its answer; another run fetches the rest.
    pub(super) fn limit_to_announced(&mut self, id: RunId, end: u64) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.end = run.end.min(end);
        }
    }

    /// A lower bound of the size of the file: its size if known, or else the end of the present bytes.
    #[must_use]
    pub(super) fn least_size(&self) -> u64 {
        self.size.unwrap_or_else(|| self.missing.iter().last().map_or(0, |rest| rest.start))
    }

    /// Pauses the timeouts of the run while the client is not reading from it.
    pub(super) fn pause_timeouts(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.timeouts = TimeoutState::Paused;
        }
    }

    /// Resumes the timeouts of the run.
    pub(super) fn resume_timeouts(&mut self, id: RunId, now: Instant) {
        if let Some(run) = self.runs.get_mut(&id)
            && run.timeouts == TimeoutState::Paused
        {
            run.timeouts = TimeoutState::Running;
            run.last_activity = now;
        }
    }

    /// Restarts all timeouts after the process was suspended, for example by SIGSTOP.
    pub(super) fn restart_timeouts(&mut self, now: Instant) {
        for run in self.runs.values_mut() {
            run.last_activity = now;
            if run.phase == RunPhase::Waiting {
                run.started = now;
            }
        }
    }

    /// Handles `count` received bytes. Returns those of them that were missing, which the caller must keep.
    ///
    /// The run ends with its last byte; [`finished`](Self::finished) need not be called then.
    pub(super) fn received(&mut self, id: RunId, count: u64, now: Instant) -> Vec<ByteRange> {
        let Some(run) = self.runs.get_mut(&id) else { return Vec::new() };
        let received = ByteRange::new(run.next, run.next.saturating_add(count));
        run.next = received.end;
        run.last_activity = now;
        run.received = run.received.saturating_add(count);
        let wanted = received.intersection(&ByteRange::new(received.start, run.end));
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.on_bytes(count, now);
        }
        let is_over = run.next >= run.end;
        let fresh = self.missing.within(wanted);
        self.missing.remove(wanted);
        run.kept = run.kept.saturating_add(fresh.iter().map(ByteRange::len).sum());
        if !fresh.is_empty() {
            self.query.since_progress = 0;
        }
        if is_over {
            self.finished(id, now);
        }
        fresh
    }

    /// Ends a run that received all announced bytes. The file may be longer.
    pub(super) fn finished(&mut self, id: RunId, now: Instant) {
        let Some(run) = self.runs.remove(&id) else { return };
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.failures = 0;
            source.run_ended(now);
        }
    }

    /// Ends a run without bytes and without a failure: its source is asked again with another request.
    pub(super) fn withdraw(&mut self, id: RunId, now: Instant) {
        let Some(run) = self.runs.remove(&id) else { return };
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.run_ended(now);
        }
    }

    /// Records the failure of a run; `jitter` is a random number in 0..1.
    pub(super) fn failed(&mut self, id: RunId, failure: RunFailure, jitter: f64, now: Instant) {
        let Some(run) = self.runs.remove(&id) else { return };
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.run_ended(now);
            source.failed(failure, run.kept, &self.settings, jitter, now);
        }
    }

    /// Timeouts and limits.
    #[must_use]
    pub(super) fn settings(&self) -> &PlanSettings {
        &self.settings
    }

    /// Whether a source is ready, or active without a failure.
    #[must_use]
    pub(super) fn is_trusted(&self, source: SourceId) -> bool {
        let is_silent = self.runs.values().any(|run| run.source == source && run.phase == RunPhase::Waiting);
        !is_silent
            && self
                .source(source)
                .is_some_and(|source| source.failures == 0 && source.availability == Availability::Ready)
    }

    /// Notes that the source does not support ranges.
    pub(super) fn refuses_ranges(&mut self, source: SourceId) {
        if let Some(source) = self.sources.get_mut(source.0) {
            source.ranges = RangeSupport::Refused;
        }
    }

    /// Whether any byte is present.
    #[must_use]
    pub(super) fn has_received(&self) -> bool {
        self.missing != RangeSet::of(ByteRange::new(0, self.size.unwrap_or(u64::MAX)))
    }

    /// Whether the run is active.
    #[must_use]
    pub(super) fn is_running(&self, id: RunId) -> bool {
        self.runs.contains_key(&id)
    }

    /// Whether every source is excluded and no run is active.
    #[must_use]
    pub(super) fn is_out_of_sources(&self) -> bool {
        self.runs.is_empty()
            && self.sources.iter().all(|source| source.availability == Availability::Excluded)
    }

    /// Stops retrying: sources in back-off are excluded, and so are sources that fail from now on.
    pub(super) fn stop_retrying(&mut self) {
        self.settings.max_failures = 0;
        self.balancer = BalancerPresence::Absent;
        for source in &mut self.sources {
            if matches!(source.availability, Availability::BackingOff(_)) {
                source.availability = Availability::Excluded;
            }
        }
    }

    /// Status of the download.
    #[must_use]
    pub(super) fn status(&self) -> PlanStatus {
        let has_source = self.sources.iter().any(|source| source.availability != Availability::Excluded)
            || !self.runs.is_empty();
        if self.size.is_some() && self.missing.is_empty() {
            PlanStatus::Complete
        } else if has_source || self.may_query() || self.query.in_progress {
            PlanStatus::Working
        } else {
            PlanStatus::Stuck
        }
    }
}
