//! The head of an HTTP/1 answer: parsed with limits, kept as it was received.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};

/// The longest head that is read, in bytes.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The most header lines an answer may have.
pub const MAX_HEADER_LINES: usize = 256;

/// Why bytes from a server are not the head of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It goes on beyond [`MAX_HEAD_BYTES`].
    #[error("the head of the answer is longer than {MAX_HEAD_BYTES} bytes")]
    TooLong,
    /// It has more than [`MAX_HEADER_LINES`] lines.
    #[error("the answer has more than {MAX_HEADER_LINES} header lines")]
    TooManyLines,
    /// It is not HTTP/1.
    #[error("the answer is not HTTP/1: {0}")]
    NotHttp(httparse::Error),
    /// Its length is given twice, differently, or not as a number of bytes.
    #[error("the answer has the impossible Content-Length {0:?}")]
    Length(String),
    /// The body is coded in a way that was not asked for.
    #[error("the answer's body has the transfer coding {0:?}, which was not asked for")]
    TransferCoding(String),
}

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The minor version: 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
    /// The header lines in the order in which they came.
    headers: Vec<(String, String)>,
    /// Status line and header lines, byte for byte, with the empty line that ends them.
    raw: Bytes,
}

impl Head {
    /// Takes one complete head off the front of `buffer`; `None` while it is not all there.
    ///
    /// Header values that are not UTF-8 are kept readable: each foreign byte becomes U+FFFD.
    pub fn take(buffer: &mut BytesMut) -> Result<Option<Self>, HeadError> {
        let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADER_LINES];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            buffer,
            &mut lines,
        );
        let (length, status, minor_version, headers) = match parsed {
            Ok(httparse::Status::Complete(length)) if length > MAX_HEAD_BYTES => {
                return Err(HeadError::TooLong);
            }
            Ok(httparse::Status::Complete(length)) => {
                let headers = response
                    .headers
                    .iter()
                    .map(|line| (line.name.to_owned(), String::from_utf8_lossy(line.value).into_owned()))
                    .collect();
                (length, response.code.unwrap_or(0), response.version.unwrap_or(0), headers)
            }
            Ok(httparse::Status::Partial) if buffer.len() > MAX_HEAD_BYTES => return Err(HeadError::TooLong),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyLines),
            Err(error) => return Err(HeadError::NotHttp(error)),
        };
        // A copy, so that the buffer serves the next answer too.
        let raw = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        buffer.advance(length);
        Ok(Some(Self { status, minor_version, headers, raw }))
    }

    /// The value of the first line named `name`, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(line, _)| line.eq_ignore_ascii_case(name))?;
        Some(value.trim())
    }

    /// The values of every line named `name`, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(line, _)| line.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// Status line and header lines as they were received, with the empty line at the end.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Whether `Location` says where to go instead.
    #[must_use]
    pub fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// Whether the connection may carry another request after this answer (RFC 9112, section 9.3).
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        let says = |word: &str| {
            self.all("connection")
                .flat_map(|value| value.split(','))
                .any(|token| token.trim().eq_ignore_ascii_case(word))
        };
        if self.minor_version == 0 { says("keep-alive") } else { !says("close") }
    }

    /// The announced length of the body; several equal values count as one (RFC 9110, section 8.6).
    pub fn content_length(&self) -> Result<Option<u64>, HeadError> {
        let mut length = None;
        for value in self.all("content-length").flat_map(|value| value.split(',')) {
            let text = value.trim();
            let bad = || HeadError::Length(text.to_owned());
            // `parse` would also take a leading plus sign.
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

    /// Whether the body comes in chunks. Any other transfer coding is an error: none was asked for.
    pub fn is_chunked(&self) -> Result<bool, HeadError> {
        let mut chunked = false;
        for value in self.all("transfer-encoding").flat_map(|value| value.split(',')) {
            let coding = value.trim();
            if !coding.eq_ignore_ascii_case("chunked") || chunked {
                return Err(HeadError::TransferCoding(coding.to_owned()));
            }
            chunked = true;
        }
        Ok(chunked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, HeadError> {
        Head::take(&mut BytesMut::from(text))
    }

    #[test]
    fn a_head_is_kept_as_received_and_the_body_left() {
        let text = "HTTP/1.1 301 Moved\r\nLOCATION: http://a/b\r\nx-One: 1\r\n\r\n";
        let mut buffer = BytesMut::from(format!("{text}body").as_str());
        let head = Head::take(&mut buffer).unwrap().unwrap();
        assert_eq!(head.raw(), text.as_bytes());
        assert_eq!((head.status, head.header("location")), (301, Some("http://a/b")));
        assert_eq!(&buffer[..], b"body");
    }

    #[test]
    fn half_a_head_is_waited_for() {
        assert!(head("HTTP/1.1 200 OK\r\nContent-Le").unwrap().is_none());
    }

    #[test]
    fn limits_hold() {
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(MAX_HEAD_BYTES));
        assert_eq!(head(&endless).unwrap_err(), HeadError::TooLong);
        let lines = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADER_LINES + 1));
        assert_eq!(head(&lines).unwrap_err(), HeadError::TooManyLines);
        assert!(matches!(head("SSH-2.0-OpenSSH\r\n\r\n"), Err(HeadError::NotHttp(_))));
    }

    #[test]
    fn a_length_is_a_plain_number() {
        let length = |value: &str| {
            head(&format!("HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\n"))
                .unwrap()
                .unwrap()
                .content_length()
        };
        assert_eq!(length("5"), Ok(Some(5)));
        assert_eq!(length("5, 5"), Ok(Some(5)));
        for bad in ["-1", "+5", "5, 6", "18446744073709551616", "", "0x5"] {
            assert!(length(bad).is_err(), "{bad}");
        }
    }
}
