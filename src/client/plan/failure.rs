//! Failures of runs and sources, and the error that is reported in the end.

use tokio::time::Instant;

use super::{Availability, DownloadPlan, Note, RunFailure, RunId, SourceId};
use crate::client::error::DownloadError;
use crate::client::event::Page;

/// The failure of a request.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The consequence for the source.
    pub kind: RunFailure,
    /// The reason.
    pub error: DownloadError,
    /// The answer to display.
    pub page: Option<Page>,
}

impl Failure {
    /// A failure without an answer to display.
    pub(crate) fn new(kind: RunFailure, error: DownloadError) -> Self {
        Self { kind, error, page: None }
    }

    /// A failure after which a retry may succeed at any time.
    pub(crate) fn passing(error: DownloadError) -> Self {
        Self::new(RunFailure::Passing { retry_after: None }, error)
    }
}

impl DownloadPlan {
    /// Ends a run that failed; `jitter` is a random number in 0..1.
    pub(crate) fn fail(&mut self, id: RunId, failure: Failure, jitter: f64, now: Instant) {
        let Failure { kind, error, page } = failure;
        let Some(run) = self.end_run(id, now) else { return };
        let reason = crate::telemetry::chain(&error);
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.failed(kind, run.kept, &self.settings, jitter, now);
            source.note_error(reason.clone());
            source.is_missing = matches!(error, DownloadError::Refused { status: 404 | 410, .. });
        }
        self.notes.push(Note::Dropped { source: run.source, reason });
        if let DownloadError::OtherDigest { .. } = error {
            self.checksum_error.get_or_insert(error);
        } else if self.last_error.is_none() || !matches!(error, DownloadError::OtherVersion { .. }) {
            // Another version is only reported if there is no other failure.
            self.last_error = Some((error, page));
        }
    }

    /// Records the failure of a query. An earlier failure takes precedence over an error answer.
    pub(crate) fn note_query_failure(&mut self, failure: Failure) {
        if self.last_error.is_none() || matches!(failure.error, DownloadError::Silent { .. }) {
            self.last_error = Some((failure.error, failure.page));
        }
    }

    /// Excludes the source from further requests, and reports the reason.
    pub(super) fn exclude(&mut self, source: SourceId, reason: &str) {
        self.set_availability(source, Availability::Excluded);
        if let Some(source) = self.sources.get_mut(source.0) {
            source.note_error(reason.to_owned());
        }
        self.notes.push(Note::Dropped { source, reason: reason.to_owned() });
    }

    pub(super) fn set_availability(&mut self, source: SourceId, availability: Availability) {
        if let Some(source) = self.sources.get_mut(source.0) {
            source.availability = availability;
        }
    }

    /// Whether the source is excluded.
    pub(super) fn is_excluded(&self, source: SourceId) -> bool {
        self.source(source).is_none_or(|source| source.availability == Availability::Excluded)
    }

    /// The error to report if no source is left: a wrong digest, or else the last failure; and the page to display, if
    /// the only server sent it.
    pub(crate) fn final_error(&mut self) -> (DownloadError, Option<Page>) {
        if let Some(error) = self.checksum_error.take() {
            return (error, None);
        }
        let pieces = self.refetch.wrong_pieces(self.bytes.missing());
        if pieces > 0 {
            return (DownloadError::WrongPieces { pieces }, None);
        }
        let servers = self.sources.len();
        if servers > 0 && self.sources.iter().all(|source| source.is_missing) {
            return (DownloadError::Missing { name: self.name(SourceId(0)), servers }, None);
        }
        match self.last_error.take() {
            Some((error, page)) => (error, page.filter(|_| servers == 1)),
            None => (DownloadError::NoSource, None),
        }
    }
}
