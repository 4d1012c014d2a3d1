//! A transport with short deadlines, spoken to in raw bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use actix_http::body::{BoxBody, MessageBody};
use actix_http::header::{self, HeaderValue};
use actix_http::{Request, Response, StatusCode};
use actix_service::fn_service;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::http::listener;

mod endings;
mod readers;
mod whole;

const SHORT: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(20);
const LARGE: usize = 32 << 20;
/// More than the kernel holds.
const SOME: usize = 8 << 20;

struct Server {
    address: SocketAddr,
    stop: StopHandle,
    connections: Arc<Connections>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers with the path, or with much, or slowly.
    fn start(limits: Limits) -> Self {
        let listener = listener::listen("127.0.0.1", 0).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let stop = StopHandle::default();
        let own_stop = stop.clone();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let transport = Transport { workers: 1, limits, stop: own_stop, ..Transport::default() };
                let serving = transport.serve(vec![listener.into()], || (fn_service(answer), None)).unwrap();
                sender.send(serving.connections()).unwrap();
                serving.run().await.unwrap();
            });
        });
        let connections = receiver.recv().unwrap();
        Self { address, stop, connections, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A client whose system holds little for it.
    fn connect_slow(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Everything the server says to these bytes until it closes.
    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read_to_end(&mut stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.stop(Duration::ZERO);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

async fn answer(request: Request) -> Result<Response<BoxBody>, Response<BoxBody>> {
    if request.path() == "/interrupted" {
        return Ok(Response::with_body(StatusCode::OK, BoxBody::new(readers::interrupted())));
    }
    let body = match request.path() {
        "/large" => "x".repeat(LARGE),
        "/some" => "x".repeat(SOME),
        "/slow" => {
            tokio::time::sleep(SHORT).await;
            "slow".to_owned()
        }
        "/panic" => panic!("asked to, by a test"),
        "/end-worker" => {
            actix_rt::Arbiter::current().stop();
            "never sent".to_owned()
        }
        // A body may look like a refusal.
        "/mimic" => "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned(),
        path => format!("[{path}]"),
    };
    let mut answer = Response::with_body(StatusCode::OK, BoxBody::new(body));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn short() -> Limits {
    Limits { head_timeout: SHORT, keep_alive: SHORT, write_timeout: SHORT, ..Limits::default() }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_panic_of_a_handler_ends_its_own_connection_alone() {
    let server = Server::start(Limits::default());
    let mut other = server.connect();
    other.write_all(GET.as_bytes()).unwrap();
    let mut first = [0];
    other.read_exact(&mut first).unwrap();
    assert_eq!(server.say(GET.replace("/a", "/panic").as_bytes()), "");
    while server.connections.live() != 1 {
        std::thread::yield_now();
    }
    other.write_all(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(read_to_end(&mut other).matches("[/a]").count(), 2);
}

#[test]
fn a_worker_that_ends_is_replaced_and_keeps_no_connection() {
    let server = Server::start(Limits::default());
    let mut idle = server.connect();
    idle.write_all(GET.as_bytes()).unwrap();
    idle.read_exact(&mut [0; 12]).unwrap();
    let mut last = server.connect();
    last.write_all(GET.replace("/a", "/end-worker").as_bytes()).unwrap();
    read_to_end(&mut last);
    read_to_end(&mut idle);
    assert!(
        server.say(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).ends_with("[/a]")
    );
    assert_eq!(server.connections.workers_replaced.load(std::sync::atomic::Ordering::Relaxed), 1);
    while server.connections.live() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn header_names_are_in_camel_case() {
    let said =
        Server::start(Limits::default()).say(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(said.contains("\r\nContent-Length: 3\r\n"), "{said}");
    assert!(said.contains("\r\nCache-Control: no-store\r\n"), "{said}");
    assert!(said.contains("\r\nDate: "), "{said}");
}

#[test]
fn pipelined_requests_are_answered_in_order_however_they_are_cut() {
    let server = Server::start(Limits::default());
    let mut requests = String::new();
    for number in 0..40 {
        requests += &GET.replace("/a", &format!("/{number}"));
    }
    requests.push_str("GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for size in [1, 7, 100, requests.len()] {
        let mut stream = server.connect();
        stream.set_nodelay(true).unwrap();
        for piece in requests.as_bytes().chunks(size) {
            stream.write_all(piece).unwrap();
        }
        let said = read_to_end(&mut stream);
        let mut bodies: Vec<String> = (0..40).map(|number| format!("[/{number}]")).collect();
        bodies.push("[/last]".to_owned());
        let mut at = 0;
        for body in &bodies {
            at += said
                .get(at..)
                .and_then(|rest| rest.find(body.as_str()))
                .unwrap_or_else(|| panic!("{body} in {said}"));
        }
        assert_eq!(said.matches("HTTP/1.1 200 OK").count(), bodies.len());
    }
}

#[test]
fn what_the_parser_refuses_gets_a_page() {
    let server = Server::start(Limits::default());
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(100));
    let large =
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: bbbbbbbbbbbbbbbbbbbbbbbb\r\n".repeat(8000));
    let cases: [(&[u8], u16); 12] = [
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /\r\n\r\n", 400),
        (b"garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", 400),
        (long.as_bytes(), 414),
        (many.as_bytes(), 431),
        (large.as_bytes(), 431),
    ];
    for (bytes, status) in cases {
        let said = server.say(bytes);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{} got {said}", bytes.escape_ascii());
        assert!(said.contains("\r\nConnection: close\r\n"), "{said}");
        assert!(said.contains(&format!("<title>{status} ")), "{said}");
        assert_eq!(said.matches("HTTP/1.1").count() - said.matches("speaks HTTP/1.1").count(), 1, "{said}");
    }
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let said = Server::start(Limits::default()).say(b"HEAD / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert!(said.ends_with("\r\n\r\n"), "{said}");
}

#[test]
fn an_answer_before_a_malformed_request_is_whole() {
    let said =
        Server::start(Limits::default()).say(b"GET /mimic HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n");
    let (first, second) = said.split_at(said.rfind("HTTP/1.1 400 Bad Request\r\nContent-Length").unwrap());
    assert!(first.ends_with("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"), "{first}");
    assert!(second.contains("<title>400 "), "{second}");
}

#[test]
fn a_head_that_does_not_end_gets_408_be_it_the_first_or_a_later_one() {
    let server = Server::start(short());
    let first = server.say(b"GET / HTTP/1.1\r\nHo");
    assert!(first.starts_with("HTTP/1.1 408 "), "{first}");
    let later = server.say(format!("{GET}GET / HTTP/1.1\r\n").as_bytes());
    assert!(later.starts_with("HTTP/1.1 200 ") && later.contains("HTTP/1.1 408 "), "{later}");
    assert_eq!(server.connections.late_heads.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn idle_connections_are_closed_without_a_word() {
    let server = Server::start(short());
    assert_eq!(server.say(b""), "");
    let said = server.say(GET.as_bytes());
    assert!(said.ends_with("[/a]"), "{said}");
}

#[test]
fn half_a_head_and_an_end_is_malformed() {
    let server = Server::start(Limits::default());
    let mut stream = server.connect();
    stream.write_all(b"GET / HT").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&mut stream).starts_with("HTTP/1.1 400 "));
}

#[test]
fn a_request_after_the_end_of_sending_is_answered() {
    let server = Server::start(Limits::default());
    let mut stream = server.connect();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&mut stream).ends_with("slow"));
}

#[test]
fn a_request_with_a_body_is_the_last_one() {
    let server = Server::start(Limits::default());
    for body in
        ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    {
        // A slow handler leaves time to take what follows for the next request.
        for (path, answer) in [("/p", "[/p]"), ("/slow", "slow")] {
            let said = server.say(format!("POST {path} HTTP/1.1\r\nHost: x\r\n{body}{GET}").as_bytes());
            assert!(said.ends_with(answer) && said.contains("\r\nConnection: close\r\n"), "{said}");
            assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
        }
    }
}

#[test]
fn nobody_is_asked_for_a_body() {
    let server = Server::start(Limits::default());
    for version in ["1.0", "1.1"] {
        let head =
            format!("POST /p HTTP/{version}\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        let said = server.say(head.as_bytes());
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") || said.starts_with("HTTP/1.0 200 OK\r\n"), "{said}");
        assert!(said.ends_with("[/p]"), "{said}");
    }
}

#[test]
fn a_wish_to_upgrade_is_not_echoed_and_its_answer_announces_the_close() {
    let server = Server::start(Limits::default());
    for wish in ["Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk", "Upgrade"] {
        let said = server.say(format!("GET /a HTTP/1.1\r\nHost: x\r\nConnection: {wish}\r\n\r\n").as_bytes());
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("[/a]"), "{said}");
        assert!(said.contains("\r\nConnection: close\r\n") && !said.contains("grade"), "{said}");
    }
}

#[test]
fn a_limited_rate_delays_and_loses_nothing() {
    let rate = NonZeroU64::new(64 << 20);
    let server = Server::start(Limits { rate, ..Limits::default() });
    let mut stream = server.connect();
    let request = "GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let said = read_to_end(&mut stream);
    assert_eq!(said.matches('x').count(), LARGE);
}

#[test]
fn a_refused_connection_ends_although_the_client_keeps_it_open() {
    let server = Server::start(Limits::default());
    let requests: [&[u8]; 3] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    ];
    for bytes in requests {
        let mut held = server.connect();
        held.write_all(bytes).unwrap();
        assert!(read_to_end(&mut held).contains("\r\nConnection: close\r\n"));
        let began = tokio::time::Instant::now();
        while server.connections.live() > 0 {
            assert!(began.elapsed() < PATIENCE, "{}", bytes.escape_ascii());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn one_connection_too_many_gets_503() {
    let server = Server::start(Limits { connections: 1, ..Limits::default() });
    let mut first = server.connect();
    first.write_all(GET.as_bytes()).unwrap();
    first.read_exact(&mut [0; 12]).unwrap();
    let said = server.say(GET.as_bytes());
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("\r\nRetry-After: "), "{said}");
    let said = server.say(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 503 ") && said.ends_with("\r\n\r\n"), "{said}");
}

#[test]
fn a_stop_closes_idle_connections_and_finishes_answers() {
    let mut server = Server::start(Limits::default());
    let mut idle = server.connect();
    idle.write_all(GET.as_bytes()).unwrap();
    idle.read_exact(&mut [0; 12]).unwrap();
    let mut busy = server.connect();
    busy.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    busy.read_exact(&mut [0; 12]).unwrap();
    server.stop.stop(PATIENCE);
    read_to_end(&mut idle);
    assert!(read_to_end(&mut busy).len() > LARGE);
    server.thread.take().unwrap().join().unwrap();
    assert_eq!(server.connections.live(), 0);
}

#[test]
fn a_stop_waits_no_longer_than_its_grace() {
    let mut server = Server::start(Limits::default());
    let mut busy = server.connect();
    busy.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    busy.read_exact(&mut [0; 12]).unwrap();
    server.stop.stop(SHORT);
    server.thread.take().unwrap().join().unwrap();
}
