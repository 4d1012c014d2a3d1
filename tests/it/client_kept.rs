//! `fingerpost get` and kept connections: a connection that the server closed meanwhile is not a failure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use super::client_tls;
use super::support::downloads::Downloads;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfile";
const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Reads one request. Returns false at the end of the connection.
fn asked(stream: &mut impl Read) -> bool {
    let mut lines = BufReader::with_capacity(1, stream).lines();
    lines.by_ref().map_while(Result::ok).any(|line| line.is_empty())
}

/// Answers one request and then calls `ends` with the connection. Later connections are answered normally.
fn server(ends: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        ends(listener.accept().unwrap().0);
        while let Ok((mut stream, _)) = listener.accept() {
            while asked(&mut stream) {
                stream.write_all(ANSWER).unwrap();
            }
        }
    });
    address
}

/// A server that reports each request and answers after a signal.
fn between() -> (SocketAddr, Receiver<()>, Sender<()>) {
    let ((says, asked_now), (go, told)) = (channel(), channel());
    let address = server(move |mut stream| {
        assert!(asked(&mut stream));
        says.send(()).unwrap();
        told.recv().unwrap();
        stream.write_all(ANSWER).unwrap();
    });
    (address, asked_now, go)
}

#[test]
fn an_unrequested_answer_is_not_used_for_the_next_request() {
    let (middle, while_idle, go) = between();
    let first = server(move |mut stream| {
        assert!(asked(&mut stream));
        stream.write_all(ANSWER).unwrap();
        while_idle.recv().unwrap();
        stream.write_all(TIMEOUT).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        go.send(()).unwrap();
    });
    let urls = [format!("http://{first}/a"), format!("http://{middle}/b"), format!("http://{first}/c")];
    let downloads = Downloads::new();
    downloads.get(&[&urls[0], &urls[1], &urls[2], "-j", "1"]).ended_with(0);
    assert_eq!(downloads.names(), ["a", "b", "c"]);
}

#[test]
fn a_request_on_a_connection_that_closes_is_sent_again() {
    let first = server(|mut stream| {
        assert!(asked(&mut stream));
        stream.write_all(ANSWER).unwrap();
        assert!(asked(&mut stream));
        stream.write_all(TIMEOUT).unwrap();
    });
    let downloads = Downloads::new();
    downloads.get(&[&format!("http://{first}/a"), &format!("http://{first}/b"), "-j", "1"]).ended_with(0);
    assert_eq!(downloads.names(), ["a", "b"]);
}

#[test]
fn an_idle_tls_connection_closed_without_alert_is_not_a_failure() {
    for waits_for_the_request in [false, true] {
        let (middle, while_idle, go) = between();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let config = client_tls::config();
            let accept = || {
                let session = ServerConnection::new(config.clone()).unwrap();
                StreamOwned::new(session, listener.accept().unwrap().0)
            };
            let mut stream = accept();
            assert!(asked(&mut stream));
            stream.write_all(ANSWER).unwrap();
            while_idle.recv().unwrap();
            if waits_for_the_request {
                go.send(()).unwrap();
                assert!(asked(&mut stream));
            }
            stream.sock.shutdown(Shutdown::Both).unwrap();
            // The server in between may no longer wait for this signal.
            let _ = go.send(());
            let mut next = accept();
            assert!(asked(&mut next));
            next.write_all(ANSWER).unwrap();
        });
        let tls = |name: &str| format!("https://{address}/{name}");
        let downloads = Downloads::new();
        let urls = [tls("a"), format!("http://{middle}/b"), tls("c")];
        downloads.get(&[&urls[0], &urls[1], &urls[2], "-j", "1", "-k"]).ended_with(0);
        assert_eq!(downloads.names(), ["a", "b", "c"], "waits: {waits_for_the_request}");
    }
}
