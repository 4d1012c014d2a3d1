//! The recorded heads of the answers for one state of a file. [`replay`](super::replay) records and sends them.

use std::cell::RefCell;

use bytes::Bytes;

/// Identifies one of the answers for one state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReplayKey {
    pub(super) asked: ReplayQuestion,
    pub(super) form: RepresentationKind,
    pub(super) has_digest: bool,
}

/// The question of a plain request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplayQuestion {
    File,
    /// Whether this entity tag is current.
    Tag,
    /// The same with a modification time, which is ignored if there is a tag.
    TagAndDate,
}

/// The representation that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepresentationKind {
    /// The plain file, which has no compressed form.
    Only,
    /// The plain file, which has compressed forms.
    Plain,
    /// A compressed form.
    Encoded,
}

/// Heads of answers without their last header line, `Date`: at most one for each [`ReplayKey`].
#[derive(Debug, Default)]
pub(super) struct Replays(RefCell<Vec<(ReplayKey, Bytes)>>);

impl Replays {
    pub(super) fn find(&self, key: ReplayKey) -> Option<Bytes> {
        self.0.borrow().iter().find(|(own, _)| *own == key).map(|(_, head)| head.clone())
    }

    pub(super) fn insert(&self, key: ReplayKey, head: Bytes) {
        self.0.borrow_mut().push((key, head));
    }
}
