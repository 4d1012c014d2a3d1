//! A balancer with a state folder, for the commands of operators.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::http;
use super::misbehaving::{FileServer, Script};
use super::program::{Program, fingerpost};
use super::wait_until;

/// A balancer with a state folder and two servers, which can be killed and started again.
pub struct Operated {
    /// Has the list, the state, and the empty configuration `own.toml`.
    pub folder: tempfile::TempDir,
    /// The servers, in the zones eu and us.
    pub peers: [FileServer; 2],
    /// The flags; the second is the probe interval.
    pub flags: Vec<String>,
    /// The balancer.
    pub program: Program,
}

impl Operated {
    /// Starts both servers and the balancer with these flags.
    pub fn start(flags: &[&str]) -> Self {
        let balancer = Self::start_with([Script::prompt(), Script::prompt()], flags);
        balancer.wait_until_up();
        balancer
    }

    /// The same with other servers. Does not wait for them.
    pub fn start_with(scripts: [Script; 2], flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let peers = scripts.map(Script::start);
        let list = format!("{} zone=eu\n{} zone=us\n", peers[0].authority(), peers[1].authority());
        std::fs::write(folder.path().join("list"), list).unwrap();
        std::fs::write(folder.path().join("own.toml"), "").unwrap();
        let flags =
            ["--probe-interval", "200ms"].iter().chain(flags).map(ToString::to_string).collect::<Vec<_>>();
        let program = run(folder.path(), &flags);
        Self { folder, peers, flags, program }
    }

    /// Waits until both servers are up.
    pub fn wait_until_up(&self) {
        wait_until("both servers to be up", || {
            self.backends().iter().all(|backend| backend["state"] == "up")
        });
    }

    /// Starts the balancer again.
    pub fn restart(&mut self) {
        self.program = run(self.folder.path(), &self.flags);
    }

    /// The admin address.
    pub fn admin(&self) -> SocketAddr {
        self.program.admin_address()
    }

    /// The authority of a server.
    pub fn name(&self, peer: usize) -> String {
        self.peers[peer].authority()
    }

    /// The path of a state file.
    pub fn state(&self, file: &str) -> PathBuf {
        self.folder.path().join("state").join(file)
    }

    /// The status report.
    pub fn report(&self) -> serde_json::Value {
        serde_json::from_slice(&http::get(self.admin(), "/api/v1/backends").body).unwrap()
    }

    /// The backends of the status report.
    pub fn backends(&self) -> Vec<serde_json::Value> {
        self.report()["backends"].as_array().unwrap().clone()
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = http::get(self.admin(), "/metrics").text();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.parse().ok()
    }

    /// Runs a command of `fingerpost` for this balancer.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let admin = format!("http://{}/", self.admin());
        fingerpost().args(arguments).env("FINGERPOST_ADMIN", admin).output().unwrap()
    }

    /// The same, which must succeed; returns standard output.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The authorities of the redirects of 40 requests.
    pub fn targets(&self) -> Vec<String> {
        let mut connection = http::Connection::open(self.program.address()).unwrap();
        let mut targets: Vec<_> = (0..40)
            .map(|_| connection.get("/plshelp.txt").unwrap().location().split('/').nth(2).unwrap().to_owned())
            .collect();
        targets.sort();
        targets.dedup();
        targets
    }
}

fn run(folder: &Path, flags: &[String]) -> Program {
    let mut command = fingerpost();
    command.args(["balancer", "--host", "127.0.0.1", "--workers", "1"]);
    command.args(["--servers", "list", "--state", "state"]).args(flags).current_dir(folder);
    let program = Program::spawn(&mut command);
    program.port();
    program
}
