//! Requests of all kinds, and the expected status of each.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::{Server, pattern, request};
use crate::support::http::{Answer, Expect};

/// The bytes of a request, and the acceptable statuses.
struct Case {
    bytes: Vec<u8>,
    status: &'static [u16],
    expect: Expect,
}

fn raw(bytes: impl AsRef<[u8]>, status: &'static [u16]) -> Case {
    Case { bytes: bytes.as_ref().to_vec(), status, expect: Expect::Body }
}

fn path(target: &str, status: &'static [u16]) -> Case {
    raw(request("GET", target, &[]), status)
}

fn range(value: &str, status: &'static [u16]) -> Case {
    raw(request("GET", "/a.txt", &[&format!("Range: {value}")]), status)
}

fn field(line: &str, status: &'static [u16]) -> Case {
    raw(request("GET", "/a.txt", &[line]), status)
}

fn method(name: &str, status: &'static [u16]) -> Case {
    raw(request(name, "/a.txt", &["Content-Length: 5"]) + "hello", status)
}

fn version(name: &str, status: &'static [u16]) -> Case {
    raw(format!("GET /a.txt {name}\r\nHost: x\r\n\r\n"), status)
}

fn host(value: &str, status: &'static [u16]) -> Case {
    raw(format!("GET /a.txt HTTP/1.1\r\nHost: {value}\r\n\r\n"), status)
}

/// Content of a file outside the root.
const SECRET: &str = "this file is not served";

