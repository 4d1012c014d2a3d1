//! What a redirect looks like on the wire.

use std::fmt;

use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{Response, StatusCode};
use bytes::Bytes;

use crate::http::pages::Pages;

/// The statuses a redirect may have (RFC 9110, sections 15.4.2 to 15.4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedirectStatus(StatusCode);

impl TryFrom<u16> for RedirectStatus {
    type Error = &'static str;

    fn try_from(code: u16) -> Result<Self, Self::Error> {
        match code {
            301 => Ok(Self(StatusCode::MOVED_PERMANENTLY)),
            302 => Ok(Self(StatusCode::FOUND)),
            307 => Ok(Self(StatusCode::TEMPORARY_REDIRECT)),
            308 => Ok(Self(StatusCode::PERMANENT_REDIRECT)),
            _ => Err("it must be 301, 302, 307 or 308"),
        }
    }
}

impl RedirectStatus {
    /// The number.
    #[must_use]
    pub fn code(self) -> u16 {
        self.0.as_u16()
    }
}

impl fmt::Display for RedirectStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// The answer that sends a client to `location`, with the runners-up as `link` if there are any (RFC 6249).
///
/// `no-store` keeps caches from pinning a client to one backend: a bare 301 may be stored for ever
/// (RFC 9111, section 4.2.2). `location` is visible ASCII, as [`Target::location`](super::location::Target::location)
/// promises.
#[must_use]
pub fn redirect(
    pages: &Pages,
    status: RedirectStatus,
    location: Bytes,
    link: Option<Bytes>,
) -> Response<Bytes> {
    let page = pages.redirect(status.0, std::str::from_utf8(&location).unwrap_or_default());
    let mut response = Response::with_body(status.0, page);
    let head = response.head_mut();
    put(&mut head.headers, header::LOCATION, location);
    if let Some(link) = link {
        put(&mut head.headers, header::LINK, link);
    }
    head.headers.insert(header::CACHE_CONTROL, NO_STORE);
    head.headers.insert(header::CONTENT_TYPE, HTML);
    response
}

fn put(headers: &mut header::HeaderMap, name: HeaderName, value: Bytes) {
    // Cannot fail for visible ASCII; were it wrong all the same, the header is left out rather than a worker lost.
    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_are_those_that_keep_caches_away() {
        let status = RedirectStatus::try_from(301).unwrap();
        let response = redirect(&Pages::built_in(), status, Bytes::from_static(b"http://h:1/a?b"), None);
        assert_eq!(response.headers().get("location").unwrap(), "http://h:1/a?b");
        assert_eq!(response.headers().get("cache-control").unwrap(), "no-store");
        assert!(response.headers().get("link").is_none());
    }
}
