//! The backends: the servers this balancer may redirect to, as the list names them.
//!
//! [`list`] turns the text of a list into backends and problems. [`watch`] follows the file while the balancer
//! runs. Whether a backend answers is not known here: that is the business of the probes.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::expectation::Expectation;

pub mod list;
pub mod watch;

/// Who a backend is: its scheme, authority and base path, such as `http://127.0.0.1:8081` or
/// `https://mirror.example:443/pub`.
///
/// - Two lines that mean the same place have the same identity, however they spell it: the scheme and the port
///   always stand in it, a name is in lower case, an address is in its shortest form, the base path ends without
///   a slash.
/// - Weight, tier and zone are no part of it, so changing them keeps what is known of the backend's health.
/// - It is visible ASCII and the beginning of every `Location` that points to this backend.
///
/// A clone costs one atomic increment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(Arc<str>);

impl BackendId {
    /// The identity as text; see the type for what it promises.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is spoken to over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.starts_with(Scheme::Https.prefix())
    }

    /// The authority: host and port, as in `127.0.0.1:8081` or `[::1]:8081`.
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

/// A server as the balancer sees it: one line of the list.
///
/// Its text form is a line of the list that parses to an equal backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    id: BackendId,
    scheme: Scheme,
    weight: u32,
    tier: u8,
    zone: Option<Arc<str>>,
    expectation: Option<Arc<Expectation>>,
}

impl Backend {
    /// Who it is.
    #[must_use]
    pub fn id(&self) -> &BackendId {
        &self.id
    }

    /// How it is spoken to, by clients and probes alike.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The share of traffic it is meant to take in comparison with others, 1 to [`list::MAX_WEIGHT`]; 1 where the
    /// line says nothing.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The lowest tier that has a usable backend takes all traffic; 0 where the line says nothing.
    #[must_use]
    pub fn tier(&self) -> u8 {
        self.tier
    }

    /// Where it stands, in the operator's own words.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The content that its probes expect, if its line names one.
    #[must_use]
    pub fn expectation(&self) -> Option<&Arc<Expectation>> {
        self.expectation.as_ref()
    }
}

/// What a word of the list cannot hold, and the percent sign.
const NOT_IN_A_WORD: &AsciiSet = &CONTROLS.add(b' ').add(b'#').add(b'%');

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.id.as_str();
        // The plain form of the seed's lists is `host:port`: the scheme only stands where it has to.
        let has_base_path = self.id.authority().len() + Scheme::Http.prefix().len() < text.len();
        match text.strip_prefix(Scheme::Http.prefix()) {
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
        Ok(())
    }
}

/// The protocol in front of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http://`
    Http,
    /// `https://`
    Https,
}

impl Scheme {
    /// What stands before the authority in a URL.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }

    /// The port that a URL without one means.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}
