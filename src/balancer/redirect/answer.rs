//! The answer of a redirect: status, headers and page.

use std::borrow::Cow;
use std::fmt;

use actix_http::header::{self, HeaderName, HeaderValue};
use actix_http::{Response, StatusCode};
use bytes::{BufMut, Bytes, BytesMut};

use super::choice::Choice;
use super::location::Target;
use crate::balancer::backends::BackendId;
use crate::balancer::policy::Picks;
use crate::balancer::ranking::table::RoutingTable;
use crate::http::pages::Pages;

/// The status of a redirect (RFC 9110, sections 15.4.2 to 15.4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RedirectStatus(StatusCode);

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
    /// The status code.
    pub(crate) fn code(self) -> u16 {
        self.0.as_u16()
    }

    /// The reason phrase of the status line.
    pub(crate) fn reason(self) -> &'static str {
        self.0.canonical_reason().unwrap_or_default()
    }
}

impl fmt::Display for RedirectStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// The answer that redirects a client to the chosen backend. Each alternate has its own `Link` line.
///
/// `no-store` prevents caches from sending a client to the same backend for ever: without it, a 301 may be stored without
/// a time limit (RFC 9111, section 4.2.2).
pub(super) fn redirect(
    pages: &Pages,
    status: RedirectStatus,
    table: &RoutingTable,
    choice: &Choice<'_>,
    target: &Target<'_>,
) -> Response<Bytes> {
    let (mut location, mut page) = (BytesMut::new(), BytesMut::new());
    target.put_location(choice.backend, &mut location);
    put_page(pages, status, &location, &mut page);
    let mut response = Response::with_body(status.0, page.freeze());
    let headers = response.headers_mut();
    put(headers, header::LOCATION, location.freeze());
    let link_target = without_brackets(target.as_bytes());
    for alternate in alternates(table, &choice.picks) {
        let mut link = BytesMut::new();
        put_link(alternate, &link_target, &mut link);
        put(headers, header::LINK, link.freeze());
    }
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::CONTENT_TYPE, HTML);
    response
}

/// Appends the page of a redirect to `location`. `location` must be visible ASCII, which [`Target`] guarantees.
pub(super) fn put_page(pages: &Pages, status: RedirectStatus, location: &[u8], page: &mut BytesMut) {
    pages.put_redirect(status.0, location, page);
}

/// The alternates with their priorities, as ASCII digits from `1`.
pub(super) fn alternates<'a>(
    table: &'a RoutingTable,
    picks: &'a Picks,
) -> impl Iterator<Item = (u8, &'a BackendId)> {
    let entries = picks.alternates().iter().filter_map(|place| table.entries.get(*place as usize));
    (b'1'..).zip(entries.map(|entry| entry.backend.id()))
}

/// Appends the value of one `Link` line (RFC 6249, section 3): `<url>; rel=duplicate; pri=1`. Some clients, such as
/// aria2, read only one link of each line. `target` has no angle bracket, which would end the URL.
pub(super) fn put_link((priority, backend): (u8, &BackendId), target: &[u8], value: &mut BytesMut) {
    value.put_u8(b'<');
    value.put_slice(backend.as_str().as_bytes());
    value.put_slice(target);
    value.put_slice(b">; rel=duplicate; pri=");
    value.put_u8(priority);
}

/// The target with encoded angle brackets.
fn without_brackets(target: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'<', b'>', target).is_none() {
        return target.into();
    }
    let encoded = target.iter().flat_map(|byte| match byte {
        b'<' => b"%3C".as_slice(),
        b'>' => b"%3E",
        byte => std::slice::from_ref(byte),
    });
    encoded.copied().collect::<Vec<u8>>().into()
}

fn put(headers: &mut header::HeaderMap, name: HeaderName, value: Bytes) {
    // Cannot fail for visible ASCII. If it fails anyway, an answer without the header is better than a panic.
    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
        headers.append(name, value);
    }
}
