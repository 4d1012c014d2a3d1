//! The parser of the server list.

use fingerpost::internals::list::{self, MAX_PROBLEMS};
use proptest::prelude::*;

/// A host name, an IPv4 address or an IPv6 address.
fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,8}[a-zA-Z0-9_])?(\\.[a-z]([a-z0-9-]{0,8}[a-z0-9])?){0,3}"
            .prop_filter("a name whose last part begins with a digit may be an address", |name| {
                !name.rsplit('.').next().unwrap().starts_with(|first: char| first.is_ascii_digit())
            }),
        (1..224_u8, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| format!("{a}.{b}.{c}.{d}")),
        (0x20..0x40_u8, any::<[u8; 16]>()).prop_map(|(first, mut bytes)| {
            bytes[0] = first;
            format!("[{}]", std::net::Ipv6Addr::from(bytes))
        }),
    ]
}

/// Groups of clients.
fn clients() -> impl Strategy<Value = String> {
    let one = prop_oneof![
        "DE|us|GB|AS",
        "continent:(EU|AS|oc)",
        "AS[1-9][0-9]{0,8}",
        "10\\.[0-9]\\.0\\.0/(8|16|32)",
        "2001:db8::/(0|32|128)"
    ];
    prop::collection::vec(one, 1..5).prop_map(|clients| clients.join(","))
}

prop_compose! {
    /// The attributes for clients and files.
    fn rules()(
        country in prop::option::of("DE|us|GB|AS"),
        asn in prop::option::of("(AS)?[1-9][0-9]{0,8}"),
        point in prop::option::of((-90.0..=90.0, -180.0..=180.0)),
        only in prop::option::of(clients()),
        not in prop::option::of(clients()),
        https_only: bool,
        family in prop::option::of("4|6"),
        hours in prop::option::of((0..24_u8, 1..24_u8)),
        (redirects, bytes) in (prop::option::of(1_u64..), prop::option::of("[1-9][0-9]{0,3}(B|kB|GiB|TB)")),
        sizes in prop::option::of((1_u64..1000, 1000_u64..)),
    ) -> String {
        let mut rules = String::new();
        rules.extend(country.map(|country| format!(" country={country}")));
        rules.extend(asn.map(|asn| format!(" asn={asn}")));
        rules.extend(point.map(|(lat, lon): (f64, f64)| format!(" lat={lat} lon={lon}")));
        rules.extend(only.map(|only| format!(" only={only}")));
        rules.extend(not.map(|not| format!(" not={not}")));
        rules.extend(https_only.then_some(" https_only"));
        rules.extend(family.map(|family| format!(" family={family}")));
        rules.extend(hours.map(|(from, length)| format!(" hours={from}-{}", (from + length) % 24)));
        rules.extend(redirects.map(|redirects| format!(" max_redirects={redirects}")));
        rules.extend(bytes.map(|bytes| format!(" monthly_bytes={bytes}")));
        rules.extend(sizes.map(|(min, max)| format!(" min_file_size={min} max_file_size={max}")));
        rules
    }
}

prop_compose! {
    /// A valid line.
    fn line()(
        host in host(),
        port in 1..=u16::MAX,
        place in prop_oneof![
            Just(("", "")),
            Just(("http://", "")),
            Just(("https://", "/")),
            Just(("http://", "/pub")),
            Just(("https://", "/a/b%20c/")),
        ],
        weight in prop::option::of(1..=list::MAX_WEIGHT),
        tier in prop::option::of(any::<u8>()),
        zone in prop::option::of("[a-zA-Z0-9._-]{1,64}"),
        expect in prop::option::of("text:([a-z=:.]|%20|%23|%C3%A4|%0A){1,20}|sha-256:[0-9a-f]{64}"),
        rules in rules(),
    ) -> String {
        let (scheme, base_path) = place;
        let mut line = format!("{scheme}{host}:{port}{base_path}");
        line.extend(weight.map(|weight| format!(" weight={weight}")));
        line.extend(tier.map(|tier| format!("\ttier={tier}")));
        line.extend(zone.map(|zone| format!("  zone={zone}")));
        line.extend(expect.map(|expect| format!(" expect={expect}")));
        line + &rules
    }
}

/// Valid and invalid lines, so that random text reaches every part of the parser.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        line().prop_map(String::into_bytes),
        "[a-z0-9.:/#\\[\\]= %@-]{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    let ending = prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n")];
    prop::collection::vec((line, ending), 0..30).prop_map(|lines| {
        lines
            .into_iter()
            .flat_map(|(mut line, ending)| {
                line.extend(ending.bytes());
                line
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a_valid_line_yields_one_backend_and_no_problem(line in line()) {
        let list = list::parse(line.as_bytes());
        prop_assert_eq!(&list.problems, &[]);
        prop_assert_eq!(list.backends.len(), 1);
    }

    #[test]
    fn a_printed_list_parses_to_the_same_backends(text in text()) {
        let backends = list::parse(&text).backends;
        let printed: Vec<_> = backends.iter().map(ToString::to_string).collect();
        let again = list::parse(printed.join("\n").as_bytes());
        prop_assert_eq!(again.problems, &[]);
        prop_assert_eq!(again.backends, backends);
    }

    #[test]
    fn random_bytes_yield_a_valid_list(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        check(&bytes)?;
    }

    #[test]
    fn nearly_valid_text_yields_a_valid_list(text in text()) {
        check(&text)?;
    }

    #[test]
    fn invalid_lines_do_not_affect_valid_ones(right in prop::collection::vec(line(), 1..8), wrong in "[!-/]{1,20}") {
        prop_assume!(!wrong.starts_with('#'));
        let mixed = [wrong.as_str(), &right.join(&format!("
{wrong}
"))].join("
");
        let list = list::parse(mixed.as_bytes());
        prop_assert_eq!(list.backends, list::parse(right.join("\n").as_bytes()).backends);
        prop_assert!(list.problems.len() >= right.len());
    }
}

fn check(text: &[u8]) -> Result<(), TestCaseError> {
    let list = list::parse(text);
    let mut ids: Vec<_> = list.backends.iter().map(|backend| backend.id().clone()).collect();
    for id in &ids {
        let id = id.as_str();
        prop_assert!(id.starts_with("http://") || id.starts_with("https://"));
        prop_assert!(id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{}", id);
        prop_assert!(!id.ends_with('/'));
        let url = url::Url::parse(id).unwrap();
        prop_assert!(url.has_host() && url.username().is_empty() && url.query().is_none());
    }
    ids.sort();
    ids.dedup();
    prop_assert_eq!(ids.len(), list.backends.len());
    let lines = text.split(|byte| *byte == b'\n').count();
    prop_assert!(list.backends.len() + list.problems.len() + list.unlisted_problems <= lines);
    prop_assert!(list.problems.len() <= MAX_PROBLEMS);
    for problem in &list.problems {
        prop_assert!((1..=lines).contains(&problem.line));
        let message = problem.to_string();
        prop_assert!(message.len() < 1000 && !message.chars().any(char::is_control), "{}", message);
    }
    Ok(())
}
