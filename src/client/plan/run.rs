//! A run: bytes that one source was asked for.

use tokio::time::Instant;

use super::{RunId, SourceId};

/// Bytes that a source was asked for.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) source: SourceId,
    pub(super) next: u64,
    pub(super) end: u64,
    pub(super) phase: Phase,
    pub(super) started: Instant,
    /// When something was last heard of it.
    pub(super) heard: Instant,
    pub(super) attention: Attention,
    pub(super) received: u64,
    /// Those of them that were missing: progress.
    pub(super) kept: u64,
    /// The run that was started beside it for the same bytes.
    pub(super) rival: Option<Rival>,
}

/// How far its answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Waiting,
    Streaming,
}

/// Whether silence would be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attention {
    Listening,
    /// The client waits for something else: its disk, its own limit of the rate.
    Elsewhere,
}

/// Another run for the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rival {
    pub(super) run: RunId,
    pub(super) race: Race,
}

/// What two runs for the same bytes are raced for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Race {
    /// One was silent: the first to send anything goes on alone.
    ToSpeak,
    /// The end is near: both send, whoever brings a byte first.
    ToFinish,
}
