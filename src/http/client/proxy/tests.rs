use super::*;

fn route(variables: &[(&str, &str)], url: &str) -> Route {
    let rules = ProxyRules::from_variables(|name| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    });
    rules.route(&url.parse().unwrap()).unwrap()
}

#[test]
fn the_environment_selects_the_proxy() {
    let http = [("HTTP_PROXY", "http://user:p%40ss@proxy:3128"), ("NO_PROXY", "inner.org, 10.0.0.1,.dot.de")];
    let Route::Forward(proxy) = route(&http, "http://outer.org/file") else { panic!("no proxy") };
    assert_eq!((proxy.to_string().as_str(), proxy.port), ("proxy:3128", 3128));
    assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNlcjpwQHNz"));
    for direct in ["http://inner.org/f", "http://a.inner.org/f", "http://10.0.0.1:81/f", "http://dot.de/f"] {
        assert_eq!(route(&http, direct), Route::Direct, "{direct}");
    }
    assert!(matches!(route(&http, "http://notinner.org/f"), Route::Forward(_)));
    assert_eq!(route(&http, "https://outer.org/f"), Route::Direct);
    assert!(matches!(route(&[("all_proxy", "p:80")], "https://outer.org/f"), Route::Tunnel(_)));
}

#[test]
fn exceptions_have_the_forms_of_curl() {
    let direct = |rule: &str, host: &str| {
        let variables = [("http_proxy", "proxy:1"), ("no_proxy", rule)];
        route(&variables, &format!("http://{host}/f")) == Route::Direct
    };
    for (rule, host) in [
        ("*", "a.org"),
        ("a.org", "A.ORG"),
        ("a.org", "x.a.org"),
        ("a.org.", "a.org"),
        (".a.org", "a.org"),
        ("*.a.org", "x.a.org"),
        ("a.org", "a.org."),
        ("a.org:81", "a.org:81"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.0.0.1/32", "10.0.0.1:81"),
        ("0.0.0.0/0", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:81", "10.0.0.1:81"),
        ("[::1]", "[::1]"),
        ("::1", "[::1]:81"),
        ("::/64", "[::1]"),
        ("[::1]:81", "[::1]:81"),
        ("x, y 10.0.0.1", "10.0.0.1"),
    ] {
        assert!(direct(rule, host), "{rule} {host}");
    }
    for (rule, host) in [
        ("a.org", "ba.org"),
        ("a.org:81", "a.org"),
        ("10.0.0.0/8", "11.1.2.3"),
        ("10.0.0.0/33", "10.0.0.1"),
        ("10.0.0.1:81", "10.0.0.1"),
        ("0.1", "10.0.0.1"),
        ("::/128", "[::1]"),
        (".", "a.org"),
    ] {
        assert!(!direct(rule, host), "{rule} {host}");
    }
}

#[test]
fn the_error_for_an_invalid_address_does_not_show_the_password() {
    for (text, told) in [
        ("https://user:secret@proxy:3128", "https://proxy:3128"),
        ("user:secret@proxy:port", "proxy:port"),
        ("user:sec/r@et://@proxy:port", "proxy:port"),
        ("http://user:sec/ret@", "http://"),
        ("socks5://proxy:1080", "socks5://proxy:1080"),
    ] {
        let Err(TransportError::Proxy(shown)) = Proxy::parse(text) else { panic!("{text} was accepted") };
        assert_eq!(shown, told, "{text}");
    }
}

#[test]
fn a_cgi_request_cannot_set_a_proxy() {
    let variables = [("HTTP_PROXY", "evil:1"), ("REQUEST_METHOD", "GET")];
    assert_eq!(route(&variables, "http://outer.org/f"), Route::Direct);
}
