use super::*;

fn client(peer: &str, trusted: &str, lines: &[(&'static str, &'static str)]) -> (String, bool) {
    let peer = (!peer.is_empty()).then(|| peer.parse().unwrap());
    let lines = lines.iter().map(|(name, value)| (*name, value.as_bytes()));
    let client = Client::new(peer, false, &trusted.parse().unwrap(), lines);
    (client.address.map(|address| address.to_string()).unwrap_or_default(), client.is_https)
}

#[test]
fn headers_of_an_untrusted_peer_are_ignored() {
    let lines = [("X-Forwarded-For", "9.9.9.9"), ("X-Forwarded-Proto", "https")];
    for (peer, trusted) in [("8.8.8.8", "127.0.0.0/8,::1"), ("127.0.0.1", ""), ("::2", "::1")] {
        assert_eq!(client(peer, trusted, &lines), (peer.to_owned(), false));
    }
    for (peer, trusted) in [
        ("127.9.0.1", "127.0.0.0/8"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("8.8.8.8", "::/0"),
    ] {
        assert_eq!(client(peer, trusted, &lines), ("9.9.9.9".to_owned(), true), "{peer}");
    }
}

#[test]
fn the_client_is_the_last_address_that_is_not_a_trusted_proxy() {
    for (values, address) in [
        (&["1.1.1.1, 2.2.2.2"][..], "2.2.2.2"),
        (&["1.1.1.1", "2.2.2.2, 10.0.0.7"], "2.2.2.2"),
        (&["10.0.0.3, 10.0.0.7"], "10.0.0.3"),
        (&["1.1.1.1, unknown"], "10.0.0.1"),
        (&["garbage, 1.1.1.1:8080, 10.0.0.2"], "1.1.1.1"),
        (&["[2001:db8::1]:443"], "2001:db8::1"),
        (&["[2001:db8::2]"], "2001:db8::2"),
        (&["2001:db8::3"], "2001:db8::3"),
        (&["::ffff:3.3.3.3"], "3.3.3.3"),
        (&[""], "10.0.0.1"),
        (&[], "10.0.0.1"),
    ] {
        let lines: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
        assert_eq!(client("10.0.0.1", "10.0.0.0/24", &lines), (address.to_owned(), false), "{values:?}");
    }
}

#[test]
fn the_scheme_is_the_one_at_the_outermost_proxy() {
    for (value, is_https) in
        [("https", true), ("HTTPS , http", true), ("http, https", false), ("", false), ("ftp", false)]
    {
        assert_eq!(client("::1", "::1", &[("X-Forwarded-Proto", value)]).1, is_https, "{value}");
    }
}

#[test]
fn only_networks_can_be_trusted() {
    for text in ["", " ", "10.0.0.0/8, ::1/128,192.0.2.7", "0.0.0.0/0", "::/0"] {
        assert!(text.parse::<TrustedProxies>().is_ok(), "{text}");
    }
    for text in ["localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "1.2.3.4:80"] {
        let message = text.parse::<TrustedProxies>().unwrap_err().to_string();
        assert!(message.contains(text), "{message}");
    }
}
