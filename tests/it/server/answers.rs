//! Requests for files and the exact answers: status, length, range or location. The answers are those of release
//! 0.1.0, so that a change of the layers below cannot change one unnoticed.
//!
//! An expected answer is a status, for 200 and 206 the `Content-Length`, then the `Content-Range`, the `Location`, or
//! `multipart`.

use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use super::{Server, pattern};
use crate::support::http::Answer;

/// Values of `Range` in a GET of /small.txt.
const RANGES: &[(&str, &str)] = &[
    ("", "200 1024"),
    ("bytes=0-0", "206 1 bytes 0-0/1024"),
    ("Bytes=0-0", "206 1 bytes 0-0/1024"),
    ("BYTES=0-0", "206 1 bytes 0-0/1024"),
    ("bytes=10-", "206 1014 bytes 10-1023/1024"),
    ("bytes=-10", "206 10 bytes 1014-1023/1024"),
    ("bytes=0-99999999999999999999", "206 1024 bytes 0-1023/1024"),
    ("bytes=-99999999999999999999", "206 1024 bytes 0-1023/1024"),
    ("bytes=-0", "416 bytes */1024"),
    ("bytes=999999-", "416 bytes */1024"),
    ("bytes=1024-", "416 bytes */1024"),
    ("bytes=1023-", "206 1 bytes 1023-1023/1024"),
    ("bytes=5-1", "200 1024"),
    ("bytes=a-b", "200 1024"),
    ("bytes=-", "200 1024"),
    ("bytes=", "200 1024"),
    ("bytes", "200 1024"),
    ("bytes=,", "200 1024"),
    ("bytes=0", "200 1024"),
    ("lines=0-1", "200 1024"),
    ("bytes=0-9,500-509", "206 288 multipart"),
    ("bytes=500-509,0-9", "206 288 multipart"),
    ("bytes=0-9,10-19", "206 20 bytes 0-19/1024"),
    ("bytes=0-9,,20-29", "206 30 bytes 0-29/1024"),
    ("bytes=0-9,2000-", "206 10 bytes 0-9/1024"),
    ("bytes=2000-,3000-", "416 bytes */1024"),
    ("bytes = 0-1", "206 2 bytes 0-1/1024"),
    ("bytes= 0-1 , 900-", "206 395 multipart"),
    ("bytes=0-0\u{e9}", "200 1024"),
    ("bytes=0-0, 5-1", "200 1024"),
    ("bytes=0x0-0x1", "200 1024"),
    ("bytes=+0-1", "200 1024"),
    ("bytes=--1", "200 1024"),
];

