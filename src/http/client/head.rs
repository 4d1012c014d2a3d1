//! The scanner: limits and normalises the head of an HTTP/1 response, and finds the framing of its body.
//!
//! It accepts the same heads as curl: folded lines, spaces before a colon, repeated equal lengths, values in Latin-1.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// Maximum length of a head, in bytes.
pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Maximum number of header lines in a response.
pub(crate) const MAX_HEADER_LINES: usize = 256;

/// The first bytes of every HTTP/1 response.
const PROTOCOL: &[u8] = b"HTTP/1.";

/// Why bytes from a server are not a valid head of a response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The head is longer than [`MAX_HEAD_BYTES`].
    #[error("the head of the answer is longer than {MAX_HEAD_BYTES} bytes")]
    TooLong,
    /// The head has more than [`MAX_HEADER_LINES`] lines.
    #[error("the answer has more than {MAX_HEADER_LINES} header lines")]
    TooManyLines,
    /// The bytes are not HTTP/1.
    #[error("the answer is not HTTP/1: {0}")]
    NotHttp(httparse::Error),
    /// `Content-Length` has contradictory values, or is not a number of bytes.
    #[error("the answer has the impossible Content-Length {0:?}")]
    Length(String),
    /// The body has a transfer coding that was not requested.
    #[error("the answer's body has the transfer coding {0:?}, which was not asked for")]
    TransferCoding(String),
}

/// The end of the body of a response (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The body has this number of bytes.
    Length(u64),
    /// The body ends with the last chunk.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
    /// The header lines in the order in which they were received, unfolded.
    headers: Vec<(String, String)>,
    /// Status line and header lines as they were received, with the empty line at the end.
    raw: Bytes,
}

impl Head {
    /// Removes a complete head from the front of `buffer`. `None` while it is incomplete.
    ///
    /// A value that is not UTF-8 is read as Latin-1. In `Location`, every byte beyond ASCII is percent-encoded, so
    /// that the server receives the same bytes.
    pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<Self>, HeadError> {
        Self::take_from(buffer, &mut 0)
    }

    /// The same if the first `searched` bytes of `buffer` are known not to contain the end of the head. So a head
    /// that is received byte by byte is searched only once.
    pub(super) fn take_from(buffer: &mut BytesMut, searched: &mut usize) -> Result<Option<Self>, HeadError> {
        let start = buffer.get(..PROTOCOL.len().min(buffer.len())).unwrap_or_default();
        if !PROTOCOL.starts_with(start) {
            return Err(HeadError::NotHttp(httparse::Error::Version));
        }
        let Some(length) = end_of_head(buffer, *searched) else {
            // The last three bytes may be the beginning of the empty line.
            *searched = buffer.len().saturating_sub(3);
            return if buffer.len() > MAX_HEAD_BYTES { Err(HeadError::TooLong) } else { Ok(None) };
        };
        *searched = 0;
        if length > MAX_HEAD_BYTES {
            return Err(HeadError::TooLong);
        }
        // A copy, so that the buffer can be used for the next response.
        let raw = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        buffer.advance(length);
        Self::parse(raw).map(Some)
    }

    fn parse(raw: Bytes) -> Result<Self, HeadError> {
        let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADER_LINES];
        let mut response = httparse::Response::new(&mut []);
        let mut parser = httparse::ParserConfig::default();
        parser
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_multiple_spaces_in_response_status_delimiters(true)
            .allow_space_before_first_header_name(true);
        match parser.parse_response_with_uninit_headers(&mut response, &raw, &mut lines) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(HeadError::NotHttp(httparse::Error::NewLine)),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyLines),
            Err(error) => return Err(HeadError::NotHttp(error)),
        }
        let status = response.code.unwrap_or_default();
        if status < 100 {
            return Err(HeadError::NotHttp(httparse::Error::Status));
        }
        let minor_version = response.version.unwrap_or_default();
        let headers = response
            .headers
            .iter()
            .map(|line| (line.name.to_owned(), value_of(line.name, line.value)))
            .collect();
        Ok(Self { status, minor_version, headers, raw })
    }

    /// The value of the first line named `name`. Case is ignored.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(line, _)| line.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The values of all lines named `name`, in order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(line, _)| line.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The members of all lists in lines named `name`.
    fn members<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(|value| value.split(',')).map(str::trim)
    }

    /// Status line and header lines as they were received, with the empty line at the end.
    #[must_use]
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Whether the status is a redirect to the address in `Location`.
    #[must_use]
    pub(crate) fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// Whether this is an interim response.
    #[must_use]
    pub(crate) fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// Whether the connection may carry another request after this response (RFC 9112, section 9.3).
    #[must_use]
    pub(crate) fn keeps_alive(&self) -> bool {
        let has = |option: &str| self.members("connection").any(|member| member.eq_ignore_ascii_case(option));
        if self.minor_version == 0 { has("keep-alive") && !has("close") } else { !has("close") }
    }

    /// The announced length of the body. Repeated equal values count as one (RFC 9110, section 8.6).
    pub(crate) fn content_length(&self) -> Result<Option<u64>, HeadError> {
        let mut length = None;
        for text in self.members("content-length") {
            let bad = || HeadError::Length(text.to_owned());
            // `parse` would also accept a leading plus sign.
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad());
            }
            let number: u64 = text.parse().map_err(|_| bad())?;
            if length.is_some_and(|other| other != number) {
                return Err(bad());
            }
            length = Some(number);
        }
        Ok(length)
    }

    /// Whether the body is sent in chunks. The coding `identity` is ignored; any other coding is an error, because it
    /// was not requested.
    pub(crate) fn is_chunked(&self) -> Result<bool, HeadError> {
        let mut chunked = false;
        for coding in self.members("transfer-encoding") {
            if coding.eq_ignore_ascii_case("identity") {
                continue;
            }
            if !coding.eq_ignore_ascii_case("chunked") || chunked {
                return Err(HeadError::TransferCoding(coding.to_owned()));
            }
            chunked = true;
        }
        Ok(chunked)
    }

    /// The framing of the body of a response to GET.
    pub(crate) fn framing(&self) -> Result<Framing, HeadError> {
        if matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if self.is_chunked()? {
            return Ok(Framing::Chunked);
        }
        Ok(self.content_length()?.map_or(Framing::UntilClose, Framing::Length))
    }
}

/// The length of the head at the front of `bytes`, if it is complete.
fn end_of_head(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.min(bytes.len());
    memchr::memchr_iter(b'\n', bytes.get(from..)?).find_map(|at| {
        let end = from + at + 1;
        match bytes.get(end..)? {
            [b'\n', ..] => Some(end + 1),
            [b'\r', b'\n', ..] => Some(end + 2),
            _ => None,
        }
    })
}

/// A header value as text, unfolded to one line (RFC 9112, section 5.2).
fn value_of(name: &str, value: &[u8]) -> String {
    const NOT_ASCII: &AsciiSet = CONTROLS;

    let is_folded = value.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
    let unfolded;
    let value = if is_folded {
        let parts = value.split(|byte| matches!(byte, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
        unfolded = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b' ');
        &unfolded
    } else {
        value.trim_ascii()
    };
    if name.eq_ignore_ascii_case("location") && !value.is_ascii() {
        return percent_encode(value, NOT_ASCII).to_string();
    }
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().copied().map(char::from).collect(),
    }
}

#[cfg(test)]
mod tests {
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
        let bare =
            Head::take(&mut BytesMut::from("HTTP/1.1  200 OK\nContent-Length: 5\n\n")).unwrap().unwrap();
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
}
