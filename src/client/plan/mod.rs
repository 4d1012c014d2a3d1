//! Assigns byte ranges to sources: failover, hedging, several sources with work stealing. Pure: its inputs
//! are events with their times, its outputs are actions.
//!
//! The plan owns every fact about a download that is not a connection or a file: the version ([`ContentIdentity`]), its
//! bytes ([`ByteMap`]), the sources, the runs, and the failures.
//!
//! Missing bytes that no active run covers are *free*. An idle source takes free bytes first. If there are
//! none and a second source saves enough time, it takes the tail of the run with the most time left, in
//! proportion to the two rates. Near the end, a run that is too short to split is fetched twice, and the
//! bytes that arrive first are kept.
//!
//! Invariants: every missing byte is free or within a run; a byte is accepted once; a source has at most one
//! run; the end of a run never moves up.

use std::collections::BTreeMap;

use tokio::time::Instant;
use url::Url;

use super::byte_map::{ByteMap, SourceId};
use super::checksum::Pieces;
use super::error::DownloadError;
use super::event::Page;
use super::identity::ContentIdentity;
use super::range::{ByteRange, RangeSet};
use super::redirect::RedirectChain;

mod decide;
mod failure;
mod judge;
mod query;
mod refetch;
mod run;
mod settings;
mod share;
mod source;
#[cfg(test)]
mod tests;

use query::BalancerQuery;
use refetch::Refetch;
use run::{Race, Rival, Run, RunPhase, TimeoutState};

pub(super) use failure::Failure;
pub(super) use judge::{AnswerFacts, Extent, Judgement};
pub(super) use run::RangeRequest;
pub(super) use settings::PlanSettings;
pub(super) use source::{Availability, RangeSupport, RunFailure, Source, SourceReport};

/// Maximum number of sources of one download.
const MAX_SOURCES: usize = 128;

/// Number of a run, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RunId(pub u64);

/// An action to take. Connections of runs that are not [running](DownloadPlan::is_running) any more are closed too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Send the [request](DownloadPlan::request) of the run. If `range` starts at 0 and covers the whole file as far as
    /// it is known, a request without a range suffices.
    Start {
        /// The new run.
        run: RunId,
        /// The source.
        source: SourceId,
        /// The bytes; the end is `u64::MAX` while the size is unknown.
        range: ByteRange,
    },
    /// Query the balancer for other sources; the answer is passed to [`DownloadPlan::on_redirect`] or [`DownloadPlan::on_query_finished`].
    QueryBalancer,
}

/// A decision that is reported to the user.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// A source was added.
    Offered { source: SourceId, url: Url },
    /// A source failed, or is no longer used.
    Dropped { source: SourceId, reason: String },
    /// Bytes were discarded and are fetched again.
    Lost { bytes: u64, reason: &'static str },
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum BalancerPresence {
    /// A balancer can.
    Present,
    /// The address is that of a server.
    #[default]
    Absent,
}

/// Whether the file may be requested in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// A change of the file would be detected.
    Allowed,
    /// A change would not be detected, so that only a whole answer of one source is safe.
    Forbidden,
}

/// The plan of one download.
#[derive(Debug, Default)]
pub(super) struct DownloadPlan {
    settings: PlanSettings,
    /// The properties that are known before the first request.
    known: ContentIdentity,
    pieces: Option<Pieces>,
    /// The version that is downloaded.
    identity: ContentIdentity,
    bytes: ByteMap,
    sources: Vec<Source>,
    runs: BTreeMap<RunId, Run>,
    next_run: u64,
    balancer: BalancerPresence,
    query: BalancerQuery,
    /// Whether a second source was found worthwhile; from then on, idle sources help.
    is_shared: bool,
    /// Sources that have another version of the file.
    other_versions: Vec<SourceId>,
    restarts: usize,
    refetch: Refetch,
    last_error: Option<(DownloadError, Option<Page>)>,
    /// The first wrong digest, which takes precedence over any other failure.
    checksum_error: Option<DownloadError>,
    notes: Vec<Note>,
}

impl DownloadPlan {
    /// A plan for a file with the properties `known`, of which no byte is present.
    pub(super) fn new(
        settings: PlanSettings,
        known: ContentIdentity,
        pieces: Option<Pieces>,
        balancer: BalancerPresence,
    ) -> Self {
        Self {
            settings,
            pieces,
            identity: known.clone(),
            bytes: ByteMap::new(known.size, RangeSet::new()),
            known,
            balancer,
            ..Self::default()
        }
    }

    /// Digests of the pieces of the file.
    pub(super) fn pieces(&self) -> Option<&Pieces> {
        self.pieces.as_ref()
    }

    /// Starts with the bytes `done` of an earlier run, which belong to the version `identity`.
    pub(super) fn resume(&mut self, identity: ContentIdentity, done: RangeSet) {
        self.bytes = ByteMap::new(identity.size, done);
        self.identity = identity;
    }

    /// Adds a source that may be used at once, unless it is known or there are too many.
    pub(super) fn add_source(&mut self, chain: RedirectChain, resource: &str) {
        let is_known = self.sources.iter().any(|source| source.url() == chain.end());
        if !is_known && self.sources.len() < MAX_SOURCES {
            let (source, url) = (SourceId(self.sources.len()), chain.end().clone());
            self.notes.push(Note::Offered { source, url });
            self.sources.push(Source::new(chain, resource.to_owned()));
        }
    }

