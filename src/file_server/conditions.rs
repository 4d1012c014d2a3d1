//! Conditional requests (RFC 9110, section 13): whether a file is sent, and whether in parts. Pure.

use std::time::SystemTime;

use actix_http::header::{self, HeaderMap, HeaderValue};

use super::validators::Validators;

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Send it, with the parts that `Range` asks for.
    Send,
    /// Send all of it, whatever `Range` says.
    SendWhole,
    /// The client has it: 304.
    NotModified,
    /// It is not what the client expects: 412.
    Failed,
}

/// Evaluates the conditions of a GET or HEAD request in the order of RFC 9110, section 13.2.2.
#[must_use]
pub fn evaluate(headers: &HeaderMap, validators: &Validators) -> Outcome {
    let date =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).and_then(parse_date);
    // A condition on the date does not count for a file that has none.
    let is_modified_since = |date: Option<SystemTime>| Some(validators.modified? > date?);
    if headers.contains_key(header::IF_MATCH) {
        if !lists(headers, &header::IF_MATCH, validators, Comparison::Strong) {
            return Outcome::Failed;
        }
    } else if is_modified_since(date(header::IF_UNMODIFIED_SINCE)) == Some(true) {
        return Outcome::Failed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if lists(headers, &header::IF_NONE_MATCH, validators, Comparison::Weak) {
            return Outcome::NotModified;
        }
    } else if is_modified_since(date(header::IF_MODIFIED_SINCE)) == Some(false) {
        return Outcome::NotModified;
    }
    match headers.get(header::IF_RANGE) {
        None => Outcome::Send,
        Some(value) if validators.matches_strongly(value.as_bytes()) => Outcome::Send,
        // A date identifies a version only once its second is over (RFC 9110, section 13.1.5).
        Some(value) if Some(value) == validators.last_modified.as_ref() && !validators.is_provisional => {
            Outcome::Send
        }
        Some(_) => Outcome::SendWhole,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether the lists under this name hold the entity tag, or `*`.
fn lists(
    headers: &HeaderMap,
    name: &header::HeaderName,
    validators: &Validators,
    comparison: Comparison,
) -> bool {
    headers.get_all(name).any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|tag| {
            let tag = tag.trim_ascii();
            tag == b"*"
                || match comparison {
                    Comparison::Strong => validators.matches_strongly(tag),
                    Comparison::Weak => validators.matches_weakly(tag),
                }
        })
    })
}

/// A date, or `None` where it is none: such a condition does not count.
fn parse_date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const TAG: &str = "\"2ebc98a1-3e8\"";

    #[track_caller]
    fn check(fields: &[(&str, &str)], expected: Outcome) {
        let modified = (0x2ebc_98a1, 0);
        check_of(&Validators::new(modified, modified, 1000, SystemTime::now()), fields, expected);
    }

    #[track_caller]
    fn check_of(validators: &Validators, fields: &[(&str, &str)], expected: Outcome) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = header::HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::try_from(*value).unwrap());
        }
        assert_eq!(evaluate(&headers, validators), expected, "{fields:?}");
    }

    #[test]
    fn each_condition_alone() {
        check(&[], Outcome::Send);
        check(&[("if-match", TAG)], Outcome::Send);
        check(&[("if-match", "*")], Outcome::Send);
        check(&[("if-match", "\"other\"")], Outcome::Failed);
        check(&[("if-match", &format!("W/{TAG}"))], Outcome::Failed);
        check(&[("if-unmodified-since", MODIFIED)], Outcome::Send);
        check(&[("if-unmodified-since", BEFORE)], Outcome::Failed);
        check(&[("if-none-match", TAG)], Outcome::NotModified);
        check(&[("if-none-match", "*")], Outcome::NotModified);
        check(&[("if-none-match", &format!("\"a\", W/{TAG}"))], Outcome::NotModified);
        check(&[("if-none-match", "\"a\""), ("if-none-match", TAG)], Outcome::NotModified);
        check(&[("if-none-match", "\"other\"")], Outcome::Send);
        check(&[("if-modified-since", MODIFIED)], Outcome::NotModified);
        check(&[("if-modified-since", AFTER)], Outcome::NotModified);
        check(&[("if-modified-since", BEFORE)], Outcome::Send);
        check(&[("if-modified-since", "yesterday")], Outcome::Send);
        check(&[("if-range", TAG)], Outcome::Send);
        check(&[("if-range", MODIFIED)], Outcome::Send);
        check(&[("if-range", AFTER)], Outcome::SendWhole);
        check(&[("if-range", "\"other\"")], Outcome::SendWhole);
        check(&[("if-range", &format!("W/{TAG}"))], Outcome::SendWhole);
    }

    #[test]
    fn tags_win_over_dates_and_a_failed_match_over_all() {
        check(&[("if-match", TAG), ("if-unmodified-since", BEFORE)], Outcome::Send);
        check(&[("if-none-match", "\"other\""), ("if-modified-since", AFTER)], Outcome::Send);
        check(&[("if-match", "\"other\""), ("if-none-match", TAG)], Outcome::Failed);
        check(&[("if-none-match", TAG), ("if-range", "\"other\"")], Outcome::NotModified);
    }

    #[test]
    fn no_condition_on_a_date_or_strong_tag_holds_for_a_file_without_them() {
        let validators = Validators::new((1, 0), (7, 1), 1000, SystemTime::now());
        let (tag, date) = (validators.etag.to_str().unwrap(), "Thu, 01 Jan 1970 00:00:01 GMT");
        for (field, value, expected) in [
            ("if-none-match", tag, Outcome::NotModified),
            ("if-match", tag, Outcome::Failed),
            ("if-match", "*", Outcome::Send),
            ("if-range", tag, Outcome::SendWhole),
            ("if-range", date, Outcome::SendWhole),
            ("if-modified-since", date, Outcome::Send),
            ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT", Outcome::Send),
        ] {
            check_of(&validators, &[(field, value)], expected);
        }
    }
}
