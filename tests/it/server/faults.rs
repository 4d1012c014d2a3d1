//! Files that are changed, truncated or removed while they are sent.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::Server;
use crate::support::wait_until;

/// More bytes than the kernel buffers between the server and a client that does not read, over TCP.
const SIZE: u64 = 8 << 20;
/// The client's part of these buffers.
const RECEIVE_BUFFER: usize = 64 << 10;

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

/// The expected end of the answer.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// The connection ends before the file does.
    Short,
    /// The client gets the file as it was at the time of the request.
    Whole,
}

impl Fault {
    /// Applies the fault to a file of this size.
    fn strike(self, path: &Path, size: u64) -> Ending {
        let file = || OpenOptions::new().write(true).open(path).unwrap();
        match self {
            Truncate => file().set_len(size / 2).unwrap(),
            Empty => file().set_len(0).unwrap(),
            Overwrite => file().write_all_at(b"other bytes", size - 100).unwrap(),
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

/// Reads an answer whose body is `size` zeros, and returns its ending. A complete answer with another byte is a
/// failure.
fn read_zeros(stream: &mut impl Read, mut head: Vec<u8>, size: u64) -> Ending {
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
    while received < size {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return Ending::Short,
            Ok(read) => {
                received += read as u64;
                are_zeros &= buffer[..read] == zeros[..read];
            }
        }
    }
    assert!(received == size && are_zeros, "a complete answer has a wrong byte");
    Ending::Whole
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Applies faults to files of this size while they are downloaded, up to the given count and time, and compares
/// memory and descriptors of the process after the first faults and after the last. Returns the number of faults.
fn strike<S: Read + Write>(
    server: &mut Server,
    connect: impl Fn(&Server) -> S,
    size: u64,
    most: usize,
    time: Duration,
) -> usize {
    let path = server.root().join("file");
    let pid = server.program().pid();
    let faults = [Truncate, Overwrite, Replace, Empty, Delete, Forbid, Leave];
    let first = (most / 10).clamp(2 * faults.len(), 1000);
    let began = Instant::now();
    let mut held = (0, 0);
    let mut struck = 0;
    for fault in faults.into_iter().cycle().take(most) {
        if began.elapsed() > time {
            break;
        }
        let _ = std::fs::remove_file(&path);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        let mut stream = connect(server);
        stream.write_all(b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut start = [0; 64];
        let read = stream.read(&mut start).unwrap();
        let expected = fault.strike(&path, size);
        assert_eq!(read_zeros(&mut stream, start[..read].to_vec(), size), expected, "{fault:?}");
        struck += 1;
        if struck == first {
            held = (resident_kib(pid), descriptors(pid));
        }
    }
    assert!(struck > first, "only {struck} faults in {time:?}");
    let (resident, open) = (resident_kib(pid), descriptors(pid));
    println!(
        "{struck} faults in {:.0?}: {} KiB and {} descriptors after the first {first}, {resident} KiB and {open} at the end",
        began.elapsed(),
        held.0,
        held.1,
    );
    assert!(resident < held.0 + (8 << 10), "{resident} KiB after {struck} faults, {} after {first}", held.0);
    wait_until("connections to be gone", || descriptors(pid) <= held.1 + 2);
    assert!(server.program_mut().is_running());
    server.put("small", "still here");
    struck
}

#[test]
fn a_changed_file_never_breaks_the_server_or_completes_with_wrong_bytes() {
    for mut server in Server::start_both() {
        strike(&mut server, slow_reader, SIZE, 70, Duration::from_mins(1));
        assert_eq!(server.get("/small").text(), "still here");
    }
}

/// The kernel buffers little between the ends of a Unix socket, so that even small files are still being sent at the
/// fault.
#[test]
fn ten_thousand_faults_leak_no_memory_and_no_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("clients.sock");
    let mut server = Server::start_on(&["--unix-socket", socket.to_str().unwrap(), "--digests", "off"]);
    let connect = |_: &Server| {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let struck = strike(&mut server, connect, 1 << 20, 10_000, Duration::from_secs(90));
    assert_eq!(struck, 10_000);
}

/// Requests the file and reads nothing until the kernel's buffers are full. Returns the number of buffered bytes.
fn fill(socket: &Path) -> (UnixStream, u64) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let (mut held, mut looks) = (0, 0);
    wait_until("the answer to stop", || {
        let now = rustix::io::ioctl_fionread(&stream).unwrap();
        looks = if now > 0 && now == held { looks + 1 } else { 0 };
        held = now;
        looks == 10
    });
    (stream, held)
}

#[test]
fn the_last_bytes_are_not_sent_if_the_file_changed_while_they_waited() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("clients.sock");
    let server = Server::start_on(&["--unix-socket", socket.to_str().unwrap(), "--digests", "off"]);
    let path = server.root().join("file");
    let make = |size| std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    make(SIZE);
    let (_, room) = fill(&socket);
    // The kernel has room for all but the last few bytes.
    for size in (room..).step_by(4 << 10) {
        make(size);
        let (mut stream, held) = fill(&socket);
        if held < size {
            let expected = Overwrite.strike(&path, size);
            assert_eq!(
                read_zeros(&mut stream, Vec::new(), size),
                expected,
                "{held} of {size} bytes were out"
            );
            return;
        }
    }
}

#[test]
fn a_file_without_read_permission_is_forbidden() {
    let server = Server::start();
    server.put("secret", "x");
    std::fs::set_permissions(server.root().join("secret"), PermissionsExt::from_mode(0o000)).unwrap();
    // A superuser can read every file.
    let expected = if std::fs::File::open(server.root().join("secret")).is_ok() { 200 } else { 403 };
    assert_eq!(server.get("/secret").status, expected);
}
