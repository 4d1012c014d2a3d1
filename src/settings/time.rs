//! Times in settings: text such as `500ms`, limited so that the sum of a time and the current time cannot overflow.

use std::time::Duration;

use serde::de::{Deserialize as _, Deserializer, Error};

/// The longest allowed time.
const LONGEST: Duration = Duration::from_hours(365 * 24);

/// Reads a time with its unit. The error contains a correct text.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    match humantime::parse_duration(text) {
        Ok(time) if time > LONGEST => Err("a time must be at most 365d".to_owned()),
        Ok(time) => Ok(time),
        Err(_) => Err(match text.parse::<f64>().ok().map(Duration::try_from_secs_f64) {
            Some(Ok(time)) if time <= LONGEST => {
                // Fractions of a second become milliseconds, because `humantime` does not read `1.5s`.
                let time = humantime::format_duration(Duration::from_millis(
                    u64::try_from(time.as_millis()).unwrap_or_default(),
                ));
                format!("a time needs a unit; write \"{time}\"")
            }
            _ => "it must be a time with a unit, such as \"2s\" or \"500ms\"".to_owned(),
        }),
    }
}

/// Reads a time with its unit; for `#[serde(with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_a_time_without_a_unit_contains_the_correct_text() {
        for (text, wanted) in [
            ("2", "write \"2s\""),
            ("90", "write \"1m 30s\""),
            ("1.5", "write \"1s 500ms\""),
            ("soon", "such as \"2s\""),
            ("", "such as \"2s\""),
            ("-1", "such as \"2s\""),
            ("1e300", "such as \"2s\""),
            ("NaN", "such as \"2s\""),
            ("366d", "at most 365d"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(wanted), "{text}: {message}");
        }
        assert_eq!(parse(" 1m 30s "), Ok(Duration::from_secs(90)));
    }
}
