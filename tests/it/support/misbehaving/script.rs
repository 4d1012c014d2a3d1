//! What a misbehaving file server is told to do.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::{FileServer, checksum};

/// What a server does.
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
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// What is made of `Range` and `If-Range`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// As RFC 9110 says.
    Honoured,
    /// Always a 200 with everything.
    Ignored,
    /// A range is served, whatever `If-Range` says.
    IfRangeIgnored,
    /// 412 to every request with `If-Range`.
    IfRangeRefused,
    /// 206 with this `Content-Range` and the right bytes.
    Wrong(String),
    /// 416 to every range.
    Refused,
    /// 206 with at most so many bytes, and `*` for the size of the file.
    Unsized(usize),
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed after so many bytes of the body.
    ClosesAt(usize),
    /// The same with a reset.
    ResetsAt(usize),
    /// So many bytes of the body, then silence.
    StallsAt(usize),
    /// The byte at this place of the file is another one.
    Corrupts(usize),
    /// The byte in the middle of each block of this size is.
    CorruptsBlocks(usize),
    /// Every byte is.
    CorruptsEverywhere,
    /// The request is taken and nothing answered.
    Hangs,
    /// The request is taken and the connection closed.
    ClosesWithoutAnswer,
    /// This status, with these header lines and a page.
    Answers(u16, Vec<String>),
    /// These bytes instead of an answer; then the connection is closed.
    Sends(Vec<u8>),
    /// These bytes, and then silence.
    StallsAfter(Vec<u8>),
    /// These bytes once, and then these others again and again.
    SendsForever(Vec<u8>, Vec<u8>),
}

/// How often a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    Always,
    /// The next so many requests.
    Next(usize),
    /// Every request that asks for a range.
    WithRange,
}

impl Script {
    /// Serves `content` under every path, as it should be.
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
        }
    }

    /// Answers every request with a 301 to `location`, and these further header lines.
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

    /// Sends the head of the file this long after the request.
    pub fn delays_head(mut self, delay: Duration) -> Self {
        self.head_delay = delay;
        self
    }

    pub fn fault(mut self, fault: Fault, times: Times) -> Self {
        self.faults.push((fault, times));
        self
    }

    /// This fault comes before those that were named earlier.
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

    /// A byte of each block of this size is another one.
    pub fn corrupts_blocks(self, size: usize) -> Self {
        self.fault(Fault::CorruptsBlocks(size), Times::Always)
    }

    /// Every byte of the file is another one.
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

    /// Starts the server on a free port.
    pub fn start(self) -> FileServer {
        self.start_at(Ipv4Addr::LOCALHOST)
    }

    /// The same on another address of this machine, which clients take for another machine.
    pub fn start_at(self, address: Ipv4Addr) -> FileServer {
        FileServer::start(self, address)
    }
}
