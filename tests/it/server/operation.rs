//! The operator's view: stop, access log, admin pages, metrics.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use super::{Server, pattern, request};
use crate::support::program::{Program, READY, fingerpost};
use crate::support::{http, wait_for, wait_until};

const LARGE: usize = 32 << 20;

/// Begins a download and reads nothing of it.
fn begin_download(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.program().address()).unwrap();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    stream
}

#[test]
fn a_drain_refuses_probes_and_finishes_downloads() {
    let mut server = Server::start_with(&["--drain-timeout", "60s", "--admin", "127.0.0.1:0"]);
    server.put("large", pattern(LARGE));
    let mut download = begin_download(&server);
    let admin = server.program().admin_address();
    assert_eq!(http::get(admin, "/healthz").status, 200);
    server.program().signal(Signal::TERM);
    wait_until("probes to be refused", || server.get("/files/plshelp.txt").status == 503);
    let probe = server.get("/files/plshelp.txt");
    assert_eq!(probe.status_line, "HTTP/1.1 503 Draining");
    assert!(probe.header("Retry-After").is_some());
    assert_eq!(http::get(admin, "/healthz").status, 503);
    server.program().wait_for_stderr("waiting for 1 download(s), 1m at most; a second signal");
    let mut rest = Vec::new();
    download.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(&pattern(LARGE)[LARGE - 1000..]) && rest.len() > LARGE);
    assert!(server.program_mut().wait().success());
}

#[test]
fn a_drain_waits_for_the_end_of_a_slow_download() {
    const SIZE: usize = 8 << 20;
    let mut server = Server::start_with(&["--drain-timeout", "60s"]);
    server.put("large", pattern(SIZE));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.connect(&server.program().address().into()).unwrap();
    let mut download = TcpStream::from(socket);
    download.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    download.read_exact(&mut [0; 12]).unwrap();
    server.program().signal(Signal::TERM);
    // The kernel of the server has the rest. The client reads it after the time for small answers.
    download.read_exact(&mut vec![0; SIZE - (2 << 20)]).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    download.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let mut rest = Vec::new();
    download.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(&pattern(SIZE)[SIZE - 1000..]) && rest.len() > 2 << 20);
    drop(download);
    assert!(server.program_mut().wait().success());
}

#[test]
fn a_download_that_begins_after_the_signal_is_finished() {
    let mut server = Server::start_with(&["--drain-timeout", "60s"]);
    server.put("large", pattern(LARGE));
    let mut late = TcpStream::connect(server.program().address()).unwrap();
    // When a complete request sent after it is answered, the server has read this half of a head.
    late.write_all(b"GET /large HTTP/1.1\r\nHo").unwrap();
    server.get("/large");
    server.program().signal(Signal::TERM);
    let address = server.program().address();
    wait_until("nothing more to be accepted", || TcpStream::connect(address).is_err());
    late.write_all(b"st: x\r\n\r\n").unwrap();
    late.read_exact(&mut [0; 12]).unwrap();
    // Longer than the time for small answers, which begins after the last download.
    std::thread::sleep(Duration::from_secs(3));
    let mut rest = Vec::new();
    late.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(&pattern(LARGE)[LARGE - 1000..]) && rest.len() > LARGE);
    assert!(server.program_mut().wait().success());
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut server = Server::start_with(&["--drain-timeout", "60s"]);
    server.put("large", pattern(LARGE));
    let _download = begin_download(&server);
    server.program().signal(Signal::INT);
    wait_until("the drain", || server.get("/plshelp.txt").status == 503);
    server.program().signal(Signal::INT);
    assert!(server.program_mut().wait().success());
}

#[test]
fn a_drain_ends_at_its_timeout() {
    let mut server = Server::start_with(&["--drain-timeout", "300ms"]);
    server.put("large", pattern(LARGE));
    let _download = begin_download(&server);
    server.program().signal(Signal::TERM);
    assert!(server.program_mut().wait().success());
}

