//! Judges an answer: whether it is the same file, and whether it has the requested bytes.

use tokio::time::Instant;
use url::Url;

use super::{DownloadPlan, Failure, RunFailure, RunId, RunPhase, SourceId};
use crate::client::error::DownloadError;
use crate::client::identity::{self, Authority, ContentIdentity, Verdict};
use crate::client::observed::Observed;

/// The head of an answer with the file or a part of it.
#[derive(Debug, Clone)]
pub(crate) struct AnswerFacts {
    /// The address that answered, after all redirects.
    pub url: Url,
    /// The position in the file of the first byte of the body.
    pub start: u64,
    /// How much of the file the body contains.
    pub extent: Extent,
    /// Properties of the file. The resource is set by [`DownloadPlan::judge`].
    pub observed: Observed,
    /// Whether the body is a Metalink.
    pub is_metalink: bool,
    /// Whether the source will not send parts.
    pub refuses_ranges: bool,
}

/// How much of the file the body contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The whole file.
    Whole,
    /// A part up to `end`; the file may be longer.
    Part { end: u64 },
}

/// The use of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Its bytes are of the file.
    Accepted,
    /// It describes the file instead.
    Metalink,
    /// It cannot be used, and the run has ended.
    Refused,
}

impl DownloadPlan {
    /// Judges an answer to a request for `requested`, the given address; `None` for the mirrors of a Metalink.
    pub(crate) fn judge(
        &mut self,
        id: RunId,
        answer: &mut AnswerFacts,
        requested: Option<&Url>,
        jitter: f64,
        now: Instant,
    ) -> Judgement {
        let Some(run) = self.runs.get(&id) else { return Judgement::Refused };
        let (source, request, started) = (run.source, run.request.clone(), run.started);
        answer.observed.resource = self.resource(source, &answer.url, requested);
        let (observed, url) = (&answer.observed, answer.url.to_string());
        let refuse = |plan: &mut Self, kind, error| {
            plan.fail(id, Failure::new(kind, error), jitter, now);
            Judgement::Refused
        };
        if answer.is_metalink && answer.extent == Extent::Whole && requested.is_some() && self.known.is_open()
        {
            // A Metalink after bytes of the file is not a description of the file.
            if self.bytes.is_empty() && self.identity == self.identity.reopened() {
                return Judgement::Metalink;
            }
            if self.bytes.has_no_new_byte() {
                // The bytes of an earlier run may be older than the Metalink.
                self.other_versions.push(source);
            }
            return refuse(self, RunFailure::Final, DownloadError::OtherVersion { url });
        }
        let own_etag = self.source(source).and_then(|entry| entry.etag.as_deref());
        // Without a validator or digest, an answer cannot be proven to continue the kept bytes.
        let is_unprovable = self.identity.is_open() && !self.bytes.is_empty();
        let is_different = is_unprovable || self.identity.compare(observed, own_etag) == Verdict::Different;
        if is_different && !self.is_checked_in_pieces(observed) {
            // The answer could be the file if all kept bytes were discarded.
            let could_match = self.identity.reopened().compare(observed, None) == Verdict::Same;
            if !self.bytes.is_empty() || !could_match {
                if could_match && self.identity.can_be_resumed() && !observed.is_evidence() {
                    // The answer may be the page of a captive portal: the proven version stays, and a later
                    // answer may match it.
                    let failure = RunFailure::Passing { retry_after: None };
                    return refuse(self, failure, DownloadError::Unproven { url });
                }
                if could_match {
                    self.other_versions.push(source);
                }
                let error = match (self.identity.digest, observed.digest) {
                    (Some((promised, Authority::Given)), Some(found)) if promised.contradicts(&found) => {
                        let (found, promised) = (Box::new(found), Box::new(promised));
                        DownloadError::OtherDigest { url, found, promised }
                    }
                    _ => DownloadError::OtherVersion { url },
                };
                return refuse(self, RunFailure::Final, error);
            }
            // No byte of the earlier version was kept, so the version of this answer replaces it.
            self.switch_version(now);
        }
        let mut was_other_tag = false;
        if let Some(entry) = self.sources.get_mut(source.0) {
            let validator = observed.validator();
            was_other_tag =
                entry.validator.is_none() && validator.is_some() && validator != request.validator.as_deref();
            entry.etag.clone_from(&observed.etag);
            entry.validator = validator.map(ToOwned::to_owned);
            entry.first_byte = entry.first_byte.or_else(|| Some(now.duration_since(started)));
            // The next request skips the redirects.
            if *entry.chain.end() != answer.url {
                entry.chain = entry.chain.with_end(answer.url.clone());
            }
            entry.resource.clone_from(&observed.resource);
        }
        if answer.extent == Extent::Whole && request.range.start > 0 {
            if was_other_tag {
                // The source has the same file under an ETag of its own: the part is requested again with
                // that ETag.
                self.end_run(id, now);
                return Judgement::Refused;
            }
            let value = "none, because it sent the whole file".to_owned();
            return refuse(self, RunFailure::NoRanges, DownloadError::BadRange { url, value });
        }
        Judgement::Accepted
    }

