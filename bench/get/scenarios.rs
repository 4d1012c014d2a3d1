//! The scenarios: servers, faults, and the figure that is measured.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::clients::{Client, LIMIT, Measured, end_within, fingerpost, measure};
use super::misbehaving::{FileServer, Framing, Script, content};

const MEGA: u64 = 1_000_000;
const SIZE: usize = 64 << 20;
const LARGE: usize = 1 << 30;
const SMALL_FILES: usize = 10_000;

/// The file of most scenarios.
static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| content(SIZE));

pub struct Scenario {
    pub name: &'static str,
    pub description: &'static str,
    pub run: fn(Client, &Path) -> Measured,
}

impl Scenario {
    pub fn all() -> Vec<Self> {
        let scenario = |name, description, run| Self { name, description, run };
        vec![
            scenario(
                "large",
                "1 GiB from one `fingerpost server` on loopback, which promises its SHA-256.",
                (|client, folder| large(client, folder, &LARGE_SERVER, "memory")) as fn(Client, &Path) -> _,
            ),
            scenario(
                "large-unpromised",
                "The same from a server that promises no digest, as most do.",
                |client, folder| large(client, folder, &LARGE_UNPROMISED, "off"),
            ),
            scenario("small", "10 000 files of 1 KiB from one `fingerpost server`, 16 at a time.", small),
            scenario(
                "fast-and-slow",
                "64 MiB, servers of 20 and 2 MB/s (ideal 3.05 s); aria2 is given both.",
                |client, folder| mirrored(client, folder, &[20 * MEGA, 2 * MEGA], &[]),
            ),
            scenario(
                "slow-first",
                "The same, but the 301 leads to the slow one, the fast one is in its Link.",
                |client, folder| redirected(client, folder, vec![paced(2 * MEGA), paced(20 * MEGA)], |_| {}),
            ),
            scenario(
                "four",
                "64 MiB, four servers of 20 MB/s (ideal 0.84 s); aria2 is given all.",
                |client, folder| mirrored(client, folder, &[20 * MEGA; 4], &[]),
            ),
            scenario("killed", "64 MiB, three servers of 20 MB/s; the first is killed at a third.", killed),
            scenario(
                "hangs",
                "64 MiB; the first server takes the request and says nothing.",
                |client, folder| {
                    redirected(client, folder, vec![Script::of(&FILE).hangs(), Script::of(&FILE)], |_| {})
                },
            ),
            scenario(
                "stalls",
                "64 MiB; the first server sends a head and nothing more.",
                |client, folder| {
                    redirected(
                        client,
                        folder,
                        vec![Script::of(&FILE).stalls_after_head(), Script::of(&FILE)],
                        |_| {},
                    )
                },
            ),
            scenario("closes", "64 MiB; the server closes at 20 MB of every answer.", |client, folder| {
                redirected(client, folder, vec![Script::of(&FILE).closes_at(20_000_000)], |_| {})
            }),
            scenario("resets", "64 MiB; the server resets at 20 MB of every answer.", |client, folder| {
                redirected(client, folder, vec![Script::of(&FILE).resets_at(20_000_000)], |_| {})
            }),
            scenario(
                "short-chunks",
                "64 MiB in chunks; the server closes at 20 MB of every answer.",
                |client, folder| {
                    redirected(
                        client,
                        folder,
                        vec![Script::of(&FILE).framing(Framing::Chunked).closes_at(20_000_000)],
                        |_| {},
                    )
                },
            ),
            scenario(
                "corrupt",
                "64 MiB; the first server has one wrong byte, the 301 gives the digest.",
                corrupt,
            ),
            scenario(
                "changed",
                "64 MiB; a first run breaks off at half, then the server has another file of this size.",
                changed,
            ),
        ]
    }
}

fn paced(rate: u64) -> Script {
    Script::of(&FILE).bytes_per_second(rate)
}

fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(index).unwrap())
}

