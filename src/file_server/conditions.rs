//! Conditional requests (RFC 9110, section 13): whether a file is sent, and whether in parts. Pure.

use std::time::{Duration, SystemTime};

use actix_http::header::{self, HeaderMap, HeaderValue};

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validators {
    /// `"<mtime hex>-<length hex>"` as nginx has it: the same on every mirror that keeps modification times.
    pub etag: HeaderValue,
    /// When the file was modified, in whole seconds.
    pub modified: SystemTime,
    /// The same as a header.
    pub last_modified: HeaderValue,
}

impl Validators {
    /// The validators of a file modified this many seconds after 1970, of this length.
    #[must_use]
    pub fn new(modified_seconds: u64, length: u64) -> Self {
        // The year 9999 is the last that a header can name.
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(modified_seconds.min(253_402_300_799));
        Self {
            etag: visible(format!("\"{modified_seconds:x}-{length:x}\"")),
            modified,
            last_modified: visible(httpdate::fmt_http_date(modified)),
        }
    }

    /// The same with a tag that says more: `"<mtime hex>-<length hex>-<suffix>"`.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let tag = String::from_utf8_lossy(self.etag.as_bytes());
        let etag = visible(format!("{}-{suffix}\"", tag.trim_end_matches('"')));
        Self { etag, ..self.clone() }
    }
}

fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"0-0\""))
}

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
    if headers.contains_key(header::IF_MATCH) {
        if !lists(headers, &header::IF_MATCH, validators, Comparison::Strong) {
            return Outcome::Failed;
        }
    } else if date(header::IF_UNMODIFIED_SINCE).is_some_and(|date| validators.modified > date) {
        return Outcome::Failed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if lists(headers, &header::IF_NONE_MATCH, validators, Comparison::Weak) {
            return Outcome::NotModified;
        }
    } else if date(header::IF_MODIFIED_SINCE).is_some_and(|date| validators.modified <= date) {
        return Outcome::NotModified;
    }
    match headers.get(header::IF_RANGE) {
        None => Outcome::Send,
        Some(value) if value == validators.etag || value == validators.last_modified => Outcome::Send,
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
            let (tag, is_weak) = match tag.strip_prefix(b"W/") {
                Some(tag) => (tag, true),
                None => (tag, false),
            };
            (tag == b"*" && !is_weak)
                || (tag == validators.etag.as_bytes() && (comparison == Comparison::Weak || !is_weak))
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
        let validators = Validators::new(0x2ebc_98a1, 1000);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = header::HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::try_from(*value).unwrap());
        }
        assert_eq!(evaluate(&headers, &validators), expected, "{fields:?}");
    }

    #[test]
    fn the_tag_is_time_and_length_in_hexadecimal() {
        let validators = Validators::new(0x2ebc_98a1, 1000);
        assert_eq!(
            (&validators.etag, &validators.last_modified),
            (&TAG.parse().unwrap(), &MODIFIED.parse().unwrap())
        );
        assert_eq!(validators.with_suffix("br").etag, "\"2ebc98a1-3e8-br\"");
        assert!(Validators::new(u64::MAX, u64::MAX).last_modified.to_str().unwrap().contains("9999"));
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
}
