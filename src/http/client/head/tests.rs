use proptest::prelude::*;

use super::*;

fn head(text: impl AsRef<[u8]>) -> Result<Option<Head>, HeadError> {
    Head::take(&mut BytesMut::from(text.as_ref()))
}

fn with(lines: &str) -> Head {
    head(format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).unwrap().unwrap()
}

#[test]
fn a_head_is_stored_as_received_and_the_body_stays_in_the_buffer() {
    let text = "HTTP/1.1 301 Moved\r\nLOCATION: http://a/b\r\nx-One: 1\r\n\r\n";
    let mut buffer = BytesMut::from(format!("{text}body").as_str());
    let head = Head::take(&mut buffer).unwrap().unwrap();
    assert_eq!(head.raw(), text.as_bytes());
    assert_eq!((head.status, head.header("location")), (301, Some("http://a/b")));
    assert_eq!(&buffer[..], b"body");
}

#[test]
fn an_incomplete_head_is_not_an_error() {
    assert!(head("HTTP/1.1 200 OK\r\nContent-Le").unwrap().is_none());
    assert!(head("HT").unwrap().is_none());
    assert!(head("HTTP/1.1 200 OK\r\n\r").unwrap().is_none());
}

#[test]
fn heads_are_limited() {
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(MAX_HEAD_BYTES));
    assert_eq!(head(&endless).unwrap_err(), HeadError::TooLong);
    let lines = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADER_LINES + 1));
    assert_eq!(head(&lines).unwrap_err(), HeadError::TooManyLines);
    head(format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADER_LINES))).unwrap().unwrap();
}

#[test]
fn other_protocols_are_refused_at_their_first_bytes() {
    for text in ["SSH-2.0-OpenSSH", "HTTP/2", "\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 099 X\r\n\r\n"] {
        assert!(matches!(head(text), Err(HeadError::NotHttp(_))), "{text:?}");
    }
}

#[test]
fn folds_and_spaces_are_accepted_as_by_curl() {
    let head = with("A: one\r\n  two;\r\n\tthree\r\nB : x\r\nContent-Length\t: 5\r\n");
    assert_eq!(head.header("a"), Some("one two; three"));
    assert_eq!(head.header("b"), Some("x"));
    assert_eq!(head.framing(), Ok(Framing::Length(5)));
    let bare = Head::take(&mut BytesMut::from("HTTP/1.1  200 OK\nContent-Length: 5\n\n")).unwrap().unwrap();
    assert_eq!(bare.framing(), Ok(Framing::Length(5)));
}

#[test]
fn a_location_keeps_its_bytes() {
    for (bytes, location) in [(&b"/caf\xe9"[..], "/caf%E9"), ("/caf\u{e9}".as_bytes(), "/caf%C3%A9")] {
        let text = [b"HTTP/1.1 302 Found\r\nLocation: ", bytes, b"\r\nX: caf\xe9\r\n\r\n"].concat();
        let head = head(text).unwrap().unwrap();
        assert_eq!(head.header("location"), Some(location));
        assert_eq!(head.header("x"), Some("caf\u{e9}"));
    }
}

#[test]
fn a_length_is_a_plain_number() {
    let length = |value: &str| with(&format!("Content-Length: {value}\r\n")).content_length();
    assert_eq!(length("5"), Ok(Some(5)));
    assert_eq!(length("5, 5"), Ok(Some(5)));
    for bad in ["-1", "+5", "5, 6", "18446744073709551616", "", "0x5"] {
        assert!(length(bad).is_err(), "{bad}");
    }
}

#[test]
fn framing_follows_the_rfc() {
    let framing = |lines: &str| with(lines).framing();
    assert_eq!(framing(""), Ok(Framing::UntilClose));
    assert_eq!(framing("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), Ok(Framing::Chunked));
    assert_eq!(framing("Transfer-Encoding: identity\r\nContent-Length: 3\r\n"), Ok(Framing::Length(3)));
    assert_eq!(framing("Transfer-Encoding: identity\r\n"), Ok(Framing::UntilClose));
    assert!(framing("Transfer-Encoding: gzip, chunked\r\n").is_err());
    assert!(framing("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n").is_err());
    let empty = head("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n").unwrap().unwrap();
    assert_eq!(empty.framing(), Ok(Framing::Length(0)));
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic_and_cuts_make_no_difference(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        lines in prop::collection::vec("[ -~\t]{0,20}", 0..6),
        cut in 1_usize..40,
    ) {
        let text = [b"HTTP/1.1 200 OK\r\n", lines.join("\r\n").as_bytes(), b"\r\n", &bytes[..]].concat();
        for wire in [&bytes, &text] {
            let whole = head(wire);
            let (mut buffer, mut searched, mut found) = (BytesMut::new(), 0, Ok(None));
            for part in wire.chunks(cut) {
                buffer.extend_from_slice(part);
                found = Head::take_from(&mut buffer, &mut searched);
                if !matches!(found, Ok(None)) {
                    break;
                }
            }
            let told = |result: &Result<Option<Head>, HeadError>| match result {
                Ok(head) => Ok(head.as_ref().map(|head| (head.raw.clone(), head.framing()))),
                Err(error) => Err(error.clone()),
            };
            prop_assert_eq!(told(&whole), told(&found));
        }
    }
}
