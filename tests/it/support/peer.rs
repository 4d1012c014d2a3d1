//! A server for probes with a named misbehaviour.
//!
//! It answers every path in the same way; the behaviours differ in the form of the answer. It uses threads and
//! `std::net`, because an HTTP library would not permit the faults.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The body of a valid answer.
pub const BODY: &[u8] = b"I am a file.\n";

/// How a [`Peer`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers at once with 200 and the whole body, on a connection that stays open.
    Prompt,
    /// The same after a delay.
    Delayed(Duration),
    /// The same with one more header, such as `endpoint-load-metrics: JSON {}`.
    WithHeader(String),
    /// Another status, with a page.
    Status(u16),
    /// A 301 to itself.
    RedirectsToItself,
    /// A Content-Length, half of the body, and the end of the connection.
    HalfBody,
    /// A Content-Length, half of the body, and the end of the connection.
    EndlessBody,
    /// A Content-Length of 10^18, and bytes without end.
    HugeBody,
    /// Bytes that are not HTTP.
    Garbage,
    /// Reads the request and never answers.
    Hangs,
    /// Sends half of the head.
    HangsInTheHead,
    /// Reads the request and closes the connection.
    ClosesWithoutAnswer,
    /// The server of the seed system: it handles one connection at a time, sends a Content-Length and no
    /// `Connection`, and then closes the connection.
    SeedServer,
}

/// A misbehaving server on a free port of the loopback interface. Dropping it stops it.
pub struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    /// The head of every request that was received.
    requests: Mutex<Vec<String>>,
    /// Open connections; `None` once the peer is stopped.
    connections: Mutex<Option<Vec<TcpStream>>>,
}

impl Peer {
    /// Starts the server on a free port.
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            requests: Mutex::default(),
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

    /// Changes the behaviour from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// The heads of all requests so far, as they were received.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let connections = self.shared.connections.lock().unwrap().take();
        for connection in connections.into_iter().flatten() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.address);
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
            let is_seed_server = *self.behaviour.lock().unwrap() == Behaviour::SeedServer;
            let shared = Arc::clone(&self);
            if is_seed_server {
                let _ = shared.serve(stream);
            } else {
                thread::spawn(move || shared.serve(stream));
            }
        }
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        loop {
            let Some(head) = read_head(&mut stream)? else { return Ok(()) };
            self.requests.lock().unwrap().push(head);
            let behaviour = self.behaviour.lock().unwrap().clone();
            answer(&mut stream, &behaviour)?;
            if matches!(
                behaviour,
                Behaviour::SeedServer
                    | Behaviour::HalfBody
                    | Behaviour::Garbage
                    | Behaviour::ClosesWithoutAnswer
            ) {
                // The clone in `connections` keeps the socket open, so both clones are shut down.
                return stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn answer(stream: &mut TcpStream, behaviour: &Behaviour) -> io::Result<()> {
    match behaviour {
        Behaviour::Prompt | Behaviour::SeedServer => stream.write_all(&whole("200 OK", "", BODY)),
        Behaviour::Delayed(delay) => {
            thread::sleep(*delay);
            stream.write_all(&whole("200 OK", "", BODY))
        }
        Behaviour::WithHeader(header) => stream.write_all(&whole("200 OK", &format!("{header}\r\n"), BODY)),
        Behaviour::Status(status) => stream.write_all(&whole(&format!("{status} Test"), "", BODY)),
        Behaviour::RedirectsToItself => {
            let location = format!("Location: http://{}/\r\n", stream.local_addr()?);
            stream.write_all(&whole("301 Moved Permanently", &location, BODY))
        }
        Behaviour::HalfBody => {
            let answer = whole("200 OK", "", BODY);
            stream.write_all(&answer[..answer.len() - BODY.len() / 2])
        }
        Behaviour::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
            endlessly(stream, &chunk)
        }
        Behaviour::HugeBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000000\r\n\r\n")?;
            endlessly(stream, &[b'x'; 0x4000])
        }
        Behaviour::Garbage => stream.write_all(b"\x16\x03\x01\0\xFFnot HTTP at all\r\n\r\n"),
        Behaviour::HangsInTheHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le")?;
            until_closed(stream)
        }
        Behaviour::Hangs => until_closed(stream),
        Behaviour::ClosesWithoutAnswer => Ok(()),
    }
}

fn whole(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut answer =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n{headers}Content-Length: {length}\r\n\r\n")
            .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// Writes until the other side closes or the peer is stopped.
fn endlessly(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    loop {
        stream.write_all(bytes)?;
    }
}

/// Waits until the other side closes or the peer is stopped.
fn until_closed(stream: &mut TcpStream) -> io::Result<()> {
    while stream.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

/// Reads the head of the next request. `None` if the other side has closed.
fn read_head(stream: &mut TcpStream) -> io::Result<Option<String>> {
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
