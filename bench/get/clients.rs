//! The download programs under comparison.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The time after which an unfinished client is ended.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Clock ticks per second in `/proc/self/stat`; the interface of the kernel fixes it to 100.
const TICKS_PER_SECOND: f64 = 100.0;

/// A program with its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    Fingerpost,
    /// With `--no-sync`: like the other programs, it does not wait for the disk.
    FingerpostNoSync,
    Curl,
    Wget,
    Wget2,
    Aria2,
    Aria2Tuned,
}

/// Another build of fingerpost, which replaces the one of this bench.
pub static PROGRAM: OnceLock<String> = OnceLock::new();

/// The build of fingerpost that downloads and serves.
pub fn fingerpost() -> &'static str {
    PROGRAM.get().map_or(env!("CARGO_BIN_EXE_fingerpost"), String::as_str)
}

/// The result of one download.
#[derive(Debug, Clone)]
pub struct Measured {
    pub seconds: f64,
    pub processor_seconds: f64,
    /// Bytes that the servers sent.
    pub fetched: usize,
    pub outcome: String,
}

impl Client {
    pub fn all() -> Vec<Self> {
        vec![
            Self::Fingerpost,
            Self::FingerpostNoSync,
            Self::Curl,
            Self::Wget,
            Self::Wget2,
            Self::Aria2,
            Self::Aria2Tuned,
        ]
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Fingerpost => "fingerpost get",
            Self::FingerpostNoSync => "fingerpost get --no-sync",
            Self::Curl => "curl",
            Self::Wget => "wget",
            Self::Wget2 => "wget2",
            Self::Aria2 => "aria2c",
            Self::Aria2Tuned => "aria2c -x4 -s4 -k1M",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Fingerpost | Self::FingerpostNoSync => fingerpost(),
            Self::Curl => "curl",
            Self::Wget => "wget",
            Self::Wget2 => "wget2",
            Self::Aria2 | Self::Aria2Tuned => "aria2c",
        }
    }

    pub fn is_installed(self) -> bool {
        let found = Command::new(self.program()).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !found {
            println!("{} is not installed and left out", self.name());
        }
        found
    }

    /// Downloads one file to `f`. `mirrors` are other addresses of the file, for programs that accept several.
    pub fn one(self, url: &str, mirrors: &[String]) -> Command {
        let mut command = Command::new(self.program());
        match self {
            Self::Fingerpost => command.args(["get", "-s", "-o", "f", url]),
            Self::FingerpostNoSync => command.args(["get", "-s", "--no-sync", "-o", "f", url]),
            Self::Curl => command.args(["-sSfL", "--retry", "3", "-C", "-", "-o", "f", url]),
            Self::Wget | Self::Wget2 => command.args(["-q", "-c", "-O", "f", url]),
            Self::Aria2 => command.args(["-q", "--file-allocation=none", "-c", "-o", "f", url]).args(mirrors),
            Self::Aria2Tuned => command
                .args(["-q", "--file-allocation=none", "-x4", "-s4", "-k1M", "-c", "-o", "f", url])
                .args(mirrors),
        };
        command
    }

    /// Downloads every address in the file `list`, 16 at a time if the program can.
    pub fn many(self) -> Command {
        let mut command = Command::new(self.program());
        match self {
            Self::Fingerpost => command.args(["get", "-s", "-i", "list", "-j", "16"]),
            Self::FingerpostNoSync => command.args(["get", "-s", "--no-sync", "-i", "list", "-j", "16"]),
            Self::Curl => command.args(["-sS", "-Z", "--parallel-max", "16", "-K", "curl-list"]),
            Self::Wget => command.args(["-q", "-i", "list"]),
            Self::Wget2 => command.args(["-q", "--max-threads=16", "-i", "list"]),
            Self::Aria2 | Self::Aria2Tuned => {
                command.args(["-q", "--file-allocation=none", "-j", "16", "-i", "list"])
            }
        };
        command
    }
}

/// Runs a command until it ends, or until the time limit.
pub fn measure(mut command: Command, folder: &Path) -> (Measured, Option<i32>) {
    let before = children_seconds();
    let started = Instant::now();
    let mut child = command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let code = end_within(&mut child, LIMIT);
    let seconds = started.elapsed().as_secs_f64();
    let processor_seconds = children_seconds() - before;
    (Measured { seconds, processor_seconds, fetched: 0, outcome: String::new() }, code)
}

/// Waits until a client ends. After the time limit, the client is ended and has no exit code.
pub fn end_within(child: &mut Child, limit: Duration) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if started.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Processor time of all children that ended, in seconds.
fn children_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Fields 16 and 17 of the whole line; the first two are cut off.
    fields[13..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS_PER_SECOND
}
