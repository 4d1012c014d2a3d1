//! Entity tag and modification date of a file (RFC 9110, section 8.8), from its times and its length. Pure.
//!
//! The usual tag consists of modification time in seconds and length. It is equal on every mirror that preserves
//! modification times. Two kinds of files need the time of the last status change (ctime) in their tag:
//!
//! - A file that was modified less than a second ago may be modified again within the same second.
//! - Reproducible builds and container layers set the time of every file to 0 or 1, in each version.
//!
//! A modification time in the future was set on purpose or by a clock that is ahead. Such a clock may set the same
//! second again, so the file counts as just modified.

use std::time::{Duration, SystemTime};

use actix_http::header::HeaderValue;

use super::file_state::Time;

/// Minimum age at which the modification time in seconds identifies a version.
const SETTLED: Duration = Duration::from_secs(1);

/// Minimum age at which the time of a change identifies a version: the clock of a file system advances in steps of up
/// to 10 ms.
const CHANGE_SETTLED: Duration = Duration::from_millis(200);

/// The same for a file system that stores whole seconds.
const SECONDS_SETTLED: Duration = Duration::from_secs(2);

/// The last second of an HTTP date: the end of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// The validators of one version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// The entity tag: `"<mtime>-<length>"` as in nginx, or `"<mtime>-<length>-<ctime>"`, with the prefix `W/` if the
    /// tag is weak. Numbers are hexadecimal, ctime is in nanoseconds.
    pub etag: HeaderValue,
    /// The modification time in whole seconds. `None` if it identifies no version (0, 1 or earlier) or lies in the future.
    pub modified: Option<SystemTime>,
    /// The value of `Last-Modified`: the same time as an HTTP date.
    pub last_modified: Option<HeaderValue>,
    /// Whether the same version gets another tag once it is older.
    pub is_provisional: bool,
}

impl Validators {
    /// The validators of a file with these times and this length, at the time `now`.
    pub(super) fn new(modified: Time, changed: Time, length: u64, now: SystemTime) -> Self {
        let seconds = modified.0;
        let is_dated = seconds > 1;
        let is_settled = age(modified, now).is_some_and(|age| age >= SETTLED);
        let tag = format!("\"{seconds:x}-{length:x}\"");
        let etag = if is_dated && is_settled {
            tag
        } else {
            let precision = if changed.1 == 0 { SECONDS_SETTLED } else { CHANGE_SETTLED };
            let is_strong = is_dated && age(changed, now).is_some_and(|age| age >= precision);
            let weak = if is_strong { "" } else { "W/" };
            format!("{weak}{}-{:x}\"", tag.trim_end_matches('"'), nanoseconds(changed))
        };
        let modified = (is_dated && seconds <= LAST_SECOND)
            .then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()))
            .filter(|modified| *modified <= now);
        Self {
            etag: visible(etag),
            modified,
            last_modified: modified.map(|modified| visible(httpdate::fmt_http_date(modified))),
            is_provisional: is_dated && !is_settled,
        }
    }

    /// The validators of the file in a content coding: the tag ends in `-<coding>`.
    pub(super) fn with_suffix(&self, suffix: &str) -> Self {
        let tag = String::from_utf8_lossy(self.etag.as_bytes());
        let etag = visible(format!("{}-{suffix}\"", tag.trim_end_matches('"')));
        Self { etag, ..self.clone() }
    }

    /// Whether an entity tag of a request matches in the strong comparison: equal, and both strong.
    pub(super) fn matches_strongly(&self, tag: &[u8]) -> bool {
        tag == self.etag.as_bytes() && !tag.starts_with(b"W/")
    }

    /// Whether an entity tag of a request matches in the weak comparison.
    pub(super) fn matches_weakly(&self, tag: &[u8]) -> bool {
        opaque(tag) == opaque(self.etag.as_bytes())
    }
}

/// An entity tag without the prefix of weak tags.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Time from `then` to `now`; `None` if `then` lies in the future.
fn age(then: Time, now: SystemTime) -> Option<Duration> {
    match u64::try_from(then.0) {
        Ok(seconds) => {
            now.duration_since(SystemTime::UNIX_EPOCH).ok()?.checked_sub(Duration::new(seconds, then.1))
        }
        Err(_) => Some(Duration::MAX),
    }
}

fn nanoseconds((seconds, nanoseconds): Time) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

/// Whether `sibling` is older than `original`, compared with the lower precision of both. Programs that copy a time
/// may truncate it to seconds, milliseconds, microseconds or 100 ns.
pub(super) fn is_older(sibling: Time, original: Time) -> bool {
    let precision = precision(sibling).max(precision(original));
    let rounded = |time| nanoseconds(time).div_euclid(precision);
    rounded(sibling) < rounded(original)
}

/// The unit in which a time was probably stored, in nanoseconds.
fn precision((_, nanoseconds): Time) -> i128 {
    [1_000_000_000, 1_000_000, 1000, 100]
        .into_iter()
        .find(|unit| i128::from(nanoseconds) % unit == 0)
        .unwrap_or(1)
}

fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("W/\"0-0\""))
}

#[cfg(test)]
mod tests;