    /// All sources, in the order of addition.
    pub(super) fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// The report of all sources.
    pub(super) fn reports(&self) -> Vec<SourceReport> {
        let report = |(index, source): (usize, &Source)| SourceReport {
            url: source.url().clone(),
            bytes: self.bytes.count_from(SourceId(index)),
            first_byte: source.first_byte,
            errors: source.errors.clone(),
        };
        self.sources.iter().enumerate().map(report).collect()
    }

    /// The state of a source.
    pub(super) fn source(&self, source: SourceId) -> Option<&Source> {
        self.sources.get(source.0)
    }

    fn ids(&self) -> impl Iterator<Item = SourceId> + use<> {
        (0..self.sources.len()).map(SourceId)
    }

    fn name(&self, source: SourceId) -> String {
        self.source(source).map(|source| source.url().to_string()).unwrap_or_default()
    }

    /// The version that is downloaded.
    pub(super) fn identity(&self) -> &ContentIdentity {
        &self.identity
    }

    /// The bytes of the file.
    pub(super) fn bytes(&self) -> &ByteMap {
        &self.bytes
    }

    /// The bytes of the file, to record writes.
    pub(super) fn bytes_mut(&mut self) -> &mut ByteMap {
        &mut self.bytes
    }

    /// The size, once known.
    pub(super) fn size(&self) -> Option<u64> {
        self.bytes.size()
    }

    fn parts(&self) -> Parts {
        if self.identity.can_be_resumed() { Parts::Allowed } else { Parts::Forbidden }
    }

    fn set_size(&mut self, size: u64) {
        self.bytes.set_size(size);
        for run in self.runs.values_mut() {
            run.end = run.end.min(size);
        }
    }

    /// Forgets the size, which belonged to another version. No byte may be present.
    fn forget_size(&mut self) {
        let Some(size) = self.size() else { return };
        self.bytes.forget_size();
        for run in self.runs.values_mut().filter(|run| run.end == size) {
            run.end = u64::MAX;
        }
    }

    /// The source and the request of a run.
    pub(super) fn request(&self, run: RunId) -> Option<(&Source, &RangeRequest)> {
        let run = self.runs.get(&run)?;
        Some((self.source(run.source)?, &run.request))
    }

    /// Handles `count` received bytes. Returns their source, and those of them that were missing, each with its position
    /// among the received bytes. The caller must keep these.
    ///
    /// The run ends with its last byte.
    pub(super) fn received(
        &mut self,
        id: RunId,
        count: usize,
        now: Instant,
    ) -> (SourceId, Vec<(usize, ByteRange)>) {
        let Some(run) = self.runs.get_mut(&id) else { return (SourceId(0), Vec::new()) };
        let received = ByteRange::new(run.next, run.next.saturating_add(count as u64));
        run.next = received.end;
        run.last_activity = now;
        run.received = run.received.saturating_add(count as u64);
        let wanted = received.intersection(&ByteRange::new(received.start, run.end));
        let (from, is_over) = (run.source, run.next >= run.end);
        if let Some(source) = self.sources.get_mut(from.0) {
            source.on_bytes(count as u64, now);
        }
        let fresh = self.bytes.receive(wanted, from);
        run.kept = run.kept.saturating_add(fresh.iter().map(ByteRange::len).sum());
        if !fresh.is_empty() {
            self.query.since_progress = 0;
        }
        if is_over {
            self.finished(id, now);
        }
        let position =
            |range: &ByteRange| usize::try_from(range.start.saturating_sub(received.start)).unwrap_or(count);
        (from, fresh.into_iter().map(|range| (position(&range), range)).collect())
    }

    /// Ends a run that received all announced bytes. The file may be longer.
    fn finished(&mut self, id: RunId, now: Instant) {
        if let Some(source) = self.end_run(id, now).and_then(|run| self.sources.get_mut(run.source.0)) {
            source.failures = 0;
        }
    }

    /// Removes a run. Its source may be asked again.
    fn end_run(&mut self, id: RunId, now: Instant) -> Option<Run> {
        let run = self.runs.remove(&id)?;
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.run_ended(now);
        }
        Some(run)
    }

    /// The hosts and ports of the sources that are neither ready nor sending, for `Fingerpost-Avoid`.
    pub(super) fn authorities_to_avoid(&self) -> String {
        let is_silent =
            |id: SourceId| self.runs.values().any(|run| run.source == id && run.phase == RunPhase::Waiting);
        let is_trusted = |id: SourceId, source: &Source| {
            !is_silent(id) && source.failures == 0 && source.availability == Availability::Ready
        };
        let mut list: Vec<String> = Vec::new();
        for (_, source) in self.ids().zip(&self.sources).filter(|(id, source)| !is_trusted(*id, source)) {
            list.extend(source.authority().filter(|authority| !list.contains(authority)));
        }
        list.join(", ")
    }

    /// Whether the run is active.
    pub(super) fn is_running(&self, id: RunId) -> bool {
        self.runs.contains_key(&id)
    }

    /// Whether every source is excluded and no run is active.
    fn is_out_of_sources(&self) -> bool {
        self.runs.is_empty() && self.ids().all(|id| self.is_excluded(id))
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
    pub(super) fn status(&self) -> PlanStatus {
        if self.bytes.is_complete() {
            PlanStatus::Complete
        } else if !self.is_out_of_sources() || self.may_query() || self.query.in_progress {
            PlanStatus::Working
        } else {
            PlanStatus::Stuck
        }
    }

    /// The decisions to report, in order.
    pub(super) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}
