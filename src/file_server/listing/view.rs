//! The requested order and format of a listing. Pure.

use actix_http::header::{self, HeaderMap};

use super::super::encoding::{Weight, parse_weight};

/// The order and the format of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) key: SortKey,
    pub(super) order: SortOrder,
    pub(super) form: ListingFormat,
}

/// The property by which entries are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SortKey {
    #[default]
    Name,
    Size,
    Time,
}

/// The direction of the order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SortOrder {
    #[default]
    Ascending,
    Descending,
}

/// The format of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ListingFormat {
    /// HTML.
    #[default]
    Html,
    /// JSON.
    Json,
}

impl View {
    /// Reads the view from the query, and the format from `Accept` if the query has none. Unknown parameters are
    /// ignored.
    pub(super) fn of(query: &str, headers: &HeaderMap) -> Self {
        let mut view = Self::default();
        let mut form = None;
        for pair in query.split('&') {
            match pair {
                "sort=name" => view.key = SortKey::Name,
                "sort=size" => view.key = SortKey::Size,
                "sort=time" => view.key = SortKey::Time,
                "order=asc" => view.order = SortOrder::Ascending,
                "order=desc" => view.order = SortOrder::Descending,
                "format=json" => form = Some(ListingFormat::Json),
                "format=html" => form = Some(ListingFormat::Html),
                _ => {}
            }
        }
        view.form = form.unwrap_or_else(|| {
            let accepted = headers.get_all(header::ACCEPT).map(header::HeaderValue::as_bytes);
            if wants_json(accepted) { ListingFormat::Json } else { ListingFormat::Html }
        });
        view
    }
}

/// Whether `Accept` names JSON, and does not prefer HTML.
fn wants_json<'a>(fields: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut json, mut html): (Weight, Weight) = (0, 0);
    for member in fields.flat_map(|field| field.split(|byte| *byte == b',')) {
        let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts
            .find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")))
            .map_or(1000, |value| parse_weight(value).unwrap_or(0));
        if name.eq_ignore_ascii_case(b"application/json") {
            json = json.max(weight);
        } else if name.eq_ignore_ascii_case(b"text/html") {
            html = html.max(weight);
        }
    }
    json > 0 && json >= html
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_query_selects_the_order() {
        let of = |query| View::of(query, &HeaderMap::new());
        assert_eq!(of(""), View::default());
        let expected = View { key: SortKey::Size, order: SortOrder::Descending, form: ListingFormat::Html };
        assert_eq!(of("sort=size&order=desc"), expected);
        assert_eq!(of("x&sort=time&sort=&order=sideways").key, SortKey::Time);
        assert_eq!(of("format=json").form, ListingFormat::Json);
    }

    #[test]
    fn json_is_sent_to_clients_that_name_it() {
        for (field, expected) in [
            ("", false),
            ("*/*", false),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("application/json", true),
            ("Application/JSON; charset=utf-8; q=0.5, */*", true),
            ("application/json;q=0", false),
            ("application/json;q=none", false),
            ("application/json;q=0.5, text/html", false),
            ("application/json, text/html;q=0.9", true),
        ] {
            assert_eq!(wants_json([field.as_bytes()].into_iter()), expected, "{field}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic(query: String, fields: Vec<Vec<u8>>) {
            let _ = View::of(&query, &HeaderMap::new());
            let _ = wants_json(fields.iter().map(Vec::as_slice));
        }
    }
}
