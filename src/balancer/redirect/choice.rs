//! A chosen backend, and the knowledge on which the choice depends.

use crate::balancer::backends::BackendId;
use crate::balancer::policy::{Holders, Picks, RetryLookup, Visited};
use crate::balancer::presence::generation::Location;

/// The knowledge about the requested file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KnownFile<'a> {
    /// Its size in bytes.
    pub(super) size: Option<f32>,
    /// The backends that have it.
    pub(super) mirrors: FileMirrors<'a>,
}

/// The backends that may get a request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum FileMirrors<'a> {
    /// All of them.
    #[default]
    All,
    /// Those that have the file.
    Holding(Holders<'a>),
    /// Only the origin, because the catalogue does not have the path.
    Origin,
}

impl<'a> KnownFile<'a> {
    /// The knowledge of the catalogue. `size` is the one of earlier look-ups.
    pub(super) fn new(location: Option<&Location<'a>>, size: Option<f32>) -> Self {
        match location {
            None | Some(Location::Folder) => Self { size, mirrors: FileMirrors::All },
            Some(Location::Unknown) => Self { size, mirrors: FileMirrors::Origin },
            Some(Location::File(file)) => Self {
                size: file.content.size.map(|size| size as f32).or(size),
                mirrors: FileMirrors::Holding(file.holders),
            },
        }
    }
}

/// A chosen backend.
pub(super) struct Choice<'a> {
    pub(super) backend: &'a BackendId,
    /// The same backend, and the alternates.
    pub(super) picks: Picks,
    /// The reason of the choice.
    pub(super) reason: ChoiceReason,
    pub(super) visit: Option<RetryLookup>,
    /// The backend, as the memory of recent redirects records it.
    pub(super) visited: Visited,
}

impl Choice<'_> {
    /// The identity of the backend that the client probably failed at, if it requests the file again.
    pub(super) fn failed(&self) -> Option<Visited> {
        self.visit.and_then(|visit| visit.avoid).filter(|_| self.reason == ChoiceReason::Retry)
    }
}

/// The reason of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChoiceReason {
    /// The policy chose freely.
    Policy,
    /// The policy chose, but not the backend of the same request shortly before.
    Retry,
    /// The backend of the HEAD before this GET.
    AfterHead,
}

impl ChoiceReason {
    /// A word for logs and the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Retry => "retry",
            Self::AfterHead => "after-head",
        }
    }
}
