//! Identity of a file: the properties that must be the same on every server before their bytes are mixed.
//!
//! Entity tags and dates compare versions of one resource (RFC 9110, section 8.8). Only a digest compares
//! files of different resources. [`resource`] defines which addresses count as one resource.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use url::Url;

use super::address::shown;
use super::checksum::{Algorithm, Checksum};
use super::plan::ByteRange;
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
#[must_use]
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
#[must_use]
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
    #[must_use]
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
    #[must_use]
    pub(super) fn is_evidence(&self) -> bool {
        self.validator().is_some() || self.digest.is_some()
    }

    /// The validator for `If-Range` (RFC 9110, section 13.1.5).
    #[must_use]
    pub(super) fn validator(&self) -> Option<&str> {
        self.etag.as_deref().or(self.last_modified.as_deref())
    }
}

/// Whether the body has a content coding (RFC 9110, section 8.4), so that its bytes and positions are not
/// those of the file.
#[must_use]
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

/// The resource that `answered` represents after redirects from `requested`. Validators may be compared
/// between answers with the same resource.
///
/// A mirror keeps the path: an address that ends with the requested path and query represents the requested
/// resource on any host. Any other path, such as `/1.2/f` behind `/latest`, is a resource of its own. Its
/// host and its query, which storage services sign for each request, do not count.
#[must_use]
pub(super) fn resource(requested: &Url, answered: &Url) -> String {
    let mut name = shown(requested);
    let is_mirror = path_and_query(answered).ends_with(path_and_query(requested));
    if !is_mirror {
        name.push(' ');
        name.push_str(answered.path());
    }
    name
}

fn path_and_query(url: &Url) -> &str {
    &url[url::Position::BeforePath..url::Position::AfterQuery]
}

/// Origin of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Authority {
    /// The user, a Metalink or the balancer. This digest wins over announcements of servers.
    Given,
    /// A server with the file.
    Server,
}

/// The known properties of the file that is being downloaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContentIdentity {
    /// Size in bytes.
    pub size: Option<u64>,
    /// Digest and its origin.
    pub digest: Option<(Checksum, Authority)>,
    /// Strong entity tags of this version on its servers.
    pub etags: Vec<String>,
    /// `Last-Modified`, if it is a strong validator.
    pub last_modified: Option<String>,
    /// The [`resource`] that the validators belong to; empty if there is no validator.
    pub resource: String,
}

/// Result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The answer is proven to be of the same version.
    Same,
    /// The answer is of another version, or the versions cannot be proven equal.
    Different,
}

/// Maximum number of entity tags of one file.
const MAX_ETAGS: usize = 64;

impl ContentIdentity {
    /// Whether `observed` is this file. `own_etag` is the earlier tag of the same server.
    ///
    /// Without a digest in common, equality needs validators of the same resource: the same strong tag, or
    /// the same modification time and size. Equal sizes alone prove nothing: a stale copy often has the size
    /// of the new one.
    #[must_use]
    pub(super) fn compare(&self, observed: &Observed, own_etag: Option<&str>) -> Verdict {
        let verdict = |is_same| if is_same { Verdict::Same } else { Verdict::Different };
        if let (Some(known), Some(seen)) = (self.size, observed.size)
            && known != seen
        {
            return Verdict::Different;
        }
        if let (Some((known, _)), Some(seen)) = (self.digest, observed.digest)
            && known.algorithm() == seen.algorithm()
        {
            return verdict(known == seen);
        }
        let is_comparable = self.is_of(&observed.resource);
        if let (Some(own), Some(seen), true) = (own_etag, &observed.etag, is_comparable) {
            return verdict(own == seen);
        }
        if is_comparable && observed.etag.as_ref().is_some_and(|seen| self.etags.contains(seen)) {
            return Verdict::Same;
        }
        if self.digest.is_some_and(|(_, authority)| authority == Authority::Given) {
            // The digest of the complete file is verified in the end.
            return Verdict::Same;
        }
        match (&self.last_modified, &observed.last_modified) {
            (Some(known), Some(seen)) if is_comparable => {
                verdict(known == seen && self.size.is_some() && self.size == observed.size)
            }
            _ => verdict(self.is_open()),
        }
    }

