//! Addresses as they are shown and stored: without user name and password.

use url::Url;

/// `url` without user name, password and fragment.
#[must_use]
pub(super) fn shown(url: &Url) -> String {
    without_credentials(url).into()
}

/// `url` without user name, password and fragment.
#[must_use]
pub(super) fn without_credentials(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_fragment(None);
    // Both fail only for an address without host, which has neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Any text that may be an address, such as one that cannot be parsed, without what may be user name and password.
#[must_use]
pub(super) fn masked(text: &str) -> String {
    let start = text.find("//").map_or(0, |at| at.saturating_add(2));
    let (front, rest) = text.split_at(start);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{front}{host}{tail}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let url = Url::parse("http://user:pa%20ss@h:8/f?x#y").unwrap();
        assert_eq!(shown(&url), "http://h:8/f?x");
        for (text, expected) in [
            ("http://user:p@ss@h/f", "http://h/f"),
            ("http://user:pw@/", "http:///"),
            ("user:pw@h", "h"),
            ("http://h/a@b", "http://h/a@b"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }
}