fn start(scripts: Vec<Script>) -> Vec<FileServer> {
    scripts.into_iter().enumerate().map(|(index, script)| script.start_at(address(index))).collect()
}

/// A balancer that redirects to the first server and names all servers in its `Link` header.
fn balancer(servers: &[FileServer], headers: &[String]) -> FileServer {
    let links: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(index, server)| format!("<{}>; rel=duplicate; pri={}", server.url("/f"), index + 1))
        .collect();
    let link = format!("Link: {}", links.join(", "));
    let all: Vec<&str> = std::iter::once(&link).chain(headers).map(String::as_str).collect();
    Script::redirect(&servers[0].url("/f"), &all).start()
}

fn finish(client: (Measured, Option<i32>), folder: &Path, expected: &[u8], fetched: usize) -> Measured {
    let (mut measured, code) = client;
    measured.fetched = fetched;
    let is_right = std::fs::read(folder.join("f")).is_ok_and(|bytes| bytes == expected);
    measured.outcome = match (code, is_right) {
        (Some(0), true) => "right".to_owned(),
        (Some(0), false) => "WRONG, exit 0".to_owned(),
        (Some(code), _) => format!("exit {code}"),
        (None, _) => "ended after 20 s".to_owned(),
    };
    measured
}

fn sent(servers: &[FileServer]) -> usize {
    servers.iter().map(FileServer::sent).sum()
}

/// Servers with these rates. aria2 gets the addresses of all servers, the other clients that of the balancer.
fn mirrored(client: Client, folder: &Path, rates: &[u64], headers: &[String]) -> Measured {
    let servers = start(rates.iter().map(|rate| paced(*rate)).collect());
    let balancer = balancer(&servers, headers);
    let command = if matches!(client, Client::Aria2 | Client::Aria2Tuned) {
        let others: Vec<String> = servers[1..].iter().map(|server| server.url("/f")).collect();
        client.one(&servers[0].url("/f"), &others)
    } else {
        client.one(&balancer.url("/f"), &[])
    };
    let measured = measure(command, folder);
    finish(measured, folder, &FILE, sent(&servers))
}

/// Every client gets only the address of the balancer.
fn redirected(client: Client, folder: &Path, scripts: Vec<Script>, meanwhile: fn(&[FileServer])) -> Measured {
    let servers = Arc::new(start(scripts));
    let balancer = balancer(&servers, &[]);
    let watched = Arc::clone(&servers);
    let watching = thread::spawn(move || meanwhile(&watched));
    let measured = measure(client.one(&balancer.url("/f"), &[]), folder);
    watching.join().unwrap();
    finish(measured, folder, &FILE, sent(&servers))
}

fn killed(client: Client, folder: &Path) -> Measured {
    redirected(client, folder, vec![paced(20 * MEGA); 3], |servers| {
        let started = Instant::now();
        let is_early = || servers[0].sent() < SIZE / 3 && servers[1].sent() + servers[2].sent() < SIZE / 2;
        while is_early() && started.elapsed() < LIMIT {
            thread::sleep(Duration::from_millis(2));
        }
        servers[0].kill();
    })
}

fn corrupt(client: Client, folder: &Path) -> Measured {
    use base64::Engine as _;
    let servers = start(vec![Script::of(&FILE).corrupts(SIZE / 2), Script::of(&FILE)]);
    let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&*FILE));
    let balancer = balancer(&servers, &[format!("Digest: SHA-256={digest}")]);
    let measured = measure(client.one(&balancer.url("/f"), &[]), folder);
    finish(measured, folder, &FILE, sent(&servers))
}

