//! The tools of the stories do what their names say: a story can only be trusted if its server misbehaves.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::support::http::{self, Connection, Expect, get, get_request, try_get};
use super::support::misbehaving::{BODY, Script};
use super::support::wait_until;

#[test]
fn a_prompt_server_keeps_its_connection_and_remembers_requests() {
    let server = Script::prompt().start();
    let mut connection = Connection::open(server.address()).unwrap();
    for _ in 0..3 {
        let answer = connection.get("/a?b").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, BODY));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
    }
    assert_eq!(server.requests(), vec![get_request("/a?b"); 3]);
}

#[test]
fn a_server_changes_its_behaviour() {
    let server = Script::status(404).start();
    assert_eq!(get(server.address(), "/").status, 404);
    server.becomes(Script::prompt().header("endpoint-load-metrics: JSON {}"));
    assert_eq!(get(server.address(), "/").header("Endpoint-Load-Metrics"), Some("JSON {}"));
    server.becomes(Script::redirect("/", &[]));
    assert_eq!(get(server.address(), "/").location(), "/");
    let start = Instant::now();
    server.becomes(Script::prompt().delays_head(Duration::from_millis(30)));
    assert_eq!(get(server.address(), "/").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn bodies_and_heads_end_too_early() {
    for script in [Script::prompt().closes_at(5), Script::prompt().sends(*b"")] {
        let server = script.start();
        assert_eq!(try_get(server.address(), "/").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_server_hangs_or_sends_until_it_is_dropped() {
    for script in [
        Script::prompt().hangs(),
        Script::prompt().stalls_after(b"HTTP/1.1 200 OK\r\nContent-Le"),
        Script::prompt().sends_forever("Content-Length: 1000000000000000000", &[b'x'; 0x4000]),
    ] {
        let server = script.start();
        let mut connection = Connection::open(server.address()).unwrap();
        connection.send(get_request("/")).unwrap();
        let reader = std::thread::spawn(move || connection.answer(Expect::Body));
        wait_until("the request", || !server.requests().is_empty());
        assert!(!reader.is_finished());
        drop(server);
        assert!(reader.join().unwrap().is_err());
    }
}

#[test]
fn the_seed_server_closes_without_saying_so_and_handles_one_connection_at_a_time() {
    let server = Script::seed_server().start();
    let mut first = Connection::open(server.address()).unwrap();
    let mut second = Connection::open(server.address()).unwrap();
    second.send(get_request("/second")).unwrap();
    let answer = first.get("/first").unwrap();
    assert_eq!((answer.status, answer.header("Connection")), (200, None));
    assert!(first.is_closed());
    assert_eq!(second.answer(Expect::Body).unwrap().status, 200);
    assert!(second.is_closed());
    assert_eq!(server.requests(), [get_request("/first"), get_request("/second")]);
}

#[test]
fn a_head_request_has_no_body() {
    let server = Script::status(204).start();
    let answer = http::request(server.address(), "HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(answer.body.is_empty() && answer.text().is_empty());
}
