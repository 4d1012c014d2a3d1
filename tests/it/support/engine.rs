//! A real engine, Redis or Valkey, on a free port.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::wait_until;

/// A running engine that stores its data only on command. Dropping it kills it.
pub struct Engine {
    program: &'static str,
    port: u16,
    password: String,
    flags: Vec<String>,
    folder: TempDir,
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
        let folder = tempfile::tempdir().unwrap();
        let child = spawn(program, port, &folder, &flags);
        let engine = Self { program, port, password: String::new(), flags, folder, child };
        engine.wait_until_open();
        Some(engine)
    }

    /// Starts a Sentinel with these lines in its configuration.
    pub fn start_sentinel(lines: &str) -> Self {
        let mut engine = Self::start(&[]).unwrap();
        engine.kill();
        let path = engine.folder.path().join("sentinel.conf");
        std::fs::write(&path, format!("port {}\nbind 127.0.0.1\n{lines}", engine.port)).unwrap();
        let mut command = Command::new(engine.program);
        engine.child = command.arg(path).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        engine.wait_until_open();
        engine
    }

    /// The value of `--register` and `--backends`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Carries out a command without arguments in quotes, and returns the answer.
    #[track_caller]
    pub fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).unwrap()
    }

    /// The same for an engine that may end the connection.
    pub fn try_command<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut self.connection())
    }

    fn connection(&self) -> redis::Connection {
        let password = match &*self.password {
            "" => String::new(),
            password => format!(":{password}@"),
        };
        let url = format!("redis://{password}127.0.0.1:{}", self.port);
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    /// Changes the password, and ends all connections. Without a password, anyone can connect.
    pub fn change_password(&mut self, password: &str) {
        let mut connection = self.connection();
        // The same connection stays authorized.
        redis::cmd("CONFIG").arg(&["SET", "requirepass", password]).exec(&mut connection).unwrap();
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).exec(&mut connection).unwrap();
        password.clone_into(&mut self.password);
    }

    /// The keys of registered servers.
    pub fn servers(&self) -> Vec<String> {
        self.command(&["KEYS", "{fingerpost}:1:server:*"])
    }

    /// `kill -9`. All data is lost that was not stored with `SAVE`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the killed engine again on its port, empty.
    pub fn restart(&mut self) {
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        self.restart_with_stored_data();
    }

    /// Starts the killed engine again on its port, with the data of the latest `SAVE`.
    pub fn restart_with_stored_data(&mut self) {
        self.child = spawn(self.program, self.port, &self.folder, &self.flags);
        self.wait_until_open();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait_until_open(&self) {
        let client = redis::Client::open(self.url()).unwrap();
        wait_until("the engine to accept commands", || {
            client
                .get_connection()
                .and_then(|mut connection| redis::cmd("PING").exec(&mut connection))
                .is_ok()
        });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &str, port: u16, folder: &TempDir, flags: &[String]) -> Child {
    let port = port.to_string();
    let always = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir"];
    let mut command = Command::new(program);
    command.args(always).arg(folder.path()).args(flags).stdout(Stdio::null()).spawn().unwrap()
}