fn server_with_traps(flags: &[&str]) -> (Server, UnixListener) {
    let server = Server::start_with(flags);
    server.put("a.txt", "0123456789");
    server.put("sub/b.txt", "b");
    server.put(".hidden", SECRET);
    server.put(".git/config", SECRET);
    server.put("large.bin", pattern(300_000));
    std::fs::write(server.outside().join("secret"), SECRET).unwrap();
    std::fs::write(server.outside().join("x"), SECRET).unwrap();
    symlink("../secret", server.root().join("out")).unwrap();
    symlink(server.outside(), server.root().join("away")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(server.root().join("fifo")).status().unwrap();
    assert!(fifo.success());
    let socket = UnixListener::bind(server.root().join("socket")).unwrap();
    (server, socket)
}

fn table() -> Vec<Case> {
    let long_uri = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9 << 10));
    let large_head =
        format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: bbbbbbbbbbbbbbbbbb\r\n".repeat(10_000));
    let many_ranges = format!("bytes={}", "0-0,".repeat(1300));
    vec![
        // Existing files.
        path("/a.txt", &[200]),
        path("/files/a.txt", &[200]),
        path("/sub/b.txt?query=1", &[200]),
        path("/plshelp.txt", &[200]),
        path("/files/plshelp.txt", &[200]),
        path("/large.bin", &[200]),
        raw("GET http://elsewhere/a.txt HTTP/1.1\r\nHost: x\r\n\r\n", &[200]),
        raw("GET /a.txt HTTP/1.0\r\n\r\n", &[200]),
        Case { expect: Expect::HeadOnly, ..raw(request("HEAD", "/a.txt", &[]), &[200]) },
        Case {
            expect: Expect::HeadOnly,
            ..raw(request("HEAD", "/large.bin", &["Range: bytes=0-0"]), &[200])
        },
        Case { expect: Expect::HeadOnly, ..raw(request("HEAD", "/nothing", &[]), &[404]) },
        // Paths that lead out of the root, or to a missing file.
        path("/../x", &[400, 404]),
        path("/%2e%2e/x", &[400, 404]),
        path("/%2e%2e%2fx", &[400, 404]),
        path("/..%5cx", &[400, 404]),
        path("/..%c0%afx", &[400, 404]),
        path("/%252e%252e/x", &[400, 404]),
        path("/....//x", &[400, 404]),
        path("/files/../../x", &[400, 404]),
        path("/a.txt%00.html", &[400]),
        path("/%zz", &[400]),
        path("/%", &[400]),
        path("/a.txt/", &[404]),
        path("/a.txt%2f", &[404]),
        path("/nothing", &[404]),
        path("/.hidden", &[404]),
        path("/.git/config", &[404]),
        path("/out", &[404]),
        path("/away/secret", &[404]),
        path("/fifo", &[404]),
        path("/socket", &[404]),
        path("//evil.example/..", &[400, 404]),
        path("/\\evil.example/..", &[400, 404]),
        path("/sub%0d%0aX:1", &[404]),
        path("/%22%3Cscript%3E%27", &[404]),
        // Ranges.
        range("", &[200]),
        range("lines=0-1", &[200]),
        range("Bytes=0-0", &[206]),
        range("bytes=0-99999999999999999999", &[206]),
        range("bytes=-99999999999999999999", &[206]),
        range("bytes=2-3", &[206]),
        range("bytes=-0", &[416]),
        range("bytes=999-", &[416]),
        range(&many_ranges, &[200, 206]),
        raw(request("GET", "/a.txt", &["Range: bytes=0-0", "If-Range: \"wrong\""]), &[200]),
        // Conditions.
        field("If-None-Match: *", &[304]),
        field("If-Match: \"wrong\"", &[412]),
        field("If-Match: *", &[200]),
        field("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT", &[412]),
        field("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", &[200]),
        // Methods and versions.
        method("POST", &[501]),
        method("PUT", &[501]),
        method("DELETE", &[501]),
        method("OPTIONS", &[501]),
        method("BREW", &[501]),
        version("HTTP/2.0", &[505]),
        version("HTTP/3.0", &[505]),
        raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[505]),
        // Bodies, which the server ignores.
        raw(request("GET", "/a.txt", &["Content-Length: 5"]) + "hello", &[200]),
        raw(request("GET", "/a.txt", &["Content-Length: 5", "Expect: 100-continue"]), &[200]),
        raw(request("POST", "/a.txt", &["Content-Length: 5", "Expect: 100-continue"]), &[501]),
        // Malformed requests.
        raw("garbage\r\n\r\n", &[400]),
        raw("GET /\r\n\r\n", &[400]),
        raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[400]),
        raw("GET /a.txt HTTP/1.1\r\n\r\n", &[400]),
        raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", &[400]),
        host("a b", &[400]),
        host("a/b", &[400]),
        host("a, b", &[400]),
        host("user@a", &[400]),
        host("[::1", &[400]),
        host("x:y", &[400]),
        raw(request("GET", "/a.txt#y", &[]), &[400]),
        host("\u{e9}", &[400]),
        host("", &[200]),
        host("[2001:db8::1]:8080", &[200]),
        host("a-b.example:80", &[200]),
        raw(request("POST", "/", &["Content-Length: 5", "Transfer-Encoding: chunked"]), &[400]),
        raw(request("POST", "/", &["Content-Length: 5", "Content-Length: 6"]), &[400]),
        raw(request("POST", "/", &["Content-Length: +5"]), &[400]),
        raw("GET /a.txt HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", &[400]),
        raw(request("GET", "/a.txt", &["X : y"]), &[400]),
        raw(long_uri, &[414]),
        raw(large_head, &[431]),
    ]
}

/// Requests whose answers differ from those of a server with all options.
fn table_of_defaults() -> Vec<Case> {
    ["/", "/sub", "/sub/", "/sub/?format=json"].map(|target| path(target, &[404])).into()
}

