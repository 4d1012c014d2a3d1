//! Unix sockets, socket activation, and notification of the service manager.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use super::support::program::{Program, fingerpost};
use super::support::{DEADLINE, http, wait_until};
use super::tls::Authority;

const READY: &str = "Will wait for client connections at ";

/// A folder with a file to serve and a list for a balancer. Tests create sockets in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("files")).unwrap();
        std::fs::write(folder.path().join("files/hello.txt"), "hello").unwrap();
        std::fs::write(folder.path().join("list"), "").unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn server(&self) -> Command {
        let mut command = fingerpost();
        command.args(["server", "--workers", "1", "--host", "127.0.0.1", "--root"]).arg(self.path("files"));
        command
    }

    fn balancer(&self) -> Command {
        let mut command = fingerpost();
        command
            .args(["balancer", "--workers", "1", "--host", "127.0.0.1", "--servers"])
            .arg(self.path("list"));
        command
    }
}

/// The command in the form in which systemd starts it: the socket is descriptor 3, and the environment has the process id.
fn passed(command: &Command, socket: impl Into<OwnedFd>) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 0</dev/null"#, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.stdin(Stdio::from(socket.into())).stderr(Stdio::piped());
    shell
}

/// The complete answer to one request.
fn get(socket: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    ask(&mut stream, target)
}

fn ask(stream: &mut UnixStream, target: &str) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The message of a start that must fail.
fn error_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_passed_socket_outlives_the_servers_that_take_it() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for command in [place.server(), place.server()] {
        // The request is sent before the start of the server. It waits in the socket.
        let mut early = http::Connection::open(address).unwrap();
        early.send(http::get_request("/hello.txt")).unwrap();
        let mut program = Program::spawn_as_it_is(&mut passed(&command, listener.try_clone().unwrap()));
        assert_eq!(program.port(), address.port());
        assert_eq!(early.answer(http::Expect::Body).unwrap().text(), "hello");
        assert_eq!(http::get(address, "/nothing").status, 404);
        program.signal(Signal::TERM);
        assert!(program.wait().success());
    }
}

#[test]
fn a_balancer_accepts_a_passed_socket_too() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let program = Program::spawn_as_it_is(&mut passed(&place.balancer(), listener));
    assert_eq!(program.port(), address.port());
    assert_eq!(http::get(address, "/hello.txt").status, 503);
}

#[test]
fn a_passed_unix_socket_is_not_removed() {
    let place = Place::new();
    let path = place.path("passed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut program = Program::spawn_as_it_is(&mut passed(&place.server(), listener));
    assert_eq!(program.stdout_after(READY), format!("unix:{}", path.display()));
    assert!(get(&path, "/hello.txt").ends_with("hello"));
    program.signal(Signal::TERM);
    assert!(program.wait().success());
    assert!(path.exists());
}

#[test]
fn a_socket_named_admin_is_for_the_admin_pages() {
    let place = Place::new();
    let clients = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let (clients_at, admin_at) = (clients.local_addr().unwrap(), admin.local_addr().unwrap());
    let mut shell = Command::new("sh");
    let words = r#"LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=admin:web exec "$@" 3<&2 4<&0 0</dev/null 2>&1"#;
    shell.args(["-c", words, "sh"]).arg(place.server().get_program()).args(place.server().get_args());
    shell.stdin(Stdio::from(OwnedFd::from(clients))).stderr(Stdio::from(OwnedFd::from(admin)));
    let program = Program::spawn_as_it_is(&mut shell);
    assert_eq!(program.port(), clients_at.port());
    assert_eq!(program.admin_address(), admin_at);
    assert_eq!(http::get(clients_at, "/hello.txt").text(), "hello");
    assert_eq!(http::get(admin_at, "/healthz").status, 200);
}

#[test]
fn a_socket_named_tls_is_for_https() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = TcpListener::bind("127.0.0.1:0").unwrap();
    let (plain_port, tls_port) = (plain.local_addr().unwrap().port(), tls.local_addr().unwrap().port());
    let command = |certificate: &[&str]| {
        let mut shell = Command::new("sh");
        let words =
            r#"LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=tls:web exec "$@" 3<&2 4<&0 0</dev/null 2>&1"#;
        shell.args(["-c", words, "sh"]).arg(fingerpost().get_program());
        shell.args(["server", "--workers", "1", "--root"]).arg(authority.path("files"));
        for flag in certificate {
            shell.arg(flag).arg(authority.path(if *flag == "--tls-cert" { "own.pem" } else { "own.key" }));
        }
        let duplicate = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
        shell.stdin(duplicate(&plain)).stderr(duplicate(&tls));
        shell
    };
    let program = Program::spawn_as_it_is(&mut command(&["--tls-cert", "--tls-key"]));
    assert_eq!(program.port(), plain_port);
    let ready = program.stdout_after("Will wait for TLS client connections at port ");
    assert_eq!(ready, tls_port.to_string());
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--resolve", &format!("localhost:{tls_port}:127.0.0.1"), "--cacert"])
        .arg(authority.path("ca.pem"))
        .arg(format!("https://localhost:{tls_port}/small"))
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"small file", "{output:?}");
    drop(program);
    let output = command(&[]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stdout);
    assert!(message.contains("a passed socket named tls need a certificate"), "{message}");
}

