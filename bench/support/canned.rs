//! A bare epoll loop that answers every request with the same bytes: the minimum cost of an answer of one process. It can also
//! serve as any number of backends, because it listens on all addresses of 127.0.0.0/8.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const LISTENER: u64 = u64::MAX;
/// About the size of the connection buffers of actix and nginx.
const BUFFER_BYTES: usize = 16 * 1024;

/// A bench with this first argument is this server; the second argument is a file with the answer.
pub const WORD: &str = "serve-canned";

struct Connection {
    stream: TcpStream,
    /// The number of bytes of [`END_OF_HEAD`] at the end of the last read.
    matched: usize,
}

/// Prints its port and answers until it is killed.
pub fn serve(answer: &[u8]) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut next: u64 = 0;
    let mut events = Vec::with_capacity(512);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut answers = Vec::new();
    loop {
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let token = event.data.u64();
            if token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll::add(&poll, &stream, EventData::new_u64(next), EventFlags::IN)?;
                    connections.insert(next, Connection { stream, matched: 0 });
                    next += 1;
                }
            } else if let Some(connection) = connections.get_mut(&token)
                && !connection.answer(&mut buffer, answer, &mut answers)
            {
                // Closing the stream takes it out of the poll.
                connections.remove(&token);
            }
        }
    }
}

impl Connection {
    /// Answers every complete request. Returns false if the connection must be closed.
    fn answer(&mut self, buffer: &mut [u8], answer: &[u8], answers: &mut Vec<u8>) -> bool {
        let read = match self.stream.read(buffer) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        answers.clear();
        for byte in &buffer[..read] {
            self.matched = match *byte {
                byte if byte == END_OF_HEAD[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.matched == END_OF_HEAD.len() {
                self.matched = 0;
                answers.extend_from_slice(answer);
            }
        }
        // This loop is only for peers that read a few hundred bytes at once.
        answers.is_empty()
            || (self.stream.write(answers).is_ok_and(|written| written == answers.len())
                && memchr::memmem::find(&buffer[..read], b"Connection: close").is_none())
    }
}
