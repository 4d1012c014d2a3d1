//! The sources of a download, the bytes received from each, and their failures.

use std::time::Duration;

use url::Url;

use super::super::plan::{ByteRange, RangeSet, SourceId};
use super::super::redirect::RedirectChain;

/// Maximum number of reported failures of one source.
const MAX_ERRORS: usize = 16;

/// Maximum number of sources of one download.
const MAX_SOURCES: usize = 128;

/// Report of one source.
#[derive(Debug, Clone)]
pub(crate) struct SourceReport {
    /// The address of the source.
    pub url: Url,
    /// Received bytes that were kept.
    pub bytes: u64,
    /// Time from the first request to the head of its answer.
    pub first_byte: Option<Duration>,
    /// Failures, in order.
    pub errors: Vec<String>,
}

/// State of a source in the engine.
#[derive(Debug)]
pub(super) struct SourceState {
    /// The redirects that lead to the source, including its own.
    pub(super) chain: RedirectChain,
    /// The [resource](super::super::identity::resource) of the source.
    pub(super) resource: String,
    /// The strong `ETag` of the file at this source.
    pub(super) etag: Option<String>,
    /// The validator for `If-Range`, once the source has answered.
    pub(super) validator: Option<String>,
    pub(super) first_byte: Option<Duration>,
    /// Whether the source answered 404 or 410.
    pub(super) is_missing: bool,
    errors: Vec<String>,
    supplied: RangeSet,
}

/// All sources of one download. An index is a [`SourceId`] of the plan.
#[derive(Debug, Default)]
pub(super) struct Sources {
    list: Vec<SourceState>,
    /// Bytes from an earlier run.
    pub(super) resumed: RangeSet,
}

impl Sources {
    /// Adds a source. Returns `None` if it is known or there are too many.
    pub(super) fn add(&mut self, chain: RedirectChain, resource: &str) -> Option<SourceId> {
        let known = self.list.iter().any(|source| source.chain.end() == chain.end());
        if known || self.list.len() >= MAX_SOURCES {
            return None;
        }
        self.list.push(SourceState {
            chain,
            resource: resource.to_owned(),
            etag: None,
            validator: None,
            first_byte: None,
            is_missing: false,
            errors: Vec::new(),
            supplied: RangeSet::new(),
        });
        Some(SourceId(self.list.len().saturating_sub(1)))
    }

    pub(super) fn get(&self, id: SourceId) -> Option<&SourceState> {
        self.list.get(id.0)
    }

    pub(super) fn get_mut(&mut self, id: SourceId) -> Option<&mut SourceState> {
        self.list.get_mut(id.0)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SourceId> + use<> {
        (0..self.list.len()).map(SourceId)
    }

    pub(super) fn name(&self, index: usize) -> String {
        self.list.get(index).map(|source| source.chain.end().to_string()).unwrap_or_default()
    }

    pub(super) fn note_error(&mut self, id: SourceId, error: String) {
        if let Some(source) = self.list.get_mut(id.0)
            && source.errors.len() < MAX_ERRORS
        {
            source.errors.push(error);
        }
    }

    pub(super) fn note_supply(&mut self, id: SourceId, range: ByteRange) {
        if let Some(source) = self.list.get_mut(id.0) {
            source.supplied.insert(range);
        }
    }

    /// Removes discarded bytes from all sources.
    pub(super) fn forget(&mut self, range: ByteRange) {
        self.resumed.remove(range);
        for source in &mut self.list {
            source.supplied.remove(range);
        }
    }

    /// Sources that supplied bytes of `range`.
    pub(super) fn suppliers(&self, range: ByteRange) -> Vec<SourceId> {
        self.ids()
            .filter(|id| self.get(*id).is_some_and(|source| !source.supplied.within(range).is_empty()))
            .collect()
    }

    /// Number of kept bytes from a source.
    pub(super) fn supplied_bytes(&self, id: SourceId) -> u64 {
        self.get(id).map_or(0, |source| source.supplied.len())
    }

    /// The authorities of `ids`, for `Fingerpost-Avoid`.
    pub(super) fn authorities(&self, ids: impl Iterator<Item = SourceId>) -> String {
        let mut list: Vec<String> = Vec::new();
        for id in ids {
            let Some(url) = self.get(id).map(|source| source.chain.end()) else { continue };
            let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { continue };
            let authority = format!("{host}:{port}");
            if !list.contains(&authority) {
                list.push(authority);
            }
        }
        list.join(", ")
    }

    pub(super) fn reports(&self) -> Vec<SourceReport> {
        self.list
            .iter()
            .map(|source| SourceReport {
                url: source.chain.end().clone(),
                bytes: source.supplied.len(),
                first_byte: source.first_byte,
                errors: source.errors.clone(),
            })
            .collect()
    }
}
