//! Follows redirects, and decides which of them are refused.

use url::Url;

use super::address::{shown, without_credentials};

/// Why a redirect was not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RedirectError {
    /// The answer has no valid `Location`.
    #[error("{from} redirects without a usable Location")]
    NoLocation { from: String },
    /// The scheme of the target is neither http nor https.
    #[error("refusing the redirect to {scheme}: only http and https are followed")]
    Scheme { scheme: String },
    /// A redirect from https to http.
    #[error("refusing the redirect from https to {to}: it would give up encryption")]
    Downgrade { to: String },
    /// The target was visited before.
    #[error("redirect loop: {at} was visited before")]
    Circle { at: String },
    /// There are more redirects than allowed.
    #[error("more than {max} redirects")]
    TooMany { max: usize },
}

/// The addresses visited on the way to a file.
#[derive(Debug, Clone)]
pub(super) struct RedirectChain {
    /// All addresses but the last.
    visited: Vec<Url>,
    end: Url,
    max: usize,
}

impl RedirectChain {
    /// A chain that starts at `url` and allows `max` redirects.
    pub(super) fn new(url: Url, max: usize) -> Self {
        Self { visited: Vec::new(), end: without_credentials(url), max }
    }

    /// The last address, which is requested next.
    pub(super) fn end(&self) -> &Url {
        &self.end
    }

    /// The address that redirected to the last one; the last one itself if there was no redirect.
    pub(super) fn previous(&self) -> &Url {
        self.visited.last().unwrap_or(&self.end)
    }

    /// The same chain with `url` as last address, for a mirror named beside the last redirect.
    pub(super) fn with_end(&self, url: Url) -> Self {
        Self { visited: self.visited.clone(), end: url, max: self.max }
    }

    /// Follows a redirect: `location` is the header of the answer from the last address, absolute or relative
    /// to it.
    pub(super) fn follow(&mut self, location: Option<&str>) -> Result<Url, RedirectError> {
        let mut next = location
            .and_then(|location| self.end.join(location).ok())
            .ok_or_else(|| RedirectError::NoLocation { from: self.end.to_string() })?;
        match (self.end.scheme(), next.scheme()) {
            ("https", "http") => return Err(RedirectError::Downgrade { to: shown(&next) }),
            (_, "http" | "https") => {}
            (_, scheme) => return Err(RedirectError::Scheme { scheme: scheme.to_owned() }),
        }
        next = without_credentials(next);
        if next == self.end || self.visited.contains(&next) {
            return Err(RedirectError::Circle { at: next.to_string() });
        }
        if self.visited.len() >= self.max {
            return Err(RedirectError::TooMany { max: self.max });
        }
        self.visited.push(std::mem::replace(&mut self.end, next.clone()));
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(from: &str, location: &str) -> Result<String, RedirectError> {
        RedirectChain::new(from.parse().unwrap(), 10).follow(Some(location)).map(|url| url.to_string())
    }

    #[test]
    fn relative_and_absolute() {
        assert_eq!(follow("http://a/x/y?q", "z").unwrap(), "http://a/x/z");
        assert_eq!(follow("http://a/x", "//b/y").unwrap(), "http://b/y");
        assert_eq!(follow("http://a/x", "https://user:pw@b/y#f").unwrap(), "https://b/y");
    }

    #[test]
    fn refused_redirects() {
        for scheme in ["file:///etc/passwd", "ftp://a/b", "javascript:alert(1)", "data:,x"] {
            assert!(matches!(follow("http://a/x", scheme), Err(RedirectError::Scheme { .. })), "{scheme}");
        }
        assert!(matches!(follow("https://a/x", "http://a/x"), Err(RedirectError::Downgrade { .. })));
        assert!(matches!(follow("http://a/x", "/x"), Err(RedirectError::Circle { .. })));
        assert!(matches!(follow("http://a/x", "http://"), Err(RedirectError::NoLocation { .. })));
        let mut chain = RedirectChain::new("http://a/0".parse().unwrap(), 2);
        assert!(chain.follow(None).is_err());
        assert!(chain.follow(Some("/1")).is_ok() && chain.follow(Some("/2")).is_ok());
        assert_eq!(chain.follow(Some("/3")), Err(RedirectError::TooMany { max: 2 }));
    }
}
