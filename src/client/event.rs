//! Events of a download, passed to an [`Observer`]. Only observers print.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use url::Url;

use super::range::ByteRange;

/// An answer that is displayed: a redirect or an error.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// Status line and headers as they were received.
    pub head: Bytes,
    /// The body of the answer, possibly cut.
    pub body: Bytes,
}

/// An event that may be displayed.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// A server answered with a redirect that is followed.
    Redirected { page: &'a Page, to: &'a Url },
    /// A server answered with neither the file nor a redirect that can be followed.
    Refused { page: &'a Page },
    /// The balancer has no server, and will be asked again.
    Waiting { left: Duration, step: WaitStep },
    /// All digests in the Metalink are of unsupported `kinds`, so the file is not verified.
    Unchecked { kinds: &'a str },
    /// A source was added. Sources are numbered from 0.
    Offered { source: usize, url: &'a Url },
    /// Bytes were requested from a source, up to `u64::MAX` if the size is unknown.
    Chosen { source: usize, url: &'a Url, range: ByteRange },
    /// A source failed, or is no longer used.
    Dropped { source: usize, reason: &'a str },
    /// The first answer with bytes of the file was accepted. `done` bytes are kept from an earlier run.
    Started { size: Option<u64>, done: u64 },
    /// Bytes of the file were received.
    Received { source: usize, bytes: u64 },
    /// Wrong bytes, or bytes of another version, were discarded and are fetched again.
    Lost { bytes: u64, reason: &'a str },
    /// The file is complete. Standard output has no `target`.
    Finished { target: Option<&'a Path>, size: u64 },
    /// The complete file existed before, and nothing was downloaded.
    AlreadyThere { target: &'a Path },
}

/// Stage of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitStep {
    /// The wait starts.
    First,
    /// The wait continues.
    Further,
}

/// Receives the events of one download.
pub(super) trait Observer {
    /// Handles `event`; must not block.
    fn notice(&self, event: &Event<'_>);
}