fn changed(client: Client, folder: &Path) -> Measured {
    let mut other = FILE.clone();
    other.reverse();
    let server = Script::of(&FILE).stalls_at(SIZE / 2).start_at(address(0));
    let mut first = client.one(&server.url("/f"), &[]);
    let mut child = first.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while server.sent() < SIZE / 2 && started.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(2));
    }
    // Gives the sent bytes time to reach the disk, then interrupts the client as Ctrl-C does.
    thread::sleep(Duration::from_millis(500));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    // wget2 does not end at the interrupt.
    end_within(&mut child, Duration::from_secs(2));
    server.becomes(Script::of(&other));
    let before = server.sent();
    let measured = measure(client.one(&server.url("/f"), &[]), folder);
    finish(measured, folder, &other, server.sent() - before)
}

/// A `fingerpost server`, which runs until [`clean_up`].
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(root: &Path, digests: &str) -> Self {
        let mut child = Command::new(fingerpost())
            .args(["server", "--host", "127.0.0.1", "--digests", digests, "--root"])
            .arg(root)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Will wait for client connections at port ")?.parse().ok())
            .unwrap();
        Self { child, port }
    }

    /// Digests are computed in the background.
    fn wait_for_digest(url: &str) {
        let started = Instant::now();
        let has_one = || {
            let curl = Command::new("curl").args(["-sI", "-H", "Want-Repr-Digest: sha-256=10", url]).output();
            String::from_utf8_lossy(&curl.unwrap().stdout).to_ascii_lowercase().contains("repr-digest")
        };
        while !has_one() && started.elapsed() < LIMIT {
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Ends the file servers and removes their folders.
pub fn clean_up() {
    for (root, server) in
        [LARGE_SERVER.get(), LARGE_UNPROMISED.get(), SMALL_SERVER.get()].into_iter().flatten()
    {
        let pid = rustix::process::Pid::from_child(&server.child);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        std::fs::remove_dir_all(root.path()).unwrap();
    }
}

/// A folder and its server; created at the first use.
type Served = OnceLock<(tempfile::TempDir, Server)>;

static LARGE_SERVER: Served = OnceLock::new();
static LARGE_UNPROMISED: Served = OnceLock::new();

fn large(client: Client, folder: &Path, place: &Served, digests: &str) -> Measured {
    let (root, server) = place.get_or_init(|| {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(root.path().join("f"), content(LARGE)).unwrap();
        let server = Server::start(root.path(), digests);
        (root, server)
    });
    let url = format!("http://127.0.0.1:{}/f", server.port);
    if digests != "off" {
        Server::wait_for_digest(&url);
    }
    let (mut measured, code) = measure(client.one(&url, &[]), folder);
    let same = Command::new("cmp").arg(root.path().join("f")).arg(folder.join("f")).status().unwrap();
    measured.outcome =
        if code == Some(0) && same.success() { "right".to_owned() } else { format!("{code:?}") };
    measured.fetched = LARGE;
    measured
}

static SMALL_SERVER: Served = OnceLock::new();

fn small(client: Client, folder: &Path) -> Measured {
    let (_, server) = SMALL_SERVER.get_or_init(|| {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let bytes = content(1024);
        for index in 0..SMALL_FILES {
            std::fs::write(root.path().join(format!("n{index}")), &bytes).unwrap();
        }
        let server = Server::start(root.path(), "memory");
        (root, server)
    });
    let urls: Vec<String> =
        (0..SMALL_FILES).map(|index| format!("http://127.0.0.1:{}/n{index}", server.port)).collect();
    std::fs::write(folder.join("list"), urls.join("\n")).unwrap();
    let curl: Vec<String> = urls.iter().map(|url| format!("url = \"{url}\"\nremote-name")).collect();
    std::fs::write(folder.join("curl-list"), curl.join("\n")).unwrap();
    let (mut measured, code) = measure(client.many(), folder);
    let complete = (0..SMALL_FILES)
        .filter(|index| folder.join(format!("n{index}")).metadata().is_ok_and(|data| data.len() == 1024))
        .count();
    measured.outcome =
        format!("{:.0} files/s, {complete} complete, exit {code:?}", complete as f64 / measured.seconds);
    measured.fetched = complete * 1024;
    measured
}