    /// Whether validators of `resource` may be compared with those of this file.
    #[must_use]
    pub(super) fn is_of(&self, resource: &str) -> bool {
        self.resource.is_empty() || self.resource == resource
    }

    /// Whether no property of the file is known.
    #[must_use]
    pub(super) fn is_open(&self) -> bool {
        self.size.is_none() && self.etags.is_empty() && self.last_modified.is_none() && self.digest.is_none()
    }

    /// Adds the properties of an answer that was found to be the same file.
    pub(super) fn learn(&mut self, observed: &Observed) {
        self.size = self.size.or(observed.size);
        self.digest = self.digest.or(observed.digest.map(|digest| (digest, Authority::Server)));
        if !self.is_of(&observed.resource) {
            return;
        }
        if observed.validator().is_some() {
            self.resource.clone_from(&observed.resource);
        }
        self.last_modified = self.last_modified.take().or_else(|| observed.last_modified.clone());
        if let Some(etag) = &observed.etag
            && !self.etags.contains(etag)
            && self.etags.len() < MAX_ETAGS
        {
            self.etags.push(etag.clone());
        }
    }

    /// Keeps only a digest from the user, a Metalink or the balancer: the servers have another version now.
    #[must_use]
    pub(super) fn reopened(&self) -> Self {
        let digest = self.digest.filter(|(_, authority)| *authority == Authority::Given);
        Self { digest, ..Self::default() }
    }

    /// The validator for `If-Range` to a server whose own validator is unknown.
    #[must_use]
    pub(super) fn validator(&self) -> Option<&str> {
        self.etags.first().or(self.last_modified.as_ref()).map(String::as_str)
    }

    /// Whether the file may be requested in parts: only if a change of it would be detected.
    #[must_use]
    pub(super) fn can_be_resumed(&self) -> bool {
        self.validator().is_some() || self.digest.is_some()
    }
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
    #[must_use]
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
mod tests {
    use super::*;

    fn observed(size: u64, etag: Option<&str>, modified: Option<&str>) -> Observed {
        Observed {
            size: Some(size),
            etag: etag.map(ToOwned::to_owned),
            last_modified: modified.map(ToOwned::to_owned),
            digest: None,
            resource: "http://a/f".to_owned(),
        }
    }

    #[test]
    fn validators_of_another_resource_prove_nothing() {
        let mut identity = ContentIdentity::default();
        identity.learn(&observed(10, Some("\"1\""), Some("Mon")));
        let other =
            Observed { resource: "http://a/g".to_owned(), ..observed(10, Some("\"1\""), Some("Mon")) };
        assert_eq!(identity.compare(&other, None), Verdict::Different);
        assert_eq!(identity.compare(&other, Some("\"1\"")), Verdict::Different);
        let digest = Checksum::new(Algorithm::Sha256, &[1; 32]);
        identity.digest = digest.map(|digest| (digest, Authority::Server));
        assert_eq!(identity.compare(&Observed { digest, ..other }, None), Verdict::Same);
    }

    #[test]
    fn a_mirror_keeps_the_path_and_a_version_does_not() {
        let of = |requested: &str, answered: &str| {
            resource(&Url::parse(requested).unwrap(), &Url::parse(answered).unwrap())
        };
        let own = of("http://b/f?x", "http://b/f?x");
        assert_eq!(of("http://user:pw@b/f?x", "http://m:8/base/f?x"), own);
        for other in ["http://m/f", "http://m/1.2/g?x", "http://b/f?y"] {
            assert_ne!(of("http://b/f?x", other), own, "{other}");
        }
        assert_ne!(of("http://b/latest", "http://b/1.1/f"), of("http://b/latest", "http://b/1.2/f"));
        assert_eq!(
            of("http://b/latest", "http://c/1.1/f?key=1"),
            of("http://b/latest", "http://d/1.1/f?key=2")
        );
        assert_ne!(of("http://b/f", "http://b/f"), of("http://c/f", "http://c/f"));
    }

