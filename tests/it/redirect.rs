//! What a client that asks the balancer is answered.

use super::support::http::{self, Connection, Expect};
use super::support::lone::{Lone, assert_page};

#[test]
fn a_redirect_names_path_and_query_as_the_client_wrote_them_and_must_not_be_stored() {
    let story = Lone::start();
    for target in
        ["/plshelp.txt", "/files/plshelp.txt", "/", "/a%20b//c;d?x=%2e%2e/../&y=/", "/sub%0d%0aX:1", "/%zz%"]
    {
        let answer = story.balancer.get(target);
        assert_eq!(answer.status_line, "HTTP/1.1 301 Moved Permanently");
        assert_eq!(answer.location(), story.location(target));
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
        assert!(answer.text().contains("<html"), "{answer:?}");
        assert_eq!((answer.header("ETag"), answer.header("Last-Modified")), (None, None));
    }
}

#[test]
fn the_status_of_a_redirect_can_be_chosen() {
    for status in ["302", "307", "308"] {
        let story = Lone::start_with(&["--status", status]);
        let answer = story.balancer.get("/x");
        assert_eq!(answer.status.to_string(), status);
        assert_eq!(answer.location(), story.location("/x"));
        assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    }
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let story = Lone::start();
    let mut connection = Connection::open(story.balancer.address()).unwrap();
    let get = connection.get("/x").unwrap();
    connection.send("HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let head = connection.answer(Expect::HeadOnly).unwrap();
    assert_eq!((head.status, head.location()), (301, get.location()));
    // Nothing of a body is left on the connection.
    assert_eq!(connection.get("/y").unwrap().location(), story.location("/y"));
}

#[test]
fn no_word_of_the_client_reaches_the_authority() {
    let story = Lone::start();
    for head in [
        "GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n\r\n",
        "GET http://evil.example/x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET /x HTTP/1.0\r\n\r\n",
    ] {
        let answer = story.request(head);
        assert_eq!(answer.location(), story.location("/x"), "{head:?}");
        assert!(!answer.text().contains("evil"), "{head:?}: {answer:?}");
    }
}

#[test]
fn other_methods_get_the_501_page() {
    let story = Lone::start();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let answer = story.request(format!("{method} /x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        assert_page(&answer, 501);
    }
    let mut connection = Connection::open(story.balancer.address()).unwrap();
    connection.send("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert_page(&connection.answer(Expect::Body).unwrap(), 501);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let story = Lone::start();
    let mut connection = Connection::open(story.balancer.address()).unwrap();
    let targets: Vec<_> = (0..50).map(|number| format!("/{number}")).collect();
    connection.send(targets.iter().map(|target| http::get_request(target)).collect::<String>()).unwrap();
    for target in &targets {
        assert_eq!(connection.answer(Expect::Body).unwrap().location(), story.location(target));
    }
}

/// The head's lines without the time, sorted, and the body.
fn comparable(answer: &http::Answer) -> (Vec<String>, String) {
    let lines = answer.headers.iter().filter(|(name, _)| name != "Date");
    let mut lines: Vec<String> = lines.map(|(name, value)| format!("{name}: {value}")).collect();
    lines.sort();
    lines.push(answer.status_line.clone());
    (lines, answer.text())
}

/// A header that may change the answer keeps a request from the short way; this one changes nothing.
const LONG_WAY: &str = "Fingerpost-Avoid: 192.0.2.1:1\r\n";

#[test]
fn a_plain_request_is_answered_the_short_way_as_it_is_the_long_way() {
    let story = Lone::start();
    for target in ["/", "/a%20b?c=d&e='f'", "/<b>\"x\"", "/%zz", "/a/../b", "//evil.example/", "/x#y", "/\\x"]
    {
        let ask = |line: &str| {
            let mut connection = Connection::open(story.balancer.address()).unwrap();
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{line}\r\n")).unwrap();
            comparable(&connection.answer(Expect::Body).unwrap())
        };
        let short = ask("");
        assert_eq!(short, ask("Connection: Keep-Alive\r\n"), "{target}");
        assert_eq!(short, ask(LONG_WAY), "{target}");
    }
}

#[test]
fn a_thousand_requests_in_one_piece_get_a_thousand_answers_in_their_order() {
    let story = Lone::start();
    let mut connection = Connection::open(story.balancer.address()).unwrap();
    let line = |number: usize| match number % 10 {
        // Each tenth goes the long way, and the answers must not overtake each other.
        0 => format!("GET /{number} HTTP/1.1\r\nHost: x\r\n{LONG_WAY}\r\n"),
        _ => format!("GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n"),
    };
    let requests: String = (0..1000).map(line).collect();
    connection.send(requests).unwrap();
    for number in 0..1000 {
        let answer = connection.answer(Expect::Body).unwrap();
        assert_eq!(answer.location(), story.location(&format!("/{number}")));
    }
}
