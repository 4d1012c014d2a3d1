//! Requests that no handler hears of, for those who keep a log.

use std::fmt;
use std::net::IpAddr;

use actix_http::StatusCode;

use super::link::AnswerEnd;

/// The most of a request line that is kept for a log.
const LONGEST_LINE: usize = 2048;

/// A request that was answered with a page before a handler could have it, or the part of one that came.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// Who asked; none on a Unix socket.
    pub client: Option<IpAddr>,
    /// The request line as it came, or its first bytes; empty where nothing came. Any byte can be in it.
    pub request_line: &'a [u8],
    /// What was answered.
    pub status: StatusCode,
    /// How much of the page went out.
    pub end: AnswerEnd,
}

/// Hears of refused requests, on the threads that serve; so it must not wait.
pub trait RefusalLog: fmt::Debug + Send + Sync {
    /// A refused connection has ended.
    fn refused(&self, refusal: &Refusal<'_>);
}

/// The request line of a head on its way in.
#[derive(Debug, Default)]
pub(super) struct RequestLine {
    bytes: Vec<u8>,
    is_whole: bool,
}

impl RequestLine {
    /// Takes what belongs to the line from the next bytes of the head.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.is_whole {
            return;
        }
        let skipped = match self.bytes.as_slice() {
            // Empty lines may come before it.
            [] => bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count(),
            _ => 0,
        };
        let rest = bytes.get(skipped..).unwrap_or_default();
        let end = memchr::memchr(b'\n', rest);
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let room = LONGEST_LINE - self.bytes.len();
        self.bytes.extend_from_slice(line.get(..room).unwrap_or(line));
        self.is_whole = end.is_some() || self.bytes.len() == LONGEST_LINE;
    }

    /// The line without its end, as far as it came.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes)
    }

    /// Waits for the next head.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.is_whole = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_kept_however_the_head_is_cut() {
        let head = b"\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        for cut in 0..head.len() {
            let mut line = RequestLine::default();
            line.feed(&head[..cut]);
            line.feed(&head[cut..]);
            assert_eq!(line.bytes(), b"GET /a HTTP/1.1", "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_kept_to_its_limit() {
        let mut line = RequestLine::default();
        for _ in 0..10 {
            line.feed(&[b'x'; 1000]);
        }
        assert_eq!(line.bytes().len(), LONGEST_LINE);
        line.clear();
        assert_eq!(line.bytes(), b"");
    }
}
