use super::*;

#[test]
fn recent_and_default_dates_are_weak() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    let is_strong = |modified: &str, date| is_strong_date(modified, date, now);
    assert!(is_strong("Sun, 06 Nov 1994 08:48:37 GMT", Some(now)));
    assert!(!is_strong("Sun, 06 Nov 1994 08:48:38 GMT", Some(now)));
    assert!(!is_strong("Sun, 06 Nov 1994 08:48:37 GMT", None));
    assert!(is_strong("Sat, 05 Nov 1994 08:49:37 GMT", None));
    for weak in ["Thu, 01 Jan 1970 00:00:01 GMT", "Tue, 01 Jan 1980 00:00:00 GMT", "yesterday", ""] {
        assert!(!is_strong(weak, Some(now)), "{weak}");
    }
}

#[test]
fn content_ranges() {
    let parse = ContentRange::parse;
    let whole = ContentRange { range: Some(ByteRange::new(0, 10)), size: Some(10) };
    assert_eq!(parse("bytes 0-9/10"), Some(whole));
    assert_eq!(parse("bytes 0-9/*"), Some(ContentRange { size: None, ..whole }));
    assert_eq!(parse("bytes */10"), Some(ContentRange { range: None, size: Some(10) }));
    for bad in [
        "bytes -1-9/10",
        "bytes 9-0/10",
        "bytes 0-10/10",
        "bytes 0-18446744073709551615/*",
        "bytes 0-99999999999999999999/*",
        "lines 0-9/10",
        "bytes */*",
        "bytes 0-9",
        "",
    ] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[test]
fn digests_in_headers() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let head = |line: &str| {
        let text = format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
        Head::take(&mut bytes::BytesMut::from(text.as_str())).unwrap().unwrap()
    };
    let coded = STANDARD.encode([7; 32]);
    let promised = |line: String| promised_digest(&head(&line));
    let digest = Checksum::new(Algorithm::Sha256, &[7; 32]);
    assert_eq!(promised(format!("Repr-Digest: sha-512=:AAAA:, sha-256=:{coded}:")), digest);
    assert_eq!(promised(format!("Digest: MD5=x,SHA-256={coded}")), digest);
    assert_eq!(promised(format!("Repr-Digest: sha-256={coded}")), None);
    assert_eq!(promised("Repr-Digest: sha-256=:c2hvcnQ=:".to_owned()), None);
}
