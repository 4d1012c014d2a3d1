//! Entity tag and modification date of a file (RFC 9110, section 8.8), from its times and its length. Pure.

use std::time::{Duration, SystemTime};

use actix_http::header::HeaderValue;

use super::root::Time;

/// The last second that an HTTP date can name: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The validators of one version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag: `"<mtime>-<length>"` in hexadecimal as nginx has it, equal on every mirror that keeps modification
    /// times.
    pub etag: HeaderValue,
    /// The modification time in whole seconds, if it tells versions apart.
    pub modified: Option<SystemTime>,
    /// The same as the value of `Last-Modified`.
    pub last_modified: Option<HeaderValue>,
    /// Whether the same version gets another tag once it is older.
    pub is_provisional: bool,
}

impl Validators {
    /// The validators of a file with these times and this length at the time `now`.
    #[must_use]
    pub fn new(modified: Time, _changed: Time, length: u64, _now: SystemTime) -> Self {
        let seconds = u64::try_from(modified.0).unwrap_or(0);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
        Self {
            etag: visible(format!("\"{seconds:x}-{length:x}\"")),
            modified: Some(modified),
            last_modified: Some(visible(httpdate::fmt_http_date(modified))),
            is_provisional: false,
        }
    }

    /// The same with a longer tag: `"<mtime hex>-<length hex>-<suffix>"`.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let tag = String::from_utf8_lossy(self.etag.as_bytes());
        let etag = visible(format!("{}-{suffix}\"", tag.trim_end_matches('"')));
        Self { etag, ..self.clone() }
    }

    /// Whether an entity tag of a request is equal to the tag in the strong comparison: both are strong.
    #[must_use]
    pub fn matches_strongly(&self, tag: &[u8]) -> bool {
        tag == self.etag.as_bytes() && !tag.starts_with(b"W/")
    }

    /// Whether an entity tag of a request is equal to the tag in the weak comparison.
    #[must_use]
    pub fn matches_weakly(&self, tag: &[u8]) -> bool {
        opaque(tag) == opaque(self.etag.as_bytes())
    }
}

/// An entity tag without the mark of a weak one.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"0-0\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_time_and_length_in_hexadecimal() {
        let modified = (0x2ebc_98a1, 5);
        let validators = Validators::new(modified, modified, 1000, SystemTime::now());
        assert_eq!(validators.etag, "\"2ebc98a1-3e8\"");
        assert_eq!(validators.last_modified.as_ref().unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(validators.with_suffix("br").etag, "\"2ebc98a1-3e8-br\"");
    }

    #[test]
    fn a_weak_tag_is_equal_in_the_weak_comparison_only() {
        let validators = Validators::new((5, 0), (5, 0), 1000, SystemTime::now());
        let strong = validators.etag.as_bytes();
        let weakened = [b"W/", strong].concat();
        assert!(validators.matches_weakly(strong) && validators.matches_weakly(&weakened));
        assert!(validators.matches_strongly(strong) && !validators.matches_strongly(&weakened));
    }
}
