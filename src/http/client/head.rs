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

impl Framing {
    /// The replacement head for awc.
    pub(super) fn head_for_awc(self, is_reusable: bool) -> Bytes {
        const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n";
        const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
        /// awc reads a body without a length only in responses of HTTP/1.0.
        const UNTIL_CLOSE: &str = "HTTP/1.0 200 OK\r\n";
        const CLOSE: &str = "connection: close\r\n";

        let text = match self {
            Self::Length(0) => EMPTY,
            Self::Length(length) => &format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n"),
            Self::Chunked => CHUNKED,
            Self::UntilClose => UNTIL_CLOSE,
        };
        let close = if is_reusable { "" } else { CLOSE };
        [text, close, "\r\n"].concat().into()
    }
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
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Whether the status is a redirect to the address in `Location`.
    pub(crate) fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// Whether this is an interim response.
    pub(crate) fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// Whether the connection may carry another request after this response (RFC 9112, section 9.3).
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
mod tests;
