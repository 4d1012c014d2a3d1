//! Addresses for display and storage, without user name and password.

use std::fmt;

use url::{Origin, Url};

use crate::http::client::proxy::basic_authorization;

/// User name and password of an address. They are sent only to its scheme, host and port, and never
/// displayed.
#[derive(Clone)]
pub(super) struct Credentials {
    home: Origin,
    authorization: String,
}

impl Credentials {
    /// Removes the credentials from `url` and returns them.
    pub(super) fn take(url: &mut Url) -> Option<Self> {
        let (home, authorization) = (url.origin(), basic_authorization(url));
        *url = without_credentials(url.clone());
        authorization.map(|authorization| Self { home, authorization })
    }

    /// The value of `Authorization` in a request to `url`; `None` if `url` has another origin.
    pub(super) fn authorization(&self, url: &Url) -> Option<&str> {
        (url.origin() == self.home).then_some(self.authorization.as_str())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("home", &self.home).finish_non_exhaustive()
    }
}

/// `url` without user name, password and fragment.
pub(super) fn shown(url: &Url) -> String {
    without_credentials(url.clone()).into()
}

/// `url` without user name, password and fragment.
pub(super) fn without_credentials(mut url: Url) -> Url {
    url.set_fragment(None);
    // Both fail only for an address without host, which has no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Removes user name and password from a text that may be an address, even an invalid one.
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
    fn credentials_go_to_their_own_port() {
        let mut url = Url::parse("http://user:pa%20ss@h:8/f").unwrap();
        let credentials = Credentials::take(&mut url).unwrap();
        assert_eq!(url.as_str(), "http://h:8/f");
        assert_eq!(credentials.authorization(&url), Some("Basic dXNlcjpwYSBzcw=="));
        assert_eq!(credentials.authorization(&Url::parse("http://h/f").unwrap()), None);
        assert!(!format!("{credentials:?}").contains("dXNl"));
        assert!(Credentials::take(&mut url).is_none());
    }

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
