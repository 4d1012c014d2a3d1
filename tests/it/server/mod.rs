//! The file server as a client meets it.

use std::path::Path;

use tempfile::TempDir;

use crate::support::http::{self, Answer, Connection, Expect};
use crate::support::program::{Program, fingerpost};

mod answers;
#[cfg(target_os = "linux")]
mod blocked_calls;
mod clients;
mod digests;
mod faults;
mod listing;
mod operation;
mod refusals;
mod requests;
mod root;
mod serving;
mod validators;
mod variants;

/// A running file server with a folder of its own.
pub struct Server {
    folder: TempDir,
    program: Program,
}

impl Server {
    /// Serves an empty folder on one worker.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with other flags.
    pub fn start_with(flags: &[&str]) -> Self {
        let server = Self::start_on(flags);
        server.program.port();
        server
    }

    /// One server that sends files with sendfile, and one that reads them.
    pub fn start_both() -> [Self; 2] {
        [Self::start(), Self::start_reading(&[])]
    }

    /// A server that has no sendfile.
    pub fn start_reading(flags: &[&str]) -> Self {
        Self::launch(fingerpost().env("FINGERPOST__SERVER__SENDFILE", "false"), flags)
    }

    /// The same on whatever the flags say; it may have no port.
    pub fn start_on(flags: &[&str]) -> Self {
        Self::launch(&mut fingerpost(), flags)
    }

    pub fn launch(command: &mut std::process::Command, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        command.args(["server", "--host", "127.0.0.1", "--workers", "1", "--root", root.to_str().unwrap()]);
        let program = Program::spawn(command.args(flags));
        program.stdout_after("Will wait for client connections at ");
        Self { folder, program }
    }

    /// The served folder.
    pub fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root")
    }

    /// A folder beside the served one.
    pub fn outside(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a file into the served folder, by a rename as a careful operator does.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let part = self.folder.path().join("part");
        std::fs::write(&part, bytes).unwrap();
        std::fs::rename(part, path).unwrap();
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    pub fn program_mut(&mut self) -> &mut Program {
        &mut self.program
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.program.address()).unwrap()
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        http::get(self.program.address(), target)
    }

    /// A GET with header lines of one's own, on a connection of its own.
    #[track_caller]
    pub fn get_with(&self, target: &str, lines: &[&str]) -> Answer {
        self.ask("GET", target, lines)
    }

    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, lines: &[&str]) -> Answer {
        let mut connection = self.connect();
        connection.send(request(method, target, lines)).unwrap();
        connection.answer(if method == "HEAD" { Expect::HeadOnly } else { Expect::Body }).unwrap()
    }
}

/// A request with header lines of one's own.
pub fn request(method: &str, target: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
    format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n")
}

/// Bytes that differ everywhere, so that a misplaced one is seen.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}
