//! The real program in a separate process.

use std::ffi::OsStr;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::{DEADLINE, wait_for};

/// The ready line of a server and a balancer; the port follows.
pub const READY: &str = "Will wait for client connections at port ";
/// The ready line of the admin listener of a balancer; the URL follows.
pub const ADMIN_READY: &str = "Admin interface at ";

/// A running `fingerpost`. Dropping it kills it.
pub struct Program {
    child: Child,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
}

/// A command that runs `fingerpost` without settings from the environment of the tests.
pub fn fingerpost() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fingerpost"));
    command.env("RUST_BACKTRACE", "0");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FINGERPOST") {
            command.env_remove(name);
        }
    }
    command
}

impl Program {
    /// Starts `fingerpost` with these arguments in the current folder of the tests.
    pub fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::spawn(fingerpost().args(arguments))
    }

    /// Starts `fingerpost` with these arguments in another folder.
    pub fn start_in<A: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = A>) -> Self {
        Self::spawn(fingerpost().args(arguments).current_dir(folder))
    }

    /// Starts any command and collects its output.
    pub fn spawn(command: &mut Command) -> Self {
        Self::spawn_as_it_is(command.stdin(Stdio::null()).stderr(Stdio::piped()))
    }

    /// The same, with standard input and standard error as set in the command.
    pub fn spawn_as_it_is(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Output::collect(child.stdout.take().unwrap());
        let stderr = match child.stderr.take() {
            Some(stderr) => Output::collect(stderr),
            None => Output::collect(std::io::empty()),
        };
        Self { child, stdout, stderr }
    }

    /// Waits for the ready line, and returns its port.
    pub fn port(&self) -> u16 {
        self.stdout_after(READY).parse().unwrap()
    }

    /// Waits for the ready line, and returns its address on the loopback interface.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port()))
    }

    /// Waits for the address of a balancer's admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        let url = self.stdout_after(ADMIN_READY);
        let authority = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
        authority.and_then(|authority| authority.parse().ok()).unwrap_or_else(|| panic!("{url:?} is no URL"))
    }

    /// Waits for the first line of standard output that starts with `prefix`, and returns the rest of the line.
    pub fn stdout_after(&self, prefix: &str) -> String {
        self.stdout_lines_after(prefix, 1).remove(0)
    }

    /// Waits for the first `count` lines of standard output that start with `prefix`, and returns the rest of each.
    pub fn stdout_lines_after(&self, prefix: &str, count: usize) -> Vec<String> {
        let found = self.stdout.wait(|text| {
            // Only complete lines count.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let found: Vec<_> = whole.lines().filter_map(|line| line.strip_prefix(prefix)).collect();
            (found.len() >= count).then(|| found[..count].iter().map(ToString::to_string).collect())
        });
        found.unwrap_or_else(|| {
            let (stdout, stderr) = (self.stdout(), self.stderr());
            panic!("no {count} lines {prefix:?} on standard output\nstdout:\n{stdout}\nstderr:\n{stderr}")
        })
    }

    /// Waits until standard error contains `words`, for instance a log line.
    pub fn wait_for_stderr(&self, words: &str) {
        let found = self.stderr.wait(|text| text.contains(words).then_some(()));
        assert!(found.is_some(), "no {words:?} on standard error:\n{}", self.stderr());
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until the process ends. A process that took over may still write to its output.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait_for("the program to end", || self.child.try_wait().unwrap())
    }

    /// Waits until the process ends without a signal from the test, and its output is complete.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for("the program to end", || self.child.try_wait().unwrap());
        self.stdout.wait_closed();
        self.stderr.wait_closed();
        status
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- standard error of process {}:\n{}", self.pid(), self.stderr());
        }
    }
}

/// An output stream of a program, collected by a thread so that the program never blocks on a full pipe.
struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Default)]
struct OutputState {
    bytes: Vec<u8>,
    is_closed: bool,
}

impl Output {
    fn collect(mut stream: impl Read + Send + 'static) -> Arc<Self> {
        let output = Arc::new(Self { state: Mutex::default(), changed: Condvar::new() });
        let filled = Arc::clone(&output);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                let mut state = filled.state.lock().unwrap();
                state.bytes.extend_from_slice(&buffer[..read]);
                state.is_closed = read == 0;
                filled.changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        output
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.state.lock().unwrap().bytes).into_owned()
    }

    /// Waits until `find` returns a value for the text so far. `None` at the deadline or at the end of the stream.
    fn wait<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut found = None;
        let state = self.state.lock().unwrap();
        let _ = self.changed.wait_timeout_while(state, DEADLINE, |state| {
            found = find(&String::from_utf8_lossy(&state.bytes));
            found.is_none() && !state.is_closed
        });
        found
    }

    fn wait_closed(&self) {
        let state = self.state.lock().unwrap();
        let _ = self.changed.wait_timeout_while(state, DEADLINE, |state| !state.is_closed);
    }
}
