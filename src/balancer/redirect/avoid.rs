//! `Fingerpost-Avoid: host:port, ...`: a client says which backends failed it, and is not sent there again while
//! another is usable.

use std::collections::HashMap;

use actix_http::header::{HeaderMap, HeaderName};

use crate::balancer::backends::BackendId;
use crate::balancer::policy::{Avoid, MOST_AVOIDED};

/// The name of the header.
pub const HEADER: HeaderName = HeaderName::from_static("fingerpost-avoid");

/// Finds backends by host and port. Made anew when the list changes, and shared by all tables of that list.
#[derive(Debug, Default)]
pub struct AuthorityIndex(HashMap<Box<str>, Vec<u32>>);

impl AuthorityIndex {
    /// An index over the backends in the order of the routing table.
    #[must_use]
    pub fn new<'a>(backends: impl Iterator<Item = &'a BackendId>) -> Self {
        let mut places: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        for (place, backend) in (0..).zip(backends) {
            places.entry(backend.authority().into()).or_default().push(place);
        }
        Self(places)
    }

    /// The backends that the request's headers name. Names that the list does not hold are left out, and so is
    /// whatever is beyond the first [`MOST_AVOIDED`] names.
    #[must_use]
    pub fn avoided(&self, headers: &HeaderMap) -> Avoid {
        let mut avoid = Avoid::default();
        let values = headers.get_all(HEADER).filter_map(|value| value.to_str().ok());
        for name in values.flat_map(|value| value.split(',')).take(MOST_AVOIDED) {
            for place in self.0.get(name.trim()).into_iter().flatten() {
                avoid.add(*place);
            }
        }
        avoid
    }
}

#[cfg(test)]
mod tests {
    use actix_http::header::HeaderValue;

    use super::*;
    use crate::balancer::backends::{Backend, list};

    fn avoided(list: &str, values: &[&'static str]) -> Vec<u32> {
        let list = list::parse(list.as_bytes());
        let index = AuthorityIndex::new(list.backends.iter().map(Backend::id));
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_static(value));
        }
        let avoid = index.avoided(&headers);
        (0..10).filter(|place| avoid.contains(*place)).collect()
    }

    #[test]
    fn names_are_found_in_one_header_or_several() {
        let list = "a:1\nb:2\nc:3/pub\nc:3/old\n[::1]:4";
        assert_eq!(avoided(list, &["b:2"]), [1]);
        assert_eq!(avoided(list, &["b:2,a:1 ", " [::1]:4"]), [0, 1, 4]);
        assert_eq!(avoided(list, &["c:3"]), [2, 3]);
        assert_eq!(avoided(list, &["", ",,", "b", "nobody:9"]), [0; 0]);
    }

    #[test]
    fn a_client_cannot_name_the_whole_list() {
        let list = "h:1\nh:2\nh:3\nh:4\nh:5\nh:6\nh:7\nh:8\nh:9\nh:10";
        let all = "h:1,h:2,h:3,h:4,h:5,h:6,h:7,h:8,h:9,h:10";
        assert_eq!(avoided(list, &[all]).len(), MOST_AVOIDED);
    }
}
