//! Answers of the balancer to its clients.

use super::support::http::{self, Connection, Expect};
use super::support::lone::{Lone, assert_page};

#[test]
fn a_redirect_has_the_unchanged_path_and_query_and_must_not_be_stored() {
    let setup = Lone::start();
    for target in
        ["/plshelp.txt", "/files/plshelp.txt", "/", "/a%20b//c;d?x=%2e%2e/../&y=/", "/sub%0d%0aX:1", "/%zz%"]
    {
        let answer = setup.balancer.get(target);
        assert_eq!(answer.status_line, "HTTP/1.1 301 Moved Permanently");
        assert_eq!(answer.location(), setup.location(target));
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        assert!(answer.text().contains("<html"), "{answer:?}");
        assert_eq!((answer.header("ETag"), answer.header("Last-Modified")), (None, None));
    }
}

#[test]
fn the_status_of_a_redirect_can_be_chosen() {
    for status in ["302", "307", "308"] {
        let setup = Lone::start_with(&["--status", status]);
        let answer = setup.balancer.get("/x");
        assert_eq!(answer.status.to_string(), status);
        assert_eq!(answer.location(), setup.location("/x"));
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    }
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let setup = Lone::start();
    let mut connection = Connection::open(setup.balancer.address()).unwrap();
    let get = connection.get("/x").unwrap();
    connection.send("HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let head = connection.answer(Expect::HeadOnly).unwrap();
    assert_eq!((head.status, head.location()), (301, get.location()));
    // The connection contains no rest of a body.
    assert_eq!(connection.get("/y").unwrap().location(), setup.location("/y"));
}

#[test]
fn no_header_of_the_client_changes_the_authority() {
    let setup = Lone::start();
    for head in [
        "GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n\r\n",
        "GET http://evil.example/x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET /x HTTP/1.0\r\n\r\n",
    ] {
        let answer = setup.request(head);
        assert_eq!(answer.location(), setup.location("/x"), "{head:?}");
        assert!(!answer.text().contains("evil"), "{head:?}: {answer:?}");
    }
}

#[test]
fn other_methods_get_the_501_page() {
    let setup = Lone::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let answer = setup.request(format!("{method} /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        assert_page(&answer, 501);
    }
    let mut connection = Connection::open(setup.balancer.address()).unwrap();
    connection.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_page(&connection.answer(Expect::Body).unwrap(), 501);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let setup = Lone::start();
    let mut connection = Connection::open(setup.balancer.address()).unwrap();
    let targets: Vec<_> = (0..50).map(|number| format!("/{number}")).collect();
    connection.send(targets.iter().map(|target| http::get_request(target)).collect::<String>()).unwrap();
    for target in &targets {
        assert_eq!(connection.answer(Expect::Body).unwrap().location(), setup.location(target));
    }
}

/// A header that excludes a request from the fast path and does not change the answer.
const NO_FAST_PATH: &str = "Fingerpost-Avoid: 192.0.2.1:1\r\n";

/// One case of `data/redirects.json`. Bytes are written as Latin-1 characters, the backend as `mirror.test:1`.
#[derive(serde::Deserialize)]
struct Case {
    name: String,
    request: String,
    answers: Vec<Expected>,
    end: String,
}

#[derive(serde::Deserialize)]
struct Expected {
    /// Whether it is an answer to HEAD.
    head: bool,
    status: String,
    /// The other lines of the head, sorted, without `Date` and `Content-Length`.
    lines: Vec<String>,
}

impl Case {
    /// Sends the bytes and compares all answers.
    fn check(&self, setup: &Lone, request: &str) {
        let name = &self.name;
        let mut connection = Connection::open(setup.balancer.address()).unwrap();
        let bytes: Vec<u8> = request.chars().map(|character| u8::try_from(character).unwrap()).collect();
        connection.send(bytes).unwrap();
        for expected in &self.answers {
            let expect = if expected.head { Expect::HeadOnly } else { Expect::Body };
            let answer = connection.answer(expect).unwrap_or_else(|error| panic!("{name}: {error}"));
            let kept = answer.headers.iter().filter(|(name, _)| name != "Date" && name != "Content-Length");
            let mut lines: Vec<String> = kept.map(|(name, value)| format!("{name}: {value}")).collect();
            lines.sort();
            let backend = setup.peer.authority();
            let known: Vec<String> =
                expected.lines.iter().map(|line| line.replace("mirror.test:1", &backend)).collect();
            assert_eq!((&answer.status_line, lines), (&expected.status, known), "{name}");
            assert!(answer.header("Date").is_some(), "{name}");
            match answer.header("Location") {
                Some(location) if !expected.head => {
                    assert!(answer.text().contains(&location.replace('&', "&amp;")), "{name}: {answer:?}");
                }
                _ if !expected.head => assert_page(&answer, answer.status),
                _ => {}
            }
        }
        if self.end == "open" {
            assert_eq!(connection.get("/next").unwrap().location(), setup.location("/next"), "{name}");
        } else {
            assert!(connection.is_closed(), "{name}");
        }
    }
}

#[test]
fn odd_requests_are_answered_as_recorded_by_fast_path_and_app_alike() {
    let setup = Lone::start();
    let cases: Vec<Case> = serde_json::from_str(include_str!("data/redirects.json")).unwrap();
    for case in &cases {
        case.check(&setup, &case.request);
        // The same request without the fast path.
        if let Some((line, rest)) = case.request.split_once("HTTP/1.1\r\n") {
            case.check(&setup, &format!("{line}HTTP/1.1\r\n{NO_FAST_PATH}{rest}"));
        }
    }
}

#[test]
fn a_thousand_requests_in_one_piece_get_a_thousand_answers_in_their_order() {
    let setup = Lone::start();
    let mut connection = Connection::open(setup.balancer.address()).unwrap();
    let line = |number: usize| match number % 10 {
        // Every tenth request does not take the fast path, and the answers must keep the order of the requests.
        0 => format!("GET /{number} HTTP/1.1\r\nHost: x\r\n{NO_FAST_PATH}\r\n"),
        _ => format!("GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n"),
    };
    let requests: String = (0..1000).map(line).collect();
    connection.send(requests).unwrap();
    for number in 0..1000 {
        let answer = connection.answer(Expect::Body).unwrap();
        assert_eq!(answer.location(), setup.location(&format!("/{number}")));
    }
}
