//! Requests that the connection refuses before a service sees them, reported for the access log.

use std::fmt;
use std::net::IpAddr;

use actix_http::StatusCode;

use super::response::AnswerEnd;

/// The longest part of a request line that is kept for a log, in bytes.
const LONGEST_LINE: usize = 2048;

/// A request, or the part of it that arrived, that the connection answered with an error page.
#[derive(Debug)]
pub(crate) struct Refusal<'a> {
    /// The address of the client; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// The received request line or its first bytes, which may contain any byte; empty if the client sent nothing.
    pub request_line: &'a [u8],
    /// The status of the page.
    pub status: StatusCode,
    /// The end of the answer, with the number of bytes of the page that were sent.
    pub end: AnswerEnd,
}

/// Receives each refused request on the thread of the worker, so it must not block.
pub(crate) trait RefusalLog: fmt::Debug + Send + Sync {
    /// Called when the answer to a refused request has ended.
    fn refused(&self, refusal: &Refusal<'_>);
}

/// The request line at the start of a head, without its line end and cut at [`LONGEST_LINE`].
pub(super) fn request_line(head: &[u8]) -> &[u8] {
    let line = without_empty_lines(head).split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.get(..LONGEST_LINE).unwrap_or(line)
}

/// Whether the received part of a head starts a HEAD request.
pub(super) fn is_head_request(head: &[u8]) -> bool {
    without_empty_lines(head).starts_with(b"HEAD ")
}

/// Empty lines may precede a request (RFC 9112, section 2.2).
fn without_empty_lines(head: &[u8]) -> &[u8] {
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    head.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_line_is_found_behind_empty_lines_and_cut_at_its_limit() {
        assert_eq!(request_line(b"\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n"), b"GET /a HTTP/1.1");
        assert_eq!(request_line(b"GET /a"), b"GET /a");
        assert_eq!(request_line(b"\r\n"), b"");
        assert_eq!(request_line(&[b'x'; 10_000]).len(), LONGEST_LINE);
    }

    #[test]
    fn a_head_request_is_known_by_its_first_bytes() {
        assert!(is_head_request(b"\nHEAD / HTTP/1.1\r\n"));
        assert!(!is_head_request(b"HEADER / HTTP/1.1\r\n") && !is_head_request(b"HEA"));
    }
}
