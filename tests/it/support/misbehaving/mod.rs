//! A server that follows a script with faults, and records the requests. It serves one file under every path. It uses
//! threads and `std::net`, because an HTTP library would not permit the faults.
//!
//! ```ignore
//! let server = Script::of(&content).closes_at(20_000).start();
//! ```

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

mod script;

pub use script::{Fault, Framing, Ranges, Script, Times};

/// The content of a server whose content does not matter.
pub const BODY: &[u8] = b"I am a file.\n";

/// Bytes of one write: small enough that a fault occurs at the intended byte.
const PIECE_BYTES: usize = 16 * 1024;

/// A running [`Script`]. Dropping it stops it.
pub struct FileServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<Script>,
    exchanges: Mutex<Vec<Exchange>>,
    /// Open connections; `None` once the server is stopped.
    connections: Mutex<Option<Vec<TcpStream>>>,
}

/// A request, and the number of bytes of its body that were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The head as it was received.
    pub request: String,
    /// Bytes of the body that were written.
    pub sent: usize,
}

impl Exchange {
    /// The value of a header of the request, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.request.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

impl FileServer {
    fn start(script: Script, address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            exchanges: Mutex::default(),
            connections: Mutex::new(Some(Vec::new())),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    /// The listen address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The line of the server in a list.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// The URL of a file on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The current entity tag of its file.
    pub fn etag(&self) -> Option<String> {
        self.shared.script.lock().unwrap().etag.clone()
    }

    /// Follows another script from the next request on.
    pub fn becomes(&self, script: Script) {
        *self.shared.script.lock().unwrap() = script;
    }

    /// The heads of all requests so far, as they were received.
    pub fn requests(&self) -> Vec<String> {
        self.exchanges().into_iter().map(|exchange| exchange.request).collect()
    }

    /// All requests so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.lock().unwrap().clone()
    }

    /// The number of bytes of all bodies so far.
    pub fn sent(&self) -> usize {
        self.exchanges().iter().map(|exchange| exchange.sent).sum()
    }

