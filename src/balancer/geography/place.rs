//! Countries, continents, coordinates, and the band of cost between a client and a server. Pure.

use std::fmt;
use std::str::FromStr;

/// The mean radius of the earth in kilometres.
const EARTH_RADIUS: f64 = 6371.0;

/// The largest distance of [`Band::Near`] in kilometres.
pub(crate) const NEAR: f64 = 500.0;

/// A country: two letters of ISO 3166-1, in upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CountryCode([u8; 2]);

/// A continent, by the codes of the `MaxMind` databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Continent {
    /// AF
    Africa,
    /// AN
    Antarctica,
    /// AS
    Asia,
    /// EU
    Europe,
    /// NA
    NorthAmerica,
    /// OC
    Oceania,
    /// SA
    SouthAmerica,
}

impl Continent {
    const ALL: [(Self, &str); 7] = [
        (Self::Africa, "AF"),
        (Self::Antarctica, "AN"),
        (Self::Asia, "AS"),
        (Self::Europe, "EU"),
        (Self::NorthAmerica, "NA"),
        (Self::Oceania, "OC"),
        (Self::SouthAmerica, "SA"),
    ];
}

/// The countries of each continent, as the `MaxMind` databases divide them.
const COUNTRIES: [(Continent, &str); 7] = [
    (
        Continent::Africa,
        "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE KM LR LS LY MA MG ML MR MU \
         MW MZ NA NE NG RE RW SC SD SH SL SN SO SS ST SZ TD TG TN TZ UG YT ZA ZM ZW ",
    ),
    (Continent::Antarctica, "AQ BV GS HM TF "),
    (
        Continent::Asia,
        "AE AF AM AZ BD BH BN BT CC CN CX GE HK ID IL IN IO IQ IR JO JP KG KH KP KR KW KZ LA LB LK MM MN MO \
         MV MY NP OM PH PK PS QA SA SG SY TH TJ TL TM TR TW UZ VN YE ",
    ),
    (
        Continent::Europe,
        "AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU LV \
         MC MD ME MK MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA XK ",
    ),
    (
        Continent::NorthAmerica,
        "AG AI AW BB BL BM BQ BS BZ CA CR CU CW DM DO GD GL GP GT HN HT JM KN KY LC MF MQ MS MX NI PA PM PR \
         SV SX TC TT US VC VG VI ",
    ),
    (Continent::Oceania, "AS AU CK FJ FM GU KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TO TV UM VU WF WS "),
    (Continent::SouthAmerica, "AR BO BR CL CO EC FK GF GY PE PY SR UY VE "),
];

impl CountryCode {
    /// The continent on which the country, or most of it, lies.
    #[must_use]
    pub fn continent(self) -> Option<Continent> {
        let has = |(_, countries): &&(Continent, &str)| {
            countries
                .as_bytes()
                .as_chunks::<3>()
                .0
                .iter()
                .any(|[first, second, _]| [*first, *second] == self.0)
        };
        COUNTRIES.iter().find(has).map(|(continent, _)| *continent)
    }
}

impl FromStr for CountryCode {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let [first, second] = text.as_bytes() else { return Err(PlaceError::Country) };
        let code = Self([first.to_ascii_uppercase(), second.to_ascii_uppercase()]);
        code.continent().map(|_| code).ok_or(PlaceError::Country)
    }
}

impl fmt::Display for CountryCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|letter| write!(formatter, "{}", char::from(*letter)))
    }
}

impl FromStr for Continent {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let found = Self::ALL.iter().find(|(_, code)| code.eq_ignore_ascii_case(text));
        found.map(|(continent, _)| *continent).ok_or(PlaceError::Continent)
    }
}

impl fmt::Display for Continent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = Self::ALL.iter().find(|(continent, _)| continent == self).map_or("", |(_, code)| code);
        formatter.write_str(code)
    }
}

/// A point on the earth, to a tenth of a degree (11 km).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Coordinates {
    latitude: i16,
    longitude: i16,
}

impl Coordinates {
    /// The point at this latitude and longitude in degrees; `None` if one is out of range.
    #[must_use]
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let is_valid = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        let tenths = |degrees: f64| (degrees * 10.0).round() as i16;
        is_valid.then(|| Self { latitude: tenths(latitude), longitude: tenths(longitude) })
    }

    /// The length of the shortest way to another point in kilometres.
    #[must_use]
    pub fn distance(self, other: Self) -> f64 {
        let radians = |tenths: i16| (f64::from(tenths) / 10.0).to_radians();
        let haversine = |from: i16, to: i16| ((radians(to) - radians(from)) / 2.0).sin().powi(2);
        let across = radians(self.latitude).cos() * radians(other.latitude).cos();
        let half =
            haversine(self.latitude, other.latitude) + across * haversine(self.longitude, other.longitude);
        2.0 * EARTH_RADIUS * half.min(1.0).sqrt().asin()
    }
}

impl fmt::Display for Coordinates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let degrees = |tenths: i16| f64::from(tenths) / 10.0;
        write!(formatter, "lat={} lon={}", degrees(self.latitude), degrees(self.longitude))
    }
}

