//! Other programs: whether they are installed, and nginx as a mirror.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use tempfile::TempDir;

use super::wait_until;

/// The path of an installed program. A user's `PATH` often lacks the folders of servers.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Whether all of these programs are installed. A missing one is reported; `FINGERPOST_TEST_NO_SKIP` forbids this.
pub fn are_installed(programs: &[&str]) -> bool {
    let missing: Vec<&&str> = programs.iter().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("FINGERPOST_TEST_NO_SKIP").is_none(), "install {missing:?}");
    eprintln!("skipped: not installed: {missing:?}");
    false
}

/// Runs a command to its end, which must be successful.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
    output
}

/// A running nginx. Dropping it kills it.
pub struct Nginx {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

impl Nginx {
    /// Serves the files of a folder, at an own address of the loopback interface.
    pub fn serve(root: &Path) -> Self {
        Self::start(root, "")
    }

    /// Redirects each request to another server, except for the files of probes.
    pub fn redirect(root: &Path, target: &str) -> Self {
        Self::start(
            root,
            &format!("location / {{ return 302 {target}$request_uri; }} location /files/ {{ }}"),
        )
    }

    fn start(root: &Path, locations: &str) -> Self {
        static HOSTS: AtomicU8 = AtomicU8::new(2);
        let folder = tempfile::tempdir().unwrap();
        // Clients such as aria2 limit the connections to each host, whatever the port.
        let host = Ipv4Addr::new(127, 0, 0, HOSTS.fetch_add(1, Ordering::Relaxed).max(2));
        // The port is free for a moment, until nginx opens it.
        let address = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap();
        let (own, root) = (folder.path().display(), root.display());
        let configuration = format!(
            "daemon off; master_process off; pid {own}/pid; error_log stderr crit; events {{ }}
             http {{
                 access_log {own}/log; keepalive_requests 1000000;
                 client_body_temp_path {own}/1; proxy_temp_path {own}/2; fastcgi_temp_path {own}/3;
                 uwsgi_temp_path {own}/4; scgi_temp_path {own}/5;
                 server {{ listen {address}; root {root}; {locations} }}
             }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let child = Command::new(find("nginx").unwrap()).arg("-c").arg(file).spawn().unwrap();
        let nginx = Self { child, folder, address };
        wait_until("nginx to accept connections", || TcpStream::connect(address).is_ok());
        nginx
    }

    /// Its host and port.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// The bytes of each answer to a GET of a path.
    fn answers(&self, path: &str) -> Vec<usize> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        let request = format!("\"GET {path} HTTP/1.1\" ");
        let answers = log.lines().filter_map(|line| line.split_once(&request));
        answers.map(|(_, answer)| answer.split(' ').nth(1).unwrap().parse().unwrap()).collect()
    }

    /// The number of answers to requests for a path.
    pub fn count(&self, path: &str) -> usize {
        self.answers(path).len()
    }

    /// The bytes of all answers to requests for a path.
    pub fn sent(&self, path: &str) -> usize {
        self.answers(path).iter().sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
