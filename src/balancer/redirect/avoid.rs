//! The header `Fingerpost-Avoid: host:port, ...`: a client names backends that failed, and is not redirected to them
//! while another backend is usable.

use actix_http::header::{HeaderMap, HeaderName};

use crate::balancer::policy::{Avoid, MOST_AVOIDED, identity};

/// The name of the header.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("fingerpost-avoid");

/// The backends that the headers name. Names after the first [`MOST_AVOIDED`] are ignored.
pub(crate) fn avoided(headers: &HeaderMap) -> Avoid {
    let mut avoid = Avoid::default();
    let values = headers.get_all(HEADER).filter_map(|value| value.to_str().ok());
    for name in values.flat_map(|value| value.split(',')).take(MOST_AVOIDED) {
        // Host names are case-insensitive (RFC 3986, section 3.2.2); the list has them in lower case.
        avoid.add(identity(&name.trim().to_ascii_lowercase()));
    }
    avoid
}

#[cfg(test)]
mod tests {
    use actix_http::header::HeaderValue;

    use super::*;

    fn check(values: &[&'static str], avoided_names: &[&str]) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_static(value));
        }
        let avoid = avoided(&headers);
        let names = ["a:1", "b:2", "[::1]:4", "h:9"];
        let found: Vec<_> = names.into_iter().filter(|name| avoid.contains(identity(name))).collect();
        assert_eq!(found, avoided_names, "{values:?}");
    }

    #[test]
    fn one_header_or_several_may_name_backends() {
        check(&["b:2"], &["b:2"]);
        check(&["b:2,a:1 ", " [::1]:4"], &["a:1", "b:2", "[::1]:4"]);
        check(&["B:2"], &["b:2"]);
        check(&["", ",,", "b", "unknown:9"], &[]);
    }

    #[test]
    fn the_number_of_names_is_limited() {
        check(&["h:1,h:2,h:3,h:4,h:5,h:6,h:7,h:8,h:9"], &[]);
    }
}
