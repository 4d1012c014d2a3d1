//! Files that change, shrink or vanish while they are sent.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::Server;

/// More than the kernel holds between a server that sends and a client that does not read.
const SIZE: u64 = 8 << 20;
/// The client's part of that.
const RECEIVE_BUFFER: usize = 64 << 10;

const FAULTS: usize = 10_000;
/// The faults end after this time, however many they are by then.
const TIME: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Truncate,
    Empty,
    Overwrite,
    Replace,
    Delete,
    Forbid,
    Leave,
}

use Fault::{Delete, Empty, Forbid, Leave, Overwrite, Replace, Truncate};

/// What the client must find.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// The connection ends before the file does.
    Short,
    /// The file as it was when the request came.
    Whole,
}

impl Fault {
    fn strike(self, path: &Path) -> Ending {
        let file = || OpenOptions::new().write(true).open(path).unwrap();
        match self {
            Truncate => file().set_len(SIZE / 2).unwrap(),
            Empty => file().set_len(0).unwrap(),
            Overwrite => file().write_all_at(b"other bytes", SIZE - 100).unwrap(),
            Replace => {
                std::fs::write(path.with_extension("new"), "other bytes").unwrap();
                std::fs::rename(path.with_extension("new"), path).unwrap();
            }
            Delete => std::fs::remove_file(path).unwrap(),
            Forbid => std::fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap(),
            Leave => {}
        }
        match self {
            Truncate | Empty | Overwrite => Ending::Short,
            Replace | Delete | Forbid | Leave => Ending::Whole,
        }
    }
}

fn slow_reader(server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
    socket.connect(&server.program().address().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Reads an answer whose body is zeros, and says how it ended. Any other byte in a whole answer is a failure.
fn read_zeros(stream: &mut TcpStream, mut head: Vec<u8>) -> Ending {
    let mut buffer = vec![0; 256 << 10];
    let body_start = loop {
        if let Some(at) = memchr::memmem::find(&head, b"\r\n\r\n") {
            break at + 4;
        }
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "no whole head: {}", head.escape_ascii());
        head.extend_from_slice(&buffer[..read]);
    };
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", head[..body_start].escape_ascii());
    let mut received = (head.len() - body_start) as u64;
    let zeros = vec![0; buffer.len()];
    let mut are_zeros = head[body_start..] == zeros[..head.len() - body_start];
    while received < SIZE {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return Ending::Short,
            Ok(read) => {
                received += read as u64;
                are_zeros &= buffer[..read] == zeros[..read];
            }
        }
    }
    assert!(received == SIZE && are_zeros, "a wrong byte was sent as right");
    Ending::Whole
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn no_fault_of_a_file_breaks_the_server_or_passes_for_its_bytes() {
    let mut server = Server::start();
    let path = server.root().join("file");
    let pid = server.program().pid();
    let began = Instant::now();
    let mut settled = 0;
    let mut struck = 0;
    let faults = [Truncate, Overwrite, Replace, Empty, Delete, Forbid, Leave];
    for fault in faults.into_iter().cycle().take(FAULTS) {
        if began.elapsed() > TIME {
            break;
        }
        let _ = std::fs::remove_file(&path);
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(SIZE).unwrap();
        let mut stream = slow_reader(&server);
        stream.write_all(b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut first = [0; 64];
        let read = stream.read(&mut first).unwrap();
        let expected = fault.strike(&path);
        assert_eq!(read_zeros(&mut stream, first[..read].to_vec()), expected, "{fault:?}");
        struck += 1;
        if struck == 2 * faults.len() {
            settled = resident_kib(pid);
        }
    }
    assert!(struck > 2 * faults.len(), "only {struck} faults in {TIME:?}");
    println!("{struck} faults in {:?}", began.elapsed());
    let grown = resident_kib(pid).saturating_sub(settled);
    assert!(grown < 8 << 10, "{grown} KiB more after {struck} faults");
    assert!(server.program_mut().is_running());
    server.put("small", "still here");
    assert_eq!(server.get("/small").text(), "still here");
}

#[test]
fn a_file_that_may_not_be_read_is_forbidden() {
    let server = Server::start();
    server.put("secret", "x");
    std::fs::set_permissions(server.root().join("secret"), PermissionsExt::from_mode(0o000)).unwrap();
    // A superuser may read everything.
    let expected = if std::fs::File::open(server.root().join("secret")).is_ok() { 200 } else { 403 };
    assert_eq!(server.get("/secret").status, expected);
}
