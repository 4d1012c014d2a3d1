//! Several file servers and a balancer for them, all real processes.
//!
//! ```ignore
//! let mut fleet = Fleet::start(3);
//! fleet.kill(1);
//! fleet.balancer().wait_for_state(&fleet.authority(1), "down");
//! assert_eq!(fleet.balancer().redirects(100).to(&fleet.authority(1)), 0);
//! ```

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::http::{self, Answer, Connection};
use super::program::{Program, fingerpost};
use super::{wait_for, wait_until};

/// Flags for frequent probes, which shorten a test.
pub const QUICK_PROBES: [&str; 2] = ["--probe-interval", "200ms"];

/// File servers 0, 1, 2 ... and a [`Balancer`] whose list contains them.
pub struct Fleet {
    servers: Vec<Server>,
    balancer: Balancer,
}

struct Server {
    port: u16,
    program: Program,
}

impl Fleet {
    /// Starts this many file servers and a balancer with frequent probes, and waits until every server is in use.
    pub fn start(servers: usize) -> Self {
        Self::start_with(servers, &QUICK_PROBES)
    }

    /// The same with additional flags for the balancer.
    pub fn start_with(servers: usize, balancer_flags: &[&str]) -> Self {
        let servers: Vec<_> = (0..servers).map(|_| Server::start(0)).collect();
        let lines: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        let balancer = Balancer::start_with(&lines.join("\n"), balancer_flags);
        for line in &lines {
            balancer.wait_for_state(line, "up");
        }
        Self { servers, balancer }
    }

    /// The balancer.
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// The authority of a server, as in the list and in a `Location`.
    pub fn authority(&self, server: usize) -> String {
        format!("127.0.0.1:{}", self.servers[server].port)
    }

    /// `kill -9`.
    pub fn kill(&mut self, server: usize) {
        self.servers[server].program.kill();
    }

    /// Sends a signal to a server.
    pub fn signal(&self, server: usize, signal: rustix::process::Signal) {
        self.servers[server].program.signal(signal);
    }

    /// Starts a killed server again on the same port.
    pub fn restart(&mut self, server: usize) {
        self.servers[server] = Server::start(self.servers[server].port);
    }
}

impl Server {
    fn start(port: u16) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("files");
        let port_flag = port.to_string();
        let program = Program::start([
            "server".as_ref(),
            "--host".as_ref(),
            "127.0.0.1".as_ref(),
            "--port".as_ref(),
            port_flag.as_ref(),
            "--workers".as_ref(),
            "1".as_ref(),
            "--root".as_ref(),
            root.as_os_str(),
        ]);
        Self { port: program.port(), program }
    }
}

/// A real balancer with its own list in its own folder.
pub struct Balancer {
    folder: TempDir,
    program: Program,
}

impl Balancer {
    /// Starts a balancer with this list and frequent probes. It may not be ready to redirect yet.
    pub fn start(list: &str) -> Self {
        Self::start_with(list, &QUICK_PROBES)
    }

    /// The same with additional flags.
    pub fn start_with(list: &str, flags: &[&str]) -> Self {
        Self::spawn(&mut fingerpost(), list, flags, &[])
    }

    /// The same with keys of `[balancer]`, in upper case, set by environment variables.
    pub fn start_with_keys(list: &str, keys: &[(&str, &str)]) -> Self {
        Self::spawn(&mut fingerpost(), list, &[], keys)
    }

    /// The same as [`Balancer::start`] by a command that executes its last arguments, or with other variables.
    pub fn start_by(command: &mut Command, list: &str) -> Self {
        Self::spawn(command, list, &QUICK_PROBES, &[])
    }

    fn spawn(command: &mut Command, list: &str, flags: &[&str], keys: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The balancer may run as another user.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("servers.txt");
        std::fs::write(&path, list).unwrap();
        let mut arguments = vec!["balancer", "--host", "127.0.0.1", "--workers", "1", "--servers"];
        arguments.push(path.to_str().unwrap());
        arguments.extend(flags);
        let variables = keys.iter().map(|(key, value)| (format!("FINGERPOST__BALANCER__{key}"), value));
        let program = Program::spawn(command.args(arguments).envs(variables));
        program.port();
        Self { folder, program }
    }

