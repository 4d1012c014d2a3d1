//! Where a client is sent: the chosen backend, then path and query byte for byte as the client wrote them.
//!
//! Whatever a client writes, the authority of a `Location` is the backend's, and the path stays below the
//! backend's base path. So a target that a client could resolve to something else is refused, not repaired:
//! repairing would change the bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::balancer::backends::BackendId;

/// Path and query of a request, fit to follow a backend's identity in a `Location`.
///
/// It starts with one slash, holds visible ASCII alone, no backslash, no fragment, and no dot segment, plain or
/// percent-encoded. Parsing allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    bytes: &'a [u8],
    path_bytes: usize,
}

/// Why a request target is answered with an error instead of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither a path nor a URL: `*`, `host:port`, nothing at all.
    #[error("the request asks for no path")]
    NoPath,
    /// A byte that may not stand in a request target: a control character, a space, a backslash, `#`, non-ASCII.
    #[error("the path holds a character that must be percent-encoded")]
    Character,
    /// The path starts with two slashes, which some clients take for another server.
    #[error("the path starts with two slashes")]
    DoubleSlash,
    /// A segment `.` or `..`, or one that a client or server takes for it.
    #[error("the path holds a '.' or '..' segment")]
    DotSegment,
}

impl<'a> Target<'a> {
    /// Checks the target of a request line, in origin form (`/path?query`) or absolute form
    /// (`http://anything/path?query`; RFC 9112, section 3.2). The authority of the latter is left out.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Refusal> {
        let bytes = if raw.first() == Some(&b'/') { raw } else { after_authority(raw)? };
        // Without an end before the last byte, this takes many bytes at a time.
        if !bytes.iter().fold(true, |all, byte| all & is_allowed(*byte)) {
            return Err(Refusal::Character);
        }
        let path_bytes = memchr::memchr(b'?', bytes).unwrap_or(bytes.len());
        let path = bytes.get(..path_bytes).unwrap_or(bytes);
        if path.starts_with(b"//") {
            return Err(Refusal::DoubleSlash);
        }
        if has_dot_segment(path) {
            return Err(Refusal::DotSegment);
        }
        Ok(Self { bytes, path_bytes })
    }

    /// Path and query as the client wrote them.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The path alone, still percent-encoded.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        self.bytes.get(..self.path_bytes).unwrap_or(self.bytes)
    }

    /// The URL of this target at `backend`, in one buffer of exactly its length. It is visible ASCII, so it is a
    /// valid header value.
    #[must_use]
    pub fn location(&self, backend: &BackendId) -> Bytes {
        let mut url = BytesMut::with_capacity(backend.as_str().len() + self.bytes.len());
        self.put_location(backend, &mut url);
        url.freeze()
    }

    /// Appends the same URL.
    pub fn put_location(&self, backend: &BackendId, url: &mut BytesMut) {
        url.put_slice(backend.as_str().as_bytes());
        url.put_slice(self.bytes);
    }
}

/// The path and query of an absolute-form target. One without a path asks for `/`.
fn after_authority(raw: &[u8]) -> Result<&[u8], Refusal> {
    let scheme_bytes = ["http://", "https://"]
        .into_iter()
        .map(str::as_bytes)
        .find(|scheme| raw.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(<[u8]>::len)
        .ok_or(Refusal::NoPath)?;
    let rest = raw.get(scheme_bytes..).unwrap_or_default();
    match rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'\\' | b'#')) {
        None if rest.is_empty() => Err(Refusal::NoPath),
        None => Ok(b"/"),
        Some(0) => Err(Refusal::NoPath),
        // `http://host?query` has a query and no path; no client that means it writes it so.
        Some(end) if rest.get(end) == Some(&b'/') => Ok(rest.get(end..).unwrap_or_default()),
        Some(_) => Err(Refusal::NoPath),
    }
}

/// Visible ASCII without `\` and `#`. Browsers read a backslash as a slash, and a fragment never reaches a server.
fn is_allowed(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && byte != b'\\' && byte != b'#'
}

