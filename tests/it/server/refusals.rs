//! The access log has a line for requests that are refused before a handler.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::{Server, request};
use crate::support::http::Expect;
use crate::support::wait_for;

/// A server with short deadlines and its log.
struct Logged {
    folder: TempDir,
    server: Server,
}

impl Logged {
    fn start(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own.toml");
        std::fs::write(&own, format!("[server]\n{settings}")).unwrap();
        let log = folder.path().join("access.log");
        let flags = ["--config", own.to_str().unwrap(), "--access-log", log.to_str().unwrap()];
        Self { server: Server::start_with(&flags), folder }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("access.log")
    }

    /// Sends these bytes, waits for the end of the connection, and returns the status.
    fn say(&self, bytes: &[u8]) -> u16 {
        let mut connection = self.server.connect();
        connection.send(bytes).unwrap();
        let expect = if bytes.starts_with(b"HEAD ") { Expect::HeadOnly } else { Expect::Body };
        let answer = connection.answer(expect).unwrap();
        assert!(connection.is_closed());
        answer.status
    }

    /// Waits until the log has `count` lines, and checks that it has no more.
    fn lines(&self, count: usize) -> Vec<String> {
        let lines = wait_for("the lines", || {
            let text = std::fs::read_to_string(self.log()).unwrap();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            (text.ends_with('\n') && lines.len() >= count).then_some(lines)
        });
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }
}

#[test]
fn each_refused_request_has_one_line() {
    let logged = Logged::start("head_timeout = '300ms'\n");
    let many = request("GET", "/many", &["A: b"; 100]);
    let large = format!("GET /large HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "b".repeat(70_000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "l".repeat(9000));
    let long_shown = format!("GET /{}", "l".repeat(2048 - 5));
    let cases: [(&[u8], u16, &str); 12] = [
        (b"GET /two HTTP/2.0\r\nHost: x\r\n\r\n", 505, "GET /two HTTP/2.0"),
        (b"GET /host HTTP/1.1\r\n\r\n", 400, "GET /host HTTP/1.1"),
        (b"HEAD /host HTTP/1.1\r\n\r\n", 400, "HEAD /host HTTP/1.1"),
        (b"GET /short\r\n\r\n", 400, "GET /short"),
        (
            b"\x16\x03\x01\x02\x00\x01\"\\\x1b[31m\r\n\r\n",
            400,
            "\\x16\\x03\\x01\\x02\\x00\\x01\\x22\\x5C\\x1B[31m",
        ),
        (b"GET /late HTTP/1.1\r\nHo", 408, "GET /late HTTP/1.1"),
        (b"GET /la", 408, "GET /la"),
        (b"\r\n", 408, "-"),
        (long.as_bytes(), 414, &long_shown),
        (many.as_bytes(), 431, "GET /many HTTP/1.1"),
        (large.as_bytes(), 431, "GET /large HTTP/1.1"),
        // Only a handler knows that this method is unsupported, so this request has a regular line.
        (b"BREW /pot HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 501, "BREW /pot HTTP/1.1"),
    ];
    for (number, (bytes, status, shown)) in cases.into_iter().enumerate() {
        assert_eq!(logged.say(bytes), status, "{shown}");
        let lines = logged.lines(number + 1);
        let line = lines.last().unwrap();
        let wanted = format!("] \"{shown}\" {status} ");
        assert!(line.starts_with("127.0.0.1 - - [") && line.contains(&wanted), "{line} has no {wanted}");
        assert!(line.ends_with(" \"-\" \"-\""), "{line}");
        let body: u64 = line.split(&wanted).nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(body == 0, bytes.starts_with(b"HEAD "), "{line}");
    }
}

#[test]
fn the_line_names_the_refused_request_of_a_connection() {
    let logged = Logged::start("");
    let mut connection = logged.server.connect();
    connection.send("GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(connection.answer(Expect::Body).unwrap().status, 404);
    let refused = connection.answer(Expect::Body).unwrap();
    assert!(connection.is_closed());
    let lines = logged.lines(2);
    assert!(lines[0].contains("\"GET /first HTTP/1.1\" 404 "), "{lines:?}");
    let second = format!("\"GET /second HTTP/1.1\" 400 {} ", refused.body.len());
    assert!(lines[1].contains(&second), "{lines:?}");
}

#[test]
fn a_connection_without_a_request_has_no_line() {
    let logged = Logged::start("head_timeout = '100ms'\n");
    assert!(logged.server.connect().is_closed());
    logged.server.get("/nothing");
    assert!(logged.lines(1)[0].contains("/nothing"));
}

#[test]
fn one_connection_too_many_has_a_line() {
    let logged = Logged::start("max_connections = 1\n");
    let mut first = logged.server.connect();
    assert_eq!(first.get("/nothing").unwrap().status, 404);
    assert_eq!(logged.say(b"GET /more HTTP/1.1\r\nHost: x\r\n\r\n"), 503);
    let lines = logged.lines(2);
    assert!(lines[1].contains("\"GET /more HTTP/1.1\" 503 "), "{lines:?}");
}

#[test]
fn every_connection_of_a_flood_gets_an_answer() {
    let logged = Logged::start("max_connections = 1\n");
    let mut first = logged.server.connect();
    assert_eq!(first.get("/nothing").unwrap().status, 404);
    let address = logged.server.program().address();
    // Far more than may wait for their requests at the same time.
    let refused: Vec<_> = (0..600)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request("GET", "/more", &[]).as_bytes()).unwrap();
            stream
        })
        .collect();
    for mut stream in refused {
        let mut start = [0; 13];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(start.escape_ascii().to_string(), "HTTP/1.1 503 ");
    }
}

#[test]
fn refused_connections_of_one_address_use_no_capacity_of_others() {
    let logged = Logged::start("max_connections = 4\nmax_connections_per_address = 2\n");
    let address = logged.server.program().address();
    // Two of the connections are served; each of the others waits for its request for up to a second.
    let greedy: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut other = TcpStream::from(socket);
    other.write_all(request("GET", "/nothing", &[]).as_bytes()).unwrap();
    let mut start = [0; 13];
    other.read_exact(&mut start).unwrap();
    assert_eq!(start.escape_ascii().to_string(), "HTTP/1.1 404 ");
    drop(greedy);
}

#[test]
fn refusals_are_logged_as_json_too() {
    let logged = Logged::start("access_log_format = 'json'\n");
    logged.say(b"GET /two HTTP/2.0\r\nHost: x\r\n\r\n");
    logged.say(b"nonsense\x07\xff\r\n\r\n");
    let lines: Vec<serde_json::Value> =
        logged.lines(2).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["target"], &lines[0]["status"]), (&"/two".into(), &505.into()));
    assert_eq!(lines[0].get("request_line"), None);
    assert_eq!(lines[1]["request_line"], "nonsense\u{7}\u{fffd}");
    assert_eq!((&lines[1]["method"], &lines[1]["status"]), (&().into(), &400.into()));
    assert_eq!((&lines[1]["client"], &lines[1]["aborted"]), (&"127.0.0.1".into(), &false.into()));
}
