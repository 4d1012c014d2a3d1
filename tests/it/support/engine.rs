//! A real engine, Redis or Valkey, on a free port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::wait_until;

/// A running engine without persistence. Dropping it kills it.
pub struct Engine {
    program: &'static str,
    port: u16,
    flags: Vec<String>,
    child: Child,
}

impl Engine {
    /// Starts an engine with additional flags. `None` if none is installed, which is reported;
    /// `FINGERPOST_TEST_NO_SKIP` forbids this.
    pub fn start(flags: &[&str]) -> Option<Self> {
        let exists = |program: &&str| {
            Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        let Some(program) = ["redis-server", "valkey-server"].into_iter().find(exists) else {
            assert!(
                std::env::var_os("FINGERPOST_TEST_NO_SKIP").is_none(),
                "install redis-server or valkey-server"
            );
            eprintln!("skipped: neither redis-server nor valkey-server is installed");
            return None;
        };
        // The port is free for a moment, until the engine opens it.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let flags: Vec<_> = flags.iter().map(ToString::to_string).collect();
        let child = spawn(program, port, &flags);
        let engine = Self { program, port, flags, child };
        engine.wait_until_open();
        Some(engine)
    }

    /// The value of `--register` and `--backends`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Carries out a command without arguments in quotes, and returns the answer.
    #[track_caller]
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        let client = redis::Client::open(self.url()).unwrap();
        command.arg(&words[1..]).query(&mut client.get_connection().unwrap()).unwrap()
    }

    /// The keys of registered servers.
    pub fn servers(&self) -> Vec<String> {
        self.command(&["KEYS", "{fingerpost}:1:server:*"])
    }

    /// `kill -9`. All data is lost.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the killed engine again on its port, empty.
    pub fn restart(&mut self) {
        self.child = spawn(self.program, self.port, &self.flags);
        self.wait_until_open();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait_until_open(&self) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        wait_until("the engine to accept connections", || std::net::TcpStream::connect(address).is_ok());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &str, port: u16, flags: &[String]) -> Child {
    let port = port.to_string();
    let always = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
    Command::new(program).args(always).args(flags).stdout(Stdio::null()).spawn().unwrap()
}
