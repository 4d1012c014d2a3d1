//! How a client wants to see a folder: sorted by what, and in which form. Pure.

use actix_http::header::{self, HeaderMap};

use super::super::encoding::{Weight, parse_weight};

/// How a folder is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) key: Key,
    pub(super) order: Order,
    pub(super) form: Form,
}

/// What entries are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Key {
    #[default]
    Name,
    Size,
    Time,
}

/// Which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Ascending,
    Descending,
}

/// For whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// A person.
    #[default]
    Html,
    /// A program.
    Json,
}

impl View {
    /// What the query says; where it says nothing of the form, what `Accept` says. What is not understood is as if it were
    /// not there.
    pub(super) fn of(query: &str, headers: &HeaderMap) -> Self {
        let mut view = Self::default();
        let mut form = None;
        for pair in query.split('&') {
            match pair {
                "sort=name" => view.key = Key::Name,
                "sort=size" => view.key = Key::Size,
                "sort=time" => view.key = Key::Time,
                "order=asc" => view.order = Order::Ascending,
                "order=desc" => view.order = Order::Descending,
                "format=json" => form = Some(Form::Json),
                "format=html" => form = Some(Form::Html),
                _ => {}
            }
        }
        view.form = form.unwrap_or_else(|| {
            let accepted = headers.get_all(header::ACCEPT).map(header::HeaderValue::as_bytes);
            if wants_json(accepted) { Form::Json } else { Form::Html }
        });
        view
    }
}

/// Whether JSON is asked for by its name, and HTML is not asked for more.
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
    fn the_query_says_how_entries_are_sorted() {
        let of = |query| View::of(query, &HeaderMap::new());
        assert_eq!(of(""), View::default());
        let expected = View { key: Key::Size, order: Order::Descending, form: Form::Html };
        assert_eq!(of("sort=size&order=desc"), expected);
        assert_eq!(of("x&sort=time&sort=&order=sideways").key, Key::Time);
        assert_eq!(of("format=json").form, Form::Json);
    }

    #[test]
    fn json_is_for_those_who_name_it() {
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
