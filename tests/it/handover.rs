//! The hand-over of the listening sockets to a new process at SIGUSR2.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::support::misbehaving::Script;
use super::support::operated::Operated;
use super::support::program::{Program, fingerpost};
use super::support::{DEADLINE, http, wait_for, wait_until};
use super::tls::Authority;

/// A process that took over. It is killed at the end of the test.
struct Successor(u32);

impl Successor {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.0.cast_signed()).unwrap(), signal).unwrap();
    }

    fn is_running(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.0)).is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_raw(self.0.cast_signed()).unwrap(), Signal::KILL);
    }
}

/// Waits until `count` hand-overs have succeeded, and returns the last new process. `program` has the output of all.
fn successor(program: &Program, count: usize) -> Successor {
    process_in(program, "handed over to a new process", count)
}

/// Waits for the log line with these words of this number, and returns the process that it names.
fn process_in(program: &Program, words: &str, count: usize) -> Successor {
    wait_for("the log line", || {
        let text = program.stderr();
        // The last line may be incomplete.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let line = whole.lines().filter(|line| line.contains(words)).nth(count - 1)?;
        Some(Successor(line.rsplit("process=").next().unwrap().parse().unwrap()))
    })
}

/// Requests on new connections and on kept ones. Each must be a redirect.
struct Requests {
    is_over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Requests {
    fn start(address: SocketAddr) -> Self {
        let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |keeps: bool| {
            let (is_over, count) = (Arc::clone(&is_over), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut connection = http::Connection::open(address).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    let answer = connection.get("/plshelp.txt").unwrap();
                    assert_eq!(answer.status, 301, "{answer:?}");
                    if !keeps || answer.header("Connection").is_some_and(|value| value == "close") {
                        connection = http::Connection::open(address).unwrap();
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let clients = [true, false, true, false].map(client).into();
        Self { is_over, count, clients }
    }

    /// Waits for further requests.
    fn more(&self) {
        let count = self.count.load(Ordering::Relaxed);
        wait_until("requests", || {
            assert!(self.clients.iter().all(|client| !client.is_finished()));
            self.count.load(Ordering::Relaxed) > count + 100
        });
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

#[test]
fn two_hand_overs_under_load_lose_no_request_and_keep_health_and_orders() {
    let mut balancer = Operated::start_with([Script::prompt(), Script::status(500)], &[]);
    wait_until("one server to be down", || balancer.backends()[1]["state"] == "down");
    balancer.succeed(&["weight", &balancer.name(0), "7", "--note", "kept"]);
    let requests = Requests::start(balancer.program.address());
    requests.more();
    balancer.program.signal(Signal::USR2);
    let first = successor(&balancer.program, 1);
    requests.more();
    let weight = || balancer.backends()[0]["orders"][0]["weight"].clone();
    assert_eq!((weight(), &balancer.backends()[1]["state"]), (7.into(), &"down".into()));
    assert!(balancer.backends()[0]["redirects"].as_u64().unwrap() >= 100);
    // An order over the new process.
    balancer.succeed(&["weight", &balancer.name(0), "8"]);
    first.signal(Signal::USR2);
    let second = successor(&balancer.program, 2);
    requests.more();
    assert_eq!(weight(), 8);
    requests.stop();
    assert!(balancer.program.wait_for_end().success());
    wait_until("the end of the first new process", || !first.is_running());
    assert!(second.is_running());
    second.signal(Signal::TERM);
    wait_until("the end of the second new process", || !second.is_running());
    assert!(http::try_get(balancer.program.address(), "/x").is_err());
}

#[test]
fn a_drained_server_stays_drained_without_a_state_folder() {
    let peers = [Script::prompt().start(), Script::prompt().start()];
    let folder = tempfile::tempdir().unwrap();
    let list = peers.iter().map(|peer| peer.authority() + "\n").collect::<String>();
    std::fs::write(folder.path().join("list"), list).unwrap();
    let program = Program::spawn(
        fingerpost()
            .args(["balancer", "--host", "127.0.0.1", "--workers", "1", "--servers", "list"])
            .args(["--probe-interval", "200ms"])
            .current_dir(folder.path()),
    );
    let admin = format!("http://{}/", program.admin_address());
    let order = |arguments: &[&str]| {
        let output = fingerpost().args(arguments).env("FINGERPOST_ADMIN", &admin).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    order(&["drain", &peers[0].authority()]);
    program.signal(Signal::USR2);
    let _successor = successor(&program, 1);
    for _ in 0..50 {
        let answer = http::get(program.address(), "/x");
        assert!(answer.location().starts_with(&format!("http://{}/", peers[1].authority())), "{answer:?}");
    }
}

#[test]
fn if_the_new_process_fails_the_old_one_continues_with_its_orders() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let peer = Script::prompt().start();
    std::fs::write(path("list"), peer.authority()).unwrap();
    std::fs::write(path("own.toml"), "").unwrap();
    std::os::unix::fs::symlink(fingerpost().get_program(), path("fingerpost")).unwrap();
    let mut command = Command::new(path("fingerpost"));
    command
        .args(["balancer", "--host", "127.0.0.1", "--workers", "1", "--servers", "list", "--state", "state"])
        .args(["--probe-interval", "200ms", "--config", "own.toml"])
        .current_dir(folder.path());
    let mut program = Program::spawn(&mut command);
    let admin = format!("http://{}/", program.admin_address());
    let mut weight = 1;
    let mut give = || {
        weight += 1;
        let output = fingerpost()
            .args(["weight", &peer.authority(), &weight.to_string()])
            .env("FINGERPOST_ADMIN", &admin)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let requests = Requests::start(program.address());
    give();
    let mut failures = 0;
    let mut fail = |program: &Program, words: &str| {
        program.signal(Signal::USR2);
        failures += 1;
        wait_until("the failure", || {
            let text = program.stderr();
            let mut failed = text.lines().filter(|line| line.contains("the hand-over failed"));
            failed.nth(failures - 1).is_some_and(|line| {
                assert!(line.contains(words), "{line}");
                true
            })
        });
        requests.more();
    };
    // Its settings are wrong.
    std::fs::write(path("own.toml"), "[balancer]\nfall = 0\n").unwrap();
    fail(&program, "the new process ended before it was ready (exit status: 1)");
    program.wait_for_stderr("own.toml:2: balancer.fall = 0: it must be at least 1");
    std::fs::write(path("own.toml"), "").unwrap();
    give();
    // It ends after the old process has released its state.
    let script = "#!/usr/bin/env python3\nimport os, socket\nold = socket.socket(fileno=3)\nold.send(b'P')\n\
                  old.recv(8)\nos._exit(3)\n";
    for (text, words) in [("#!/bin/sh\nexit 7\n", "(exit status: 7)"), (script, "(exit status: 3)")] {
        std::fs::remove_file(path("fingerpost")).unwrap();
        std::fs::write(path("fingerpost"), text).unwrap();
        std::fs::set_permissions(path("fingerpost"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        fail(&program, words);
        give();
    }
    std::fs::remove_file(path("fingerpost")).unwrap();
    fail(&program, "cannot start");
    give();
    requests.stop();
    assert!(program.is_running());
    program.kill();
    // The orders were stored to the end.
    std::os::unix::fs::symlink(fingerpost().get_program(), path("fingerpost")).unwrap();
    let program = Program::spawn(&mut command);
    let backends = http::get(program.admin_address(), "/api/v1/backends").text();
    assert!(backends.contains(&format!("\"weight\":{weight}")), "{backends}");
}

#[test]
fn a_stop_during_a_hand_over_ends_both_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("files")).unwrap();
    std::os::unix::fs::symlink(fingerpost().get_program(), path("fingerpost")).unwrap();
    let mut command = Command::new(path("fingerpost"));
    command
        .args(["server", "--host", "127.0.0.1", "--workers", "1", "--root", "files"])
        .current_dir(folder.path());
    let mut program = Program::spawn(&mut command);
    program.port();
    std::fs::remove_file(path("fingerpost")).unwrap();
    std::fs::write(path("fingerpost"), "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(path("fingerpost"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    program.signal(Signal::USR2);
    let other = process_in(&program, "a new process takes over", 1);
    assert!(other.is_running());
    program.signal(Signal::TERM);
    assert!(program.wait_for_end().success());
    wait_until("the end of the new process", || !other.is_running());
}

/// The complete answer to one request.
fn get(socket: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_server_hands_over_unix_tls_and_admin_sockets_and_finishes_its_downloads() {
    let authority = Authority::new();
    authority.sign("own", "DNS:localhost");
    std::fs::write(authority.path("files/hello.txt"), "hello").unwrap();
    std::fs::write(authority.path("files/large"), vec![7; 32 << 20]).unwrap();
    let socket = authority.path("clients.sock");
    let mut program = Program::spawn(
        fingerpost()
            .args(["server", "--host", "127.0.0.1", "--workers", "1", "--admin", "127.0.0.1:0", "--root"])
            .arg(authority.path("files"))
            .arg("--unix-socket")
            .arg(&socket)
            .arg("--tls-cert")
            .arg(authority.path("own.pem"))
            .arg("--tls-key")
            .arg(authority.path("own.key")),
    );
    program.stdout_after("Will wait for client connections at unix:");
    let tls_port = program.stdout_after("Will wait for TLS client connections at port ");
    let mut download = UnixStream::connect(&socket).unwrap();
    download.set_read_timeout(Some(DEADLINE)).unwrap();
    download.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    download.read_exact(&mut [0; 1000]).unwrap();
    // This request arrives on an idle connection of the old process.
    let mut idle = UnixStream::connect(&socket).unwrap();
    idle.set_read_timeout(Some(DEADLINE)).unwrap();
    idle.write_all(b"GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut part = [0; 4096];
    assert!(idle.read(&mut part).unwrap() > 0);

    program.signal(Signal::USR2);
    let successor = successor(&program, 1);
    assert!(get(&socket, "/hello.txt").ends_with("hello"));
    // Probes are not refused.
    assert!(get(&socket, "/plshelp.txt").starts_with("HTTP/1.1 200 "));
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--resolve", &format!("localhost:{tls_port}:127.0.0.1"), "--cacert"])
        .arg(authority.path("ca.pem"))
        .arg(format!("https://localhost:{tls_port}/hello.txt"))
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"hello", "{output:?}");
    assert_eq!(http::get(program.admin_address(), "/healthz").status, 200);
    idle.write_all(b"GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("Connection: close") && answer.ends_with("hello"), "{answer}");
    assert!(program.is_running());
    let mut rest = Vec::new();
    download.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > (32 << 20) - 1000);
    assert!(program.wait_for_end().success());
    // The file of the socket belongs to the new process.
    assert!(get(&socket, "/hello.txt").ends_with("hello"));
    successor.signal(Signal::TERM);
    wait_until("the end of the new process", || !successor.is_running());
    assert!(!socket.exists());
}

#[test]
fn the_service_manager_learns_of_the_new_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let received = || {
        let mut space = [0; 64];
        let length = manager.recv(&mut space).unwrap();
        String::from_utf8(space[..length].to_vec()).unwrap()
    };
    std::fs::create_dir(folder.path().join("files")).unwrap();
    let clients = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = clients.local_addr().unwrap();
    let mut shell = Command::new("sh");
    let words = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 0</dev/null"#;
    shell.args(["-c", words, "sh"]).arg(fingerpost().get_program());
    shell.args(["server", "--root"]).arg(folder.path().join("files")).env("NOTIFY_SOCKET", &path);
    shell.stdin(Stdio::from(OwnedFd::from(clients))).stderr(Stdio::piped());
    let mut program = Program::spawn_as_it_is(&mut shell);
    assert_eq!(received(), "READY=1\n");
    program.signal(Signal::USR2);
    let successor = successor(&program, 1);
    let mut words = [received(), received()];
    words.sort();
    assert_eq!(words, [format!("MAINPID={}\n", successor.0), "READY=1\n".to_owned()]);
    assert!(program.wait_for_end().success());
    assert_eq!(http::get(address, "/plshelp.txt").status, 200);
}

#[test]
fn a_stop_ends_the_streams_of_the_live_page() {
    let mut balancer = Operated::start(&[]);
    let mut page = std::net::TcpStream::connect(balancer.admin()).unwrap();
    page.set_read_timeout(Some(DEADLINE)).unwrap();
    page.write_all(b"GET /page/stream HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    page.read_exact(&mut [0; 500]).unwrap();
    let began = Instant::now();
    balancer.program.signal(Signal::TERM);
    assert!(balancer.program.wait().success());
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
}
