//! The `Location` header of a redirect.

use fingerpost::internals::location::Target;
use fingerpost::internals::{Backend, list};
use proptest::prelude::*;

fn backend() -> impl Strategy<Value = Backend> {
    prop_oneof![
        Just("127.0.0.1:8081"),
        Just("[2001:db8::7]:81"),
        Just("https://mirror.example/pub"),
        Just("http://h.example:1/a/b%2Fc"),
    ]
    .prop_map(|line| list::parse(line.as_bytes()).backends.remove(0))
}

/// Request targets of hostile clients: pieces with a meaning in some URL parser, in any order.
fn target() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("/"),
        Just("//"),
        Just("\\"),
        Just("."),
        Just(".."),
        Just("%2e"),
        Just("%2E"),
        Just("%2f"),
        Just("%5C"),
        Just("%00"),
        Just("%0d%0a"),
        Just("\r\n"),
        Just("\0"),
        Just("?"),
        Just("#"),
        Just("@"),
        Just(":"),
        Just("http://"),
        Just("evil.example"),
        Just("*"),
        Just("%"),
        Just("%zz"),
        Just("\u{e9}"),
        Just("\t"),
        Just(" "),
        Just(";"),
        Just("plshelp.txt"),
        Just("files"),
        Just("&x=y"),
    ]
    .prop_map(|piece| piece.as_bytes().to_vec());
    let piece = prop_oneof![4 => piece, 1 => prop::collection::vec(any::<u8>(), 0..4)];
    (any::<bool>(), prop::collection::vec(piece, 0..10)).prop_map(|(is_origin_form, pieces)| {
        let mut target = if is_origin_form { b"/".to_vec() } else { Vec::new() };
        target.extend(pieces.concat());
        target
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_location_stays_on_the_backend_and_below_its_base_path(backend in backend(), raw in target()) {
        let Ok(target) = Target::parse(&raw) else { return Ok(()) };
        let location = target.location(backend.id());
        prop_assert!(location.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'\\'));
        let text = std::str::from_utf8(&location).unwrap();
        // A browser resolves dot segments (WHATWG URL).
        let url = url::Url::parse(text).unwrap();
        let base = url::Url::parse(backend.id().as_str()).unwrap();
        prop_assert_eq!(url.scheme(), base.scheme());
        prop_assert_eq!(url.host_str(), base.host_str());
        prop_assert_eq!(url.port_or_known_default(), base.port_or_known_default());
        prop_assert_eq!((url.username(), url.password(), url.fragment()), ("", None, None));
        let below = format!("{}/", base.path().trim_end_matches('/'));
        prop_assert!(url.path().starts_with(&below), "{} is not below {}", url, base);
    }

    #[test]
    fn path_and_query_are_copied_byte_for_byte(backend in backend(), raw in target()) {
        let Ok(target) = Target::parse(&raw) else { return Ok(()) };
        let location = target.location(backend.id());
        let sent = location.strip_prefix(backend.id().as_str().as_bytes()).unwrap();
        prop_assert_eq!(sent, target.as_bytes());
        if raw.starts_with(b"/") {
            prop_assert_eq!(sent, &raw[..]);
        } else {
            prop_assert!(raw.ends_with(sent) || sent == b"/");
        }
    }

    #[test]
    fn a_plain_path_is_never_refused(path in "(/[a-zA-Z0-9_~-][a-zA-Z0-9._~%!$&'()*+,;=:@-]{0,12}){1,6}/?", query in "(\\?[a-zA-Z0-9./?%&=-]{0,20})?") {
        prop_assume!(!path.to_ascii_lowercase().contains("%2f") && !path.to_ascii_lowercase().contains("%5c"));
        let raw = format!("{path}{query}");
        prop_assert_eq!(Target::parse(raw.as_bytes()).unwrap().path(), path.as_bytes());
    }

    #[test]
    fn the_path_of_any_accepted_target_begins_with_a_slash(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(target) = Target::parse(&raw) {
            prop_assert!(target.path().starts_with(b"/"));
        }
    }
}
