//! A database in the `MaxMind` DB format: countries, cities, or autonomous systems.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use maxminddb::{MaxMindDbError, Reader, WithinOptions};
use serde::de::{IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};

use super::place::{Coordinates, GeoPlace};

/// Coordinates of a larger accuracy radius, in kilometres, are those of a country.
const LARGEST_RADIUS: f64 = 200.0;

/// The fields of a record that are used: those of `MaxMind`'s databases, and those of databases with flat records.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GeoRecord<'r> {
    #[serde(borrow)]
    country: CountryField<'r>,
    country_code: Option<&'r str>,
    city: Option<IgnoredAny>,
    location: PointField,
    latitude: Option<Number>,
    longitude: Option<Number>,
    autonomous_system_number: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CountryField<'r> {
    iso_code: Option<&'r str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PointField {
    latitude: Option<Number>,
    longitude: Option<Number>,
    accuracy_radius: Option<Number>,
}

/// A number of any type, because databases differ.
#[derive(Debug, Clone, Copy)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
        Ok(Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
        Ok(Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
        Ok(Number(number as f64))
    }
}

impl GeoRecord<'_> {
    fn place(&self) -> GeoPlace {
        let code = self.country.iso_code.or(self.country_code);
        // Without a city, or with a large radius, they are the centre of a country or region.
        let is_exact =
            self.city.is_some() && self.location.accuracy_radius.is_none_or(|it| it.0 < LARGEST_RADIUS);
        let latitude = self.location.latitude.or(self.latitude);
        let longitude = self.location.longitude.or(self.longitude);
        let point = latitude.zip(longitude).filter(|_| is_exact);
        GeoPlace {
            // Old databases have codes such as EU, which are not countries.
            country: code.and_then(|code| code.parse().ok()),
            continent: None,
            asn: self.autonomous_system_number.map(|number| number.0 as u32).filter(|number| *number > 0),
            coordinates: point.and_then(|(latitude, longitude)| Coordinates::new(latitude.0, longitude.0)),
        }
    }
}

/// A database whose records are all known to be readable.
pub struct GeoDatabase {
    reader: Reader<Vec<u8>>,
    /// The place of each record, by its offset.
    places: HashMap<usize, GeoPlace>,
}

/// The content is not usable.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It is not a database, or a damaged one.
    #[error(transparent)]
    Invalid(#[from] MaxMindDbError),
    /// The tree of addresses does not end.
    #[error("its tree of addresses has a cycle")]
    Cycle,
    /// It is about something else.
    #[error("its records (type {}) have neither a country nor coordinates nor an AS", .0.escape_debug())]
    Useless(String),
}

impl GeoDatabase {
    /// Reads the content of a file. Decodes every record once, so that a look-up cannot fail.
    pub fn parse(content: Vec<u8>) -> Result<Self, DatabaseError> {
        let reader = Reader::from_source(content)?;
        let mut places = HashMap::new();
        // A tree of n nodes has at most n + 1 leaves, which parts that are reached twice can multiply.
        let most = 3 * u64::from(reader.metadata().node_count);
        for (network, count) in reader.networks(WithinOptions::default())?.zip(0..) {
            if count > most {
                return Err(DatabaseError::Cycle);
            }
            let network = network?;
            let Some(offset) = network.offset() else { continue };
            if let Entry::Vacant(free) = places.entry(offset) {
                let record: GeoRecord = network.decode()?.unwrap_or_default();
                free.insert(record.place());
            }
        }
        if places.values().all(|place| *place == GeoPlace::default()) {
            return Err(DatabaseError::Useless(reader.metadata().database_type.clone()));
        }
        Ok(Self { reader, places })
    }

    /// The place of an address; without fields if it is unknown.
    #[must_use]
    #[inline]
    pub fn find(&self, address: IpAddr) -> GeoPlace {
        // A database of IPv4 addresses has no record for an IPv6 address, which is an error of the look-up.
        let offset = self.reader.lookup(address).ok().and_then(|found| found.offset());
        offset.and_then(|offset| self.places.get(&offset)).copied().unwrap_or_default()
    }

    /// The time at which the database was made.
    #[must_use]
    pub fn built_at(&self) -> SystemTime {
        let epoch = Duration::from_secs(self.reader.metadata().build_epoch);
        SystemTime::UNIX_EPOCH.checked_add(epoch).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl fmt::Debug for GeoDatabase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GeoDatabase")
    }
}
