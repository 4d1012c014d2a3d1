//! The record that a balancer publishes once a second: its observations, not its decisions. Pure.
//!
//! A record is a byte with the version of the format, then the fields in the encoding of postcard. It has ages and no
//! times, because the clocks of two machines differ. docs/fleet.md describes the format.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::balancer::health::State;

/// The version of the format. A record of another version is skipped.
const VERSION: u8 = 1;

/// The largest record, in bytes.
pub(crate) const MOST_BYTES: usize = 256 << 10;

/// The largest number of backends in a record; one has at most 44 bytes. The rest waits for the next record.
pub(crate) const MOST_BACKENDS: usize = 5000;

/// The longest name of a balancer or zone, in bytes.
pub(crate) const LONGEST_NAME: usize = 64;

/// The longest accepted time in a record. It has no effect beyond the time for which an observation counts.
const LONGEST: Duration = Duration::from_hours(1);

/// The longest accepted uptime in milliseconds, 139 years.
const LONGEST_UPTIME: u64 = 1 << 42;

/// A record. Lengths and times are within their limits after [`FleetRecord::decode`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// The balancer that publishes it.
    pub balancer: Publisher,
    /// A random number of this run of the balancer.
    pub boot: u64,
    /// The number of the record in this run.
    pub number: u64,
    /// The time since the start of the balancer, in milliseconds.
    pub uptime: u64,
    /// The time since the previous record, in milliseconds.
    pub period: u32,
    /// A digest of its list of backends.
    pub list: u64,
    /// A digest of the orders that are in force on it.
    pub orders: u64,
    /// The backends with news since the previous record.
    pub backends: Vec<BackendNews>,
}

/// The balancer that publishes a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publisher {
    /// Its name, unique in the fleet.
    pub name: String,
    /// Its zone; may be empty.
    pub zone: String,
    /// The version of the program.
    pub version: String,
}

/// The news of one backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendNews {
    /// The digest of its address.
    pub backend: u64,
    /// The result of a probe, if one ended.
    pub observation: Option<Observation>,
    /// The number of clients that were redirected to it.
    pub redirects: u32,
    /// The bytes of their downloads.
    pub bytes: u64,
}

/// The state of a backend after a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Its state according to the probes of this balancer.
    pub state: State,
    /// The time since the probe, in milliseconds.
    pub age: u32,
    /// The time from the probe to the next one, in milliseconds.
    pub pause: u32,
    /// The estimated response time, in microseconds.
    pub response_time: Option<u32>,
    /// Requests in flight according to its load report, including the probe.
    pub in_flight: Option<u32>,
    /// Bytes of unfinished bodies according to its load report.
    pub unsent_bytes: Option<u64>,
}

/// The reason why a record is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is longer than the limit, or has more backends.
    #[error("it is too large")]
    TooLarge,
    /// It has another version of the format.
    #[error("it has the version {0} of the format, this balancer reads version {VERSION}")]
    Version(u8),
    /// The bytes are not a record.
    #[error("it is not a record")]
    Malformed,
    /// A name is empty, too long or has signs that cannot be printed.
    #[error("it has an invalid name")]
    Name,
}

impl FleetRecord {
    /// The record as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Encoding into memory fails only for types that postcard cannot encode.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// Reads a record of another balancer.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (version, body) = bytes.split_first().ok_or(RecordError::Malformed)?;
        match *version {
            _ if bytes.len() > MOST_BYTES => return Err(RecordError::TooLarge),
            VERSION => {}
            other => return Err(RecordError::Version(other)),
        }
        let (mut record, rest) =
            postcard::take_from_bytes::<Self>(body).map_err(|_| RecordError::Malformed)?;
        let Publisher { name, zone, version } = &record.balancer;
        if name.is_empty() || ![name, zone, version].into_iter().all(|text| is_name(text)) {
            return Err(RecordError::Name);
        }
        if record.backends.len() > MOST_BACKENDS {
            return Err(RecordError::TooLarge);
        }
        if !rest.is_empty() || record.uptime > LONGEST_UPTIME {
            return Err(RecordError::Malformed);
        }
        let longest = LONGEST.as_millis() as u32;
        record.period = record.period.min(longest);
        for news in &mut record.backends {
            if let Some(observation) = &mut news.observation {
                observation.age = observation.age.min(longest);
                observation.pause = observation.pause.min(longest);
            }
        }
        Ok(record)
    }
}

/// Whether a text can be a name in a record; an empty one can.
#[must_use]
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME && text.bytes().all(|byte| byte.is_ascii_graphic())
}
