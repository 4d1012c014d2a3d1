//! The balancer under test, and its backends.

use std::fs;
use std::io;
use std::path::Path;

use super::process::{self, Process, text};
use super::{LOAD_CORE, SERVER_CORE};

/// The answer of a backend to a probe.
const PROBE_ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// A balancer that knows all of its backends, on the processor of the measured server.
pub struct Balancer {
    /// The process.
    pub process: Process,
    /// The address of the redirects.
    pub port: u16,
    /// The address of the admin interface.
    pub admin: u16,
}

impl Balancer {
    /// Starts a balancer of the servers in this list, with its defaults except for `flags`.
    pub fn start(list: &Path, flags: &[&str]) -> io::Result<Self> {
        Self::start_program(env!("CARGO_BIN_EXE_fingerpost"), list, flags)
    }

    /// The same with another build of fingerpost.
    pub fn start_program(program: &str, list: &Path, flags: &[&str]) -> io::Result<Self> {
        let balancer = Self::launch_program(program, list, flags)?;
        process::first_answer(balancer.admin, "/readyz")?;
        Ok(balancer)
    }

    /// The same without waiting until the backends are known.
    pub fn launch(list: &Path, flags: &[&str]) -> io::Result<Self> {
        Self::launch_program(env!("CARGO_BIN_EXE_fingerpost"), list, flags)
    }

    fn launch_program(program: &str, list: &Path, flags: &[&str]) -> io::Result<Self> {
        let admin = process::free_port()?;
        let address = format!("127.0.0.1:{admin}");
        let arguments = [
            "balancer",
            "--host",
            "127.0.0.1",
            "--log-level",
            "error",
            "--admin",
            &address,
            "--servers",
            text(list),
        ];
        let (process, port) = Process::start_ready(
            SERVER_CORE,
            program,
            &[&arguments[..], flags].concat(),
            "Will wait for client connections at port ",
        )?;
        Ok(Self { process, port, admin })
    }
}

/// Starts a process that answers every probe on every address of 127.0.0.0/8. Returns the process and its port.
pub fn backend(folder: &Path) -> io::Result<(Process, u16)> {
    let answer = folder.join("probe-answer");
    fs::write(&answer, PROBE_ANSWER)?;
    process::canned_server(LOAD_CORE, &answer)
}

/// An address of 127.0.0.0/8 for each number.
pub fn authority(number: usize, port: u16) -> String {
    format!("127.1.{}.{}:{port}", number / 200, number % 200 + 1)
}

/// A list of this number of backends at one port, each with its own address.
pub fn list(backends: usize, port: u16) -> String {
    let lines = (0..backends).map(|number| authority(number, port));
    lines.collect::<Vec<_>>().join("\n")
}
