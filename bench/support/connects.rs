//! A load generator that opens a connection for each request. wrk can do so only if the server closes the connections.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::Timespec;
use socket2::{Domain, Socket, Type};

/// A bench with this first argument is this client; the arguments of [`run`] follow.
pub const WORD: &str = "open-connections";

/// The client stops waiting for answers after this time beyond the end.
const GRACE: Duration = Duration::from_secs(1);

/// Which end closes the connection after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Closing {
    /// The request has `Connection: close`, and the client waits for the end of the connection.
    Server,
    /// The client closes once it has the answer.
    Client,
}

/// The results of one run.
#[derive(Debug, Clone, Copy)]
pub struct Connects {
    /// Complete answers.
    pub answers: f64,
    /// Connections that ended without a complete answer.
    pub errors: f64,
}

struct Exchange {
    stream: TcpStream,
    is_asked: bool,
    answer: Vec<u8>,
}

/// Runs `connections` exchanges at a time for some seconds, and prints the number of answers and of errors.
pub fn run(arguments: &[String]) -> io::Result<()> {
    let [port, connections, milliseconds, closing, target] = arguments else {
        return Err(io::Error::other("five arguments are needed"));
    };
    let port: u16 = port.parse().map_err(io::Error::other)?;
    let connections: usize = connections.parse().map_err(io::Error::other)?;
    let end = Instant::now() + Duration::from_millis(milliseconds.parse().map_err(io::Error::other)?);
    let closing = if closing == "server" { Closing::Server } else { Closing::Client };
    let close = if closing == Closing::Server { "Connection: close\r\n" } else { "" };
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n");

    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut exchanges: HashMap<u64, Exchange> = HashMap::new();
    let (mut next, mut answers, mut errors) = (0_u64, 0_u64, 0_u64);
    let mut events = Vec::with_capacity(512);
    while Instant::now() < end + GRACE {
        while exchanges.len() < connections && Instant::now() < end {
            let stream = connect(port)?;
            epoll::add(&poll, &stream, EventData::new_u64(next), EventFlags::OUT)?;
            exchanges.insert(next, Exchange { stream, is_asked: false, answer: Vec::new() });
            next += 1;
        }
        if exchanges.is_empty() {
            break;
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        epoll::wait(&poll, spare_capacity(&mut events), Some(&timeout))?;
        for event in events.drain(..) {
            let key = event.data.u64();
            let Some(exchange) = exchanges.get_mut(&key) else { continue };
            if !exchange.is_asked {
                exchange.is_asked = exchange.stream.write_all(request.as_bytes()).is_ok();
                if exchange.is_asked {
                    epoll::modify(&poll, &exchange.stream, EventData::new_u64(key), EventFlags::IN)?;
                    continue;
                }
            }
            match exchange.read(closing) {
                None => continue,
                Some(true) => answers += 1,
                Some(false) => errors += 1,
            }
            // Closing the stream removes it from the poll.
            exchanges.remove(&key);
        }
    }
    println!("{answers} {}", errors + exchanges.len() as u64);
    Ok(())
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    match socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(socket.into()),
    }
}

impl Exchange {
    /// Reads the available bytes. Returns whether the exchange succeeded; `None` if it has not ended.
    fn read(&mut self, closing: Closing) -> Option<bool> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(self.is_answered()),
                Ok(read) => self.answer.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return (closing == Closing::Client && self.is_answered()).then_some(true);
                }
                Err(_) => return Some(false),
            }
            if closing == Closing::Client && self.is_answered() {
                return Some(true);
            }
        }
    }

    /// Whether the head and the announced body are complete.
    fn is_answered(&self) -> bool {
        let Some(end) = self.answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
        let head = String::from_utf8_lossy(&self.answer[..end]);
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        self.answer.len() >= end + 4 + length.unwrap_or(0)
    }
}

/// Runs this client on one processor for some seconds.
pub fn measure(
    core: &str,
    connections: u32,
    seconds: u32,
    closing: Closing,
    port: u16,
    target: &str,
) -> io::Result<Connects> {
    let output = std::process::Command::new("taskset")
        .args(["-c", core])
        .arg(std::env::current_exe()?)
        .args([WORD, &port.to_string(), &connections.to_string(), &(u64::from(seconds) * 1000).to_string()])
        .args([if closing == Closing::Server { "server" } else { "client" }, target])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(answers)), Some(Ok(errors))) => Ok(Connects { answers, errors }),
        _ => Err(io::Error::other(format!("the client printed no figures: {output:?}"))),
    }
}
