//! The attributes of a server that decide which clients and files it gets: its place, `only=` and `not=`, and limits.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use bytesize::ByteSize;

use crate::balancer::geography::GeoPlace;
use crate::balancer::geography::network::Network;
use crate::balancer::geography::place::{Continent, CountryCode, PlaceAttributes, PlaceError, parse_asn};

/// The attributes that most servers do not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BackendRules {
    /// Its place, as far as the line names it.
    pub(crate) place: GeoPlace,
    /// The clients that it gets; all if empty.
    pub(crate) only: Vec<ClientRule>,
    /// The clients that it does not get.
    pub(crate) not: Vec<ClientRule>,
    /// Whether it gets only clients that use https.
    pub(crate) https_only: bool,
    /// The address family of the clients that it gets.
    pub(crate) family: Option<AddressFamily>,
    /// The limit of redirects per second.
    pub(crate) max_redirects: Option<u64>,
    /// The limit of bytes per calendar month (UTC).
    pub(crate) monthly_bytes: Option<u64>,
    /// The hours in which it gets clients.
    pub(crate) hours: Option<ServiceHours>,
    /// The size of the smallest file that it gets, in bytes.
    pub(crate) min_file_size: Option<u64>,
    /// The size of the largest file that it gets, in bytes.
    pub(crate) max_file_size: Option<u64>,
}

/// A group of clients in `only=` or `not=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientRule {
    Country(CountryCode),
    Continent(Continent),
    As(u32),
    Network(Network),
}

impl FromStr for ClientRule {
    type Err = RuleError;

    fn from_str(word: &str) -> Result<Self, RuleError> {
        if let Some(continent) = word.strip_prefix("continent:") {
            return Ok(Self::Continent(continent.parse()?));
        }
        let is_asn = word.len() > 2 && word.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("AS"));
        match word.bytes().any(|byte| byte == b'.' || byte == b':') {
            true => word.parse().map(Self::Network).map_err(|_| RuleError::Clients),
            false if is_asn => parse_asn(word).map(Self::As).map_err(|_| RuleError::Clients),
            false => word.parse().map(Self::Country).map_err(|_| RuleError::Clients),
        }
    }
}

impl fmt::Display for ClientRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Country(country) => country.fmt(formatter),
            Self::Continent(continent) => write!(formatter, "continent:{continent}"),
            Self::As(number) => write!(formatter, "AS{number}"),
            Self::Network(network) => network.fmt(formatter),
        }
    }
}

/// The version of the internet protocol of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AddressFamily {
    V4,
    V6,
}

impl AddressFamily {
    /// The family of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for AddressFamily {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if *self == Self::V4 { "4" } else { "6" })
    }
}

/// A daily span of hours (UTC), such as 22-06. The last hour is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServiceHours {
    from: u8,
    to: u8,
}

impl ServiceHours {
    /// Whether the span has the hour, 0 to 23.
    #[must_use]
    pub(crate) fn contains(self, hour: u8) -> bool {
        let (after, before) = (hour >= self.from, hour < self.to);
        if self.from < self.to { after && before } else { after || before }
    }
}

impl FromStr for ServiceHours {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (from, to) = text.split_once('-').ok_or(RuleError::Hours)?;
        let hour = |text: &str| super::list::number(text).filter(|hour: &u8| *hour <= 24 && !text.is_empty());
        match (hour(from), hour(to)) {
            (Some(from), Some(to)) if from != to && from < 24 => Ok(Self { from, to }),
            _ => Err(RuleError::Hours),
        }
    }
}

impl fmt::Display for ServiceHours {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:02}-{:02}", self.from, self.to)
    }
}

/// The reason why an attribute is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A place.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// `only` or `not`.
    #[error(
        "a list of clients has countries (DE), continents (continent:EU), networks (192.0.2.0/24) and AS (AS64500), with commas between them"
    )]
    Clients,
    /// A number of redirects.
    #[error("it must be a whole number of at least 1")]
    Number,
    /// A size.
    #[error("it must be a size of at least 1, such as 500GB or 2TiB")]
    Size,
    /// Hours.
    #[error("it must be two hours of the day in UTC, such as 22-06")]
    Hours,
    /// The family.
    #[error("it must be 4 or 6")]
    Family,
    /// The sizes of files contradict each other.
    #[error("min_file_size= must be at most max_file_size=")]
    Sizes,
}

/// The attributes of a line, one after the other.
#[derive(Debug, Default)]
pub(super) struct RuleAttributes {
    rules: BackendRules,
    place: PlaceAttributes,
}

impl RuleAttributes {
    /// Takes an attribute; `value` is `None` for a word without `=`. `Ok(false)` if it is not an attribute of this module.
    pub(super) fn set(&mut self, key: &str, value: Option<&str>) -> Result<bool, RuleError> {
        let Some(value) = value else {
            self.rules.https_only |= key == "https_only";
            return Ok(key == "https_only");
        };
        let rules = &mut self.rules;
        match key {
            "only" => rules.only = clients(value)?,
            "not" => rules.not = clients(value)?,
            "max_redirects" => {
                let number = super::list::number(value).filter(|number| *number > 0);
                rules.max_redirects = Some(number.ok_or(RuleError::Number)?);
            }
            "monthly_bytes" => rules.monthly_bytes = Some(size(value)?),
            "min_file_size" => rules.min_file_size = Some(size(value)?),
            "max_file_size" => rules.max_file_size = Some(size(value)?),
            "hours" => rules.hours = Some(value.parse()?),
            "family" => {
                let families = [AddressFamily::V4, AddressFamily::V6];
                let family = families.into_iter().find(|family| family.to_string() == value);
                rules.family = Some(family.ok_or(RuleError::Family)?);
            }
            _ => return Ok(self.place.set(key, value)?),
        }
        Ok(true)
    }

    /// All attributes; `None` without any.
    pub(super) fn rules(self) -> Result<Option<Arc<BackendRules>>, RuleError> {
        let rules = BackendRules { place: self.place.place()?, ..self.rules };
        if rules.min_file_size.zip(rules.max_file_size).is_some_and(|(min, max)| min > max) {
            return Err(RuleError::Sizes);
        }
        Ok((rules != BackendRules::default()).then(|| rules.into()))
    }
}

fn clients(value: &str) -> Result<Vec<ClientRule>, RuleError> {
    value.split(',').map(str::parse).collect()
}

fn size(value: &str) -> Result<u64, RuleError> {
    let size = value.parse::<ByteSize>().ok().map(|size| size.as_u64());
    size.filter(|size| *size > 0).ok_or(RuleError::Size)
}

impl fmt::Display for BackendRules {
    /// The attributes, with a space before each.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(formatter)?;
        for (key, clients) in [("only", &self.only), ("not", &self.not)] {
            if !clients.is_empty() {
                let words: Vec<String> = clients.iter().map(ToString::to_string).collect();
                write!(formatter, " {key}={}", words.join(","))?;
            }
        }
        if self.https_only {
            formatter.write_str(" https_only")?;
        }
        if let Some(family) = self.family {
            write!(formatter, " family={family}")?;
        }
        if let Some(hours) = self.hours {
            write!(formatter, " hours={hours}")?;
        }
        for (key, number) in [
            ("max_redirects", self.max_redirects),
            ("monthly_bytes", self.monthly_bytes),
            ("min_file_size", self.min_file_size),
            ("max_file_size", self.max_file_size),
        ] {
            if let Some(number) = number {
                write!(formatter, " {key}={number}")?;
            }
        }
        Ok(())
    }
}
