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
    Redirected {
        /// The answer.
        page: &'a Page,
        /// The target of the redirect.
        to: &'a Url,
    },
    /// A server answered with neither the file nor a redirect that can be followed.
    Refused {
        /// The answer.
        page: &'a Page,
    },
    /// The balancer has no server, and will be asked again.
    Waiting {
        /// Time until the next request.
        left: Duration,
        /// Whether this is the first event of this wait.
        step: WaitStep,
    },
    /// All digests in the Metalink are unsupported, so the file is not verified.
    Unchecked {
        /// Names of the unsupported algorithms.
        kinds: &'a str,
    },
    /// A source was added.
    Offered {
        /// The number of the source, from 0.
        source: usize,
        /// The address of the source.
        url: &'a Url,
    },
    /// Bytes were requested from a source.
    Chosen {
        /// The number of the source.
        source: usize,
        /// The address of the source.
        url: &'a Url,
        /// The bytes; the end is `u64::MAX` if the size is unknown.
        range: ByteRange,
    },
    /// A source failed, or is no longer used.
    Dropped {
        /// The number of the source.
        source: usize,
        /// The reason.
        reason: &'a str,
    },
    /// The first answer with bytes of the file was accepted.
    Started {
        /// The size in bytes, if known.
        size: Option<u64>,
        /// Bytes kept from an earlier run.
        done: u64,
    },
    /// Bytes of the file were received.
    Received {
        /// The number of the source.
        source: usize,
        /// Number of bytes.
        bytes: u64,
    },
    /// Wrong bytes, or bytes of another version, were discarded and are fetched again.
    Lost {
        /// Number of bytes.
        bytes: u64,
        /// The reason.
        reason: &'a str,
    },
    /// The file is complete.
    Finished {
        /// The path of the file; `None` for standard output.
        target: Option<&'a Path>,
        /// The size in bytes.
        size: u64,
    },
    /// The complete file existed before, and nothing was downloaded.
    AlreadyThere {
        /// The path of the file.
        target: &'a Path,
    },
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
