//! Properties of a file in the head of an answer: size, validators, digest, range.

use std::time::{Duration, SystemTime};

use super::checksum::{Algorithm, Checksum};
use super::range::ByteRange;
use crate::http::client::head::Head;

/// A `Last-Modified` must be this much older than the `Date` of its answer to be a strong validator. RFC
/// 9110, section 8.8.2.2, demands one second and a common clock, which a client cannot verify. The minute is
/// from RFC 7232.
const STRONG_DATE_AGE: Duration = Duration::from_mins(1);

/// The limit for an answer without `Date`, compared with the clock of this machine, which may be wrong.
const STRONG_DATE_AGE_HERE: Duration = Duration::from_hours(24);

/// Earlier dates (1980-01-02) are defaults of archives and reproducible builds, which do not change with the
/// content.
const FIRST_STRONG_DATE: Duration = Duration::from_hours(24 * 3653);

/// The digest that `head` announces for the whole file: `Repr-Digest` (RFC 9530), or `Digest` (RFC 3230),
/// which mirrors still send.
pub(super) fn promised_digest(head: &Head) -> Option<Checksum> {
    let members = |name| head.all(name).flat_map(|value| value.split(','));
    let current = members("repr-digest").find_map(|member| {
        let (name, value) = member.trim().split_once('=')?;
        let coded = value.trim().strip_prefix(':')?.strip_suffix(':')?;
        name.eq_ignore_ascii_case("sha-256").then(|| Checksum::parse(Algorithm::Sha256, coded)).flatten()
    });
    current.or_else(|| digest_of_target(head))
}

/// The digest that a redirect announces for its target (RFC 6249, section 6). A `Repr-Digest` would be the
/// digest of the redirect's own page.
pub(super) fn digest_of_target(head: &Head) -> Option<Checksum> {
    head.all("digest").flat_map(|value| value.split(',')).find_map(|member| {
        let (name, value) = member.trim().split_once('=')?;
        name.eq_ignore_ascii_case("sha-256")
            .then(|| Checksum::parse(Algorithm::Sha256, value.trim()))
            .flatten()
    })
}

/// Properties of the file according to one answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed {
    /// The size of the whole file.
    pub size: Option<u64>,
    /// The strong entity tag, with quotes. Weak tags are left out, because different bytes may share one.
    pub etag: Option<String>,
    /// `Last-Modified` as received, if it is a strong validator.
    pub last_modified: Option<String>,
    /// The digest of the whole file.
    pub digest: Option<Checksum>,
    /// The [`resource`] that the answer represents.
    pub resource: String,
}

impl Observed {
    /// Reads the properties from an answer with the file (200) or a part of it (206).
    ///
    /// Validators of a coded or transformed representation (203) do not apply to the file and are left out.
    pub(super) fn from_head(head: &Head, size: Option<u64>) -> Self {
        if is_coded(head) || head.status == 203 {
            return Self { size, ..Self::default() };
        }
        let date = head.header("date").and_then(|date| httpdate::parse_http_date(date).ok());
        Self {
            size,
            etag: head
                .header("etag")
                .filter(|tag| tag.len() > 1 && tag.starts_with('"') && tag.ends_with('"'))
                .map(ToOwned::to_owned),
            last_modified: head
                .header("last-modified")
                .filter(|modified| is_strong_date(modified, date, SystemTime::now()))
                .map(ToOwned::to_owned),
            digest: promised_digest(head),
            resource: String::new(),
        }
    }

    /// Whether these properties distinguish this version of the file from others.
    pub(super) fn is_evidence(&self) -> bool {
        self.validator().is_some() || self.digest.is_some()
    }

    /// The validator for `If-Range` (RFC 9110, section 13.1.5).
    pub(super) fn validator(&self) -> Option<&str> {
        self.etag.as_deref().or(self.last_modified.as_deref())
    }
}

/// Whether the body has a content coding (RFC 9110, section 8.4), so that its bytes and positions are not
/// those of the file.
pub(super) fn is_coded(head: &Head) -> bool {
    head.all("content-encoding")
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
}

/// Whether `modified` is a strong validator in an answer sent at `date`, or received at `now` if it has no
/// `Date`.
fn is_strong_date(modified: &str, date: Option<SystemTime>, now: SystemTime) -> bool {
    let Ok(modified) = httpdate::parse_http_date(modified) else { return false };
    let latest = match date {
        Some(date) => date.checked_sub(STRONG_DATE_AGE),
        None => now.checked_sub(STRONG_DATE_AGE_HERE),
    };
    let is_meant =
        modified.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|time| time >= FIRST_STRONG_DATE);
    is_meant && latest.is_some_and(|latest| modified <= latest)
}

/// The value of a `Content-Range` header (RFC 9110, section 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// The range of the body; `None` in a 416.
    pub range: Option<ByteRange>,
    /// The size of the whole file, if it is not `*`.
    pub size: Option<u64>,
}

impl ContentRange {
    /// Parses `bytes FIRST-LAST/SIZE`, with `*` for an unknown size, or `bytes */SIZE`. Returns `None` for
    /// impossible values.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| -> Option<u64> {
            let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| digits.parse().ok()).flatten()
        };
        let (unit, rest) = text.trim().split_once(' ')?;
        let (range, size) = rest.trim().split_once('/')?;
        let size = if size == "*" { None } else { Some(number(size)?) };
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        if range == "*" {
            return size.map(|_| Self { range: None, size });
        }
        let (first, last) = range.split_once('-')?;
        let (start, end) = (number(first)?, number(last)?.checked_add(1)?);
        if start >= end || size.is_some_and(|size| end > size) {
            return None;
        }
        Some(Self { range: Some(ByteRange::new(start, end)), size })
    }
}

#[cfg(test)]
mod tests;