    /// The version after `observed`, an accepted answer.
    pub(crate) fn identity_with(&self, observed: &Observed) -> ContentIdentity {
        let mut identity = self.identity.clone();
        identity.learn(observed);
        identity
    }

    /// Handles the head of an accepted answer, whose body follows.
    pub(crate) fn accept(&mut self, id: RunId, answer: &AnswerFacts, now: Instant) {
        self.identity.learn(&answer.observed);
        if let (Some(size), None) = (self.identity.size, self.size()) {
            self.set_size(size);
        }
        if let Some(run) = self.runs.get_mut(&id) {
            if let Extent::Part { end } = answer.extent {
                // Another run fetches the rest.
                run.end = run.end.min(end);
            }
            run.next = answer.start;
            run.phase = RunPhase::Streaming;
            run.last_activity = now;
            let latency = now.duration_since(run.started);
            if let Some(source) = self.sources.get_mut(run.source.0) {
                source.on_response_head(latency, now);
                source.refuse_ranges_if(answer.refuses_ranges);
            }
        }
    }

    /// Whether an answer of another resource can be used, because each piece is compared with its digest.
    fn is_checked_in_pieces(&self, observed: &Observed) -> bool {
        let contradicts = matches!(
            (self.identity.digest, observed.digest), (Some((known, _)), Some(seen)) if known.contradicts(&seen)
        );
        self.pieces.is_some()
            && !self.identity.is_of(&observed.resource)
            && self.identity.size == observed.size
            && !contradicts
    }

    /// The resource that an answer of `source` from `answered` represents.
    fn resource(&self, source: SourceId, answered: &Url, requested: Option<&Url>) -> String {
        match (requested, self.source(source)) {
            (_, Some(entry)) if entry.url() == answered => entry.resource.clone(),
            (Some(requested), _) => identity::resource(requested, answered),
            (None, Some(entry)) => entry.resource.clone(),
            (None, None) => String::new(),
        }
    }

    /// Gives up the current version, of which no byte was kept, and excludes the sources that were about to
    /// send it.
    fn switch_version(&mut self, now: Instant) {
        self.identity = self.identity.reopened();
        self.forget_size();
        let is_answered = |run: &super::Run| run.phase == RunPhase::Streaming;
        let answered: Vec<(RunId, SourceId)> =
            self.runs.iter().filter(|(_, run)| is_answered(run)).map(|(id, run)| (*id, run.source)).collect();
        for (id, source) in answered {
            self.other_versions.push(source);
            let error = DownloadError::OtherVersion { url: self.name(source) };
            self.fail(id, Failure::new(RunFailure::Final, error), 0.0, now);
        }
    }

    /// Handles the end of a body. Returns the number of missing bytes if it is shorter than announced, or than the file.
    pub(crate) fn on_end_of_body(&mut self, id: RunId, extent: Extent, now: Instant) -> Result<(), u64> {
        let Some(run) = self.runs.get(&id) else { return Ok(()) };
        let received = run.next;
        let least = match extent {
            Extent::Whole => self.bytes.least_size(),
            Extent::Part { end } => end,
        };
        if received < least {
            return Err(least.saturating_sub(received));
        }
        if extent == Extent::Whole && self.size().is_none() {
            self.set_size(received);
        }
        self.finished(id, now);
        Ok(())
    }

    /// Handles a 416 to a request that starts behind the received bytes. If the size was unknown and the 416
    /// is about this version, its size is the size of the file. Returns whether that is the case.
    pub(crate) fn is_end_of_file(&mut self, id: RunId, observed: &Observed, now: Instant) -> bool {
        let Some(run) = self.runs.get(&id) else { return false };
        let is_same = match &observed.etag {
            Some(tag) => self.identity.etags.contains(tag),
            // Many servers send no ETag with a 416: it counts if its source has sent this version before.
            None => {
                self.bytes.count_from(run.source) > 0
                    || self.source(run.source).is_some_and(|entry| entry.validator.is_some())
            }
        };
        let size = observed.size.filter(|size| *size == run.request.range.start && is_same);
        let (Some(size), None) = (size, self.size()) else { return false };
        if size < self.bytes.least_size() {
            return false;
        }
        self.identity.learn(&Observed { size: Some(size), ..Observed::default() });
        self.set_size(size);
        self.finished(id, now);
        true
    }
}
