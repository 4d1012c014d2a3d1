//! The choice of a server by the size of the download.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::support::fleet::Balancer;
use super::support::program::Program;
use super::support::wait_until;

const LARGE: u64 = 200_000_000;
const MEDIUM: u64 = 3_000_000;
const SMALL: u64 = 100_000;

/// Four equal servers of 20 MB/s, and a balancer that probes every 5 s.
struct Mirrors {
    _root: TempDir,
    _servers: Vec<Program>,
    balancer: Balancer,
}

impl Mirrors {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        for (name, size) in [("large", LARGE), ("medium", MEDIUM), ("small", SMALL)] {
            File::create(root.path().join(name)).unwrap().set_len(size).unwrap();
        }
        std::fs::create_dir(root.path().join("files")).unwrap();
        std::fs::write(root.path().join("files/plshelp.txt"), "probe").unwrap();
        let servers: Vec<_> = (0..4).map(|_| server(root.path())).collect();
        let lines: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        let keys = [("PROBE_INTERVAL", "5s"), ("SECOND_CHANCE", "false")];
        let balancer = Balancer::start_with_keys(&lines.join("\n"), &keys);
        for line in &lines {
            balancer.wait_for_state(line, "up");
        }
        Self { _root: root, _servers: servers, balancer }
    }

    /// Waits until the balancer knows the size of each file and the rate of each server.
    fn learn(&self) {
        for target in ["/large", "/medium", "/small", "/large", "/medium", "/small"] {
            assert_eq!(self.balancer.get(target).status, 301);
        }
        wait_until("the sizes to be known", || {
            self.balancer.metric("fingerpost_size_lookups_total{outcome=\"learned\"}") == Some(3.0)
        });
        let downloads: Vec<_> = (0..8).map(|_| self.download("/medium").1).collect();
        for download in downloads {
            download.join().unwrap();
        }
        wait_until("the rates to be known", || {
            let expected = |backend: &serde_json::Value| backend["expected_seconds"].as_f64().unwrap();
            self.balancer.backends().iter().all(|backend| (0.05..0.4).contains(&expected(backend)))
        });
    }

    /// The chosen server, and the running download, which returns its duration.
    fn download(&self, target: &'static str) -> (String, JoinHandle<Duration>) {
        let location = self.balancer.get(target).location().to_owned();
        let authority = location["http://".len()..].split('/').next().unwrap().to_owned();
        let server = authority.clone();
        let download = thread::spawn(move || {
            let start = Instant::now();
            let mut stream = TcpStream::connect(&server).unwrap();
            let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
            // A test that ends early stops the servers.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            start.elapsed()
        });
        (authority, download)
    }
}

fn server(root: &Path) -> Program {
    let root = root.to_str().unwrap();
    Program::start([
        "server",
        "--host",
        "127.0.0.1",
        "--workers",
        "1",
        "--limit-rate",
        "10MB",
        "--root",
        root,
    ])
}

#[test]
fn small_downloads_avoid_a_server_that_sends_a_large_file() {
    let mirrors = Mirrors::start();
    mirrors.learn();
    let (busy, large) = mirrors.download("/large");
    let mut to_busy = 0;
    let mut running = Vec::new();
    // On a slow machine, the large download may end before the last small one begins.
    while running.len() < 200 && !large.is_finished() {
        let (server, download) = mirrors.download("/small");
        to_busy += usize::from(server == busy);
        running.push(download);
        // The clients arrive within a probe interval.
        thread::sleep(Duration::from_millis(15));
    }
    let count = running.len();
    let slowest = running.into_iter().map(|download| download.join().unwrap()).max().unwrap();
    assert!(count >= 50, "only {count} small downloads began during the large one");
    assert!(to_busy * 100 < count * 8, "{to_busy} of {count} small downloads were sent to the busy server");
    assert!(slowest < Duration::from_secs(5), "a small download took {slowest:?}");
}
