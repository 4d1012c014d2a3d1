use super::*;

fn entry() -> LogEntry {
    LogEntry {
        client: Some(IpAddr::from([192, 0, 2, 1])),
        line: RequestLine::Parts {
            method: "GET".to_owned(),
            target: "/a\"\n%20".to_owned(),
            version: "HTTP/1.1".to_owned(),
        },
        status: 206,
        referer: None,
        user_agent: Some("x\u{1b}[31m\u{e9}".to_owned()),
        range: Some("bytes=0-1".to_owned()),
        began: Some(tokio::time::Instant::now()),
        redirect: None,
    }
}

const END: AnswerEnd = AnswerEnd { body_sent: 2, completion: Completion::Aborted };

#[test]
fn a_client_cannot_add_a_line() {
    let line = entry().combined(END, SystemTime::UNIX_EPOCH);
    assert_eq!(
        line,
        "192.0.2.1 - - [01/Jan/1970:00:00:00 +0000] \"GET /a\\x22\\x0A%20 HTTP/1.1\" 206 2 \"-\" \
             \"x\\x1B[31m\\xC3\\xA9\" aborted\n",
    );
}

#[test]
fn a_json_line_is_one_object() {
    let line = entry().json(END, SystemTime::UNIX_EPOCH);
    assert_eq!(line.matches('\n').count(), 1);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["target"], "/a\"\n%20");
    assert_eq!((&line["body_bytes"], &line["aborted"]), (&2.into(), &true.into()));
    assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
}

#[test]
fn a_malformed_request_line_is_logged_as_received() {
    let entry = |line| LogEntry { line: RequestLine::parse(line), began: None, ..entry() };
    for (line, shown) in [
        (&b""[..], "\"-\""),
        (b"\x16\x03\xff", "\"\\x16\\x03\\xFF\""),
        (b"GET / HTTP/9.9", "\"GET / HTTP/9.9\""),
        (b"GET /a", "\"GET /a\""),
    ] {
        let combined = entry(line).combined(END, SystemTime::UNIX_EPOCH);
        assert!(combined.contains(&format!("] {shown} 206 2 ")), "{combined}");
    }
    let json = |line| serde_json::from_str::<serde_json::Value>(&entry(line).json(END, SystemTime::now()));
    assert_eq!(json(b"GET / HTTP/9.9").unwrap()["method"], "GET");
    let garbage = json(b"\x16\n").unwrap();
    assert_eq!((&garbage["request_line"], &garbage["method"]), (&"\u{16}\n".into(), &().into()));
}
