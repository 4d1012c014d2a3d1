//! What happens during a download, told to whoever shows it. Nothing else in the client prints.

use std::path::Path;
use std::time::Duration;

use url::Url;

use super::plan::ByteRange;

/// Something a person may want to see.
#[derive(Debug)]
pub enum Event<'a> {
    /// A server answered with a redirect that is followed.
    Redirected {
        /// Status line and headers as they were received.
        head: &'a [u8],
        /// The page that came with it, cut where it is too long to be one.
        page: &'a [u8],
        /// The address it leads to.
        to: &'a Url,
    },
    /// A server answered with something that is neither the file nor a redirect that can be followed.
    Refused {
        /// Status line and headers as they were received.
        head: &'a [u8],
        /// The page that came with it, cut where it is too long to be one.
        page: &'a [u8],
    },
    /// The balancer has no server, and will be asked again.
    Waiting {
        /// In how long.
        left: Duration,
        /// Whether this was said before.
        step: WaitStep,
    },
    /// The digests that the file was described with are not understood: nothing will be compared with them.
    Unchecked {
        /// Their kinds.
        kinds: &'a str,
    },
    /// A source is known from now on.
    Offered {
        /// Its number, from 0.
        source: usize,
        /// Its address.
        url: &'a Url,
    },
    /// A source is asked for bytes.
    Chosen {
        /// Its number.
        source: usize,
        /// Its address.
        url: &'a Url,
        /// The bytes; the end is `u64::MAX` where the size is unknown.
        range: ByteRange,
    },
    /// A source failed, or is not wanted any more.
    Dropped {
        /// Its number.
        source: usize,
        /// Its address.
        url: &'a Url,
        /// Why.
        reason: &'a str,
    },
    /// The file itself begins to arrive.
    Started {
        /// The name it will get; `None` for standard output.
        target: Option<&'a Path>,
        /// Its size in bytes, where known.
        size: Option<u64>,
        /// Bytes that an earlier run brought.
        done: u64,
    },
    /// More of the file arrived.
    Received {
        /// Who sent it.
        source: usize,
        /// How many bytes.
        bytes: u64,
    },
    /// Bytes turned out wrong, or belong to another version, and are fetched again.
    Lost {
        /// How many.
        bytes: u64,
        /// Why.
        reason: &'a str,
    },
    /// The file is complete.
    Finished {
        /// The name it has; `None` for standard output.
        target: Option<&'a Path>,
        /// Its size in bytes.
        size: u64,
    },
    /// The file was complete before, and nothing was downloaded.
    AlreadyThere {
        /// Its name.
        target: &'a Path,
    },
}

/// How far a wait is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStep {
    /// It begins.
    First,
    /// It goes on.
    Further,
}

/// Is told what happens.
pub trait Observer {
    /// Takes note of `event`; must return at once.
    fn notice(&self, event: &Event<'_>);
}
