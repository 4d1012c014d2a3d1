//! Parses a request path to the path of a file. Pure.
//!
//! A path is decoded once and split; dot segments are not resolved. Adjacent slashes count as one, as in nginx and
//! Apache, because scripts join a base that ends in a slash and a path that begins with one. A path with dot segments
//! or an encoded slash, which other programs may resolve to another place, is answered like a missing file.
//! `/files/name` names the same file as `/name`, because clients of the seed system request files below `/files`.

use std::borrow::Cow;

/// Name of the first folder, which is optional in a path and is removed.
const PREFIX: &[u8] = b"files";

/// A path below the root: `/`-separated, without a leading slash. No segment is empty or begins with a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePath<'a> {
    /// The bytes of the path; empty for the root itself.
    pub bytes: Cow<'a, [u8]>,
    /// Whether the path names a file or a folder.
    pub kind: PathKind,
}

/// Whether a path names a file or a folder, according to its last character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathKind {
    /// The path does not end in a slash.
    File,
    /// The path ends in a slash, or is the root.
    Folder,
}

/// Why a path names no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathError {
    /// The path is invalid: a broken escape, a NUL, no leading slash.
    Malformed,
    /// The path is valid and never served: a hidden name, a dot segment, or an encoded slash.
    Unserved,
}

/// Parses the path of a request target, without its query.
pub(super) fn parse(path: &str) -> Result<FilePath<'_>, PathError> {
    let path = merge_slashes(path);
    let rest = match &path {
        Cow::Borrowed(path) => Cow::Borrowed(below_root(path)?),
        Cow::Owned(path) => Cow::Owned(below_root(path)?.to_vec()),
    };
    if memchr::memchr_iter(b'%', &rest).any(|at| matches!(rest.get(at..at + 3), Some(b"%2f" | b"%2F"))) {
        decode(rest)?;
        return Err(PathError::Unserved);
    }
    let mut bytes = decode(rest)?;
    let kind = if bytes.is_empty() || bytes.ends_with(b"/") { PathKind::Folder } else { PathKind::File };
    if kind == PathKind::Folder {
        bytes = keep(bytes, |all| all.strip_suffix(b"/").unwrap_or(all));
    }
    if is_below(&bytes, PREFIX) {
        bytes = keep(bytes, |all| all.get(PREFIX.len() + 1..).unwrap_or_default());
    } else if kind == PathKind::Folder && *bytes == *PREFIX {
        bytes = Cow::Borrowed(b"");
    }
    if !bytes.is_empty() && !bytes.split(|byte| *byte == b'/').all(is_served_name) {
        return Err(PathError::Unserved);
    }
    Ok(FilePath { bytes, kind })
}

fn below_root(path: &str) -> Result<&[u8], PathError> {
    path.as_bytes().strip_prefix(b"/").ok_or(PathError::Malformed)
}

/// Replaces adjacent slashes by one. A `Location` made of the result cannot lead to another host, as `//host/` would.
pub(super) fn merge_slashes(path: &str) -> Cow<'_, str> {
    if memchr::memmem::find(path.as_bytes(), b"//").is_none() {
        return Cow::Borrowed(path);
    }
    let mut merged = String::with_capacity(path.len());
    merged.extend(
        path.chars()
            .scan('\0', |before, next| {
                let is_repeated = std::mem::replace(before, next) == '/' && next == '/';
                Some((!is_repeated).then_some(next))
            })
            .flatten(),
    );
    Cow::Owned(merged)
}

/// Whether a file or folder of this name may be served. Names that begin with a dot are hidden.
pub(super) fn is_served_name(name: &[u8]) -> bool {
    name.first().is_some_and(|first| *first != b'.')
}

fn is_below(bytes: &[u8], folder: &[u8]) -> bool {
    bytes.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Applies `part` to the bytes; a borrowed value stays borrowed.
fn keep(bytes: Cow<'_, [u8]>, part: impl Fn(&[u8]) -> &[u8]) -> Cow<'_, [u8]> {
    match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(part(bytes)),
        Cow::Owned(bytes) => Cow::Owned(part(&bytes).to_owned()),
    }
}

/// Decodes percent-encoding once. A broken escape or a NUL is malformed.
fn decode(encoded: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, PathError> {
    if memchr::memchr2(b'%', 0, &encoded).is_none() {
        return Ok(encoded);
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter().copied();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
            match (digit(), digit()) {
                (Some(high), Some(low)) => (high << 4 | low) as u8,
                _ => return Err(PathError::Malformed),
            }
        } else {
            byte
        };
        if byte == 0 {
            return Err(PathError::Malformed);
        }
        decoded.push(byte);
    }
    Ok(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests;
