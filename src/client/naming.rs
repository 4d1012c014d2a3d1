//! The name a download gets where the user gave none: a plain file name in the folder meant, whatever a server says.

use url::Url;

/// The longest name that is chosen, in bytes: file systems take 255, and a suffix must fit behind it.
const MAX_NAME_BYTES: usize = 240;

/// The name of last resort.
const FALLBACK: &str = "download";

/// The safe name of the file that `url` names: the last part of its path, decoded.
#[must_use]
pub fn from_url(url: &Url) -> String {
    let segment = url.path().rsplit('/').next().unwrap_or_default();
    safe(&percent_encoding::percent_decode_str(segment).decode_utf8_lossy())
}

/// The safe name that a `Content-Disposition` header proposes, if it proposes one (RFC 6266).
///
/// `filename*` wins over `filename`; only its UTF-8 form is understood.
#[must_use]
pub fn from_content_disposition(value: &str) -> Option<String> {
    let mut plain = None;
    for (name, value) in parameters(value) {
        match name.as_str() {
            "filename*" => {
                if let Some(coded) = strip_utf8_prefix(&value) {
                    return Some(safe(&percent_encoding::percent_decode_str(coded).decode_utf8_lossy()));
                }
            }
            "filename" => plain = plain.or(Some(value)),
            _ => {}
        }
    }
    plain.map(|name| safe(&name))
}

/// `utf-8'language'` off the front of an extended value (RFC 8187).
fn strip_utf8_prefix(value: &str) -> Option<&str> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, text) = rest.split_once('\'')?;
    charset.eq_ignore_ascii_case("utf-8").then_some(text)
}

/// The `name=value` pairs after the first `;`, names in lower case, quotes taken off.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut characters = text.chars();
    // The disposition type is of no interest.
    if !characters.by_ref().any(|character| character == ';') {
        return pairs;
    }
    loop {
        let name: String = characters.by_ref().take_while(|&character| character != '=').collect();
        let mut value = String::new();
        let mut quoted = false;
        let mut ended = true;
        while let Some(character) = characters.next() {
            match character {
                '"' => quoted = !quoted,
                '\\' if quoted => value.extend(characters.next()),
                ';' if !quoted => {
                    ended = false;
                    break;
                }
                _ => value.push(character),
            }
        }
        if !name.trim().is_empty() {
            pairs.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        if ended {
            return pairs;
        }
    }
}

/// Makes a name harmless: no folders, no control characters, no leading dots, no device of Windows, not too long.
#[must_use]
pub fn safe(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let printable: String = base
        .chars()
        .filter(|&character| !character.is_control() && !is_invisible(character))
        .map(|character| if r#"<>:"|?*"#.contains(character) { '_' } else { character })
        .collect();
    let mut clean = printable.trim_start_matches(['.', ' ']).trim_end_matches(['.', ' ']).to_owned();
    if clean.is_empty() {
        return FALLBACK.to_owned();
    }
    let stem = clean.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    if is_device(&stem) {
        clean.insert(0, '_');
    }
    while clean.len() > MAX_NAME_BYTES {
        clean.pop();
    }
    clean
}

/// Characters that change how a name is shown: marks of writing direction and such.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn is_device(stem: &str) -> bool {
    let numbered = stem.len() == 4
        && (stem.starts_with("COM") || stem.starts_with("LPT"))
        && stem.ends_with(|last: char| last.is_ascii_digit());
    numbered || matches!(stem, "CON" | "PRN" | "AUX" | "NUL")
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
        assert_eq!(name("http://h/nul.txt"), "_nul.txt");
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
        assert_eq!(name("attachment; filename=\"a;\\\"b.txt\"").as_deref(), Some("a;_b.txt"));
        assert_eq!(name("inline"), None);
        assert_eq!(name("attachment; filename=\"\"").as_deref(), Some(FALLBACK));
    }

    proptest! {
        #[test]
        fn a_name_never_leaves_its_folder(text in any::<String>()) {
            for name in [Some(safe(&text)), from_content_disposition(&text)].into_iter().flatten() {
                prop_assert!(!name.is_empty() && name.len() <= MAX_NAME_BYTES);
                prop_assert!(!name.contains(['/', '\\', '\0']) && !name.starts_with('.'));
            }
        }
    }
}
