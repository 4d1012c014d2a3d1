//! Judges an answer: whether it is the same file, and whether it has the requested bytes.

use std::path::Path;

use tokio::time::Instant;
use url::Url;

use super::super::error::DownloadError;
use super::super::identity::{self, Authority, Observed, Verdict};
use super::super::metalink::MEDIA_TYPE;
use super::super::naming;
use super::super::plan::{Parts, RangeSet, RunFailure, RunId, SourceId};
use super::super::sink::{DownloadStore, MAX_SMALL, SinkError, Writer};
use super::engine::Engine;
use super::fetch::{Extent, Opened};
use super::runs::BodyReader;
use super::target_state::TargetState;
use super::{FileOrigin, Output};

impl Engine<'_> {
    /// Accepts an answer, or reports to the plan why it cannot be used.
    pub(super) fn judge(
        &mut self,
        run: RunId,
        mut opened: Opened,
        now: Instant,
    ) -> Result<(), DownloadError> {
        let Some(active) = self.runs.get(&run) else { return Ok(()) };
        opened.observed.resource = self.resource(active.source, &opened.url);
        let is_metalink = opened.answer.head.header("content-type").is_some_and(is_metalink);
        let is_whole = opened.extent == Extent::Whole;
        let (source, wanted, started) = (active.source, active.wanted.clone(), active.started);
        let url = opened.url.to_string();
        let is_open = matches!(self.job.origin, FileOrigin::Address(_)) && self.job.checksum.is_none();
        if is_metalink && is_whole && is_open {
            // A Metalink after bytes of the file is not a description of the file.
            if self.nothing_kept() && self.identity == self.identity.reopened() {
                self.metalink = Some(opened.answer);
                return Err(DownloadError::IsMetalink { url, text: String::new() });
            }
            if self.nothing_received() {
                // The bytes of an earlier run may be older than the Metalink.
                self.other_versions.push(source);
            }
            self.fail(run, RunFailure::Final, DownloadError::OtherVersion { url }, None, now);
            return Ok(());
        }
        let own_etag = self.sources.get(source).and_then(|entry| entry.etag.clone());
        // Without a validator or digest, an answer cannot be proven to continue the kept bytes.
        let is_unprovable = self.identity.is_open() && !self.nothing_kept();
        let is_different = is_unprovable
            || self.identity.compare(&opened.observed, own_etag.as_deref()) == Verdict::Different;
        if is_different && !self.is_checked_in_pieces(&opened.observed) {
            if !self.nothing_kept() || !self.could_match(&opened.observed) {
                let could_match = self.could_match(&opened.observed);
                if could_match && self.identity.can_be_resumed() && !opened.observed.is_evidence() {
                    // The answer may be the page of a captive portal: the proven version stays, and a later
                    // answer may match it.
                    let failure = RunFailure::Passing { retry_after: None };
                    self.fail(run, failure, DownloadError::Unproven { url }, None, now);
                    return Ok(());
                }
                if could_match {
                    self.other_versions.push(source);
                }
                let error = match (self.identity.digest, opened.observed.digest) {
                    (Some((promised, Authority::Given)), Some(found)) if promised.contradicts(&found) => {
                        let (found, promised) = (Box::new(found), Box::new(promised));
                        DownloadError::OtherDigest { url, found, promised }
                    }
                    _ => DownloadError::OtherVersion { url },
                };
                self.fail(run, RunFailure::Final, error, None, now);
                return Ok(());
            }
            // No byte of the earlier version was kept, so the version of this answer replaces it.
            self.switch_version(now);
        }
        let known_validator = self.sources.get(source).and_then(|entry| entry.validator.clone());
        if let Some(entry) = self.sources.get_mut(source) {
            entry.etag.clone_from(&opened.observed.etag);
            entry.validator = opened.observed.validator().map(ToOwned::to_owned);
            entry.first_byte = entry.first_byte.or_else(|| Some(now.duration_since(started)));
            // The next request skips the redirects.
            if *entry.chain.end() != opened.url {
                entry.chain = entry.chain.with_end(opened.url.clone());
            }
            entry.resource.clone_from(&opened.observed.resource);
        }
        if opened.extent == Extent::Whole && wanted.range.start > 0 {
            let was_other_tag =
                known_validator.is_none() && opened.observed.validator() != wanted.validator.as_deref();
            if was_other_tag && opened.observed.validator().is_some() {
                // The source has the same file under an ETag of its own: the part is requested again with
                // that ETag.
                self.runs.remove(&run);
                self.plan.withdraw(run, now);
            } else {
                let value = "none, because it sent the whole file".to_owned();
                self.fail(run, RunFailure::NoRanges, DownloadError::BadRange { url, value }, None, now);
            }
            return Ok(());
        }
        self.accept(run, source, opened, now)
    }

    /// Whether an answer of another resource can be used, because each piece is compared with its digest.
    fn is_checked_in_pieces(&self, observed: &Observed) -> bool {
        let contradicts = matches!(
            (self.identity.digest, observed.digest), (Some((known, _)), Some(seen)) if known.contradicts(&seen)
        );
        self.has_pieces()
            && !self.identity.is_of(&observed.resource)
            && self.identity.size == observed.size
            && !contradicts
    }

    /// The resource that an answer of `source` from `answered` represents.
    fn resource(&self, source: SourceId, answered: &Url) -> String {
        let entry = self.sources.get(source);
        match (&self.job.origin, entry) {
            (_, Some(entry)) if entry.chain.end() == answered => entry.resource.clone(),
            (FileOrigin::Address(requested), _) => identity::resource(requested, answered),
            (FileOrigin::Mirrors { .. }, Some(entry)) => entry.resource.clone(),
            (FileOrigin::Mirrors { .. }, None) => String::new(),
        }
    }

    /// Gives up the current version, of which no byte was kept, and excludes the sources that were about to
    /// send it.
    fn switch_version(&mut self, now: Instant) {
        self.identity = self.identity.reopened();
        self.plan.forget_size();
        let answered: Vec<RunId> = self.plan.answered().collect();
        for run in answered {
            let Some(active) = self.drop_run(run) else { continue };
            self.other_versions.push(active.source);
            self.plan.failed(run, RunFailure::Final, 0.0, now);
            let url = self.sources.name(active.source.0);
            self.note_failure(active.source, DownloadError::OtherVersion { url }, None);
        }
    }

    fn accept(
        &mut self,
        run: RunId,
        source: SourceId,
        opened: Opened,
        now: Instant,
    ) -> Result<(), DownloadError> {
        let before = self.identity.clone();
        self.identity.learn(&opened.observed);
        if self.writer.is_none() {
            match self.open_store(&opened) {
                Err(DownloadError::Sink(error @ SinkError::NoSpace { .. })) if !self.is_named_later() => {
                    // Another server may have a smaller file.
                    self.identity = before;
                    self.fail(run, RunFailure::Final, error.into(), None, now);
                    return Ok(());
                }
                result => result?,
            }
        }
        if let (Some(size), None) = (self.identity.size, self.plan.size()) {
            self.plan.set_size(size);
        }
        let refuses = opened
            .answer
            .head
            .header("accept-ranges")
            .is_some_and(|value| value.eq_ignore_ascii_case("none"));
        let refuses = refuses || identity::is_coded(&opened.answer.head);
        let parts = if self.identity.can_be_resumed() { Parts::Allowed } else { Parts::Forbidden };
        self.plan.allow_parts(parts);
        if refuses {
            self.plan.refuses_ranges(source);
        }
        self.plan.on_response_head(run, opened.start, now);
        if let Extent::Part { end } = opened.extent {
            self.plan.limit_to_announced(run, end);
        }
        if let Some(active) = self.runs.get_mut(&run) {
            active.offset = opened.start;
        }
        self.announce();
        self.read(run, BodyReader::new(opened), now);
        Ok(())
    }

    fn open_store(&mut self, opened: &Opened) -> Result<(), DownloadError> {
        if self.is_named_later() {
            let value = opened.answer.head.header("content-disposition");
            match (value.and_then(naming::from_content_disposition), &self.job.output) {
                (Some(name), Output::Folder(folder)) => self.use_server_name(folder.join(name))?,
                _ => self.reserve_name()?,
            }
        }
        self.open_writer()
    }

    /// Opens a writer for a file of which no byte was received.
    pub(super) fn open_writer(&mut self) -> Result<(), DownloadError> {
        let (size, hashing, pieces) = (self.identity.size, self.hashing(), self.pieces());
        let Some(target) = &self.target else {
            let store = match (self.job.name(), &self.job.output) {
                (Some(path), _) => DownloadStore::device(&path, hashing, pieces),
                (None, Output::Descriptor(number)) => DownloadStore::descriptor(*number, hashing, pieces)?,
                (None, _) => return Err(SinkError::Abandoned.into()),
            };
            self.writer = Some(Writer::new(Path::new(""), store, RangeSet::new()));
            return Ok(());
        };
        let is_small = size.is_none_or(|size| size <= MAX_SMALL as u64);
        self.writer = Some(if is_small && pieces.is_none() && self.target_state == TargetState::Free {
            Writer::held(target, size, hashing, &self.context.group_commit)
        } else {
            Writer::new(target, DownloadStore::create(target, size, hashing, pieces)?, RangeSet::new())
        });
        Ok(())
    }

    /// Handles a 416 to a request that starts behind the received bytes. If the size was unknown and the 416
    /// is about this version, its size is the size of the file. Returns whether that is the case.
    pub(super) fn is_end_of_file(&mut self, run: RunId, observed: &Observed, now: Instant) -> bool {
        let Some(active) = self.runs.get(&run) else { return false };
        let is_same = match &observed.etag {
            Some(tag) => self.identity.etags.contains(tag),
            // Many servers send no ETag with a 416: it counts if its source has sent this version before.
            None => {
                self.sources.supplied_bytes(active.source) > 0
                    || self.sources.get(active.source).is_some_and(|entry| entry.validator.is_some())
            }
        };
        let size = observed.size.filter(|size| *size == active.wanted.range.start && is_same);
        let (Some(size), None) = (size, self.plan.size()) else { return false };
        if size < self.plan.least_size() {
            return false;
        }
        self.identity.learn(&Observed { size: Some(size), ..Observed::default() });
        self.plan.set_size(size);
        self.plan.finished(run, now);
        self.runs.remove(&run);
        true
    }

    /// Whether no byte of the file was kept, neither from this run nor from an earlier one.
    pub(super) fn nothing_kept(&self) -> bool {
        self.sources.resumed.is_empty() && self.nothing_received()
    }

    /// Whether no byte was kept in this run.
    fn nothing_received(&self) -> bool {
        self.sources.ids().all(|id| self.sources.supplied_bytes(id) == 0)
    }

    /// Whether `observed` could be the file if all kept bytes were discarded.
    fn could_match(&self, observed: &Observed) -> bool {
        self.identity.reopened().compare(observed, None) == Verdict::Same
    }
}

fn is_metalink(content_type: &str) -> bool {
    content_type
        .split(';')
        .next()
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}
