//! The header `Fingerpost-Avoid: host:port, ...`, and `avoid=host:port,...` in the query: a client names backends that failed,
//! and is not redirected to them while another backend is usable.

use actix_http::header::{HeaderMap, HeaderName};

use super::location::Target;
use crate::balancer::policy::{Avoid, MOST_AVOIDED, identity};
use crate::balancer::ranking::table::{BackendEntry, RoutingTable};

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

/// Adds the backends that the query names, with or without a port. The query stays in the `Location`.
pub(super) fn add_wanted(avoid: &mut Avoid, target: &Target<'_>, table: &RoutingTable) {
    let (authorities, hosts): (Vec<_>, Vec<_>) = wanted(target).into_iter().partition(|name| has_port(name));
    for authority in &authorities {
        avoid.add(identity(authority));
    }
    if !hosts.is_empty() {
        let is_named = |entry: &&BackendEntry| hosts.iter().any(|host| host == entry.backend.host());
        table.entries.iter().filter(is_named).for_each(|entry| avoid.add(entry.load.identity()));
    }
}

/// The names in the query, in lower case. A query with more than [`MOST_AVOIDED`] of them must not cost more time, so the others
/// are ignored.
fn wanted(target: &Target<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for value in target.parameters("avoid") {
        let rest = MOST_AVOIDED - names.len();
        names
            .extend(value.split(',').filter(|name| !name.is_empty()).take(rest).map(str::to_ascii_lowercase));
    }
    names
}

/// Whether a name has a port. An IPv6 address without one has several colons, or ends with a bracket.
fn has_port(name: &str) -> bool {
    name.rsplit_once(':').is_some_and(|(host, _)| host.ends_with(']') || !host.contains(':'))
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
        let text = format!("/?avoid=A:1,,b&x=c{}", "&avoid=d,e".repeat(1000));
        let names = wanted(&Target::parse(text.as_bytes()).unwrap());
        assert_eq!(names, ["a:1", "b", "d", "e", "d", "e", "d", "e"]);
    }

    #[test]
    fn a_name_with_a_port_differs_from_an_address() {
        let names = ["a:1", "[::1]:4", "a", "127.0.0.1", "::1", "[::1]"];
        assert_eq!(names.map(has_port), [true, true, false, false, false, false]);
    }
}
