//! Exchanges with a scripted server on the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// The action of a server after it has sent its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Keeps,
    Closes,
    Resets,
}
use Then::{Closes, Keeps, Resets};

/// A server that sends `bytes` for `/case` and a valid answer for any other path.
struct ScriptedServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

impl ScriptedServer {
    fn start(bytes: Vec<u8>, then: Then, cut: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                counter.fetch_add(1, Ordering::SeqCst);
                let bytes = bytes.clone();
                thread::spawn(move || serve(&mut stream, &bytes, then, cut));
            }
        });
        Self { address, connections }
    }

    fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }
}

fn serve(stream: &mut TcpStream, bytes: &[u8], then: Then, cut: usize) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        if !head.windows(6).any(|part| part == b" /case") {
            stream.write_all(OK)?;
            continue;
        }
        for part in bytes.chunks(cut.max(1)) {
            stream.write_all(part)?;
        }
        match then {
            Keeps => {}
            Closes => return Ok(()),
            Resets => {
                // Closing with unread bytes may reset too late; a linger of zero resets at once.
                thread::sleep(Duration::from_millis(50));
                return socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

/// Runs a future on a thread that accepts local tasks, which awc needs.
fn run<F: Future>(future: F) -> F::Output {
    actix_rt::System::new().block_on(future)
}

/// The whole body, or the name of the error.
async fn fetch(transport: &HttpClient, request: &Request) -> Result<Vec<u8>, String> {
    let word = |error: TransportError| match error {
        TransportError::Head(error) => format!("{error:?}").split(['(', ' ']).next().unwrap().to_owned(),
        TransportError::Body(error) => format!("{error:?}"),
        error => format!("{error:?}").split(['(', ' ']).next().unwrap().to_owned(),
    };
    let mut answer = transport.send(request).await.map_err(word)?;
    let mut body = Vec::new();
    while let Some(bytes) = answer.chunk().await.map_err(word)? {
        assert!(!bytes.is_empty());
        body.extend_from_slice(&bytes);
    }
    // A call after the end is permitted.
    assert!(matches!(answer.chunk().await, Ok(None)));
    Ok(body)
}

fn head(status: &str, lines: &[&str]) -> Vec<u8> {
    format!("HTTP/1.1 {}\r\n\r\n", [&[status], lines].concat().join("\r\n")).into_bytes()
}

const HELLO: Result<&[u8], &str> = Ok(b"hello");
const EMPTY: Result<&[u8], &str> = Ok(b"");
const CHUNKED: &str = "Transfer-Encoding: chunked";
const FIVE: &str = "Content-Length: 5";

type Case = (&'static str, Vec<u8>, Then, Result<&'static [u8], &'static str>, usize);

/// Name, bytes, action after the bytes, body or error, number of connections for this request and another.
fn cases() -> Vec<Case> {
    let with = |lines: &[&str], body: &str| [head("200 OK", lines), body.as_bytes().to_vec()].concat();
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let hint = head("103 Early Hints", &["Link: </a>; rel=preload"]);
    let many = |count: usize, line: &dyn Fn(usize) -> String| {
        let mut lines: Vec<String> = (0..count).map(line).collect();
        lines.push(FIVE.to_owned());
        with(&lines.iter().map(String::as_str).collect::<Vec<_>>(), "hello")
    };
    vec![
        ("plain", OK.to_vec(), Keeps, HELLO, 1),
        ("too short", with(&["Content-Length: 10"], "hello"), Closes, Err("Short { missing: Some(5) }"), 2),
        (
            "too short, reset",
            with(&["Content-Length: 10"], "hello"),
            Resets,
            Err("Short { missing: Some(5) }"),
            2,
        ),
        ("longer than announced", [OK, b"EXTRA"].concat(), Keeps, HELLO, 2),
        ("closed afterwards", OK.to_vec(), Closes, HELLO, 2),
        ("announces its close", with(&[FIVE, "Connection: close"], "hello"), Keeps, HELLO, 2),
        ("chunks", with(&[CHUNKED], chunks), Keeps, HELLO, 1),
        ("chunks with a trailer", with(&[CHUNKED], "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"), Keeps, HELLO, 1),
        (
            "chunks without the last",
            with(&[CHUNKED], "5\r\nhello\r\n"),
            Closes,
            Err("Short { missing: None }"),
            2,
        ),
        ("half a chunk", with(&[CHUNKED], "9\r\nhello"), Closes, Err("Short { missing: None }"), 2),
        ("bytes after the chunks", with(&[CHUNKED], &format!("{chunks}EXTRA")), Keeps, HELLO, 2),
        ("a wrong chunk", with(&[CHUNKED], "5\r\nhello!!\r\n"), Keeps, Err("Chunk"), 2),
        ("an endless chunk size", with(&[CHUNKED], "fffffffffffffffff\r\n"), Keeps, Err("Chunk"), 2),
        ("chunks with a length", with(&["Content-Length: 3", CHUNKED], chunks), Keeps, HELLO, 1),
        ("until the end", with(&["Server: x"], "hello"), Closes, HELLO, 2),
        ("until the reset", with(&["Server: x"], "hello"), Resets, Err("Receive"), 2),
        ("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nhello".to_vec(), Closes, HELLO, 2),
        (
            "HTTP/1.0, kept",
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
            Keeps,
            HELLO,
            1,
        ),
        ("a hint", [&hint, OK].concat(), Keeps, HELLO, 1),
        ("an unasked 100", [&head("100 Continue", &[]), OK].concat(), Keeps, HELLO, 1),
        ("a hundred hints", [&hint.repeat(100), OK].concat(), Keeps, HELLO, 1),
        ("hints without end", hint.repeat(10_000), Keeps, Err("EndlessInterim"), 2),
        ("hints alone", hint.repeat(3), Closes, Err("HalfHead"), 2),
        ("an unasked 101", head("101 Switching Protocols", &["Upgrade: websocket"]), Keeps, EMPTY, 2),
        (
            "200 lines of one name",
            many(200, &|_| "Link: <http://m/x>; rel=duplicate".to_owned()),
            Keeps,
            HELLO,
            1,
        ),
        ("200 names", many(200, &|number| format!("X-{number}: y")), Keeps, HELLO, 1),
        ("300 lines", many(300, &|_| "X: y".to_owned()), Keeps, Err("TooManyLines"), 2),
        ("a long line", many(1, &|_| format!("X: {}", "y".repeat(100_000))), Keeps, Err("TooLong"), 2),
        ("half a head", b"HTTP/1.1 200 OK\r\nConte".to_vec(), Closes, Err("HalfHead"), 2),
        ("nothing", Vec::new(), Closes, Err("EmptyReply"), 2),
        ("another protocol", b"SSH-2.0-x\r\n".to_vec(), Keeps, Err("NotHttp"), 2),
        ("the length twice", with(&[FIVE, FIVE], "hello"), Keeps, HELLO, 1),
        ("a signed length", with(&["Content-Length: +5"], "hello"), Keeps, Err("Length"), 2),
        ("no transfer coding", with(&["Transfer-Encoding: identity", FIVE], "hello"), Keeps, HELLO, 1),
        ("an unasked coding", with(&["Transfer-Encoding: gzip"], "hello"), Closes, Err("TransferCoding"), 2),
        ("304 with a length", head("304 Not Modified", &[FIVE]), Keeps, EMPTY, 1),
        ("204", head("204 No Content", &[]), Keeps, EMPTY, 1),
        (
            "Latin-1",
            [&b"HTTP/1.1 200 OK\r\nX: caf\xe9\r\nContent-Length: 5\r\n\r\nhello"[..]].concat(),
            Keeps,
            HELLO,
            1,
        ),
        ("folded", with(&["X: a", " b", FIVE], "hello"), Keeps, HELLO, 1),
        ("no space, and one too many", with(&["X:a", "Content-Length : 5"], "hello"), Keeps, HELLO, 1),
        (
            "hop-by-hop names",
            with(&["Host: x", "Host: y", "Upgrade: websocket", "Expect: x", FIVE], "hello"),
            Keeps,
            HELLO,
            1,
        ),
    ]
}

#[test]
fn every_answer_is_read_correctly_and_the_next_request_is_served() {
    run(async {
        for cut in [usize::MAX, 7] {
            for (name, bytes, then, expected, connections) in cases() {
                let cut = if bytes.len() > 20_000 { usize::MAX } else { cut };
                let server = ScriptedServer::start(bytes, then, cut);
                let transport = HttpClient::new(TransportSettings::default());
                let body = fetch(&transport, &Request::get(server.url("/case"))).await;
                let body = body.as_ref().map(Vec::as_slice).map_err(String::as_str);
                assert_eq!(body, expected, "{name}, cut {cut}");
                // The end of the connection or bytes after the answer may arrive a moment later.
                thread::sleep(Duration::from_millis(10));
                assert_eq!(
                    fetch(&transport, &Request::get(server.url("/next"))).await.unwrap(),
                    b"hello",
                    "{name}"
                );
                assert_eq!(server.connections.load(Ordering::SeqCst), connections, "{name}, cut {cut}");
            }
        }
    });
}

#[test]
fn a_kept_connection_that_fails_is_replaced_once() {
    run(async {
        let cases: [(&str, &[u8], Then); 4] = [
            ("closed", b"", Closes),
            ("reset", b"", Resets),
            ("left-over bytes", b"rest of an answer\r\n\r\n", Keeps),
            (
                "408",
                b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                Closes,
            ),
        ];
        for (name, bytes, then) in cases {
            let server = ScriptedServer::start(bytes.to_vec(), then, usize::MAX);
            let transport = HttpClient::new(TransportSettings::default());
            fetch(&transport, &Request::get(server.url("/first"))).await.unwrap();
            // The same answer on a new connection is then the result.
            let answer = fetch(&transport, &Request::get(server.url("/case"))).await;
            assert_eq!(answer.is_ok(), name == "408", "{name}: {answer:?}");
            assert_eq!(server.connections.load(Ordering::SeqCst), 2, "{name}");
        }
    });
}

#[test]
fn the_body_of_an_answer_to_head_is_not_read_as_the_next_answer() {
    run(async {
        let server = ScriptedServer::start([OK, OK].concat(), Keeps, usize::MAX);
        let transport = HttpClient::new(TransportSettings::default());
        let request = Request { method: Method::Head, ..Request::get(server.url("/case")) };
        assert_eq!(fetch(&transport, &request).await.unwrap(), b"");
        assert_eq!(fetch(&transport, &Request::get(server.url("/next"))).await.unwrap(), b"hello");
        assert_eq!(server.connections.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn times_are_measured_and_single_connections_are_not_kept() {
    run(async {
        let server = ScriptedServer::start(Vec::new(), Keeps, 1);
        let transport = HttpClient::new(TransportSettings::default());
        let kept = Request::get(server.url("/x"));
        let single = Request { connection: ConnectionUse::Single, ..kept.clone() };
        for (request, is_new) in [(&kept, true), (&kept, false), (&single, true), (&single, true)] {
            let mut answer = transport.send(request).await.unwrap();
            assert_eq!(answer.connecting.is_some(), is_new);
            assert!(answer.first_byte > Duration::ZERO);
            while answer.chunk().await.unwrap().is_some() {}
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn idle_connections_are_limited() {
    run(async {
        let transport = HttpClient::new(TransportSettings::default());
        let servers: Vec<_> = (0..8).map(|_| ScriptedServer::start(Vec::new(), Keeps, 1)).collect();
        for server in &servers {
            fetch(&transport, &Request::get(server.url("/x"))).await.unwrap();
        }
        assert_eq!(transport.shared.dialer.open(), 8);
        assert!(!transport.close_idle_beyond(8));
        assert!(transport.close_idle_beyond(7));
        assert_eq!(transport.shared.dialer.open(), 0);
        fetch(&transport, &Request::get(servers[0].url("/x"))).await.unwrap();
    });
}

#[test]
fn the_pool_separates_origins_and_routes() {
    let key = |url: &str, route: &Route| {
        let request = Request::get(url.parse().unwrap());
        let exchange = Exchange::new(request.origin().unwrap(), route.clone(), Reuse::Allowed, false, 1);
        uri(&request.url, &exchange).unwrap().authority().unwrap().to_string()
    };
    let by_proxy = |proxy: &str| {
        let rules = ProxyRules::from_variables(|name| (name == "http_proxy").then(|| proxy.to_owned()));
        rules.route(&"http://a.org/f".parse().unwrap()).unwrap()
    };
    let direct = [
        "http://a.org/f",
        "http://a.org:81/f",
        "https://a.org/f",
        "http://[::1]/f",
        "http://3a-3a1/f",
        "http://_3A/",
    ];
    let mut keys: Vec<_> = direct.iter().map(|url| key(url, &Route::Direct)).collect();
    keys.extend(
        ["p:1", "p:2", "q:1", "user:a@p:1", "user:b@p:1"]
            .map(|proxy| key("http://a.org/f", &by_proxy(proxy))),
    );
    assert_eq!(key("http://user:pw@A.org:80/g?x", &Route::Direct), keys[0]);
    let different: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(different.len(), keys.len(), "{keys:?}");
}

#[test]
fn an_address_that_cannot_be_sent_is_an_error() {
    run(async {
        let transport = HttpClient::new(TransportSettings::default());
        let long = format!("http://127.0.0.1:1/{}", "x".repeat(70_000));
        assert_eq!(fetch(&transport, &Request::get(long.parse().unwrap())).await, Err("Request".to_owned()));
        let split = Request::get("http://127.0.0.1:1/".parse().unwrap()).with("X", "a\r\nY: b");
        assert_eq!(fetch(&transport, &split).await, Err("Request".to_owned()));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Any bytes, in any pieces, with any size of reads: an answer or an error, no panic and no endless wait.
    #[test]
    fn no_server_makes_the_client_panic(
        start in prop::sample::select(vec![
            "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n", "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n",
        ]),
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"0123456789af:;\r\n \t".to_vec())], 0..120),
        (cut, read_size) in (1_usize..40, 1_usize..40),
        then in prop::sample::select(vec![Closes, Keeps]),
        is_head in any::<bool>(),
    ) {
        // Without the end of the connection, the client could wait forever.
        let then = if then == Keeps && bytes.len() % 2 == 0 { Closes } else { then };
        let server = ScriptedServer::start([start.as_bytes(), &bytes].concat(), then, cut);
        run(async {
            let transport = HttpClient::new(TransportSettings { read_size, ..TransportSettings::default() });
            let method = if is_head { Method::Head } else { Method::Get };
            let request = Request { method, ..Request::get(server.url("/case")) };
            let patience = Duration::from_millis(if then == Keeps { 20 } else { 5000 });
            let ended = tokio::time::timeout(patience, fetch(&transport, &request)).await;
            assert!(then == Keeps || ended.is_ok(), "no end though the server closed");
            let next = fetch(&transport, &Request::get(server.url("/next"))).await;
            assert_eq!(next.as_deref(), Ok(&b"hello"[..]));
        });
    }
}
