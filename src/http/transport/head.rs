//! Finds the end of a request head, and refuses some heads before the parser sees them. Pure.
//!
//! The parser of actix checks everything else. Both use the same rules for the end of a line and of a head (RFC 9112, section
//! 2.2: a bare LF ends a line, empty lines before a request are skipped).

use std::mem::MaybeUninit;

use actix_http::StatusCode;

/// The limits of the size of a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// The longest request line in bytes; a longer one gets 414.
    pub line: usize,
    /// The largest head in bytes; a larger one gets 431.
    pub total: usize,
}

/// The result of a scan of the next bytes of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// The head is not complete.
    Partial,
    /// The head ends after this number of the scanned bytes.
    Complete(usize),
    /// The head is refused with this status.
    Refused(StatusCode),
}

/// The number of last bytes of a request line that are kept, enough for ` HTTP/x.y` and a CR.
const TAIL: usize = 16;

/// Scans one request head that arrives in pieces of any size.
#[derive(Debug, Default)]
pub struct HeadScan {
    part: Part,
    /// Bytes of the current line in earlier pieces.
    line: usize,
    /// Whether the current line consists of one CR so far.
    lone_cr: bool,
    /// Bytes of this head in earlier pieces.
    total: usize,
    /// The end of the request line in earlier pieces.
    tail: [u8; TAIL],
    /// Whether there was a `#` in earlier pieces of the request line.
    has_fragment: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Empty lines may come before the request line.
    #[default]
    Before,
    RequestLine,
    Fields,
}

impl HeadScan {
    /// Scans the next bytes of the head. After [`Scan::Complete`] or a refusal, a new scan is necessary.
    pub fn feed(&mut self, bytes: &[u8], limits: HeadLimits) -> Scan {
        let mut at = 0;
        if self.part == Part::Before {
            at = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if at == bytes.len() {
                return self.more(bytes.len(), limits);
            }
            self.part = Part::RequestLine;
        }
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let end = memchr::memchr(b'\n', rest);
            let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            if self.part == Part::RequestLine && self.line + line.len() > limits.line {
                return Scan::Refused(StatusCode::URI_TOO_LONG);
            }
            let Some(end) = end else {
                self.keep_line(line);
                return self.more(bytes.len(), limits);
            };
            at += end + 1;
            match self.part {
                Part::Fields if self.is_empty_line(line) => {
                    return if self.total + at > limits.total {
                        Scan::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
                    } else {
                        Scan::Complete(at)
                    };
                }
                Part::Fields => {}
                Part::Before | Part::RequestLine => {
                    if self.is_of_another_major_version(line) {
                        return Scan::Refused(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
                    }
                    // The parser would remove a fragment, which a client must not send (RFC 9112, section 3.2).
                    if self.has_fragment || has_fragment(line) {
                        return Scan::Refused(StatusCode::BAD_REQUEST);
                    }
                    self.part = Part::Fields;
                }
            }
            self.line = 0;
            self.lone_cr = false;
        }
    }

    fn more(&mut self, length: usize, limits: HeadLimits) -> Scan {
        self.total += length;
        if self.total > limits.total {
            Scan::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
        } else {
            Scan::Partial
        }
    }

    fn is_empty_line(&self, line: &[u8]) -> bool {
        match self.line {
            0 => matches!(line, b"" | b"\r"),
            1 => self.lone_cr && line.is_empty(),
            _ => false,
        }
    }

    /// Keeps the part of the line that is necessary when its end arrives in a later piece.
    fn keep_line(&mut self, line: &[u8]) {
        self.lone_cr = self.line == 0 && line == b"\r";
        self.line += line.len();
        if self.part == Part::RequestLine {
            self.tail = self.tail_with(line);
            self.has_fragment |= has_fragment(line);
        }
    }

    fn tail_with(&self, line: &[u8]) -> [u8; TAIL] {
        let mut tail = self.tail;
        if let Some(chunk) = line.last_chunk::<TAIL>() {
            return *chunk;
        }
        tail.rotate_left(line.len());
        if let Some(end) = tail.get_mut(TAIL - line.len()..) {
            end.copy_from_slice(line);
        }
        tail
    }

    /// Whether the request line ends with `HTTP/` and a major version other than 1, such as HTTP/2.
    fn is_of_another_major_version(&self, line: &[u8]) -> bool {
        let tail = self.tail_with(line);
        let tail = tail.strip_suffix(b"\r").unwrap_or(&tail);
        if tail.ends_with(b" HTTP/1.1") {
            return false;
        }
        let Some(space) = memchr::memrchr(b' ', tail) else { return false };
        let Some(version) = tail.get(space + 1..).and_then(|word| word.strip_prefix(b"HTTP/")) else {
            return false;
        };
        let mut numbers = version.split(|byte| *byte == b'.');
        let major = numbers.next().unwrap_or_default();
        let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        is_number(major) && numbers.all(is_number) && major != b"1"
    }
}

/// Whether the parser refuses every head that begins with these bytes. A client of another protocol then gets the error at once
/// instead of after a timeout. Only short beginnings are checked, because each read repeats the check.
pub(super) fn is_malformed(beginning: &[u8]) -> bool {
    const LONGEST: usize = 1024;
    const HEADERS: usize = 96;
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
    let mut request = httparse::Request::new(&mut []);
    beginning.len() <= LONGEST
        && matches!(
            request.parse_with_uninit_headers(beginning, &mut headers),
            // Another version gets its own status once its line is complete.
            Err(error) if !matches!(error, httparse::Error::TooManyHeaders | httparse::Error::Version)
        )
}

fn has_fragment(line: &[u8]) -> bool {
    memchr::memchr(b'#', line).is_some()
}

#[cfg(test)]
mod tests;
