//! A server without descriptors, and clients that send nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::http;
use crate::support::program::{Program, fingerpost};
use crate::support::{DEADLINE, wait_until};

const HELLO: &str = "GET /hello.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn start(folder: &tempfile::TempDir, keys: &[(&str, &str)]) -> Program {
    std::fs::write(folder.path().join("hello.txt"), "hello").unwrap();
    let mut command = fingerpost();
    command.args(["server", "--host", "127.0.0.1", "--port", "0", "--workers", "1", "--root"]);
    command.arg(folder.path());
    command.envs(keys.iter().map(|(key, value)| (format!("FINGERPOST__SERVER__{key}"), value)));
    let program = Program::spawn(&mut command);
    program.port();
    program
}

fn read_to_end(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_server_without_descriptors_answers_as_soon_as_it_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = start(&folder, &[]);
    assert_eq!(http::get(program.address(), "/hello.txt").text(), "hello");
    let pid = Pid::from_raw(program.pid().cast_signed());
    // A lower limit closes no descriptor, and the process gets no other one.
    let few = Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) };
    let before = prlimit(pid, Resource::Nofile, few).unwrap();
    let mut waiting = TcpStream::connect(program.address()).unwrap();
    waiting.write_all(HELLO.as_bytes()).unwrap();
    program.wait_for_stderr("cannot accept connections");
    assert!(program.is_running());
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert!(read_to_end(&mut waiting).ends_with("\r\n\r\nhello"));
}

#[test]
fn clients_that_send_nothing_count_and_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let program = start(&folder, &[("MAX_CONNECTIONS", "2"), ("HEAD_TIMEOUT", "3s")]);
    let status = || http::request(program.address(), HELLO).status;
    let silent: Vec<_> = (0..2).map(|_| TcpStream::connect(program.address()).unwrap()).collect();
    // The kernel reports a connection without a request after a second or two.
    wait_until("both to take a place", || status() == 503);
    for mut stream in silent {
        assert_eq!(read_to_end(&mut stream), "");
    }
    wait_until("their places to be free", || status() == 200);
}
