//! Lines of `sha256sum`, such as the files `SHA256SUMS` of many projects.
//!
//! A line is `DIGITS  PATH` or `DIGITS *PATH`, or `SHA256 (PATH) = DIGITS` (`sha256sum --tag`). After a backslash at its start,
//! `\\`, `\n` and `\r` in the path are escapes. Blank lines and lines that start with `#` are ignored.

use std::borrow::Cow;

use super::{
    Catalogue, CatalogueBuilder, CatalogueContent, CatalogueError, EntryError, ListPlace, sha256, shown,
};

const DIGITS: usize = 64;

pub(super) fn parse(text: &[u8]) -> Result<Catalogue, CatalogueError> {
    let mut builder = CatalogueBuilder::new(ListPlace::Line);
    for (line, bytes) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.trim_ascii().is_empty() || bytes.starts_with(b"#") {
            continue;
        }
        let (digest, path) =
            split(bytes).map_err(|reason| CatalogueError { place: ListPlace::Line(line), reason })?;
        builder.add(line, &path, CatalogueContent { size: None, sha256: Some(digest) })?;
    }
    builder.finish()
}

/// The digest and the path of a line.
fn split(line: &[u8]) -> Result<([u8; 32], Cow<'_, [u8]>), EntryError> {
    let (is_escaped, content) = line.strip_prefix(b"\\").map_or((false, line), |rest| (true, rest));
    let (digits, path) = tagged(content).or_else(|| plain(content)).unwrap_or_default();
    let Some(digest) = sha256(digits) else {
        let hexadecimal = content.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        return Err(match hexadecimal {
            32 | 40 | 56 | 96 | 128 => EntryError::OtherDigest { digits: hexadecimal },
            _ => EntryError::NotAChecksum { line: shown(line) },
        });
    };
    Ok((digest, if is_escaped { unescaped(path) } else { path.into() }))
}

fn plain(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (digits, rest) = line.split_at_checked(DIGITS)?;
    let rest = rest.strip_prefix(b" ").or_else(|| rest.strip_prefix(b"\t"))?;
    Some((digits, rest.strip_prefix(b" ").or_else(|| rest.strip_prefix(b"*")).unwrap_or(rest)))
}

fn tagged(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(b"SHA256 (")?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    Some((digits, rest.strip_suffix(b") = ")?))
}

fn unescaped(path: &[u8]) -> Cow<'_, [u8]> {
    let mut plain = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(other) => *other,
                None => b'\\',
            },
            other => *other,
        });
    }
    plain.into()
}
