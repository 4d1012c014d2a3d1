//! Sources of backends beside the list: HTTP and DNS. `registration.rs` has the engine.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::support::dns::{A, Dns, Reply, SRV};
use super::support::misbehaving::{FileServer, Script};
use super::support::program::{Program, fingerpost};
use super::support::{http, wait_until};

/// A balancer without a list. Its sources are read every 50 ms, and absent servers are held for this time.
const HOLD: Duration = Duration::from_secs(1);

struct Balancer(Program);

impl Balancer {
    fn start(flags: &[&str], dns_server: &str) -> Self {
        let mut command = fingerpost();
        command
            .args(["balancer", "--host", "127.0.0.1", "--workers", "1", "--probe-interval", "200ms"])
            .args(flags);
        command.env("FINGERPOST__BALANCER__BACKENDS_INTERVAL", "50ms");
        command.env("FINGERPOST__BALANCER__BACKENDS_HOLD", humantime::format_duration(HOLD).to_string());
        command.env("FINGERPOST__BALANCER__DNS_SERVER", dns_server);
        let program = Program::spawn(&mut command);
        program.port();
        Self(program)
    }

    fn report(&self) -> Value {
        let answer = http::get(self.0.admin_address(), "/api/v1/backends");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The servers with their attributes and sources.
    fn servers(&self) -> Vec<String> {
        let list = |value: &Value| {
            value
                .as_array()
                .unwrap()
                .iter()
                .map(|text| text.as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let line = |backend: &Value| {
            let address = backend["address"].as_str().unwrap().trim_start_matches("http://");
            format!("{address} {} {} {}", backend["weight"], backend["tier"], list(&backend["sources"]))
        };
        self.report()["backends"].as_array().unwrap().iter().map(line).collect()
    }

    #[track_caller]
    fn wait_for(&self, servers: &[String]) {
        wait_until(&format!("{servers:?}"), || self.servers() == servers);
    }

    /// Waits until a source has this many more failures, and returns its error.
    #[track_caller]
    fn wait_for_failures(&self, more: u64) -> String {
        let of = |source: &Value| source["failures"].as_u64().unwrap();
        let before = of(&self.report()["sources"][0]);
        wait_until("failures of the source", || of(&self.report()["sources"][0]) >= before + more);
        self.report()["sources"][0]["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// An HTTP server that sends one scripted answer to every request.
struct Shelf {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Shelf {
    fn start(answer: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, requests) = (Arc::new(Mutex::new(answer.into())), Arc::<Mutex<Vec<String>>>::default());
        let (sent, seen) = (Arc::clone(&answer), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).unwrap_or(0);
                let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let answer = sent.lock().unwrap().clone();
                let tag = String::from_utf8_lossy(&answer)
                    .lines()
                    .find_map(|line| line.strip_prefix("ETag: ").map(str::to_owned));
                let is_known = tag.is_some_and(|tag| request.contains(&tag));
                seen.lock().unwrap().push(request);
                let _ = if is_known {
                    stream.write_all(b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n")
                } else {
                    stream.write_all(&answer)
                };
            }
        });
        Self { address, answer, requests }
    }

    fn set(&self, answer: impl Into<Vec<u8>>) {
        *self.answer.lock().unwrap() = answer.into();
    }

    fn url(&self) -> String {
        format!("http://{}/sd", self.address)
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn the_sources_are_merged_and_each_server_shows_its_sources() {
    let peers: Vec<FileServer> = (0..3).map(|_| Script::prompt().start()).collect();
    let port = |peer: usize| peers[peer].address().port();
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    std::fs::write(&list, format!("127.0.0.1:{} weight=7\n", port(0))).unwrap();
    let shelf = Shelf::start(ok(&format!(
        r#"[{{"targets": ["127.0.0.1:{}", "127.0.0.1:{}"], "labels": {{"__weight": "3"}}}}]"#,
        port(0),
        port(1)
    )));
    let dns = Dns::start();
    dns.set(A, Reply::addresses(&[Ipv4Addr::LOCALHOST]));
    let name = format!("dns://mirrors.example:{}", port(2));
    let (list, url) = (format!("file:{}", list.display()), shelf.url());
    let balancer =
        Balancer::start(&["--backends", &list, "--backends", &url, "--backends", &name], &dns.address());
    balancer.wait_for(&[
        format!("127.0.0.1:{} 7 0 {list} {url}", port(0)),
        format!("127.0.0.1:{} 3 0 {url}", port(1)),
        format!("127.0.0.1:{} 1 0 {name}", port(2)),
    ]);
    let sources = balancer.report()["sources"].clone();
    assert_eq!(sources[1]["name"], url.as_str());
    assert_eq!((&sources[1]["backends"], &sources[1]["failures"]), (&2.into(), &0.into()));
    assert!(
        sources[0]["answer_age_seconds"].is_null()
            && sources[2]["answer_age_seconds"].as_f64().unwrap() < 10.0
    );

    let admin = balancer.0.admin_address().to_string();
    let status = fingerpost().args(["status", "--admin", &admin]).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(status.contains(&format!("source: {name}, servers: 1, answered")), "{status}");
    assert!(status.contains(&format!("; from {list}, {url}\n")), "{status}");
    let page = http::get(balancer.0.admin_address(), "/").text();
    assert!(page.contains(&format!("<small>from {name}</small>")), "{page}");
    let metrics = http::get(balancer.0.admin_address(), "/metrics").text();
    for (name, value) in
        [("source_backends", "2"), ("source_failures_total", "0"), ("source_records_skipped", "0")]
    {
        assert!(metrics.contains(&format!("\nfingerpost_{name}{{source=\"{url}\"}} {value}\n")), "{metrics}");
    }
    assert!(
        metrics.contains(&format!("\nfingerpost_source_answer_age_seconds{{source=\"{name}\"}} 0.")),
        "{metrics}"
    );
}

#[test]
fn an_unusable_answer_over_http_keeps_the_last_list() {
    let peer = Script::prompt().start();
    let two = format!("{} weight=2\n127.0.0.2:1\n", peer.authority());
    let shelf = Shelf::start(ok(&two).replace("\r\n\r\n", "\r\nETag: \"one\"\r\n\r\n"));
    let url = shelf.url();
    let balancer = Balancer::start(&["--backends", &url], "");
    let both = [format!("{} 2 0 {url}", peer.authority()), format!("127.0.0.2:1 1 0 {url}")];
    balancer.wait_for(&both);
    // The list is not sent again.
    wait_until("a request with the tag", || {
        shelf.requests.lock().unwrap().iter().any(|request| request.contains("If-None-Match: \"one\"\r\n"))
    });
    for (answer, reason) in [
        ("HTTP/1.1 500 Oops\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(), "status 500"),
        ("HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned(), ""),
        (
            ok(&two).replace("200 OK\r\n", "200 OK\r\nX-Other: 1\r\n").replace("Length: ", "Length: 9"),
            "ended",
        ),
        (ok(""), "no servers"),
        (ok("[]"), "no servers"),
        (ok("<html>\n"), "neither a list"),
        (ok("[{\"targets\": [\"127.0.0.1:1\""), "neither a list"),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 99999999\r\n\r\n".to_owned()
                + &"127.0.0.1:1\n".repeat(1_500_000),
            "16 MiB",
        ),
        ("SSH-2.0-OpenSSH_9\r\n".to_owned(), ""),
        (String::new(), ""),
    ] {
        let shown: String = answer.chars().take(99).collect();
        shelf.set(answer);
        if shown.contains("304") {
            continue;
        }
        let error = balancer.wait_for_failures(2);
        assert!(error.contains(reason), "{error:?} for {shown:?}");
        assert_eq!(balancer.servers(), both, "{shown:?}");
    }
    balancer.0.wait_for_stderr("its last good answer stays active");
    // A complete list removes a server at once.
    shelf.set(ok("127.0.0.2:1\nnonsense\n"));
    balancer.wait_for(&[format!("127.0.0.2:1 1 0 {url}")]);
    balancer.0.wait_for_stderr("the source of servers is usable again");
    assert_eq!(balancer.report()["sources"][0]["skipped"], 1);
}

#[test]
fn an_unusable_answer_of_dns_keeps_the_servers_and_an_absent_one_leaves_after_the_hold_time() {
    let dns = Dns::start();
    let name = "dns://mirrors.example:8080";
    let (one, two) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    dns.set(A, Reply::addresses(&[two, one]));
    let balancer = Balancer::start(&["--backends", name], &dns.address());
    let line = |address: Ipv4Addr| format!("{address}:8080 1 0 {name}");
    balancer.wait_for(&[line(one), line(two)]);
    let truncated = Reply { is_truncated: true, ..Reply::addresses(&[one]) };
    for reply in [Reply::error(2), Reply::error(5), Reply::default(), truncated] {
        dns.set(A, reply);
        balancer.wait_for_failures(2);
        // Longer than the hold time.
        thread::sleep(HOLD * 2);
        assert_eq!(balancer.servers(), [line(one), line(two)]);
    }
    dns.set(A, Reply { is_silent: true, ..Reply::default() });
    balancer.wait_for_failures(1);
    assert_eq!(balancer.servers(), [line(one), line(two)]);
    // Another address is used at once, and the absent one leaves after the hold time.
    let three = Ipv4Addr::new(127, 0, 0, 3);
    dns.set(A, Reply::addresses(&[one, three]));
    balancer.wait_for(&[line(one), line(two), line(three)]);
    balancer.wait_for(&[line(one), line(three)]);
    // The name does not exist any more.
    dns.set(A, Reply::error(3));
    dns.set(28, Reply::error(3));
    balancer.wait_for(&[]);
}

#[test]
fn the_services_of_a_name_have_a_tier_and_a_weight() {
    let dns = Dns::start();
    dns.set(
        SRV,
        Reply::services(&[(1, 20, 8081, "b.example"), (0, 10, 8080, "a.example"), (0, 0, 0, "c.example")]),
    );
    let name = "dns+srv://_http._tcp.mirrors.example";
    let balancer = Balancer::start(&["--backends", name], &dns.address());
    balancer.wait_for(&[format!("a.example:8080 10 0 {name}"), format!("b.example:8081 20 1 {name}")]);
    assert_eq!(balancer.report()["sources"][0]["skipped"], 1);
}

#[test]
fn a_balancer_starts_without_an_answer_of_its_sources_and_uses_the_first_one() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let dns = Dns::start();
    dns.set(A, Reply::error(2));
    let peer = Script::prompt().start();
    let name = format!("dns://mirrors.example:{}", peer.address().port());
    let balancer = Balancer::start(&["--backends", &url, "--backends", &name], &dns.address());
    assert_eq!(http::get(balancer.0.address(), "/plshelp.txt").status, 503);
    dns.set(A, Reply::addresses(&[Ipv4Addr::LOCALHOST]));
    wait_until("a redirect", || http::get(balancer.0.address(), "/plshelp.txt").status == 301);
}

#[test]
fn a_restart_without_answers_uses_the_last_good_ones_of_the_state_folder() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Script::prompt().start();
    let shelf = Shelf::start(ok(&format!("{} weight=2\n", peer.authority())));
    let dns = Dns::start();
    dns.set(A, Reply::addresses(&[Ipv4Addr::new(127, 0, 0, 2)]));
    let (url, name) = (shelf.url(), "dns://mirrors.example:8080");
    let state = folder.path().to_str().unwrap();
    let start =
        || Balancer::start(&["--backends", &url, "--backends", name, "--state", state], &dns.address());
    let both = [format!("{} 2 0 {url}", peer.authority()), format!("127.0.0.2:8080 1 0 {name}")];
    let mut balancer = start();
    balancer.wait_for(&both);
    balancer.0.signal(rustix::process::Signal::TERM);
    assert!(balancer.0.wait().success());

    let unavailable = "HTTP/1.1 503 Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    shelf.set(unavailable);
    dns.set(A, Reply::error(2));
    let balancer = start();
    assert_eq!(balancer.servers(), both);
    assert_eq!(http::get(balancer.0.address(), "/plshelp.txt").status, 301);
    balancer.0.wait_for_stderr("the servers of its last good answer in the state folder are used");
    // The first answer replaces them.
    shelf.set(ok("127.0.0.3:1\n"));
    dns.set(A, Reply::addresses(&[Ipv4Addr::new(127, 0, 0, 4)]));
    balancer.wait_for(&[format!("127.0.0.3:1 1 0 {url}"), format!("127.0.0.4:8080 1 0 {name}")]);
}

#[test]
fn an_invalid_source_is_an_error_that_names_a_valid_one_and_no_secret() {
    for (source, reason) in [
        ("mirrors.txt", "file:PATH"),
        ("dns://mirrors.example", "such as dns://mirrors.example:8080"),
        ("redis://user:hush@h", "fleet.password_file"),
        ("redis://user:hush@h:x", "redis://host:6379"),
        ("file:/no/such/list", "cannot read the list of servers /no/such/list"),
    ] {
        let output = fingerpost().args(["balancer", "--backends", source]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(reason) && !stderr.contains("hush"), "{stderr}");
    }
}
