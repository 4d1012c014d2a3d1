//! File names for downloads without `-o`: always plain names, even if a server sends a path.

use std::path::PathBuf;

use percent_encoding::{percent_decode_str, percent_encode_byte};
use url::Url;

/// Maximum size of a chosen name in bytes: file systems allow 255, and a suffix must fit.
const MAX_NAME_BYTES: usize = 240;

/// The name if no other can be used.
const FALLBACK: &str = "download";

/// The sanitised name of the file at `url`: the decoded last segment of its path.
pub(super) fn from_url(url: &Url) -> String {
    let segment = url.path().rsplit('/').next().unwrap_or_default();
    safe(&lossless(&percent_decode_str(segment).collect::<Vec<u8>>()))
}

/// Converts bytes to text. Bytes that are not UTF-8 are percent-encoded, so that different bytes give
/// different texts.
pub(super) fn lossless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|&byte| percent_encode_byte(byte)));
    }
    text
}

/// The sanitised name in a `Content-Disposition` header, if it has one (RFC 6266).
///
/// `filename*` takes precedence over `filename`.
pub(super) fn from_content_disposition(value: &str) -> Option<String> {
    let mut plain = None;
    for (name, value) in parameters(value) {
        match name.as_str() {
            "filename*" => {
                if let Some(name) = extended(&value) {
                    return Some(safe(&name));
                }
            }
            "filename" => plain = plain.or(Some(value)),
            _ => {}
        }
    }
    plain.map(|name| safe(&name))
}

/// Decodes an extended value, `charset'language'text` (RFC 8187), in UTF-8 or ISO-8859-1.
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, text) = rest.split_once('\'')?;
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    if charset.eq_ignore_ascii_case("utf-8") {
        Some(lossless(&bytes))
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(bytes.into_iter().map(char::from).collect())
    } else {
        None
    }
}

/// The `name=value` pairs between semicolons, with names in lower case and without quotes. Other parts, such
/// as the disposition type, are skipped.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut parts = vec![String::new()];
    let (mut is_quoted, mut characters) = (false, text.chars());
    while let Some(character) = characters.next() {
        let Some(part) = parts.last_mut() else { break };
        match character {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => part.extend(characters.next()),
            ';' if !is_quoted => parts.push(String::new()),
            _ => part.push(character),
        }
    }
    parts
        .iter()
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}

/// Sanitises a relative path: it stays in its folder, and each part is a [`safe`] name.
pub(super) fn safe_path(path: &str) -> PathBuf {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(safe(part)),
        }
    }
    if parts.is_empty() { PathBuf::from(FALLBACK) } else { parts.iter().collect() }
}

/// Sanitises a name: no folders, no control characters, no leading dots, limited length.
pub(super) fn safe(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let printable: String =
        base.chars().filter(|&character| !character.is_control() && !is_invisible(character)).collect();
    let mut clean = printable.trim_start_matches(['.', ' ']).trim_end_matches(' ').to_owned();
    if clean.is_empty() {
        return FALLBACK.to_owned();
    }
    while clean.len() > MAX_NAME_BYTES {
        clean.pop();
    }
    clean
}

/// Invisible characters that change how a name is displayed, such as marks of the writing direction.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
