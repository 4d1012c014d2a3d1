//! The file server from the view of a client.

use std::path::Path;

use tempfile::TempDir;

use crate::support::http::{self, Answer, Connection, Expect};
use crate::support::program::{Program, fingerpost};

mod answers;
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
mod shortage;
mod validators;
mod variants;

/// A running file server with its own folder.
pub struct Server {
    folder: TempDir,
    program: Program,
}

impl Server {
    /// Starts a server with an empty folder and one worker.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with additional flags.
    pub fn start_with(flags: &[&str]) -> Self {
        let server = Self::start_on(flags);
        server.program.port();
        server
    }

    /// Starts a server that sends files with sendfile, and one that reads them into memory.
    pub fn start_both() -> [Self; 2] {
        [Self::start(), Self::start_reading(&[])]
    }

    /// Starts a server without sendfile.
    pub fn start_reading(flags: &[&str]) -> Self {
        Self::launch(fingerpost().env("FINGERPOST__SERVER__SENDFILE", "false"), flags)
    }

    /// The same without default flags. The server may have no port.
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

    /// Puts a file into the served folder with a rename, as a careful operator does.
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

    /// Sends a GET with additional header lines on a new connection.
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

/// The bytes of a request with additional header lines.
pub fn request(method: &str, target: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
    format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{lines}\r\n")
}

/// Bytes without a repeated sequence, so that a misplaced byte is detected.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}