    /// Closes its connections and its port, as a killed process does.
    pub fn kill(&self) {
        let connections = self.shared.connections.lock().unwrap().take();
        for connection in connections.into_iter().flatten() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread, which then ends and closes the port.
        let _ = TcpStream::connect(self.address);
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            match (&mut *self.connections.lock().unwrap(), stream.try_clone()) {
                (Some(connections), Ok(clone)) => connections.push(clone),
                _ => return,
            }
            let shared = Arc::clone(&self);
            let serve = move || {
                let _ = shared.serve(&stream);
                // The clone in `connections` keeps the socket open, so both clones are shut down.
                let _ = stream.shutdown(Shutdown::Both);
            };
            if self.script.lock().unwrap().is_serial {
                serve();
            } else {
                thread::spawn(serve);
            }
        }
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        while let Some(request) = read_head(&mut stream)? {
            let (script, fault) = self.next();
            let index = {
                let mut exchanges = self.exchanges.lock().unwrap();
                exchanges.push(Exchange { request: request.clone(), sent: 0 });
                exchanges.len() - 1
            };
            let exchange = Exchange { request, sent: 0 };
            let fault =
                fault.filter(|(_, times)| *times != Times::WithRange || exchange.header("Range").is_some());
            let mut sent = |bytes: usize| self.exchanges.lock().unwrap()[index].sent += bytes;
            if !script.answer(stream, &exchange, fault.as_ref().map(|(fault, _)| fault), &mut sent)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The current script, and the fault for this request.
    fn next(&self) -> (Script, Option<(Fault, Times)>) {
        let mut script = self.script.lock().unwrap();
        let mut found = None;
        if let Some((fault, times)) = script.faults.first_mut() {
            found = Some((fault.clone(), *times));
            if let Times::Next(left) = times {
                *left -= 1;
                if *left == 0 {
                    script.faults.remove(0);
                }
            }
        }
        (script.clone(), found)
    }
}

impl Script {
    /// Answers one request. Returns whether the connection stays open.
    fn answer(
        &self,
        mut stream: &TcpStream,
        request: &Exchange,
        fault: Option<&Fault>,
        sent: &mut dyn FnMut(usize),
    ) -> io::Result<bool> {
        match fault {
            Some(Fault::Hangs) => return until_closed(stream),
            Some(Fault::ClosesWithoutAnswer) => return Ok(false),
            Some(Fault::Sends(bytes)) => return stream.write_all(bytes).map(|()| false),
            Some(Fault::StallsAfter(bytes)) => {
                stream.write_all(bytes)?;
                return until_closed(stream);
            }
            Some(Fault::SendsForever(once, again)) => {
                stream.write_all(once)?;
                loop {
                    stream.write_all(again)?;
                    sent(again.len());
                }
            }
            Some(Fault::Answers(status, headers)) => {
                let page = format!("<html><body>{status} page</body></html>\n");
                let lines = headers.iter().fold(String::new(), |lines, line| lines + line + "\r\n");
                let length = page.len();
                let head = format!("HTTP/1.1 {status} Scripted\r\n{lines}Content-Length: {length}\r\n\r\n");
                stream.write_all((head + &page).as_bytes())?;
                return Ok(true);
            }
            _ => {}
        }
        thread::sleep(self.head_delay);
        let (status, mut lines, from, to) = self.select(request);
        let mut body = self.content.get(from..to).unwrap_or_default().to_vec();
        if let Some(&Fault::Corrupts(at)) = fault
            && (from..to).contains(&at)
        {
            body[at - from] ^= 0xFF;
        }
        if let Some(&Fault::CorruptsBlocks(size)) = fault {
            for at in (from..to).filter(|at| at % size == size / 2) {
                body[at - from] ^= 0xFF;
            }
        }
        if fault == Some(&Fault::CorruptsEverywhere) {
            for byte in &mut body {
                *byte ^= 0xFF;
            }
        }
        lines.extend(self.etag.iter().map(|etag| format!("ETag: {etag}")));
        lines.extend(self.headers.iter().cloned());
        match self.framing {
            Framing::Length => lines.push(format!("Content-Length: {}", body.len())),
            Framing::Chunked => lines.push("Transfer-Encoding: chunked".to_owned()),
            Framing::UntilClose => lines.push("Connection: close".to_owned()),
        }
        let head = format!("HTTP/1.1 {status} Scripted\r\n{}\r\n\r\n", lines.join("\r\n"));
        stream.write_all(head.as_bytes())?;
        if request.request.starts_with("HEAD ") {
            return Ok(true);
        }
        let (stop, ending) = match fault {
            Some(&Fault::ClosesAt(at)) => (at, Some(Ending::Close)),
            Some(&Fault::ResetsAt(at)) => (at, Some(Ending::Reset)),
            Some(&Fault::StallsAt(at)) => (at, Some(Ending::Stall)),
            _ => (body.len(), None),
        };
        let is_cut = stop < body.len();
        body.truncate(stop);
        self.write_body(stream, &body, sent)?;
        match ending.filter(|_| is_cut) {
            Some(Ending::Close) => return Ok(false),
            Some(Ending::Reset) => {
                socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
            Some(Ending::Stall) => return until_closed(stream),
            None => {}
        }
        if self.framing == Framing::Chunked {
            stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(self.framing != Framing::UntilClose)
    }

    fn write_body(&self, mut stream: &TcpStream, body: &[u8], sent: &mut dyn FnMut(usize)) -> io::Result<()> {
        let started = Instant::now();
        let mut written = 0;
        for piece in body.chunks(PIECE_BYTES) {
            if self.framing == Framing::Chunked {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
            }
            stream.write_all(piece)?;
            if self.framing == Framing::Chunked {
                stream.write_all(b"\r\n")?;
            }
            sent(piece.len());
            written += piece.len();
            if let Some(rate) = self.bytes_per_second {
                let due = Duration::from_secs_f64(written as f64 / rate as f64);
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
        Ok(())
    }

    /// The status, the header lines, and the part of the content for a request.
    fn select(&self, request: &Exchange) -> (u16, Vec<String>, usize, usize) {
        let size = self.content.len();
        let everything = (200, Vec::new(), 0, size);
        let matches = |value: &str| Some(value) == self.etag.as_deref();
        if request.header("If-None-Match").is_some_and(matches) {
            return (304, Vec::new(), 0, 0);
        }
        let Some((from, to)) = request.header("Range").and_then(|value| range(value, size)) else {
            return everything;
        };
        let if_range = request.header("If-Range");
        match &self.ranges {
            Ranges::Ignored => everything,
            Ranges::Refused => (416, vec![format!("Content-Range: bytes */{size}")], 0, 0),
            Ranges::IfRangeRefused if if_range.is_some() => (412, Vec::new(), 0, 0),
            Ranges::Wrong(value) => (206, vec![format!("Content-Range: {value}")], from, to),
            Ranges::Honoured if if_range.is_some_and(|value| !matches(value)) => everything,
            _ if from >= size => (416, vec![format!("Content-Range: bytes */{size}")], 0, 0),
            Ranges::Unsized(most) => {
                let to = to.min(from + most);
                (206, vec![format!("Content-Range: bytes {from}-{}/*", to - 1)], from, to)
            }
            _ => (206, vec![format!("Content-Range: bytes {from}-{}/{size}", to - 1)], from, to),
        }
    }
}

enum Ending {
    Close,
    Reset,
    Stall,
}

/// Parses `bytes=FROM-[TO]` to a half-open range within `size` bytes.
fn range(value: &str, size: usize) -> Option<(usize, usize)> {
    let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
    let last = if to.is_empty() { size.checked_sub(1)? } else { to.parse().ok()? };
    Some((from.parse().ok()?, (last + 1).min(size)))
}

/// Waits until the other side closes or the server is stopped.
fn until_closed(mut stream: &TcpStream) -> io::Result<bool> {
    while stream.read(&mut [0; 1024])? > 0 {}
    Ok(false)
}

/// Reads the head of the next request. `None` if the other side has closed.
fn read_head(stream: &mut impl Read) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

/// Bytes of a file without a repeated sequence: the content at each position identifies the position.
pub fn content(size: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
