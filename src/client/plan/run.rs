//! A run: one request to one source, and its answer.

use tokio::time::Instant;

use super::{ByteRange, RunId, SourceId};

/// The bytes that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeRequest {
    /// The bytes; the end is `u64::MAX` if it is unknown.
    pub range: ByteRange,
    /// The size of the file, if known.
    pub size: Option<u64>,
    /// Validator for `If-Range`: the server sends a part only if the file still has it.
    pub validator: Option<String>,
}

impl RangeRequest {
    /// The whole of a file of unknown size.
    pub(crate) fn everything() -> Self {
        Self { range: ByteRange::new(0, u64::MAX), size: None, validator: None }
    }

    /// Whether less than the whole file is requested.
    pub(crate) fn is_part(&self) -> bool {
        self.range.start > 0 || self.range.end < self.size.unwrap_or(u64::MAX)
    }
}

/// A request to a source for a range of bytes.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) source: SourceId,
    pub(super) request: RangeRequest,
    pub(super) next: u64,
    pub(super) end: u64,
    pub(super) phase: RunPhase,
    pub(super) started: Instant,
    /// Time of the last received byte, or of the start.
    pub(super) last_activity: Instant,
    pub(super) timeouts: TimeoutState,
    pub(super) received: u64,
    /// Received bytes that were missing.
    pub(super) kept: u64,
    /// Another run for the same bytes.
    pub(super) rival: Option<Rival>,
}

impl Run {
    /// The bytes that are still to come.
    pub(super) fn rest(&self) -> ByteRange {
        ByteRange::new(self.next, self.end)
    }
}
/// Progress of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunPhase {
    Waiting,
    Streaming,
}

/// Whether the timeouts of a run are active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeoutState {
    Running,
    /// The client itself is not reading: it waits for its disk or its rate limit.
    Paused,
}

/// Another run for the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rival {
    pub(super) run: RunId,
    pub(super) race: Race,
}

/// What decides between two runs for the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Race {
    /// One run stalled: the first to receive a byte continues alone.
    FirstByte,
    /// The end is near: both runs continue, and each byte is taken from the run that receives it first.
    Tail,
}
