use super::*;

const LIMITS: HeadLimits = HeadLimits { line: 64, total: 256 };

/// The scan must give the same result for the whole head and for the head cut at any place.
fn check(bytes: &[u8], expected: Scan) {
    assert_eq!(HeadScan::default().feed(bytes, LIMITS), expected, "{}", bytes.escape_ascii());
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        let mut scan = HeadScan::default();
        let mut found = scan.feed(first, LIMITS);
        if found == Scan::Partial {
            found = match scan.feed(second, LIMITS) {
                Scan::Complete(end) => Scan::Complete(end + cut),
                other => other,
            };
        }
        assert_eq!(found, expected, "{} cut at {cut}", bytes.escape_ascii());
    }
}

#[test]
fn a_head_ends_at_its_empty_line() {
    check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", Scan::Complete(27));
    check(b"GET / HTTP/1.0\n\nrest", Scan::Complete(16));
    check(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", Scan::Complete(22));
    check(b"GET / HTTP/1.1\r\nHost: a\r\n\r", Scan::Partial);
    check(b"GET / HTTP/1.1\r\n\rX\n\n", Scan::Complete(20));
    check(b"", Scan::Partial);
}

#[test]
fn another_major_version_is_refused() {
    let refused = Scan::Refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused);
    check(b"GET / HTTP/3.0\r\n", refused);
    check(b"GET / HTTP/2\n", refused);
    check(b"GET / HTTP/0.9\r\n", refused);
    check(b"GET / HTTP/x\r\n\r\n", Scan::Complete(16));
    check(b"GET /\r\n\r\n", Scan::Complete(9));
}

#[test]
fn a_fragment_is_refused() {
    check(b"GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n", Scan::Refused(StatusCode::BAD_REQUEST));
    check(b"GET /x# HTTP/1.1\r\n", Scan::Refused(StatusCode::BAD_REQUEST));
    check(b"GET /x#y HTTP/2.0\r\n", Scan::Refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED));
    check(b"GET /x HTTP/1.1\r\nA: #b\r\n\r\n", Scan::Complete(26));
    let long = format!("GET /#{} HTTP/1.1\r\n\r\n", "a".repeat(80));
    check(long.as_bytes(), Scan::Refused(StatusCode::URI_TOO_LONG));
}

#[test]
fn what_is_too_large_is_refused() {
    let line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(80));
    check(line.as_bytes(), Scan::Refused(StatusCode::URI_TOO_LONG));
    let fields = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", "A: b\r\n".repeat(80));
    check(fields.as_bytes(), Scan::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
}