    /// The process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The process, mutable for a kill or a wait.
    pub fn program_mut(&mut self) -> &mut Program {
        &mut self.program
    }

    /// The listen address for clients.
    pub fn address(&self) -> SocketAddr {
        self.program.address()
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.program.admin_address()
    }

    /// The path of the list.
    pub fn list_path(&self) -> PathBuf {
        self.folder.path().join("servers.txt")
    }

    /// Sends one GET on a new connection.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        http::get(self.address(), target)
    }

    /// Sends `count` requests on one connection and counts the targets.
    ///
    /// # Panics
    /// If an answer is not a 301 to `http://`, an authority and the requested path.
    #[track_caller]
    pub fn redirects(&self, count: usize) -> Redirects {
        let mut connection = Connection::open(self.address()).unwrap();
        let mut redirects = Redirects::default();
        for _ in 0..count {
            redirects.add(&connection.get("/plshelp.txt").unwrap());
        }
        redirects
    }

    /// The state of a backend from the status API. `None` if the API does not list it.
    pub fn state(&self, authority: &str) -> Option<String> {
        let address = format!("http://{authority}");
        let own = self.backends().into_iter().find(|backend| backend["address"] == address)?;
        Some(own["state"].as_str().unwrap().to_owned())
    }

    /// Waits until the status API reports this state for a backend.
    #[track_caller]
    pub fn wait_for_state(&self, authority: &str, state: &str) {
        wait_until(&format!("{authority} to be {state}"), || self.state(authority).as_deref() == Some(state));
    }

    /// Replaces the list with a rename, as careful programs do.
    pub fn replace_list(&self, list: &str) {
        let new = self.folder.path().join("servers.new");
        std::fs::write(&new, list).unwrap();
        std::fs::rename(&new, self.list_path()).unwrap();
    }

    /// Waits until the status API lists exactly these backends.
    #[track_caller]
    pub fn wait_for_backends(&self, authorities: &[&str]) {
        wait_until(&format!("the list to be {authorities:?}"), || {
            let addresses: Vec<_> =
                authorities.iter().map(|authority| format!("http://{authority}")).collect();
            self.backends().iter().map(|backend| backend["address"].as_str().unwrap()).eq(&addresses)
        });
    }

    /// The backends as the status API reports them.
    pub fn backends(&self) -> Vec<serde_json::Value> {
        let answer = http::get(self.admin_address(), "/api/v1/backends");
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        json["backends"].as_array().unwrap().clone()
    }

    /// The value of a metric. The name includes the labels, as in `fingerpost_answers_total{status="301"}`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = http::get(self.admin_address(), "/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        Some(value.parse().unwrap())
    }

    /// Waits until an answer to `GET /plshelp.txt` has this status, and returns the answer.
    #[track_caller]
    pub fn wait_for_status(&self, status: u16) -> Answer {
        wait_for(&format!("status {status}"), || {
            Some(self.get("/plshelp.txt")).filter(|answer| answer.status == status)
        })
    }
}

/// The number of redirects to each authority.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Redirects(BTreeMap<String, usize>);

impl Redirects {
    /// Counts an answer to `GET /plshelp.txt`.
    #[track_caller]
    pub fn add(&mut self, answer: &Answer) {
        assert_eq!(answer.status, 301, "{answer:?}");
        let authority = answer
            .location()
            .strip_prefix("http://")
            .and_then(|rest| rest.strip_suffix("/plshelp.txt"))
            .unwrap_or_else(|| panic!("{answer:?}"));
        *self.0.entry(authority.to_owned()).or_default() += 1;
    }

    /// The number of redirects to this authority.
    pub fn to(&self, authority: &str) -> usize {
        self.0.get(authority).copied().unwrap_or(0)
    }

    /// All authorities with a redirect.
    pub fn authorities(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}