/// Header lines of a GET of /small.txt.
const CONDITIONS: &[(&[&str], &str)] = &[
    (&["If-None-Match: \"2ebc98a1-400\""], "304"),
    (&["If-None-Match: W/\"2ebc98a1-400\""], "304"),
    (&["If-None-Match: *"], "304"),
    (&["If-None-Match: \"o\""], "200 1024"),
    (&["If-None-Match: garbage"], "200 1024"),
    (&["If-None-Match: "], "200 1024"),
    (&["If-None-Match: \"a\", \"2ebc98a1-400\""], "304"),
    (&["If-None-Match: \"a\",\"b\""], "200 1024"),
    (&["If-None-Match: W/*"], "200 1024"),
    (&["If-Match: \"2ebc98a1-400\""], "200 1024"),
    (&["If-Match: W/\"2ebc98a1-400\""], "412"),
    (&["If-Match: *"], "200 1024"),
    (&["If-Match: \"o\""], "412"),
    (&["If-Match: garbage"], "412"),
    (&["If-Match: "], "412"),
    (&["If-Match: \"a\", \"2ebc98a1-400\""], "200 1024"),
    (&["If-Match: \u{e9}"], "412"),
    (&["If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], "304"),
    (&["If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT"], "200 1024"),
    (&["If-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT"], "304"),
    (&["If-Modified-Since: yesterday"], "200 1024"),
    (&["If-Modified-Since: "], "200 1024"),
    (&["If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT"], "304"),
    (&["If-Modified-Since: Sun Nov  6 08:49:37 1994"], "304"),
    (&["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], "200 1024"),
    (&["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT"], "412"),
    (&["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:38 GMT"], "200 1024"),
    (&["If-Unmodified-Since: yesterday"], "200 1024"),
    (&["If-None-Match: \"a\"", "If-None-Match: \"2ebc98a1-400\""], "304"),
    (&["If-None-Match: \"a\", \"2ebc98a1-400\"", "If-Modified-Since: x"], "304"),
    (&["If-None-Match: \"o\"", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], "200 1024"),
    (&["If-None-Match: \"2ebc98a1-400\"", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], "304"),
    (&["If-None-Match: \"2ebc98a1-400\"", "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT"], "304"),
    (&["If-Match: \"2ebc98a1-400\"", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT"], "200 1024"),
    (&["If-Match: \"o\"", "If-None-Match: \"2ebc98a1-400\""], "412"),
    (&["If-Match: \"2ebc98a1-400\"", "If-None-Match: \"2ebc98a1-400\""], "304"),
    (&["If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT", "If-None-Match: \"2ebc98a1-400\""], "412"),
    (&["If-Match: \"2ebc98a1-400\"", "Range: bytes=0-9"], "206 10 bytes 0-9/1024"),
    (&["If-Match: \"o\"", "Range: bytes=0-9"], "412"),
    (&["If-None-Match: \"2ebc98a1-400\"", "Range: bytes=0-9"], "304"),
    (&["If-None-Match: \"2ebc98a1-400\"", "Range: bytes=9999-"], "304"),
    (&["If-Match: \"o\"", "Range: bytes=9999-"], "412"),
    (&["Range: bytes=0-0", "If-Range: \"2ebc98a1-400\""], "206 1 bytes 0-0/1024"),
    (&["Range: bytes=0-0", "If-Range: \"o\""], "200 1024"),
    (&["Range: bytes=0-0", "If-Range: W/\"2ebc98a1-400\""], "200 1024"),
    (&["Range: bytes=0-0", "If-Range: Sun, 06 Nov 1994 08:49:37 GMT"], "206 1 bytes 0-0/1024"),
    (&["Range: bytes=0-0", "If-Range: Sun, 06 Nov 1994 08:49:38 GMT"], "200 1024"),
    (&["Range: bytes=0-0", "If-Range: Sun, 06 Nov 1994 08:49:36 GMT"], "200 1024"),
    (&["Range: bytes=0-0", "If-Range: garbage"], "200 1024"),
    (&["Range: bytes=0-0", "If-Range: *"], "200 1024"),
    (&["Range: bytes=0-0", "If-Range: "], "200 1024"),
    (&["Range: bytes=0-0,500-", "If-Range: \"2ebc98a1-400\""], "206 794 multipart"),
    (&["Range: bytes=0-0,500-", "If-Range: \"o\""], "200 1024"),
    (&["Range: bytes=9999-", "If-Range: \"o\""], "200 1024"),
    (&["If-Range: \"o\""], "200 1024"),
];

/// Targets of a GET.
const TARGETS: &[(&str, &str)] = &[
    ("/", "404"),
    ("/sub", "404"),
    ("/sub/", "404"),
    ("/idx", "301 /idx/"),
    ("/idx/", "200 8"),
    ("/idx?a=b", "301 /idx/?a=b"),
    ("/idx/?a=b", "200 8"),
    ("/files/idx", "301 /files/idx/"),
    ("/sub/a%20b.txt", "200 11"),
    ("/sub/%C3%A9.txt", "200 1"),
    ("/sub/\u{e9}.txt", "400"),
    ("/sub/%2Astar", "200 1"),
    ("/sub/*star", "200 1"),
    ("/sub/end%3A", "200 1"),
    ("/sub/end:", "200 1"),
    ("/sub/b;c=d", "200 1"),
    ("/nope", "404"),
    ("/files/small.txt", "200 1024"),
    ("/files/files/small.txt", "404"),
    ("/files", "404"),
    ("/files/", "404"),
    ("/small.txt/", "404"),
    ("/small.txt%2f", "404"),
    ("/.hidden", "404"),
    ("/.hid/x", "404"),
    ("/.git/config", "404"),
    ("/../small.txt", "404"),
    ("/%2e%2e/x", "404"),
    ("/%2e%2e%2fx", "404"),
    ("/..%5cx", "404"),
    ("/..%c0%afx", "404"),
    ("/%252e%252e/x", "404"),
    ("/sub/../small.txt", "404"),
    ("/sub/./a%20b.txt", "404"),
    ("/sub/a%20b.txt?x=%2e%2e", "200 11"),
    ("/a.txt%00.html", "400"),
    ("/%zz", "400"),
    ("/%", "400"),
    ("/a%00b", "400"),
    ("/a?%zz", "404"),
    ("/out", "404"),
    ("/in", "200 1024"),
    ("/fifo", "404"),
    ("//evil/..", "404"),
    ("/\\evil/..", "404"),
    ("/prog.exe", "200 2"),
    ("/sub%0d%0aX:1", "404"),
    ("/?x", "404"),
    ("/?", "404"),
    ("/{a}", "404"),
    ("/a\\b", "404"),
    ("/%FF", "404"),
    ("*", "400"),
    ("http://evil/small.txt", "200 1024"),
    ("http://evil", "404"),
    ("host:80", "400"),
    ("/small.txt?", "200 1024"),
    ("/small.txt?a", "200 1024"),
    ("/small.txt;a", "404"),
];

/// Methods, targets and header lines.
const OTHERS: &[(&str, &str, &[&str], &str)] = &[
    ("GET", "/small.txt", &["Range: bytes=0-0", "Range: bytes=5-9"], "206 1 bytes 0-0/1024"),
    ("GET", "/medium.bin", &["Range: bytes=0-0"], "206 1 bytes 0-0/100000"),
    ("GET", "/medium.bin", &["Range: bytes=50000-"], "206 50000 bytes 50000-99999/100000"),
    ("GET", "/medium.bin", &["Range: bytes=0-0,50000-50009"], "206 285 multipart"),
    ("GET", "/medium.bin", &["Range: bytes=100000-"], "416 bytes */100000"),
    ("GET", "/medium.bin", &["Range: bytes=0-99999"], "206 100000 bytes 0-99999/100000"),
    ("GET", "/large.bin", &["Range: bytes=0-0"], "206 1 bytes 0-0/300000"),
    ("GET", "/large.bin", &["Range: bytes=200000-"], "206 100000 bytes 200000-299999/300000"),
    ("GET", "/large.bin", &["Range: bytes=0-0,50000-50009"], "206 285 multipart"),
    ("GET", "/large.bin", &["Range: bytes=300000-"], "416 bytes */300000"),
    ("GET", "/large.bin", &["Range: bytes=-1"], "206 1 bytes 299999-299999/300000"),
    ("GET", "/empty", &["Range: bytes=0-"], "416 bytes */0"),
    ("GET", "/empty", &["Range: bytes=-1"], "416 bytes */0"),
    ("GET", "/empty", &["Range: bytes=0-0"], "416 bytes */0"),
    ("GET", "/empty", &[], "200 0"),
    ("HEAD", "/empty", &[], "200 0"),
    ("GET", "/small.txt", &[], "200 1024"),
    ("GET", "/medium.bin", &[], "200 100000"),
    ("GET", "/large.bin", &[], "200 300000"),
    ("HEAD", "/small.txt", &[], "200 1024"),
    ("HEAD", "/medium.bin", &[], "200 100000"),
    ("HEAD", "/large.bin", &[], "200 300000"),
    ("HEAD", "/small.txt", &["Range: bytes=0-0"], "200 1024"),
    ("HEAD", "/large.bin", &["Range: bytes=0-0"], "200 300000"),
    ("HEAD", "/small.txt", &["Range: bytes=9999-"], "200 1024"),
    ("HEAD", "/small.txt", &["If-None-Match: *"], "304"),
    ("HEAD", "/small.txt", &["If-Match: \"o\""], "412"),
    ("POST", "/small.txt", &[], "501"),
    ("PUT", "/small.txt", &[], "501"),
    ("DELETE", "/small.txt", &[], "501"),
    ("OPTIONS", "/small.txt", &[], "501"),
    ("TRACE", "/small.txt", &[], "501"),
    ("PATCH", "/small.txt", &[], "501"),
    ("PROPFIND", "/small.txt", &[], "501"),
    ("FOO", "/small.txt", &[], "501"),
    ("GET", "/large.bin", &["If-None-Match: \"2ebc98a1-493e0\""], "304"),
    ("GET", "/medium.bin", &["If-None-Match: \"2ebc98a1-186a0\""], "304"),
    ("GET", "/z.txt", &["Accept-Encoding: gzip"], "200 500"),
    ("GET", "/z.txt", &["Accept-Encoding: br"], "200 500"),
    ("GET", "/z.txt", &["Accept-Encoding: gzip;q=0"], "200 500"),
    ("GET", "/z.txt", &["Accept-Encoding: identity"], "200 500"),
    ("GET", "/z.txt", &["Accept-Encoding: gzip, deflate, br, zstd"], "200 500"),
    ("GET", "/small.txt", &["Upgrade: websocket", "Connection: upgrade"], "200 1024"),
    (
        "GET",
        "/small.txt",
        &["Upgrade: h2c", "Connection: upgrade, http2-settings", "HTTP2-Settings: AAA"],
        "200 1024",
    ),
    ("GET", "/small.txt", &["X-Forwarded-Host: evil"], "200 1024"),
    ("POST", "/small.txt", &["X-HTTP-Method-Override: GET"], "501"),
    ("CONNECT", "host:443", &[], "501"),
    ("OPTIONS", "*", &[], "501"),
    ("GET", "/small.txt", &["Connection: keep-alive"], "200 1024"),
    (
        "GET",
        "/small.txt",
        &[
            "User-Agent: Mozilla/5.0",
            "Accept: */*",
            "Accept-Language: en",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "Connection: keep-alive",
            "Cookie: a=b",
            "Priority: u=0, i",
        ],
        "200 1024",
    ),
];

/// A server whose files all have the same modification time, 784111777.
fn server(flags: &[&str]) -> Server {
    let server = Server::start_with(&[&["--digests", "off"], flags].concat());
    let put = |name: &str, bytes: &[u8]| {
        server.put(name, bytes);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(0x2ebc_98a1);
        std::fs::File::open(server.root().join(name)).unwrap().set_modified(modified).unwrap();
    };
    for (name, size) in [("small.txt", 1024), ("medium.bin", 100_000), ("large.bin", 300_000), ("empty", 0)] {
        put(name, &pattern(size));
    }
    for name in ["sub/\u{e9}.txt", "sub/*star", "sub/end:", "sub/b;c=d", ".hidden", ".hid/x"] {
        put(name, b"x");
    }
    put("idx/index.html", b"<p>index");
    put("sub/a b.txt", b"hello world");
    put("prog.exe", b"MZ");
    put("z.txt", &[b'z'; 500]);
    put("z.txt.gz", b"compressed");
    std::fs::write(server.outside().join("secret"), "secret").unwrap();
    symlink("../secret", server.root().join("out")).unwrap();
    symlink("small.txt", server.root().join("in")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(server.root().join("fifo")).status().unwrap();
    assert!(fifo.success());
    server
}

/// All rows as method, target, header lines and expected answer.
fn rows() -> Vec<(&'static str, &'static str, Vec<String>, &'static str)> {
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let mut rows = Vec::new();
    rows.extend(
        RANGES
            .iter()
            .map(|(value, expected)| ("GET", "/small.txt", vec![format!("Range: {value}")], *expected)),
    );
    rows.extend(CONDITIONS.iter().map(|(lines, expected)| ("GET", "/small.txt", owned(lines), *expected)));
    rows.extend(TARGETS.iter().map(|(target, expected)| ("GET", *target, Vec::new(), *expected)));
    rows.extend(
        OTHERS.iter().map(|(method, target, lines, expected)| (*method, *target, owned(lines), *expected)),
    );
    rows
}

fn described(answer: &Answer) -> String {
    let mut described = answer.status.to_string();
    if matches!(answer.status, 200 | 206) {
        described.push(' ');
        described.push_str(answer.header("Content-Length").unwrap_or("?"));
    }
    for name in ["Content-Range", "Location"] {
        if let Some(value) = answer.header(name) {
            described.push(' ');
            described.push_str(value);
        }
    }
    if answer.header("Content-Type").is_some_and(|value| value.starts_with("multipart/")) {
        described.push_str(" multipart");
    }
    described
}

/// The headers, except those that differ between two equal answers.
fn headers(answer: &Answer) -> Vec<(String, String)> {
    let mut headers = answer.headers.clone();
    headers.retain(|(name, _)| !matches!(name.as_str(), "Date" | "Endpoint-Load-Metrics"));
    headers.sort();
    headers
}

/// Checks that the answer has the headers of its kind and no others.
#[track_caller]
fn check_headers(answer: &Answer, shown: &str) {
    let mut expected: Vec<&str> = match answer.status {
        200 | 206 => vec![
            "Accept-Ranges",
            "Content-Length",
            "Content-Type",
            "Date",
            "Etag",
            "Last-Modified",
            "X-Content-Type-Options",
        ],
        304 => vec!["Date", "Etag", "Last-Modified"],
        _ => vec!["Cache-Control", "Content-Length", "Content-Type", "Date", "X-Content-Type-Options"],
    };
    let ranged = answer.status == 206 && !described(answer).contains("multipart");
    if ranged || answer.status == 416 {
        expected.push("Content-Range");
    }
    if answer.status == 301 {
        expected.push("Location");
    }
    let mut names: Vec<_> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.retain(|name| *name != "Connection");
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected, "{shown}");
}

#[test]
fn every_request_has_the_same_exact_answer_each_time() {
    let server = server(&[]);
    for (method, target, lines, expected) in rows() {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let shown = format!("{method} {target} {lines:?}");
        let first = server.ask(method, target, &lines);
        assert_eq!(described(&first), expected, "{shown}");
        check_headers(&first, &shown);
        // The second answer may be a recorded one.
        let second = server.ask(method, target, &lines);
        if !expected.ends_with("multipart") {
            assert_eq!(headers(&first), headers(&second), "{shown}");
            assert!(first.body == second.body, "{shown}");
        }
    }
}

/// A condition without effect, which excludes a request from the fast path.
const NEUTRAL: &str = "If-Range: \"o\"";

#[test]
fn a_recorded_answer_equals_that_of_actix_files() {
    let server = server(&["--precompressed"]);
    let (tag, date) = ("If-None-Match: \"2ebc98a1-400\"", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT");
    for (target, lines) in [
        ("/small.txt", &[][..]),
        ("/small.txt?query", &["Accept-Encoding: gzip, deflate, br, zstd", "Connection: keep-alive"]),
        ("/files/small.txt", &["Accept-Encoding: gzip"]),
        ("/small.txt", &[tag]),
        ("/small.txt", &[tag, date]),
        ("/z.txt", &[]),
        ("/z.txt", &["Accept-Encoding: gzip"]),
        ("/z.txt", &["Accept-Encoding: gzip", "If-None-Match: \"2ebc98a1-a-gzip\""]),
        ("/z.txt.gz", &["Accept-Encoding: gzip"]),
        ("/idx/", &[]),
        ("/empty", &[]),
        ("/sub/a%20b.txt", &[]),
    ] {
        let decided = server.get_with(target, &[lines, &[NEUTRAL]].concat());
        for _ in 0..3 {
            let kept = server.get_with(target, lines);
            assert_eq!(
                (kept.status, headers(&kept)),
                (decided.status, headers(&decided)),
                "{target} {lines:?}"
            );
            assert!(kept.body == decided.body, "{target} {lines:?}");
        }
    }
}

#[test]
fn a_recorded_answer_is_counted_and_as_fresh_as_its_file() {
    let server = server(&["--admin", "127.0.0.1:0"]);
    let count = |name: &str| {
        let text = crate::support::http::get(server.program().admin_address(), "/metrics").text();
        let prefix = format!("fingerpost_server_{name} ");
        text.lines().find_map(|line| line.strip_prefix(prefix.as_str())).unwrap().parse::<u64>().unwrap()
    };
    let counted = || {
        [
            "answers_total{status=\"200\"}",
            "answers_total{status=\"304\"}",
            "completed_total",
            "body_bytes_total",
        ]
        .map(count)
    };
    let before = counted();
    for _ in 0..10 {
        assert_eq!(server.get("/small.txt").status, 200);
        assert_eq!(server.get_with("/small.txt", &["If-None-Match: \"2ebc98a1-400\""]).status, 304);
    }
    crate::support::wait_until("the counts", || counted()[2] == before[2] + 10);
    let after = counted();
    assert_eq!([0, 1, 3].map(|at| after[at] - before[at]), [10, 10, 10 * 1024]);
    assert_eq!(count("in_flight"), 0);
    server.put("small.txt", "changed");
    crate::support::wait_until("the new file", || server.get("/small.txt").text() == "changed");
    // The old tag is no longer that of the file.
    assert_eq!(server.get_with("/small.txt", &["If-None-Match: \"2ebc98a1-400\""]).status, 200);
}

#[test]
fn an_answer_from_memory_is_logged() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let server = server(&["--access-log", log.path().to_str().unwrap()]);
    (0..5).for_each(|_| assert_eq!(server.get("/small.txt").status, 200));
    let lines = || std::fs::read_to_string(log.path()).unwrap().lines().count();
    crate::support::wait_until("all lines", || lines() == 5);
}
