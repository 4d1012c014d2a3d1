//! The tools of the stories do what their names say: a story can only be trusted if its peer misbehaves.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::support::http::{self, Connection, Expect, get, get_request, try_get};
use super::support::peer::{BODY, Behaviour, Peer};

#[test]
fn a_prompt_peer_keeps_its_connection_and_remembers_requests() {
    let peer = Peer::start(Behaviour::Prompt);
    let mut connection = Connection::open(peer.address()).unwrap();
    for _ in 0..3 {
        let answer = connection.get("/a?b").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, BODY));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
    }
    assert_eq!(peer.requests(), vec![get_request("/a?b"); 3]);
}

#[test]
fn a_peer_changes_its_behaviour() {
    let peer = Peer::start(Behaviour::Status(404));
    assert_eq!(get(peer.address(), "/").status, 404);
    peer.behave(Behaviour::WithHeader("endpoint-load-metrics: JSON {}".to_owned()));
    assert_eq!(get(peer.address(), "/").header("Endpoint-Load-Metrics"), Some("JSON {}"));
    peer.behave(Behaviour::RedirectsToItself);
    assert_eq!(get(peer.address(), "/").location(), format!("http://{}/", peer.authority()));
    let start = Instant::now();
    peer.behave(Behaviour::Delayed(Duration::from_millis(30)));
    assert_eq!(get(peer.address(), "/").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn bodies_and_heads_end_too_early() {
    for behaviour in [Behaviour::HalfBody, Behaviour::ClosesWithoutAnswer] {
        let peer = Peer::start(behaviour);
        assert_eq!(try_get(peer.address(), "/").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
    let peer = Peer::start(Behaviour::Garbage);
    assert!(try_get(peer.address(), "/").is_err());
}

#[test]
fn a_peer_hangs_until_it_is_dropped() {
    for behaviour in [Behaviour::Hangs, Behaviour::HangsInTheHead] {
        let peer = Peer::start(behaviour);
        let mut connection = Connection::open(peer.address()).unwrap();
        connection.send(get_request("/")).unwrap();
        while peer.requests().is_empty() {
            std::thread::yield_now();
        }
        drop(peer);
        assert!(connection.answer(Expect::Body).is_err());
    }
}

#[test]
fn bodies_are_endless_until_the_peer_is_dropped() {
    for behaviour in [Behaviour::EndlessBody, Behaviour::HugeBody] {
        let peer = Peer::start(behaviour);
        let mut connection = Connection::open(peer.address()).unwrap();
        connection.send(get_request("/")).unwrap();
        let reader = std::thread::spawn(move || connection.answer(Expect::Body));
        while peer.requests().is_empty() {
            std::thread::yield_now();
        }
        assert!(!reader.is_finished());
        drop(peer);
        assert!(reader.join().unwrap().is_err());
    }
}

#[test]
fn the_seed_server_closes_without_saying_so_and_handles_one_connection_at_a_time() {
    let peer = Peer::start(Behaviour::SeedServer);
    let mut first = Connection::open(peer.address()).unwrap();
    let mut second = Connection::open(peer.address()).unwrap();
    second.send(get_request("/second")).unwrap();
    let answer = first.get("/first").unwrap();
    assert_eq!((answer.status, answer.header("Connection")), (200, None));
    assert!(first.is_closed());
    assert_eq!(second.answer(Expect::Body).unwrap().status, 200);
    assert!(second.is_closed());
    assert_eq!(peer.requests(), [get_request("/first"), get_request("/second")]);
}

#[test]
fn a_head_request_has_no_body() {
    let peer = Peer::start(Behaviour::Status(204));
    let answer = http::request(peer.address(), "HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(answer.body.is_empty() && answer.text().is_empty());
}
