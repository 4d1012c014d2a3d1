//! The backends: the servers in the list, to which the balancer redirects clients.
//!
//! [`list`] parses the text of a list. [`watch`] follows the file while the balancer runs. This module does not know
//! whether a backend answers.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::expectation::Expectation;

pub(crate) mod list;
pub(crate) mod watch;

/// The start of the identity of a backend, up to its authority.
const HTTP: &str = "http://";
const HTTPS: &str = "https://";

/// The identity of a backend: its scheme, authority and base path, such as `http://127.0.0.1:8081` or
/// `https://mirror.example:443/pub`.
///
/// - Two lines for the same address have the same identity, because the identity is normalised: it always has the scheme
///   and the port, names are in lower case, IP addresses are in their shortest form, and the base path has no slash at
///   its end.
/// - Weight, tier and zone are not a part of it, so a backend keeps its health when they change.
/// - It is visible ASCII, and each `Location` that points to this backend starts with it.
///
/// A clone costs one atomic increment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(Arc<str>);

impl BackendId {
    /// The identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the scheme is https.
    pub(crate) fn is_https(&self) -> bool {
        self.0.starts_with(HTTPS)
    }

    /// The authority: host and port, such as `127.0.0.1:8081` or `[::1]:8081`.
    #[must_use]
    pub fn authority(&self) -> &str {
        let after_scheme = self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest);
        after_scheme.split_once('/').map_or(after_scheme, |(authority, _)| authority)
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A server: one line of the list.
///
/// The text (`Display`) is a line of a list that parses to an equal backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    id: BackendId,
    weight: u32,
    tier: u8,
    zone: Option<Arc<str>>,
    expectation: Option<Arc<Expectation>>,
    proof: Option<Arc<str>>,
    is_origin: bool,
}

impl Backend {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        &self.id
    }

    /// Its share of the redirects relative to other backends, 1 to [`list::MAX_WEIGHT`].
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Its tier. The lowest tier with a usable backend gets all clients.
    #[must_use]
    pub fn tier(&self) -> u8 {
        self.tier
    }

    /// Its location, as named by the operator.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The content that its probes expect, if its line names one.
    pub(crate) fn expectation(&self) -> Option<&Arc<Expectation>> {
        self.expectation.as_ref()
    }

    /// The percent-encoded path of the file that proves which generation of the catalogue it has. Starts with a slash.
    pub(crate) fn proof(&self) -> Option<&Arc<str>> {
        self.proof.as_ref()
    }

    /// Whether it has every file, and gets requests for paths that the catalogue does not have.
    pub(crate) fn is_origin(&self) -> bool {
        self.is_origin
    }
}

/// The bytes that a word of the list must encode.
const NOT_IN_A_WORD: &AsciiSet = &CONTROLS.add(b' ').add(b'#').add(b'%');

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.id.as_str();
        // The short form `host:port` if it has the same meaning.
        let has_base_path = self.id.authority().len() + HTTP.len() < text.len();
        match text.strip_prefix(HTTP) {
            Some(authority) if !has_base_path => formatter.write_str(authority)?,
            _ => formatter.write_str(text)?,
        }
        if self.weight != list::DEFAULT_WEIGHT {
            write!(formatter, " weight={}", self.weight)?;
        }
        if self.tier != list::DEFAULT_TIER {
            write!(formatter, " tier={}", self.tier)?;
        }
        if let Some(zone) = &self.zone {
            write!(formatter, " zone={zone}")?;
        }
        if let Some(expectation) = &self.expectation {
            let value = expectation.to_string();
            write!(formatter, " expect={}", utf8_percent_encode(&value, NOT_IN_A_WORD))?;
        }
        if let Some(proof) = &self.proof {
            write!(formatter, " proof={proof}")?;
        }
        if self.is_origin {
            formatter.write_str(" origin")?;
        }
        Ok(())
    }
}
