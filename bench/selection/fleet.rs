//! Starts file servers with a limited rate, and a balancer in front of them.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The program that was built with this bench.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fingerpost");

/// The processes. They are killed on drop.
pub(crate) struct Fleet {
    processes: Vec<Child>,
    balancer: u16,
}

impl Fleet {
    /// Starts a server for each rate in bytes per second, and the balancer of `program`, which probes every second.
    pub(crate) fn start(program: &Path, root: &Path, rates: &[u64], policy: &str) -> io::Result<Self> {
        let mut fleet = Self { processes: Vec::new(), balancer: 0 };
        let mut list = Vec::new();
        for rate in rates {
            let (root, rate) = (root.to_string_lossy(), rate.to_string());
            let arguments =
                ["server", "--host", "127.0.0.1", "--workers", "1", "--root", &root, "--limit-rate"];
            let port = fleet.spawn(Path::new(PROGRAM), &[&arguments[..], &[&rate]].concat())?;
            list.push(format!("127.0.0.1:{port}"));
        }
        let path = root.join("servers.txt");
        fs::write(&path, list.join("\n"))?;
        let path = path.to_string_lossy();
        let arguments = [
            "balancer",
            "--host",
            "127.0.0.1",
            "--servers",
            &path,
            "--policy",
            policy,
            "--probe-interval",
            "1s",
        ];
        fleet.balancer = fleet.spawn(program, &arguments)?;
        Ok(fleet)
    }

    /// The balancer's port.
    pub(crate) fn balancer(&self) -> u16 {
        self.balancer
    }

    /// Starts the program, waits for its ready line, and returns the port.
    fn spawn(&mut self, program: &Path, arguments: &[&str]) -> io::Result<u16> {
        let mut child = Command::new(program)
            .args(arguments)
            // All clients share one address, so the balancer would treat them as retries of one client.
            .env("FINGERPOST__BALANCER__SECOND_CHANCE", "false")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take();
        self.processes.push(child);
        let mut reader = BufReader::new(stdout.ok_or_else(|| io::Error::other("no standard output"))?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            let port = line.strip_prefix("Will wait for client connections at port ");
            if let Some(port) = port.and_then(|port| port.trim_end().parse().ok()) {
                std::thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
                return Ok(port);
            }
            line.clear();
        }
        Err(io::Error::other(format!("{arguments:?} ended before it was ready")))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
