//! File names for downloads without `-o`: always plain names, even if a server sends a path.

use std::path::PathBuf;

use percent_encoding::{percent_decode_str, percent_encode_byte};
use url::Url;

/// Maximum size of a chosen name in bytes: file systems allow 255, and a suffix must fit.
const MAX_NAME_BYTES: usize = 240;

/// The name if no other can be used.
const FALLBACK: &str = "download";

/// The sanitised name of the file at `url`: the decoded last segment of its path.
#[must_use]
pub(super) fn from_url(url: &Url) -> String {
    let segment = url.path().rsplit('/').next().unwrap_or_default();
    safe(&lossless(&percent_decode_str(segment).collect::<Vec<u8>>()))
}

/// Converts bytes to text. Bytes that are not UTF-8 are percent-encoded, so that different bytes give
/// different texts.
#[must_use]
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
#[must_use]
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
#[must_use]
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
#[must_use]
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_addresses() {
        let name = |text: &str| from_url(&Url::parse(text).unwrap());
        assert_eq!(name("http://h/a/plshelp.txt?x=/y"), "plshelp.txt");
        assert_eq!(name("http://h/two%20words.bin"), "two words.bin");
        assert_eq!(name("http://h/..%2f..%2fetc%2fpasswd"), "passwd");
        assert_eq!(name("http://h/..%5C..%5Cboot.ini"), "boot.ini");
        assert_eq!(name("http://h/%00%0a.bashrc"), "bashrc");
        for kept in ["nul.txt", "aux.c", "a*b", "pkg_1:2.deb", "end."] {
            assert_eq!(name(&format!("http://h/{kept}")), kept);
        }
        assert_eq!(name("http://h/what%3F"), "what?");
        assert_eq!(name("http://h/%E4%c3%a4"), "%E4ä");
        assert_eq!(name(&format!("http://h/{}", "n".repeat(300))).len(), MAX_NAME_BYTES);
    }

    #[test]
    fn names_that_a_server_proposes() {
        let name = |text: &str| from_content_disposition(text);
        assert_eq!(name("attachment; filename=\"../../x\"").as_deref(), Some("x"));
        assert_eq!(name("attachment; filename=plain.txt; size=3").as_deref(), Some("plain.txt"));
        assert_eq!(
            name("attachment; filename=\"e.txt\"; filename*=UTF-8''%e2%82%ac%20rates.txt").as_deref(),
            Some("€ rates.txt")
        );
        assert_eq!(name("attachment; filename=\"a;\\\"b.txt\"").as_deref(), Some("a;\"b.txt"));
        assert_eq!(name("filename=\"x\"").as_deref(), Some("x"));
        assert_eq!(name("attachment; flag; filename = x 9.txt;").as_deref(), Some("x 9.txt"));
        assert_eq!(name("attachment; filename=x; filename*=ISO-8859-1''%A37").as_deref(), Some("£7"));
        assert_eq!(name("attachment; filename=x; filename*=KOI8-R''%A37").as_deref(), Some("x"));
        assert_eq!(name("inline"), None);
        assert_eq!(name("attachment; filename=\"\"").as_deref(), Some(FALLBACK));
    }

    #[test]
    fn paths_stay_in_their_folder() {
        for (path, expected) in [
            ("doc/a/README", "doc/a/README"),
            ("/etc/passwd", "etc/passwd"),
            ("../../x", "x"),
            ("a/../../b/./c", "b/c"),
            ("a/.ssh/x", "a/ssh/x"),
            ("..", FALLBACK),
            ("", FALLBACK),
        ] {
            assert_eq!(safe_path(path), PathBuf::from(expected), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_never_leaves_its_folder(text in "[a./\\\\\u{0}~ ]{0,30}") {
            let path = safe_path(&text);
            prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
        }

        #[test]
        fn a_name_never_leaves_its_folder(text in any::<String>()) {
            for name in [Some(safe(&text)), from_content_disposition(&text)].into_iter().flatten() {
                prop_assert!(!name.is_empty() && name.len() <= MAX_NAME_BYTES);
                prop_assert!(!name.contains(['/', '\\', '\0']) && !name.starts_with('.'));
            }
        }
    }
}
