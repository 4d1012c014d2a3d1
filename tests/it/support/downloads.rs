//! Runs `fingerpost get` in its own folder.

use std::path::Path;
use std::process::{Command, Output};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use super::program::{Program, fingerpost};

/// Flags that shorten all waits.
pub const QUICK: [&str; 8] =
    ["--head-after", "0.1", "--hedge-after", "0.2", "--drop-after", "2", "--retry-delay", "0.02"];

/// Flags with waits so long that a busy machine does not trigger a request to a second server.
pub const PATIENT: [&str; 8] =
    ["--head-after", "20", "--hedge-after", "20", "--drop-after", "25", "--retry-delay", "0.02"];

/// A random generator. The test prints its seed, with which a failure can be repeated.
pub fn chance() -> StdRng {
    const VARIABLE: &str = "FINGERPOST_TEST_SEED";
    let given = std::env::var(VARIABLE).ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| rand::rng().random());
    println!("repeat with {VARIABLE}={seed}");
    StdRng::seed_from_u64(seed)
}

/// A folder in which `fingerpost get` is run.
pub struct Downloads {
    folder: TempDir,
}

impl Downloads {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Runs `get` with these arguments until it ends.
    pub fn get(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(arguments).output().unwrap();
        Outcome { output }
    }

    /// The same with shorter waits: tenths of seconds instead of seconds.
    pub fn get_quickly(&self, arguments: &[&str]) -> Outcome {
        self.get(&[arguments, &QUICK].concat())
    }

    /// Starts `get` in the background.
    pub fn start(&self, arguments: &[&str]) -> Program {
        Program::spawn(&mut self.command(arguments))
    }

    /// The command that [`get`](Self::get) runs.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = fingerpost();
        command.arg("get").args(arguments).current_dir(self.folder.path());
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command
    }

    /// The names of all files in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).unwrap()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    output: Output,
}

impl Outcome {
    pub fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stdout_bytes(&self) -> &[u8] {
        &self.output.stdout
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    #[track_caller]
    pub fn ended_with(&self, code: i32) -> &Self {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        assert_eq!(self.code(), code, "stdout:\n{stdout}\nstderr:\n{stderr}");
        self
    }
}
