//! How a probe can end.

use std::fmt;
use std::time::Duration;

use crate::balancer::load_report::LoadReport;

/// How one probe ended. Only a 200 whose whole body arrived is a success, so an error that comes fast never counts
/// as a fast answer.
#[derive(Debug, Clone)]
pub enum ProbeOutcome {
    /// The probe file arrived whole.
    Success {
        /// Until the connection stood, name resolution included.
        connect: Duration,
        /// From the request's start until the answer's head had arrived.
        first_byte: Duration,
        /// From the request's start until the last byte of the body.
        total: Duration,
        /// What the server said of its load, if it says anything.
        report: Option<LoadReport>,
    },
    /// It did not.
    Failure(Failure),
}

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure: metrics count by it.
    pub kind: FailureKind,
    /// What more is known, in words; may be empty.
    pub detail: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Nothing listens on the port, or the connection was reset.
    Refused,
    /// The network knows no way to the host.
    Unreachable,
    /// The name does not resolve.
    Resolve,
    /// The TLS handshake failed.
    Tls,
    /// The answer, or a part of it, did not come in time.
    TimedOut,
    /// The connection ended before the answer was whole.
    ClosedEarly,
    /// What came is no HTTP answer.
    Malformed,
    /// The answer has another status than 200.
    Status(u16),
    /// The body is longer than any probe file.
    TooLarge,
    /// The body is not the expected one.
    Content,
    /// The balancer itself could not probe, for want of descriptors or ports for instance.
    Prober,
}

/// What a failure proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The server's own answer: it is out, whatever happens elsewhere.
    Plain,
    /// Silence, which an overloaded server, a broken network or a starved prober cause as well.
    Doubtful,
}

impl FailureKind {
    /// What a failure of this kind proves.
    #[must_use]
    pub fn evidence(self) -> Evidence {
        match self {
            Self::Refused
            | Self::Tls
            | Self::Malformed
            | Self::Status(_)
            | Self::ClosedEarly
            | Self::TooLarge
            | Self::Content => Evidence::Plain,
            Self::Unreachable | Self::Resolve | Self::TimedOut | Self::Prober => Evidence::Doubtful,
        }
    }

    /// Every [`FailureKind::label`].
    pub const LABELS: [&'static str; 11] = [
        "refused",
        "unreachable",
        "resolve",
        "tls",
        "timed_out",
        "closed_early",
        "malformed",
        "status",
        "too_large",
        "content",
        "prober",
    ];

    /// A short name without the status' number: the value of the metrics' label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Resolve => "resolve",
            Self::Tls => "tls",
            Self::TimedOut => "timed_out",
            Self::ClosedEarly => "closed_early",
            Self::Malformed => "malformed",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Content => "content",
            Self::Prober => "prober",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "host unreachable",
            Self::Resolve => "name does not resolve",
            Self::Tls => "TLS handshake failed",
            Self::TimedOut => "timed out",
            Self::ClosedEarly => "connection closed before the answer was whole",
            Self::Malformed => "answer is not HTTP",
            Self::Status(status) => return write!(formatter, "answered with status {status}"),
            Self::TooLarge => "body is too large",
            Self::Content => "answered with other content than probes expect",
            Self::Prober => "this balancer could not send the probe",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(formatter, "{}", self.kind)
        } else {
            write!(formatter, "{} ({})", self.kind, self.detail)
        }
    }
}