#[test]
fn the_listeners_of_a_worker_share_its_memory() {
    let place = Place::new();
    // The cache has space for one of the files.
    for name in ["first", "second"] {
        std::fs::write(place.path("files").join(name), vec![b'x'; 60 << 10]).unwrap();
    }
    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first_at, second_at] = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap());
    let [first, second] = listeners.map(OwnedFd::from);
    let mut server = place.server();
    server.args(["--cache-bytes", "100KiB", "--admin", "127.0.0.1:0"]);
    let mut shell = Command::new("sh");
    let words = r#"LISTEN_PID=$$ LISTEN_FDS=2 exec "$@" 3<&2 4<&0 0</dev/null 2>&1"#;
    shell.args(["-c", words, "sh"]).arg(server.get_program()).args(server.get_args());
    shell.stdin(Stdio::from(first)).stderr(Stdio::from(second));
    let program = Program::spawn_as_it_is(&mut shell);
    program.port();
    assert_eq!(http::get(first_at, "/first").body.len(), 60 << 10);
    assert_eq!(http::get(second_at, "/second").body.len(), 60 << 10);
    let metrics = http::get(program.admin_address(), "/metrics").text();
    assert!(metrics.contains("fingerpost_server_cache_evictions_total 1\n"), "{metrics}");
}

#[test]
fn the_error_for_an_unusable_socket_contains_the_reason() {
    let place = Place::new();
    let no_socket = std::fs::File::open("/dev/null").unwrap();
    let (_other_end, connection) = UnixStream::pair().unwrap();
    for descriptor in [OwnedFd::from(no_socket), OwnedFd::from(connection)] {
        let message = error_of(&mut passed(&place.server(), descriptor));
        assert!(message.contains("socket 0 (unknown)") && message.contains("Accept=no"), "{message}");
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=some exec "$@""#, "sh"]);
    shell.arg(place.balancer().get_program()).args(place.balancer().get_args());
    let message = error_of(&mut shell);
    assert!(message.contains("LISTEN_FDS=some"), "{message}");
}

#[test]
fn sockets_for_another_process_are_ignored() {
    let place = Place::new();
    let program =
        Program::spawn(place.server().env("LISTEN_PID", "1").env("LISTEN_FDS", "1").args(["--port", "0"]));
    assert_eq!(http::get(program.address(), "/hello.txt").text(), "hello");
}

#[test]
fn a_unix_socket_is_removed_at_the_end() {
    let place = Place::new();
    let path = place.path("clients.sock");
    let mut program = Program::spawn(place.server().arg("--unix-socket").arg(&path));
    assert_eq!(program.stdout_after(READY), format!("unix:{}", path.display()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(get(&path, "/hello.txt").ends_with("hello"));
    assert!(get(&path, "/nothing").starts_with("HTTP/1.1 404 "));
    program.signal(Signal::TERM);
    assert!(program.wait().success());
    assert!(!path.exists());
}

#[test]
fn a_balancer_answers_on_a_unix_socket() {
    let place = Place::new();
    let path = place.path("clients.sock");
    let server = Program::spawn(place.server().args(["--port", "0"]));
    std::fs::write(place.path("list"), format!("{}\n", server.address())).unwrap();
    let _balancer = Program::spawn(place.balancer().arg("--unix-socket").arg(&path));
    wait_until("the socket", || UnixStream::connect(&path).is_ok());
    let expected = format!("\r\nLocation: http://{}/hello.txt\r\n", server.address());
    wait_until("a redirect", || get(&path, "/hello.txt").contains(&expected));
}

#[test]
fn the_socket_of_a_dead_server_is_replaced_and_the_socket_of_a_running_one_is_not() {
    let place = Place::new();
    let path = place.path("clients.sock");
    let start = || {
        let program = Program::spawn(place.server().arg("--unix-socket").arg(&path));
        program.stdout_after(READY);
        program
    };
    let mut first = start();
    let message = error_of(place.server().arg("--unix-socket").arg(&path));
    let holder = format!("process {} (fingerpost)", first.pid());
    assert!(message.contains(&format!("clients.sock: {holder} uses it")), "{message}");
    first.kill();
    assert!(path.exists());
    let _second = start();
    assert!(get(&path, "/hello.txt").ends_with("hello"));
}

#[test]
fn a_file_that_is_not_a_socket_is_never_removed() {
    let place = Place::new();
    let precious = place.path("files/hello.txt");
    let message = error_of(place.server().arg("--unix-socket").arg(&precious));
    assert!(message.contains("hello.txt: this file exists and is not a socket"), "{message}");
    assert_eq!(std::fs::read_to_string(precious).unwrap(), "hello");
}

#[test]
fn the_limit_of_one_address_does_not_apply_to_a_proxy_on_a_unix_socket() {
    let place = Place::new();
    let path = place.path("clients.sock");
    let own = place.path("own.toml");
    std::fs::write(&own, "[server]\nmax_connections_per_address = 1\nmax_connections = 4\n").unwrap();
    let program = Program::spawn(place.server().arg("--unix-socket").arg(&path).arg("--config").arg(&own));
    program.stdout_after(READY);
    let mut held: Vec<_> = (0..4).map(|_| UnixStream::connect(&path).unwrap()).collect();
    // The limit of all connections does apply.
    assert!(get(&path, "/hello.txt").starts_with("HTTP/1.1 503 "));
    for stream in &mut held {
        assert!(ask(stream, "/hello.txt").ends_with("hello"));
    }
}

#[test]
fn the_service_manager_is_notified_of_the_start_and_of_the_stop() {
    let place = Place::new();
    let path = place.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let received = || {
        let mut space = [0; 64];
        let length = manager.recv(&mut space).unwrap();
        String::from_utf8(space[..length].to_vec()).unwrap()
    };
    for mut command in [place.server(), place.balancer()] {
        let mut program = Program::spawn(command.env("NOTIFY_SOCKET", &path).args(["--port", "0"]));
        assert_eq!(received(), "READY=1\n");
        // READY means that connections are accepted.
        assert!(http::try_get(program.address(), "/hello.txt").is_ok());
        program.signal(Signal::TERM);
        assert_eq!(received(), "STOPPING=1\n");
        assert!(program.wait().success());
    }
}
