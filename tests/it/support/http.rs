//! HTTP/1.1 without a library: a request is bytes, and an answer is parsed without repair.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;

/// An answer as it was received.
#[derive(Clone)]
pub struct Answer {
    /// The first line, such as `HTTP/1.1 301 Moved Permanently`.
    pub status_line: String,
    /// The status code.
    pub status: u16,
    /// Names as they were received, and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body, with chunks joined.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The `Location`.
    ///
    /// # Panics
    /// If there is no such header.
    #[track_caller]
    pub fn location(&self) -> &str {
        self.header("Location").unwrap_or_else(|| panic!("no Location in {self:?}"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.status_line)?;
        for (name, value) in &self.headers {
            writeln!(formatter, "{name}: {value:.200}")?;
        }
        write!(formatter, "\n{:.300}", self.text())
    }
}

/// Whether an answer may have a body, which depends on the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// An answer to any method but HEAD.
    Body,
    /// An answer to HEAD: the body that its Content-Length announces is absent.
    HeadOnly,
}

/// A connection that stays open between requests.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects. Every read and write has the timeout [`DEADLINE`](super::DEADLINE).
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Writes these bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a plain GET and reads the answer.
    pub fn get(&mut self, target: &str) -> io::Result<Answer> {
        self.send(get_request(target))?;
        self.answer(Expect::Body)
    }

    /// Closes the sending side. Answers can still be read.
    pub fn finish_sending(&mut self) -> io::Result<()> {
        self.reader.get_mut().shutdown(std::net::Shutdown::Write)
    }

    /// Reads one answer. A body without a length is read until the end of the connection.
    pub fn answer(&mut self, expect: Expect) -> io::Result<Answer> {
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|number| number.parse().ok())
            .filter(|_| status_line.starts_with("HTTP/1."))
            .ok_or_else(|| invalid(format!("status line {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| invalid(format!("header {line:?}")))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut answer = Answer { status_line, status, headers, body: Vec::new() };
        if expect == Expect::Body && !matches!(status, 100..=199 | 204 | 304) {
            answer.body = self.body(&answer)?;
        }
        Ok(answer)
    }

    /// Whether the peer has closed: waits for the end of the stream.
    ///
    /// # Panics
    /// If bytes arrive before the end.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(String::from_utf8_lossy(&rest), "", "bytes after the last answer"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(_) => return false,
        }
        true
    }

    fn body(&mut self, answer: &Answer) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if answer.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default();
                let size = u64::from_str_radix(size, 16).map_err(|_| invalid(format!("chunk {line:?}")))?;
                self.read_exactly(size, &mut body)?;
                if !self.line()?.is_empty() {
                    return Err(invalid("a chunk without its end".to_owned()));
                }
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        match answer.header("Content-Length") {
            Some(length) => {
                let length = length.parse().map_err(|_| invalid(format!("Content-Length {length:?}")))?;
                self.read_exactly(length, &mut body)?;
            }
            None => {
                self.reader.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }

    fn read_exactly(&mut self, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.reader).take(length).read_to_end(body)?;
        if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.reader).take(1 << 20).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.pop() != Some(b'\r') {
            return Err(invalid("a line that does not end in CR LF".to_owned()));
        }
        String::from_utf8(line).map_err(|error| invalid(error.to_string()))
    }
}

/// The bytes of a plain GET that keeps the connection open.
pub fn get_request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// Sends one GET on a new connection.
///
/// # Panics
/// If there is no complete answer.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Answer {
    try_get(address, target).unwrap_or_else(|error| panic!("GET {target} from {address}: {error}"))
}

/// Sends one GET on a new connection, which may fail.
pub fn try_get(address: SocketAddr, target: &str) -> io::Result<Answer> {
    Connection::open(address)?.get(target)
}

/// Sends one request, exactly these bytes, on a new connection.
///
/// # Panics
/// If there is no complete answer.
#[track_caller]
pub fn request(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let bytes = bytes.as_ref();
    let expect = if bytes.starts_with(b"HEAD ") { Expect::HeadOnly } else { Expect::Body };
    let answer = Connection::open(address).and_then(|mut connection| {
        connection.send(bytes)?;
        connection.answer(expect)
    });
    answer.unwrap_or_else(|error| panic!("{} to {address}: {error}", bytes.escape_ascii()))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
