//! The URL of a redirect: the identity of the chosen backend, then the unchanged path and query of the request.
//!
//! For every request target, the authority of the `Location` is the authority of the backend, and the path stays below
//! its base path. A target that a client could resolve to another location is refused. It is not repaired, because a
//! repair would change its bytes.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::balancer::backends::BackendId;

/// A valid path and query of a request, which can follow the identity of a backend in a `Location`.
///
/// It starts with exactly one slash and contains only visible ASCII, no backslash, no fragment, and no dot segment, plain
/// or percent-encoded. Parsing does not allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    bytes: &'a [u8],
    path_bytes: usize,
}

/// The reason why a request target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The target is neither a path nor a URL: `*`, `host:port`, or empty.
    #[error("the request target has no path")]
    NoPath,
    /// The target contains an invalid byte: a control character, a space, a backslash, `#`, or non-ASCII.
    #[error("the path contains a character that must be percent-encoded")]
    Character,
    /// The path starts with two slashes. Some clients would read the next segment as the name of another server.
    #[error("the path starts with two slashes")]
    DoubleSlash,
    /// The path contains a segment `.` or `..`, or one that clients or servers treat like it.
    #[error("the path contains a '.' or '..' segment")]
    DotSegment,
}

impl<'a> Target<'a> {
    /// Parses the target of a request line, in origin form (`/path?query`) or absolute form
    /// (`http://anything/path?query`; RFC 9112, section 3.2). The authority of the absolute form is ignored.
    pub fn parse(raw: &'a [u8]) -> Result<Self, TargetError> {
        let bytes = if raw.first() == Some(&b'/') { raw } else { after_authority(raw)? };
        // `fold` instead of `all`: without an early end, the compiler vectorises the loop.
        if !bytes.iter().fold(true, |all, byte| all & is_allowed(*byte)) {
            return Err(TargetError::Character);
        }
        let path_bytes = memchr::memchr(b'?', bytes).unwrap_or(bytes.len());
        let path = bytes.get(..path_bytes).unwrap_or(bytes);
        if path.starts_with(b"//") {
            return Err(TargetError::DoubleSlash);
        }
        if has_dot_segment(path) {
            return Err(TargetError::DotSegment);
        }
        Ok(Self { bytes, path_bytes })
    }

    /// The unchanged path and query.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The path without the query, still percent-encoded.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        self.bytes.get(..self.path_bytes).unwrap_or(self.bytes)
    }

    /// The URL of this target at `backend`. It is visible ASCII, and so a valid header value.
    #[must_use]
    pub fn location(&self, backend: &BackendId) -> Bytes {
        let mut url = BytesMut::with_capacity(backend.as_str().len() + self.bytes.len());
        self.put_location(backend, &mut url);
        url.freeze()
    }

    /// Appends the URL of this target at `backend`.
    pub(crate) fn put_location(&self, backend: &BackendId, url: &mut BytesMut) {
        url.put_slice(backend.as_str().as_bytes());
        url.put_slice(self.bytes);
    }
}

/// The mount point of the service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mount {
    /// Removed from each path; empty if the service is mounted at the root.
    pub prefix: Arc<str>,
}

impl Mount {
    /// Path and query after the prefix; `None` if the path does not start with it.
    pub(super) fn below<'a>(&self, target: &'a str) -> Option<Cow<'a, str>> {
        if self.prefix.is_empty() {
            return Some(target.into());
        }
        let rest = target.strip_prefix(&*self.prefix)?;
        match rest.as_bytes().first() {
            Some(b'/') => Some(rest.into()),
            None | Some(b'?') => Some(format!("/{rest}").into()),
            Some(_) => None,
        }
    }
}

/// The path and query of a target in absolute form. A URL without a path has the path `/`.
fn after_authority(raw: &[u8]) -> Result<&[u8], TargetError> {
    let scheme_bytes = ["http://", "https://"]
        .into_iter()
        .map(str::as_bytes)
        .find(|scheme| raw.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(<[u8]>::len)
        .ok_or(TargetError::NoPath)?;
    let rest = raw.get(scheme_bytes..).unwrap_or_default();
    match rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'\\' | b'#')) {
        None if rest.is_empty() => Err(TargetError::NoPath),
        None => Ok(b"/"),
        Some(0) => Err(TargetError::NoPath),
        // `http://host?query` has a query but no path. Real clients always send a path.
        Some(end) if rest.get(end) == Some(&b'/') => Ok(rest.get(end..).unwrap_or_default()),
        Some(_) => Err(TargetError::NoPath),
    }
}

/// Visible ASCII without `\` and `#`. Browsers treat a backslash as a slash, and clients never send a fragment.
fn is_allowed(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && byte != b'\\' && byte != b'#'
}

/// Whether a segment of the path is `.` or `..` after decoding. An encoded slash or backslash also ends a segment, because
/// some servers decode a path before they resolve it.
fn has_dot_segment(path: &[u8]) -> bool {
    // A fast check for the usual path without an encoded byte.
    if memchr::memchr(b'%', path).is_none() {
        let after_slash = |dot: &usize| dot.checked_sub(1).and_then(|before| path.get(before)) == Some(&b'/');
        return memchr::memchr_iter(b'.', path).filter(after_slash).any(|dot| {
            matches!(path.get(dot..), Some([b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]))
        });
    }
    let mut rest = path;
    // The number of dots of the current segment; None if it contains another character.
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

/// The first decoded character, and its encoded length in bytes. An incomplete `%` sequence is a literal `%`.
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
mod tests;
