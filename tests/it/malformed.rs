//! Requests that no correct client sends, and the balancer's answers.

use super::support::http::{Connection, Expect};
use super::support::lone::{Lone, assert_page};

#[test]
fn a_path_that_may_lead_to_another_place_is_refused() {
    let story = Lone::start();
    for target in [
        "//evil.example/x",
        "/\\evil.example/x",
        "/../x",
        "/a/../../x",
        "/%2e%2e/x",
        "/%2E./x",
        "/..%2fx",
        "/..%5cx",
        "/a/.",
        "http://a//evil.example/x",
        "/\u{e9}",
        "/a\0b",
        "/x#y",
        "*",
    ] {
        let answer = story.request(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_page(&answer, 400);
        assert_eq!(answer.header("Location"), None, "{target:?}");
    }
    // The next request succeeds.
    assert_eq!(story.balancer.get("/x").status, 301);
}

#[test]
fn an_invalid_host_is_refused() {
    let story = Lone::start();
    for host in ["a b", "a/b", "[::1", "x:y", "\u{e9}", "a@b"] {
        // A plain request for the fast path, and one with another header.
        for more in ["", "Connection: close\r\n"] {
            for method in ["GET", "POST"] {
                let head = format!("{method} /x HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
                let answer = story.request(&head);
                assert_page(&answer, 400);
                assert_eq!(answer.header("Location"), None, "{head:?}");
            }
        }
    }
    for host in ["", "x", "x:80", "[::1]:80"] {
        assert_eq!(story.request(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")).status, 301, "{host:?}");
    }
}

#[test]
fn other_http_versions_get_the_505_page_and_http_1_0_is_served() {
    let story = Lone::start();
    for head in [
        "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET / HTTP/3.0\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        assert_page(&story.request(head), 505);
    }
    assert_eq!(story.request("GET /x HTTP/1.0\r\n\r\n").location(), story.location("/x"));
}

#[test]
fn malformed_heads_get_the_400_page_and_the_connection_is_closed() {
    let story = Lone::start();
    for head in [
        "nonsense\r\n\r\n",
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    ] {
        let mut connection = Connection::open(story.balancer.address()).unwrap();
        connection.send(head).unwrap();
        connection.finish_sending().unwrap();
        let answer = connection.answer(Expect::Body).unwrap_or_else(|error| panic!("{head:?}: {error}"));
        assert_page(&answer, 400);
        assert!(connection.is_closed(), "{head:?}");
    }
}

#[test]
fn heads_that_are_too_long_get_their_own_status() {
    let story = Lone::start();
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000));
    assert_page(&story.request(long_target), 414);
    let long_header = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(200_000));
    assert_page(&story.request(long_header), 431);
    let many_headers = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(1000));
    assert_page(&story.request(many_headers), 431);
}

#[test]
fn half_a_head_gets_the_408_page_even_on_a_used_connection() {
    let story = Lone::start();
    let mut connections: Vec<_> =
        (0..2).map(|_| Connection::open(story.balancer.address()).unwrap()).collect();
    assert_eq!(connections[1].get("/x").unwrap().status, 301);
    for connection in &mut connections {
        connection.send("GET /x HTTP/1.1\r\nHo").unwrap();
    }
    for connection in &mut connections {
        assert_page(&connection.answer(Expect::Body).unwrap(), 408);
        assert!(connection.is_closed());
    }
}

#[test]
fn header_names_are_written_in_camel_case() {
    let story = Lone::start();
    for request in
        ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\n\r\n", "nonsense\r\n\r\n"]
    {
        for (name, _) in story.request(request).headers {
            let is_camel_case =
                name.split('-').all(|part| part.starts_with(|first: char| first.is_ascii_uppercase()));
            assert!(is_camel_case, "{name} in the answer to {request:?}");
        }
    }
}

#[test]
fn a_request_with_a_body_gets_no_100_continue() {
    let story = Lone::start();
    let mut connection = Connection::open(story.balancer.address()).unwrap();
    assert_eq!(connection.get("/x").unwrap().status, 301);
    let head = "GET /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    connection.send(head).unwrap();
    assert_eq!(connection.answer(Expect::Body).unwrap().location(), story.location("/x"));
    assert!(connection.is_closed());
}