#[test]
fn downloads_that_a_stop_aborts_are_in_the_access_log() {
    for second_signal in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let time = if second_signal { "60s" } else { "300ms" };
        let mut server =
            Server::start_with(&["--access-log", path.to_str().unwrap(), "--drain-timeout", time]);
        server.put("large", pattern(LARGE));
        let _downloads = [(); 20].map(|()| begin_download(&server));
        server.program().signal(Signal::TERM);
        if second_signal {
            wait_until("the drain", || server.get("/plshelp.txt").status == 503);
            server.program().signal(Signal::TERM);
        }
        assert!(server.program_mut().wait().success());
        let text = std::fs::read_to_string(&path).unwrap();
        let cut = text.lines().filter(|line| line.contains("/large ") && line.ends_with(" aborted"));
        assert_eq!(cut.count(), 20, "{text}");
    }
}

#[test]
fn the_access_log_has_the_number_of_bytes_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let server = Server::start_with(&["--access-log", path.to_str().unwrap()]);
    server.put("a b.txt", "hello");
    server.put("large", pattern(LARGE));
    server.put("medium", pattern(100_000));
    server.get_with("/a%20b.txt?q=1", &["User-Agent: me\"\t\\", "Referer: there"]);
    server.get_with("/a%20b.txt", &["Range: bytes=1-2"]);
    server.ask("HEAD", "/large", &[]);
    server.get("/nothing");
    server.get("/large");
    server.get("/medium");
    let mut aborted = begin_download(&server);
    // This is more than a head, so the server has sent a part of the body.
    aborted.read_exact(&mut [0; 8 << 10]).unwrap();
    drop(aborted);
    let lines = || std::fs::read_to_string(&path).unwrap();
    wait_until("seven lines", || lines().lines().count() == 7);
    let text = lines();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{text}");
    assert!(
        lines[0].ends_with("\"GET /a%20b.txt?q=1 HTTP/1.1\" 200 5 \"there\" \"me\\x22\\x09\\x5C\""),
        "{text}"
    );
    assert!(lines[1].contains("\" 206 2 \"-\""), "{text}");
    assert!(lines[2].contains("\"HEAD /large HTTP/1.1\" 200 0 "), "{text}");
    assert!(lines[3].contains("\" 404 "), "{text}");
    assert!(lines[4].contains(&format!("\" 200 {LARGE} ")) && !lines[4].ends_with("aborted"), "{text}");
    assert!(lines[5].contains("\" 200 100000 ") && !lines[5].ends_with("aborted"), "{text}");
    let sent: usize = lines[6].split_whitespace().nth(9).unwrap().parse().unwrap();
    assert!(lines[6].ends_with(" aborted") && sent > 0 && sent < LARGE, "{text}");
}

#[test]
fn the_signal_of_logrotate_opens_the_log_again() {
    let folder = tempfile::tempdir().unwrap();
    let [path, renamed] = ["access.log", "access.log.1"].map(|name| folder.path().join(name));
    let mut server = Server::start_with(&["--access-log", path.to_str().unwrap()]);
    server.get("/before");
    wait_until("the first line", || std::fs::read_to_string(&path).unwrap().contains("/before"));
    std::fs::rename(&path, &renamed).unwrap();
    server.program().signal(Signal::USR1);
    // The log is opened again even without a line to write.
    wait_until("the new log", || path.exists());
    server.get("/after");
    wait_until("the second line", || std::fs::read_to_string(&path).unwrap().contains("/after"));
    assert!(!std::fs::read_to_string(&renamed).unwrap().contains("/after"));
    assert!(server.program_mut().is_running());
}

#[test]
fn the_signal_of_logrotate_never_ends_a_program() {
    let list = tempfile::NamedTempFile::new().unwrap();
    let balancer = ["balancer", "--host", "127.0.0.1", "--servers", list.path().to_str().unwrap()];
    let server = Server::start();
    let root = server.root();
    let plain_server = ["server", "--host", "127.0.0.1", "--root", root.to_str().unwrap()];
    for arguments in [&balancer[..], &plain_server, &["up", "--servers", "1"]] {
        let mut program = Program::start(arguments);
        let address = program.address();
        for _ in 0..3 {
            program.signal(Signal::USR1);
            assert!(http::try_get(address, "/nothing").is_ok(), "{arguments:?}");
        }
        assert!(program.is_running());
        program.signal(Signal::INT);
        assert!(program.wait().success(), "{arguments:?}");
    }
}

