//! A process on its own processor, and its cost so far.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::canned;

/// Clock ticks per second in `/proc/PID/stat`; the interface of the kernel fixes it to 100.
const TICKS_PER_SECOND: f64 = 100.0;
/// The time limit for the start of a server.
const START_TRIES: u32 = 500;

/// A process that is killed on drop.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a program on one processor and discards its output.
    pub fn start(core: &str, program: &str, arguments: &[&str]) -> io::Result<Self> {
        let child = pinned(core, program, arguments).stdout(Stdio::null()).spawn()?;
        Ok(Self { child })
    }

    /// The same, and waits for a line of standard output that starts with `prefix` and ends with a port.
    pub fn start_ready(
        core: &str,
        program: &str,
        arguments: &[&str],
        prefix: &str,
    ) -> io::Result<(Self, u16)> {
        let mut child = pinned(core, program, arguments).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        let process = Self { child };
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            if let Some(port) = line.strip_prefix(prefix).and_then(|rest| rest.trim_end().parse().ok()) {
                thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
                return Ok((process, port));
            }
            line.clear();
        }
        Err(io::Error::other(format!("{program} ended without a line {prefix:?}")))
    }

    /// Processor time of all threads, including ended ones, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // The name of the program, in parentheses, may contain any characters.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<f64>().expect("a number of ticks");
        // User and system time are the fields 14 and 15; the state, field 3, is the first here.
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }

    /// The share of one processor that it uses during the given time.
    pub fn cpu_share_over(&self, window: Duration) -> f64 {
        let (before, start) = (self.cpu_seconds(), Instant::now());
        thread::sleep(window);
        (self.cpu_seconds() - before) / start.elapsed().as_secs_f64()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = self.proc("status");
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS in /proc/PID/status");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kibibytes * 1024
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("the process runs")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs on one processor and ends with this program. `setpriv` and `taskset` (util-linux) replace themselves
/// by the program, so the process id is that of the program.
fn pinned(core: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", core, program]).args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Whether a program can be found.
pub fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain([Path::new("/usr/sbin").to_owned()])
        .any(|folder| folder.join(program).is_file())
}

/// A port that was free a moment ago, for programs that cannot choose a free port themselves.
pub fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The bytes of one answer. Waits for the server to start, and for a status other than 503.
pub fn first_answer(port: u16, target: &str) -> io::Result<Vec<u8>> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..START_TRIES {
        match answer(port, target) {
            Ok(bytes) if !bytes.starts_with(b"HTTP/1.1 503") => return Ok(bytes),
            Ok(_) => {}
            Err(error) => last = error,
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(last)
}

/// The bytes of one answer that has a Content-Length.
fn answer(port: u16, target: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    let mut length = 0;
    while !answer.ends_with("\r\n\r\n") {
        let start = answer.len();
        if reader.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some((name, value)) = answer[start..].split_once(':')
            && name.eq_ignore_ascii_case("Content-Length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok([answer.into_bytes(), body].concat())
}

/// Starts this program as a server of canned answers. Returns the process and its port.
pub fn canned_server(core: &str, answer: &Path) -> io::Result<(Process, u16)> {
    let program = std::env::current_exe()?;
    Process::start_ready(core, text(&program), &[canned::WORD, text(answer)], "")
}

/// A path as an argument.
///
/// # Panics
/// If it is not UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