    #[test]
    fn recent_and_default_dates_are_weak() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let is_strong = |modified: &str, date| is_strong_date(modified, date, now);
        assert!(is_strong("Sun, 06 Nov 1994 08:48:37 GMT", Some(now)));
        assert!(!is_strong("Sun, 06 Nov 1994 08:48:38 GMT", Some(now)));
        assert!(!is_strong("Sun, 06 Nov 1994 08:48:37 GMT", None));
        assert!(is_strong("Sat, 05 Nov 1994 08:49:37 GMT", None));
        for weak in ["Thu, 01 Jan 1970 00:00:01 GMT", "Tue, 01 Jan 1980 00:00:00 GMT", "yesterday", ""] {
            assert!(!is_strong(weak, Some(now)), "{weak}");
        }
    }

    #[test]
    fn equality_needs_evidence() {
        let mut identity = ContentIdentity::default();
        let first = observed(10, Some("\"a\""), Some("Mon"));
        assert_eq!(identity.compare(&first, None), Verdict::Same);
        identity.learn(&first);
        let cases = [
            (observed(10, Some("\"a\""), None), None, Verdict::Same),
            (observed(11, Some("\"a\""), Some("Mon")), None, Verdict::Different),
            (observed(10, Some("\"b\""), Some("Mon")), None, Verdict::Same),
            (observed(10, Some("\"b\""), Some("Mon")), Some("\"a\""), Verdict::Different),
            (observed(10, Some("\"b\""), Some("Tue")), None, Verdict::Different),
            (observed(10, Some("\"b\""), None), None, Verdict::Different),
            (observed(10, None, None), None, Verdict::Different),
        ];
        for (seen, own, verdict) in cases {
            assert_eq!(identity.compare(&seen, own), verdict, "{seen:?} {own:?}");
        }
    }

    #[test]
    fn a_digest_takes_precedence() {
        let digest = |byte| Checksum::new(Algorithm::Sha256, &[byte; 32]);
        let mut identity = ContentIdentity {
            digest: digest(1).map(|d| (d, Authority::Given)),
            ..ContentIdentity::default()
        };
        identity.learn(&observed(10, Some("\"a\""), Some("Mon")));
        let mut other = observed(10, Some("\"b\""), Some("Tue"));
        assert_eq!(identity.compare(&other, None), Verdict::Same);
        other.digest = digest(2);
        assert_eq!(identity.compare(&other, None), Verdict::Different);
        other.digest = digest(1);
        assert_eq!(identity.compare(&other, None), Verdict::Same);
    }

    #[test]
    fn content_ranges() {
        let parse = ContentRange::parse;
        let whole = ContentRange { range: Some(ByteRange::new(0, 10)), size: Some(10) };
        assert_eq!(parse("bytes 0-9/10"), Some(whole));
        assert_eq!(parse("bytes 0-9/*"), Some(ContentRange { size: None, ..whole }));
        assert_eq!(parse("bytes */10"), Some(ContentRange { range: None, size: Some(10) }));
        for bad in [
            "bytes -1-9/10",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "lines 0-9/10",
            "bytes */*",
            "bytes 0-9",
            "",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn digests_in_headers() {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;

        let head = |line: &str| {
            let text = format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
            Head::take(&mut bytes::BytesMut::from(text.as_str())).unwrap().unwrap()
        };
        let coded = STANDARD.encode([7; 32]);
        let promised = |line: String| promised_digest(&head(&line));
        let digest = Checksum::new(Algorithm::Sha256, &[7; 32]);
        assert_eq!(promised(format!("Repr-Digest: sha-512=:AAAA:, sha-256=:{coded}:")), digest);
        assert_eq!(promised(format!("Digest: MD5=x,SHA-256={coded}")), digest);
        assert_eq!(promised(format!("Repr-Digest: sha-256={coded}")), None);
        assert_eq!(promised("Repr-Digest: sha-256=:c2hvcnQ=:".to_owned()), None);
    }
}
