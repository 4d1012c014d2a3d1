//! Times in settings: text such as `500ms`, and none so long that adding it to a clock could overflow.

use std::time::Duration;

use serde::de::{Deserializer, Error};

/// Nobody waits longer for anything here.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// Reads a time with its unit; for `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let time: Duration = humantime_serde::deserialize(deserializer)?;
    if time > LONGEST { Err(D::Error::custom("a time must be at most 365d")) } else { Ok(time) }
}
