//! The own table of networks, one a line, which precedes the databases.
//!
//! ```text
//! # a comment
//! 192.0.2.0/24    country=DE asn=64500 lat=52.5 lon=13.4
//! 2001:db8::/32   country=FR
//! ```

use std::net::IpAddr;

use super::network::{Network, NetworkRanges, NotANetwork};
use super::place::{GeoPlace, PlaceAttributes, PlaceError};

/// The largest number of networks.
const MOST_NETWORKS: usize = 500_000;

/// A line of the table is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct TableError {
    line: usize,
    reason: NetworkEntryError,
}

/// The reason why a line is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum NetworkEntryError {
    #[error("the line is not UTF-8 text")]
    NotUtf8,
    #[error(transparent)]
    Network(#[from] NotANetwork),
    #[error("\"{}\": the attributes are country=, continent=, asn=, lat= and lon=", .0.escape_debug())]
    Attribute(String),
    #[error("{0}")]
    Place(#[from] PlaceError),
    #[error("the network is already in line {0}")]
    Duplicate(usize),
    #[error("the table has more than {MOST_NETWORKS} networks")]
    TooMany,
}

/// Networks with their places.
#[derive(Debug)]
pub struct NetworkTable {
    networks: Vec<Network>,
    places: Vec<GeoPlace>,
    ranges: NetworkRanges,
}

impl Default for NetworkTable {
    fn default() -> Self {
        Self { networks: Vec::new(), places: Vec::new(), ranges: NetworkRanges::new(&[]) }
    }
}

impl NetworkTable {
    /// Parses the text of a table.
    pub fn parse(text: &[u8]) -> Result<Self, TableError> {
        let (mut networks, mut places) = (Vec::new(), Vec::new());
        let mut lines = std::collections::HashMap::new();
        for (line, bytes) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let fail = |reason| TableError { line, reason };
            let Some((network, place)) = entry(bytes).map_err(fail)? else { continue };
            if let Some(first) = lines.insert(network, line) {
                return Err(fail(NetworkEntryError::Duplicate(first)));
            }
            if networks.len() == MOST_NETWORKS {
                return Err(fail(NetworkEntryError::TooMany));
            }
            networks.push(network);
            places.push(place);
        }
        let ranges = NetworkRanges::new(&networks);
        Ok(Self { networks, places, ranges })
    }

    /// The networks in the order of the lines.
    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// The smallest network with this address: its index and its place.
    #[must_use]
    #[inline]
    pub fn find(&self, address: IpAddr) -> Option<(usize, &GeoPlace)> {
        let index = self.ranges.owner(self.ranges.range(address))?;
        Some((index, self.places.get(index)?))
    }
}

/// The entry of a line; `None` for a blank line or a comment.
fn entry(bytes: &[u8]) -> Result<Option<(Network, GeoPlace)>, NetworkEntryError> {
    let content = bytes.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
    let content = str::from_utf8(content).map_err(|_| NetworkEntryError::NotUtf8)?;
    let mut words = content.split_ascii_whitespace();
    let Some(network) = words.next() else { return Ok(None) };
    let network = network.parse()?;
    let mut attributes = PlaceAttributes::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if !attributes.set(key, value)? {
            return Err(NetworkEntryError::Attribute(word.chars().take(60).collect()));
        }
    }
    Ok(Some((network, attributes.place()?)))
}
