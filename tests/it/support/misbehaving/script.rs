//! The script of a misbehaving file server.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::{BODY, FileServer, checksum};

/// The behaviour of a server.
#[derive(Debug, Clone)]
pub struct Script {
    pub(super) content: Arc<Vec<u8>>,
    pub(super) etag: Option<String>,
    pub(super) headers: Vec<String>,
    pub(super) framing: Framing,
    pub(super) ranges: Ranges,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) head_delay: Duration,
    pub(super) faults: Vec<(Fault, Times)>,
    /// Whether only one connection at a time is served.
    pub(super) is_serial: bool,
}

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// The treatment of `Range` and `If-Range`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// According to RFC 9110.
    Honoured,
    /// Always a 200 with the whole file.
    Ignored,
    /// A range is sent, whatever `If-Range` contains.
    IfRangeIgnored,
    /// 412 for every request with `If-Range`.
    IfRangeRefused,
    /// 206 with this `Content-Range` and the correct bytes.
    Wrong(String),
    /// 416 for every range.
    Refused,
    /// 206 with at most this number of bytes, and `*` for the size of the file.
    Unsized(usize),
}

/// A fault of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed after this number of bytes of the body.
    ClosesAt(usize),
    /// The connection is reset after this number of bytes of the body.
    ResetsAt(usize),
    /// Nothing more is sent after this number of bytes of the body.
    StallsAt(usize),
    /// The byte at this position of the file is changed.
    Corrupts(usize),
    /// The byte in the middle of each block of this size is changed.
    CorruptsBlocks(usize),
    /// Every byte is changed.
    CorruptsEverywhere,
    /// The request is read and never answered.
    Hangs,
    /// The request is read and the connection closed.
    ClosesWithoutAnswer,
    /// This status, with these header lines and a page.
    Answers(u16, Vec<String>),
    /// These bytes are sent instead of an answer; then the connection is closed.
    Sends(Vec<u8>),
    /// These bytes are sent and nothing more.
    StallsAfter(Vec<u8>),
    /// The first bytes are sent once, and the second bytes repeatedly.
    SendsForever(Vec<u8>, Vec<u8>),
}

/// The requests to which a fault applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    Always,
    /// This number of requests.
    Next(usize),
    /// Every request that asks for a range.
    WithRange,
}

impl Script {
    /// Serves `content` under every path, without faults.
    pub fn of(content: &[u8]) -> Self {
        Self {
            content: Arc::new(content.to_vec()),
            etag: Some(format!("\"{:x}\"", checksum(content))),
            headers: Vec::new(),
            framing: Framing::Length,
            ranges: Ranges::Honoured,
            bytes_per_second: None,
            head_delay: Duration::ZERO,
            faults: Vec::new(),
            is_serial: false,
        }
    }

    /// Answers every request at once and completely.
    pub fn prompt() -> Self {
        Self::of(BODY).header("Content-Type: text/plain")
    }

    /// Answers every request with this status and a page.
    pub fn status(status: u16) -> Self {
        Self::prompt().answers(status, Vec::new())
    }

    /// The server of the seed system: it handles one connection at a time, sends a Content-Length and no `Connection`, and
    /// then closes the connection.
    pub fn seed_server() -> Self {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY.len());
        Self { is_serial: true, ..Self::prompt().sends([head.as_bytes(), BODY].concat()) }
    }

    /// Answers every request with a 301 to `location` and these additional header lines.
    pub fn redirect(location: &str, headers: &[&str]) -> Self {
        let mut lines = vec![format!("Location: {location}")];
        lines.extend(headers.iter().map(ToString::to_string));
        Self::of(b"").answers(301, lines)
    }

    pub fn etag(mut self, etag: Option<&str>) -> Self {
        self.etag = etag.map(ToOwned::to_owned);
        self
    }

    pub fn header(mut self, line: impl Into<String>) -> Self {
        self.headers.push(line.into());
        self
    }

    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    pub fn ranges(mut self, ranges: Ranges) -> Self {
        self.ranges = ranges;
        self
    }

    pub fn bytes_per_second(mut self, rate: u64) -> Self {
        self.bytes_per_second = Some(rate);
        self
    }

    /// Delays the head of the answer.
    pub fn delays_head(mut self, delay: Duration) -> Self {
        self.head_delay = delay;
        self
    }

    pub fn fault(mut self, fault: Fault, times: Times) -> Self {
        self.faults.push((fault, times));
        self
    }

    /// Adds a fault that takes precedence over those added earlier.
    pub fn before(mut self, fault: Fault, times: Times) -> Self {
        self.faults.insert(0, (fault, times));
        self
    }

    pub fn closes_at(self, at: usize) -> Self {
        self.fault(Fault::ClosesAt(at), Times::Always)
    }

    pub fn resets_at(self, at: usize) -> Self {
        self.fault(Fault::ResetsAt(at), Times::Always)
    }

    pub fn stalls_at(self, at: usize) -> Self {
        self.fault(Fault::StallsAt(at), Times::Always)
    }

    pub fn stalls_after_head(self) -> Self {
        self.stalls_at(0)
    }

    pub fn corrupts(self, at: usize) -> Self {
        self.fault(Fault::Corrupts(at), Times::Always)
    }

    /// Changes one byte in each block of this size.
    pub fn corrupts_blocks(self, size: usize) -> Self {
        self.fault(Fault::CorruptsBlocks(size), Times::Always)
    }

    /// Changes every byte of the file.
    pub fn corrupts_everywhere(self) -> Self {
        self.fault(Fault::CorruptsEverywhere, Times::Always)
    }

    pub fn hangs(self) -> Self {
        self.fault(Fault::Hangs, Times::Always)
    }

    pub fn answers(self, status: u16, headers: Vec<String>) -> Self {
        self.fault(Fault::Answers(status, headers), Times::Always)
    }

    pub fn sends(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.fault(Fault::Sends(bytes.into()), Times::Always)
    }

    /// Sends these bytes and nothing more.
    pub fn stalls_after(self, bytes: &[u8]) -> Self {
        self.fault(Fault::StallsAfter(bytes.to_vec()), Times::Always)
    }

    /// Sends a head with this line for the framing, then this part of a body without end.
    pub fn sends_forever(self, framing: &str, part: &[u8]) -> Self {
        let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
        self.fault(Fault::SendsForever(head.into_bytes(), part.to_vec()), Times::Always)
    }

    /// Starts the server on a free port.
    pub fn start(self) -> FileServer {
        self.start_at(Ipv4Addr::LOCALHOST)
    }

    /// The same on another address of this machine, which clients treat as another machine.
    pub fn start_at(self, address: Ipv4Addr) -> FileServer {
        FileServer::start(self, address)
    }
}