/// The place of an address or a server, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct GeoPlace {
    /// Its country.
    pub country: Option<CountryCode>,
    /// Its continent, if it is given apart from the country.
    pub continent: Option<Continent>,
    /// The number of its autonomous system.
    pub asn: Option<u32>,
    /// Its coordinates, unless they only are the centre of the country.
    pub coordinates: Option<Coordinates>,
}

impl GeoPlace {
    /// Adds the facts of another source. The own country precedes: of a place in another country, only the AS is taken.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let asn = self.asn.or(other.asn);
        if self.country.is_some() && other.country.is_some() && self.country != other.country {
            return Self { asn, ..self };
        }
        Self {
            country: self.country.or(other.country),
            continent: self.continent.or(other.continent),
            asn,
            coordinates: self.coordinates.or(other.coordinates),
        }
    }

    /// The same place with the continent of its country, if none is given.
    #[must_use]
    pub fn with_continent(self) -> Self {
        let of_country = || self.country.and_then(CountryCode::continent);
        Self { continent: self.continent.or_else(of_country), ..self }
    }

    /// The distance to another place in kilometres, if both coordinates are known.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Option<f64> {
        Some(self.coordinates?.distance(other.coordinates?))
    }
}

impl fmt::Display for GeoPlace {
    /// The attributes of a line, with a space before each.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(country) = self.country {
            write!(formatter, " country={country}")?;
        }
        if let Some(continent) = self.continent {
            write!(formatter, " continent={continent}")?;
        }
        if let Some(asn) = self.asn {
            write!(formatter, " asn={asn}")?;
        }
        self.coordinates.map_or(Ok(()), |coordinates| write!(formatter, " {coordinates}"))
    }
}

/// The cost of the way between a client and a server, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// The same entry of the table of networks, or the same autonomous system.
    SameNetwork,
    /// The same country.
    SameCountry,
    /// At most 500 km.
    Near,
    /// The same continent.
    SameContinent,
    /// All others, and unknown places.
    World,
}

impl Band {
    /// All bands, least first.
    pub const ALL: [Self; 5] =
        [Self::SameNetwork, Self::SameCountry, Self::Near, Self::SameContinent, Self::World];

    /// The band of two places with their continents. `is_same_network` is whether both are in the same entry of the table of
    /// networks.
    #[must_use]
    pub fn between(client: &GeoPlace, server: &GeoPlace, is_same_network: bool) -> Self {
        if is_same_network || (client.asn.is_some() && client.asn == server.asn) {
            Self::SameNetwork
        } else if client.country.is_some() && client.country == server.country {
            Self::SameCountry
        } else if client.distance(server).is_some_and(|distance| distance <= NEAR) {
            Self::Near
        } else if client.continent.is_some() && client.continent == server.continent {
            Self::SameContinent
        } else {
            Self::World
        }
    }
}

impl fmt::Display for Band {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::SameNetwork => "same network",
            Self::SameCountry => "same country",
            Self::Near => "within 500 km",
            Self::SameContinent => "same continent",
            Self::World => "world",
        })
    }
}

/// An attribute of a place is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The country.
    #[error("a country is two letters of ISO 3166-1, such as DE or GB")]
    Country,
    /// The continent.
    #[error("a continent is one of AF, AN, AS, EU, NA, OC and SA")]
    Continent,
    /// The autonomous system.
    #[error("an AS is a whole number from 1 to 4294967295, such as 64500 or AS64500")]
    Asn,
    /// The latitude.
    #[error("a latitude is a number of degrees from -90 to 90")]
    Latitude,
    /// The longitude.
    #[error("a longitude is a number of degrees from -180 to 180")]
    Longitude,
    /// One coordinate without the other.
    #[error("lat= and lon= need each other")]
    OneCoordinate,
}

/// Parses a number of an autonomous system, with or without the letters AS.
pub(crate) fn parse_asn(text: &str) -> Result<u32, PlaceError> {
    let has_letters = text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("AS"));
    let digits = if has_letters { text.get(2..).unwrap_or_default() } else { text };
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    number.filter(|number| *number > 0).ok_or(PlaceError::Asn)
}

/// The attributes of a place, one after the other.
#[derive(Debug, Default)]
pub(crate) struct PlaceAttributes {
    place: GeoPlace,
    latitude: Option<f64>,
    longitude: Option<f64>,
}

impl PlaceAttributes {
    /// Takes an attribute. `Ok(false)` if its key is not the one of a place.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<bool, PlaceError> {
        let degrees = |most: f64, error| {
            let number = value.parse().ok().filter(|degrees: &f64| degrees.abs() <= most);
            number.map(Some).ok_or(error)
        };
        match key {
            "country" => self.place.country = Some(value.parse()?),
            "continent" => self.place.continent = Some(value.parse()?),
            "asn" => self.place.asn = Some(parse_asn(value)?),
            "lat" => self.latitude = degrees(90.0, PlaceError::Latitude)?,
            "lon" => self.longitude = degrees(180.0, PlaceError::Longitude)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The place with all attributes.
    pub(crate) fn place(&self) -> Result<GeoPlace, PlaceError> {
        let coordinates = match (self.latitude, self.longitude) {
            (Some(latitude), Some(longitude)) => Coordinates::new(latitude, longitude),
            (None, None) => None,
            _ => return Err(PlaceError::OneCoordinate),
        };
        Ok(GeoPlace { coordinates, ..self.place })
    }
}