/// Requests to a server with all options.
fn table_of_options() -> Vec<Case> {
    let json = |line: &str| raw(request("GET", "/sub/", &[line]), &[200]);
    let accept = |value: &str| field(&format!("Accept-Encoding: {value}"), &[200]);
    vec![
        // Content codings.
        accept("gzip"),
        accept("gzip;q=1.0, *;q=0"),
        accept("identity;q=0, *;q=0"),
        accept(";,;q=,br;q=99999999999"),
        accept(&"gzip,".repeat(5000)),
        raw(request("GET", "/a.txt", &["Accept-Encoding: gzip", "Range: bytes=0-0"]), &[206]),
        raw(request("GET", "/a.txt", &["Accept-Encoding: gzip", "Range: bytes=999-"]), &[416]),
        raw(request("GET", "/a.txt", &["Accept-Encoding: gzip", "If-None-Match: *"]), &[304]),
        Case {
            expect: Expect::HeadOnly,
            ..raw(request("HEAD", "/a.txt", &["Accept-Encoding: gzip"]), &[200])
        },
        // Listings.
        path("/", &[200]),
        path("/files/", &[200]),
        path("/sub/", &[200]),
        path("/sub/?sort=time&order=desc", &[200]),
        path("/sub/?sort=%00&order=&format=", &[200]),
        json("Accept: application/json"),
        json("Accept: ;;,q=,application/json;q=9"),
        json("Range: bytes=0-0"),
        json("If-None-Match: *"),
        Case { expect: Expect::HeadOnly, ..raw(request("HEAD", "/sub/", &[]), &[200]) },
        path("/away/", &[404]),
        path("/.git/", &[404]),
        path("/nothing/", &[404]),
        path("/fifo/", &[404]),
        path("/socket/", &[404]),
        path("/sub//", &[200]),
        path("/sub/../", &[404]),
    ]
}

#[test]
fn every_request_of_the_table_gets_its_status_and_an_html_page() {
    let (server, _socket) = server_with_traps(&[]);
    check_all(&server, table());
    check_all(&server, table_of_defaults());
}

#[test]
fn the_same_holds_for_a_server_with_all_options() {
    let (server, _socket) = server_with_traps(&["--precompressed", "--listing"]);
    server.put("a.txt.gz", "compressed");
    symlink("../secret", server.root().join("a.txt.br")).unwrap();
    check_all(&server, table());
    check_all(&server, table_of_options());
}

fn check_all(server: &Server, table: Vec<Case>) {
    for case in table {
        let shown: String = case.bytes.escape_ascii().to_string().chars().take(200).collect();
        let mut connection = server.connect();
        connection.send(&case.bytes).unwrap();
        let answer = connection.answer(case.expect).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(case.status.contains(&answer.status), "{shown} got {answer:?}");
        check(&answer, case.expect, &shown);
        if matches!(answer.status, 400 | 414 | 431 | 505) && answer.header("Connection") == Some("close") {
            assert!(connection.is_closed(), "{shown}");
        }
        assert_eq!(server.get("/a.txt").text(), "0123456789", "after {shown}");
    }
}

/// Checks properties that every answer has.
#[track_caller]
fn check(answer: &Answer, expect: Expect, shown: &str) {
    assert!(!answer.text().contains(SECRET), "{shown}");
    assert_eq!(answer.header("X"), None, "{shown}");
    assert_eq!(answer.header("Location"), None, "{shown}");
    for (name, _) in &answer.headers {
        let starts = name.split('-').filter_map(|word| word.chars().next());
        assert!(starts.into_iter().all(|first| first.is_ascii_uppercase()), "{name} in {shown}");
    }
    if answer.status >= 400 {
        assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"), "{shown}");
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{shown}");
        assert_ne!(answer.header("Content-Length"), Some("0"), "{shown}");
        if expect == Expect::Body {
            let title = format!("<title>{} ", answer.status);
            assert!(answer.text().contains(&title), "{shown} got {}", answer.text());
        }
    }
}

#[test]
fn a_parse_error_ends_the_connection() {
    let (server, _socket) = server_with_traps(&[]);
    for bytes in [
        "GET /a.txt HTTP/1.1\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: x\r\n\r\nGET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut connection = server.connect();
        connection.send(bytes).unwrap();
        let answer = connection.answer(Expect::Body).unwrap();
        assert!(matches!(answer.status, 400 | 505), "{answer:?}");
        assert_eq!(answer.header("Connection"), Some("close"));
        assert!(connection.is_closed());
    }
}