/// Whether a segment of the path is `.` or `..` once its dots are decoded. An encoded slash or backslash ends a
/// segment here, because some servers decode before they resolve.
fn has_dot_segment(path: &[u8]) -> bool {
    // Nearly every path has neither a segment that starts with a dot nor an encoded byte.
    if memchr::memchr(b'%', path).is_none() {
        let after_slash = |dot: &usize| dot.checked_sub(1).and_then(|before| path.get(before)) == Some(&b'/');
        return memchr::memchr_iter(b'.', path).filter(after_slash).any(|dot| {
            matches!(path.get(dot..), Some([b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]))
        });
    }
    let mut rest = path;
    // The segment so far: the number of dots, or None once it holds anything else.
    let mut dots = None;
    loop {
        let (character, length) = decode_first(rest);
        match character {
            Some(b'/' | b'\\') | None if matches!(dots, Some(1 | 2)) => return true,
            None => return false,
            Some(b'/' | b'\\') => dots = Some(0_u8),
            Some(b'.') => dots = dots.map(|count| count.saturating_add(1)),
            Some(_) => dots = None,
        }
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// The first character with percent-encoding undone, and how many bytes it takes. A stray `%` stands for itself.
fn decode_first(bytes: &[u8]) -> (Option<u8>, usize) {
    match bytes {
        [b'%', high, low, ..] => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => (Some(high << 4 | low), 3),
            _ => (Some(b'%'), 1),
        },
        [first, ..] => (Some(*first), 1),
        [] => (None, 0),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::backends::list;

    fn location(target: &str) -> Result<String, Refusal> {
        let list = list::parse(b"https://mirror.example/pub");
        let target = Target::parse(target.as_bytes())?;
        Ok(String::from_utf8(target.location(list.backends[0].id()).to_vec()).unwrap())
    }

    #[test]
    fn path_and_query_come_back_byte_for_byte() {
        for target in [
            "/",
            "/plshelp.txt",
            "/files/a%20b%2Fc.iso?x=1&y=%2e%2e/../z",
            "/a//b",
            "/a.b/...x/..c/.hidden/...",
            "/100%/%zz/%",
            "/?//evil",
            "/a;b=c,d'e(f)*!~$",
            "/sub%0d%0aX:1",
        ] {
            assert_eq!(location(target).unwrap(), format!("https://mirror.example:443/pub{target}"));
        }
    }

    #[test]
    fn a_url_as_target_gives_its_path_and_never_its_authority() {
        for (target, path) in [
            ("http://evil.example/y?z", "/y?z"),
            ("HTTPS://evil.example:1/y", "/y"),
            ("http://evil.example", "/"),
        ] {
            assert_eq!(location(target).unwrap(), format!("https://mirror.example:443/pub{path}"));
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for (target, refusal) in [
            ("", Refusal::NoPath),
            ("*", Refusal::NoPath),
            ("evil.example:443", Refusal::NoPath),
            ("evil", Refusal::NoPath),
            ("?x", Refusal::NoPath),
            ("@evil.example/", Refusal::NoPath),
            (".evil.example/", Refusal::NoPath),
            ("ftp://evil.example/x", Refusal::NoPath),
            ("http:///x", Refusal::NoPath),
            ("http://", Refusal::NoPath),
            ("http://a\\b/c", Refusal::NoPath),
            ("//evil.example/x", Refusal::DoubleSlash),
            ("http://a//evil.example/x", Refusal::DoubleSlash),
            ("/\\evil.example/x", Refusal::Character),
            ("/x?\\", Refusal::Character),
            ("/x#y", Refusal::Character),
            ("/a b", Refusal::Character),
            ("/a\r\nX: y", Refusal::Character),
            ("/a\0", Refusal::Character),
            ("/a\u{7f}", Refusal::Character),
            ("/\u{e9}", Refusal::Character),
            ("/../x", Refusal::DotSegment),
            ("/a/..", Refusal::DotSegment),
            ("/./x", Refusal::DotSegment),
            ("/%2e%2e/x", Refusal::DotSegment),
            ("/a/.%2E", Refusal::DotSegment),
            ("/%2e", Refusal::DotSegment),
            ("/a/%2e%2e%2fx", Refusal::DotSegment),
            ("/..%5cx", Refusal::DotSegment),
            ("/a%2f..", Refusal::DotSegment),
            ("/a/..?b", Refusal::DotSegment),
        ] {
            assert_eq!(location(target), Err(refusal), "{target:?}");
        }
    }

    #[test]
    fn the_path_ends_where_the_query_begins() {
        assert_eq!(Target::parse(b"/a?b?c").unwrap().path(), b"/a");
        assert_eq!(Target::parse(b"/a").unwrap().path(), b"/a");
    }
}
