//! Options of a download.

use std::time::Duration;

use crate::client::checksum::Algorithm;
use crate::client::identity::ContentIdentity;
use crate::client::plan::PlanSettings;
use crate::client::sink::{DigestMode, Durability};

/// Whether the bytes of an earlier run are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::client) enum Resume {
    /// If they are proven to be of the same file.
    #[default]
    Yes,
    /// Never.
    No,
}

/// What happens if the file exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::client) enum Clobber {
    /// Another version replaces it, once complete.
    #[default]
    Replace,
    /// The file stays, and nothing is downloaded.
    Never,
}

/// What happens while a balancer has no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::client) enum Unavailable {
    /// The download fails.
    #[default]
    Fail,
    /// The download waits for the balancer's `Retry-After`, and asks again.
    Wait,
}

/// Whether a digest is computed even if no digest is known to compare it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::client) enum Reporting {
    /// Only if there is a digest to compare it with.
    #[default]
    Compare,
    /// Always, for the report.
    Always,
}

/// Options common to all downloads of one run.
#[derive(Debug, Clone)]
pub(in crate::client) struct Options {
    /// Timeouts and limits for choosing, hedging and dropping sources.
    pub plan: PlanSettings,
    /// Maximum number of redirects.
    pub max_redirects: usize,
    /// Additional headers for every request.
    pub headers: Vec<(String, String)>,
    /// Whether the bytes of an earlier run are used.
    pub resume: Resume,
    /// What happens if the file exists already.
    pub clobber: Clobber,
    /// What happens while a balancer has no server.
    pub unavailable: Unavailable,
    /// Whether the very first request is retried after a temporary failure.
    pub retry_first: bool,
    /// Time after the start of the download after which nothing is retried.
    pub retry_until: Option<Duration>,
    /// Maximum duration of the whole download.
    pub max_time: Option<Duration>,
    /// Interval between checkpoints, which sync received bytes and record them in the journal.
    pub checkpoint_every: Duration,
    /// Which crashes a finished download survives.
    pub durability: Durability,
    /// Whether a digest is always computed.
    pub reporting: Reporting,
    /// What determines the name of the file.
    pub naming: Naming,
}

/// What determines the name of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::client) enum Naming {
    /// The address.
    #[default]
    Address,
    /// The sanitised `Content-Disposition`, if the server sends one.
    Server,
}

impl Options {
    /// Whether and how the digest of a file with the properties `identity` is computed.
    pub(super) fn hashing(&self, identity: &ContentIdentity) -> DigestMode {
        match identity.digest {
            Some((digest, _)) => DigestMode::On(digest.algorithm()),
            None if self.reporting == Reporting::Always => DigestMode::On(Algorithm::Sha256),
            None => DigestMode::Off,
        }
    }
}
