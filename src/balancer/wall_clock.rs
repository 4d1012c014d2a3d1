//! Points in time for people and files: RFC 3339 with seconds.

use std::time::{Duration, SystemTime};

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

/// The latest accepted end of a time span: a year.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// A point in time as text.
pub(super) fn text(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Parses the end of an order: RFC 3339, such as `2026-12-24T18:00:00+01:00`, or a duration from now, such as `2h`.
pub(super) fn parse_end(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let end = match humantime::parse_duration(text) {
        Ok(duration) => now.checked_add(duration),
        Err(_) => Some(parse_rfc3339(text).ok_or_else(|| {
            format!(
                "{} is not a time: write a duration such as 2h, or RFC 3339 such as 2026-12-24T18:00:00Z",
                shown(text)
            )
        })?),
    };
    match end {
        Some(end) if end <= now => Err(format!("{} is in the past", shown(text))),
        Some(end) if end <= now + LONGEST => Ok(end),
        _ => Err(format!("{} is more than a year from now", shown(text))),
    }
}

fn shown(text: &str) -> String {
    format!("\"{}\"", text.chars().take(40).collect::<String>().escape_debug())
}

fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let text = text.to_ascii_uppercase();
    if text.ends_with('Z') {
        return humantime::parse_rfc3339(&text).ok();
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub("+00:00".len())?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let parse = |digits: &str, below: u64| digits.parse::<u64>().ok().filter(|number| *number < below);
    let offset_seconds = Duration::from_secs(parse(hours, 24)? * 3600 + parse(minutes, 60)? * 60);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    match offset.as_bytes().first()? {
        b'+' => local.checked_sub(offset_seconds),
        b'-' => local.checked_add(offset_seconds),
        _ => None,
    }
}

/// Writes a time as text; for `#[serde(with)]`.
pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*time))
}

/// Reads a time; for `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The same for a time that may be absent.
pub(crate) mod option {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "super")] SystemTime);

    #[allow(clippy::ref_option, reason = "the signature of serde(with)")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Time).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
    }
}

#[cfg(test)]
mod tests;