#[test]
fn a_fifo_as_access_log_needs_no_reader_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let server = Server::start_with(&["--access-log", path.to_str().unwrap()]);
    let mut line = String::new();
    // Each reader ends before the next one starts.
    for target in ["/first", "/second"] {
        assert_eq!(server.get(target).status, 404);
        let mut reader = BufReader::new(std::fs::File::open(&path).unwrap());
        line.clear();
        reader.read_line(&mut line).unwrap();
        assert!(line.contains(target), "{line}");
    }
}

#[test]
fn standard_output_as_access_log_has_its_lines_after_the_ready_line() {
    // The file has no O_APPEND, so lines written at another offset would overwrite the ready line.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("output");
    let root = folder.path().to_str().unwrap();
    let log = std::fs::File::create(&path).unwrap();
    let arguments = ["server", "--host", "127.0.0.1", "--root", root, "--access-log", "/dev/stdout"];
    let mut server = fingerpost().args(arguments).stdout(log).stderr(Stdio::null()).spawn().unwrap();
    let text = || std::fs::read_to_string(&path).unwrap();
    let port = wait_for("the ready line", || {
        text().lines().find_map(|line| line.strip_prefix(READY)?.parse::<u16>().ok())
    });
    http::get(([127, 0, 0, 1], port).into(), "/first");
    wait_until("the line", || text().contains("/first"));
    assert!(text().starts_with(READY), "{}", text());
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn admin_pages_answer_head_as_they_answer_get() {
    let server = Server::start_with(&["--admin", "127.0.0.1:0"]);
    let admin = server.program().admin_address();
    for page in ["/healthz", "/metrics"] {
        let got = http::get(admin, page);
        let head = http::request(admin, request("HEAD", page, &["Connection: close"]));
        assert_eq!((got.status, head.status), (200, 200), "{page}");
        assert_eq!(head.header("Content-Type"), got.header("Content-Type"), "{page}");
        assert!(head.header("Content-Length").is_some_and(|length| length != "0"), "{page}");
    }
    assert_eq!(http::request(admin, request("POST", "/healthz", &[])).status, 404);
}

#[test]
fn metrics_count_the_requests() {
    let server = Server::start_with(&["--admin", "127.0.0.1:0"]);
    server.put("file", "hello");
    server.get("/file");
    server.get("/file");
    server.get("/nothing");
    let mut bad = server.connect();
    bad.send("nonsense\r\n\r\n").unwrap();
    assert!(bad.answer(http::Expect::Body).is_ok());
    let metrics = || http::get(server.program().admin_address(), "/metrics").text();
    wait_until("the counts", || metrics().contains("fingerpost_server_bad_heads_total 1\n"));
    let text = metrics();
    for line in [
        "fingerpost_server_answers_total{status=\"200\"} 2",
        "fingerpost_server_answers_total{status=\"404\"} 1",
        "fingerpost_server_completed_total 2",
        "fingerpost_server_body_bytes_total 10",
        "fingerpost_server_cache_hits_total 1",
        "fingerpost_server_in_flight 0",
    ] {
        assert!(text.lines().any(|own| own == line), "no {line} in\n{text}");
    }
}

#[test]
fn evictions_from_the_cache_are_counted() {
    // The cache has room for one of the files.
    let server = Server::start_with(&["--admin", "127.0.0.1:0", "--cache-bytes", "100KiB"]);
    for name in ["first", "second", "third"] {
        server.put(name, vec![b'x'; 60 << 10]);
        server.get(&format!("/{name}"));
    }
    let text = http::get(server.program().admin_address(), "/metrics").text();
    for line in [
        "fingerpost_server_cache_evictions_total 2",
        "fingerpost_server_copies_left_out_total 0",
        "fingerpost_server_variants_forgotten_total 0",
    ] {
        assert!(text.lines().any(|own| own == line), "no {line} in\n{text}");
    }
}
