//! The outcomes of a probe.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load_report::LoadReport;

/// The outcome of one probe. Only a 200 with a complete body is a success, so a fast error is never measured as a fast
/// answer.
#[derive(Debug, Clone)]
pub enum ProbeOutcome {
    /// The complete probe file arrived.
    Success {
        /// The time until the connection was established, with name resolution.
        connect: Duration,
        /// The time from the start of the probe until the head of the answer arrived.
        first_byte: Duration,
        /// The time from the start of the probe until the last byte of the body arrived.
        total: Duration,
        /// The load report, if the server sent one.
        report: Option<LoadReport>,
    },
    /// The probe failed.
    Failure(ProbeFailure),
}

/// A failed probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFailure {
    /// The kind of failure, which is the label of the metric.
    pub kind: FailureKind,
    /// Details as text; may be empty.
    pub detail: String,
}

/// The kinds of failed probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Nothing listens on the port, or the connection was reset.
    Refused,
    /// The network has no route to the host.
    Unreachable,
    /// The name does not resolve.
    Resolve,
    /// The TLS handshake failed.
    Tls,
    /// The answer did not arrive completely within the time limit.
    TimedOut,
    /// The connection ended before the answer was complete.
    ClosedEarly,
    /// The answer is not HTTP.
    Malformed,
    /// The status is not 200.
    Status(u16),
    /// The body is longer than the limit.
    TooLarge,
    /// The body does not meet the expectation.
    Content,
    /// The balancer could not send the probe, for instance because it lacks descriptors or ports.
    Prober,
}

/// The strength of a failed probe as evidence against the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// An answer of the server or its machine, which proves a fault of the backend.
    Conclusive,
    /// A missing answer, which a broken network or an overloaded prober may also cause.
    Inconclusive,
}

impl FailureKind {
    /// The evidence of a failure of this kind.
    pub(crate) fn evidence(self) -> Evidence {
        match self {
            Self::Refused
            | Self::Tls
            | Self::Malformed
            | Self::Status(_)
            | Self::ClosedEarly
            | Self::TooLarge
            | Self::Content => Evidence::Conclusive,
            Self::Unreachable | Self::Resolve | Self::TimedOut | Self::Prober => Evidence::Inconclusive,
        }
    }

    /// Every [`FailureKind::label`].
    pub(crate) const LABELS: [&'static str; 11] = [
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

    /// The value of the metric label: a short name without the number of the status.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.texts().0
    }

    /// The label, and the description.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Refused => ("refused", "connection refused"),
            Self::Unreachable => ("unreachable", "host unreachable"),
            Self::Resolve => ("resolve", "name does not resolve"),
            Self::Tls => ("tls", "TLS handshake failed"),
            Self::TimedOut => ("timed_out", "timed out"),
            Self::ClosedEarly => ("closed_early", "connection closed before the answer was complete"),
            Self::Malformed => ("malformed", "answer is not HTTP"),
            Self::Status(_) => ("status", "answered with status"),
            Self::TooLarge => ("too_large", "body is too large"),
            Self::Content => ("content", "answered with other content than probes expect"),
            Self::Prober => ("prober", "this balancer could not send the probe"),
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.texts().1)?;
        if let Self::Status(status) = self { write!(formatter, " {status}") } else { Ok(()) }
    }
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            write!(formatter, "{}", self.kind)
        } else {
            write!(formatter, "{} ({})", self.kind, self.detail)
        }
    }
}
