//! The backends of every source, and the list that results from them. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::MAX_SOURCES;
use crate::balancer::backends::list::MAX_BACKENDS;
use crate::balancer::backends::{Backend, BackendId};

/// An answer of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SourceAnswer {
    /// The backends, each once.
    pub backends: Vec<Backend>,
    /// Backends that left the source by their own decision.
    pub left: Vec<BackendId>,
    /// The number of records that were skipped because they are invalid or too many.
    pub skipped: usize,
}

/// The answers of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// A complete list, only after a change.
    Change,
    /// A complete list, at regular intervals.
    Complete,
    /// A list that may lack backends, at regular intervals. A backend is removed once all answers of this time lack it.
    Partial(Duration),
}

/// The last good answer of one source.
#[derive(Debug)]
pub(crate) struct SourceState {
    /// The source as the operator wrote it, without secrets.
    pub name: Arc<str>,
    kind: AnswerKind,
    backends: Arc<[Backend]>,
    /// The held backends, with the time of the first answer without them.
    missing: HashMap<BackendId, Instant>,
    /// The time of the last good answer; `None` if answers are only changes.
    pub answered_at: Option<Instant>,
    /// The reason why the latest answer is not usable.
    pub error: Option<String>,
    /// The number of failures since the start.
    pub failures: u64,
    /// The number of skipped records of the last good answer.
    pub skipped: usize,
}

impl SourceState {
    /// A source without an answer.
    #[must_use]
    pub(crate) fn new(name: impl Into<Arc<str>>, kind: AnswerKind) -> Self {
        Self {
            name: name.into(),
            kind,
            backends: Arc::default(),
            missing: HashMap::new(),
            answered_at: None,
            error: None,
            failures: 0,
            skipped: 0,
        }
    }

    /// The backends of this source.
    pub(crate) fn backends(&self) -> &Arc<[Backend]> {
        &self.backends
    }

    /// Whether the source is not a file.
    pub(crate) fn is_remote(&self) -> bool {
        self.kind != AnswerKind::Change
    }

    /// Takes over the last good answer of an earlier run, before the first answer.
    pub(crate) fn restore(&mut self, backends: Vec<Backend>) {
        self.backends = backends.into();
    }

    /// Applies a good answer, or with `None` one that is equal to the last. Returns whether the backends changed.
    pub(crate) fn answered(&mut self, answer: Option<SourceAnswer>, now: Instant) -> bool {
        self.answered_at = (self.kind != AnswerKind::Change).then_some(now);
        self.error = None;
        let Some(SourceAnswer { mut backends, left, skipped }) = answer else { return false };
        self.skipped = skipped + backends.len().saturating_sub(MAX_BACKENDS);
        backends.truncate(MAX_BACKENDS);
        let known = std::mem::take(&mut self.backends);
        if let AnswerKind::Partial(hold) = self.kind {
            let answered: HashSet<BackendId> = backends.iter().map(|backend| backend.id().clone()).collect();
            let lacking = known.iter().filter(|backend| !answered.contains(backend.id()));
            let held: Vec<&Backend> = lacking
                .filter(|backend| {
                    let since = *self.missing.entry(backend.id().clone()).or_insert(now);
                    !left.contains(backend.id()) && now.saturating_duration_since(since) < hold
                })
                .take(MAX_BACKENDS - backends.len())
                .collect();
            self.missing =
                held.iter().filter_map(|backend| self.missing.remove_entry(backend.id())).collect();
            backends.extend(held.into_iter().cloned());
            // Such answers have no order.
            backends.sort_by(|one, other| one.id().cmp(other.id()));
        }
        let changed = *known != *backends;
        self.backends = if changed { backends.into() } else { known };
        changed
    }

    /// Counts an answer that is not usable; the last good one stays. Returns whether the reason is new.
    pub(crate) fn failed(&mut self, reason: String) -> bool {
        self.failures += 1;
        let is_new = self.error.as_ref() != Some(&reason);
        self.error = Some(reason);
        is_new
    }
}

/// The list of all sources.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MergedList {
    /// The backends, each once, in the order of the sources.
    pub backends: Vec<Backend>,
    /// The sources of each backend: bit `n` for the source at index `n`.
    pub origins: HashMap<BackendId, u16>,
    /// The number of backends beyond the largest number.
    pub ignored: usize,
}

/// Merges the sources by address. The attributes of a backend are those of its first source.
#[must_use]
pub(crate) fn merge(sources: &[SourceState]) -> MergedList {
    let mut merged = MergedList::default();
    for (source, bit) in sources.iter().zip((0..MAX_SOURCES).map(|index| 1_u16 << index)) {
        for backend in source.backends().iter() {
            let origins = match merged.origins.get_mut(backend.id()) {
                Some(origins) => origins,
                None if merged.backends.len() < MAX_BACKENDS => {
                    merged.backends.push(backend.clone());
                    merged.origins.entry(backend.id().clone()).or_default()
                }
                None => {
                    merged.ignored += 1;
                    continue;
                }
            };
            *origins |= bit;
        }
    }
    merged
}

#[cfg(test)]
mod tests;
