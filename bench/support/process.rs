//! A process on a processor of its own, and what it has cost so far.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Clock ticks a second in `/proc/PID/stat`: fixed by the kernel's interface to 100 on every architecture of Rust's.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a server may take to start.
const START_TRIES: u32 = 500;

/// A process that is killed on drop.
pub struct Process {
    child: Child,
    /// The first line it printed, for a process started with [`Process::with_first_line`].
    pub first_line: String,
}

impl Process {
    /// Starts a program on one processor, its output thrown away.
    pub fn start(core: &str, program: &str, arguments: &[&str]) -> io::Result<Self> {
        let child = pinned(core, program, arguments).stdout(Stdio::null()).spawn()?;
        Ok(Self { child, first_line: String::new() })
    }

    /// The same, and reads the first line of standard output.
    pub fn with_first_line(core: &str, program: &str, arguments: &[&str]) -> io::Result<Self> {
        let mut process = Self {
            child: pinned(core, program, arguments).stdout(Stdio::piped()).spawn()?,
            first_line: String::new(),
        };
        if let Some(stdout) = process.child.stdout.take() {
            let mut reader = BufReader::new(stdout);
            reader.read_line(&mut process.first_line)?;
            thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        }
        Ok(process)
    }

    /// The number at the end of the first line.
    pub fn port(&self) -> u16 {
        let digits = self.first_line.trim_end().rsplit(|byte: char| !byte.is_ascii_digit()).next();
        digits
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("no port in {:?}", self.first_line))
    }

    /// Processor time of all its threads, past ones included, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // The name of the program, in parentheses, may hold anything.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<f64>().expect("a number of ticks");
        // User and system time are the fields 14 and 15; the state, field 3, is the first here.
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
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

/// A command that runs on one processor. `taskset` replaces itself by the program, so the process is the program's.
fn pinned(core: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]).args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Whether a program can be found.
pub fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain([Path::new("/usr/sbin").to_owned()])
        .any(|folder| folder.join(program).is_file())
}

/// A port that was free a moment ago, for programs that cannot ask for one themselves.
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

/// The bytes of an answer, to the end of the connection.
pub fn answer(port: u16, target: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    io::Write::write_all(
        &mut stream,
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}
