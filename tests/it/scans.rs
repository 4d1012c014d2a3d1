//! Scans: the listing of a server decides which files it gets clients for.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::mirrors::{Mirror, Network, sums};
use super::openapi;
use super::support::misbehaving::Script;
use super::support::program::fingerpost;
use super::support::{http, wait_until};

impl Network {
    /// The entry of a mirror in `fingerpost mirrors --json`.
    fn status(&self, mirror: &str) -> Value {
        let report: Value = serde_json::from_str(&self.command(&["mirrors", "--json"])).unwrap();
        let mirrors = report["mirrors"].as_array().unwrap();
        let name = format!("http://{mirror}");
        mirrors.iter().find(|entry| entry["mirror"] == name.as_str()).unwrap().clone()
    }

    /// The output of a command for this balancer.
    fn command(&self, words: &[&str]) -> String {
        let admin = self.balancer.admin_address().to_string();
        let output = fingerpost().args(words).args(["--admin", &admin]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn wait_for_coverage(&self, mirror: &Mirror, percent: f64) {
        wait_until(&format!("a scan that finds {percent} %"), || {
            let status = self.status(&mirror.authority);
            status["scan"]["scanned_at"].is_string() && status["coverage_percent"] == percent
        });
    }

    fn wait_for_error(&self, mirror: &Mirror, part: &str) {
        wait_until(&format!("the error {part}"), || {
            let status = self.status(&mirror.authority);
            status["scan"]["error"].as_str().is_some_and(|error| error.contains(part))
        });
    }
}

fn scanned(mirror: &Mirror, attributes: &str) -> String {
    format!("{0} scan=http://{0}/ {attributes}", mirror.authority)
}

const FILES: [(&str, &str); 4] = [
    ("pool/a b&c.deb", "one"),
    ("pool/100%.deb", "two"),
    ("pool/sub/\u{fc}.deb", "three"),
    ("release", "four"),
];

/// The catalogue of [`FILES`] with sizes.
fn with_sizes() -> String {
    let files = FILES.map(|(path, content)| serde_json::json!({"path": path, "size": content.len()}));
    serde_json::to_string(&files).unwrap()
}

#[test]
fn clients_are_sent_only_to_servers_whose_listing_has_the_file() {
    let mirrors: Vec<Mirror> = (0..3).map(|_| Mirror::start(&FILES)).collect();
    let [full, partial, hostile] = &mirrors[..] else { unreachable!() };
    partial.remove("pool/sub/\u{fc}.deb");
    partial.write("pool/100%.deb", "too long");
    let chunk = format!("10000\r\n{}\r\n", "<a href=x>x</a>\n".repeat(4096));
    let endless = Script::prompt().sends_forever("Transfer-Encoding: chunked", chunk.as_bytes()).start();
    let lines =
        [scanned(full, ""), scanned(partial, ""), format!("{} scan={}", hostile.authority, endless.url("/"))];
    let network = Network::start_random(&lines, &with_sizes());
    network.wait_for_coverage(full, 100.0);
    network.wait_for_coverage(partial, 50.0);
    network.wait_for_error(hostile, "the page has more than 16 MiB");

    let all =
        |holders: &[&Mirror]| holders.iter().map(|mirror| mirror.authority.clone()).collect::<BTreeSet<_>>();
    assert_eq!(network.targets("/pool/sub/%C3%BC.deb", 50), all(&[full, hostile]));
    assert_eq!(network.targets("/pool/100%25.deb", 50), all(&[full, hostile]));
    wait_until("a redirect for a listed file", || {
        network.targets("/pool/a%20b&c.deb", 10).contains(&partial.authority)
    });
    assert_eq!(network.balancer.metric("fingerpost_missing_redirects_total"), Some(0.0));

    let (has_file, reason) = network.has_file(partial, "/pool/sub/%C3%BC.deb");
    assert_eq!(has_file, "no");
    assert!(reason.starts_with("the scan of 2") && reason.ends_with(" did not list it"), "{reason}");
    wait_until("the check of the other size", || {
        network.has_file(partial, "/pool/100%25.deb").1 == "its file has 8 bytes instead of 3"
    });
    let (has_file, reason) = network.has_file(full, "/release");
    assert!(has_file == "yes" && reason.ends_with(" listed it"), "{reason}");
    assert_eq!(network.has_file(hostile, "/release").0, "unproven");

    let status = network.status(&partial.authority);
    assert_eq!((status["files"].as_u64(), status["lacking_files"].as_u64()), (Some(2), Some(2)));
    let get = |path: &str| {
        let answer = http::get(network.balancer.admin_address(), path);
        serde_json::from_slice::<Value>(&answer.body).unwrap()
    };
    openapi::check_answer(&get("/api/v1/openapi.json"), "/api/v1/mirrors", &get("/api/v1/mirrors"));
    let table = network.command(&["mirrors"]);
    assert!(table.contains("50.0 %") && table.contains("the page has more than 16 MiB"), "{table}");
    let series = format!("{{backend=\"http://{}\",outcome=\"used\"}}", partial.authority);
    assert!(network.balancer.metric(&format!("fingerpost_scans_total{series}")) >= Some(1.0));

    // The files return with a later scan.
    partial.write("pool/sub/\u{fc}.deb", "three");
    partial.write("pool/100%.deb", "two");
    network.wait_for_coverage(partial, 100.0);
    wait_until("the scan", || network.has_file(partial, "/pool/sub/%C3%BC.deb").0 == "yes");
}

#[test]
fn a_listing_that_disagrees_with_its_server_is_not_used() {
    let names: Vec<String> = (0..20).map(|number| format!("pool/{number}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "content")).collect();
    let [liar, empty, unmounted] = [Mirror::start(&[]), Mirror::start(&[]), Mirror::start(&files)];
    let lines = [
        // The listing of a server that has all files.
        format!("{} scan=http://{}/", liar.authority, unmounted.authority),
        scanned(&empty, ""),
        // The listing of a server without files.
        format!("{} scan=http://{}/", unmounted.authority, empty.authority),
    ];
    let network = Network::start(&lines, &sums(&files));
    network.wait_for_error(&liar, "the listing and the server disagree about 4 of 4 files");
    network.wait_for_error(&unmounted, "the listing and the server disagree");
    network.wait_for_coverage(&empty, 0.0);
    assert!(!network.targets("/pool/7", 50).contains(&empty.authority));
    assert_eq!(network.status(&unmounted.authority)["coverage_percent"], 100.0);
    let series = format!("{{backend=\"http://{}\",outcome=\"refused\"}}", liar.authority);
    assert!(network.balancer.metric(&format!("fingerpost_scans_total{series}")) >= Some(1.0));
}

#[test]
fn files_that_are_newer_than_the_scan_wait_for_the_next_one() {
    let old = [("a", "same"), ("b", "old"), ("release", "1")];
    let new = [("a", "same"), ("b", "new"), ("c", "added"), ("release", "2")];
    let [slow, quick] = [Mirror::start(&old), Mirror::start(&old)];
    slow.remove("a");
    let redirected = Script::redirect("http://127.0.0.1:1/", &[]).start();
    let lines = [scanned(&slow, ""), scanned(&quick, "proof=release")];
    let network = Network::start(&lines, &sums(&old));
    wait_until("the scans", || {
        network.has_file(&slow, "/a").0 == "no" && network.has_file(&quick, "/a").0 == "yes"
    });
    // The scans end.
    network.balancer.replace_list(
        &[format!("{} scan={}", slow.authority, redirected.url("/")), lines[1].clone()].join("\n"),
    );
    network.wait_for_error(&slow, "a redirect to another place, http://127.0.0.1:1/");

    // Another address is other evidence, so the server has each file again until a scan succeeds.
    assert_eq!(network.has_file(&slow, "/a").0, "unproven");
    network.balancer.replace_list(&lines.join("\n"));
    wait_until("the scan", || network.has_file(&slow, "/a").0 == "no");
    network.replace_catalogue(&sums(&new));
    network.wait_for_generation(2.0);
    for mirror in [&slow, &quick] {
        assert_eq!(network.has_file(mirror, "/c").0, "no");
    }
    for (path, content) in new {
        quick.write(path, content);
    }
    wait_until("the proof and the next scan", || {
        network.has_file(&quick, "/c").0 == "yes"
            && network.has_file(&slow, "/c").1.ends_with("did not list it")
    });
    assert_eq!(network.targets("/c", 20), BTreeSet::from([quick.authority.clone()]));
}

#[test]
fn the_result_of_a_scan_survives_a_kill() {
    let [full, partial] = [Mirror::start(&FILES), Mirror::start(&FILES)];
    partial.remove("release");
    let lines = [scanned(&full, ""), scanned(&partial, "")];
    let network = Network::start(&lines, &with_sizes());
    network.wait_for_coverage(&full, 100.0);
    network.wait_for_coverage(&partial, 75.0);
    // A new catalogue is written at once, with the evidence.
    let mut catalogue: Vec<Value> = serde_json::from_str(&with_sizes()).unwrap();
    catalogue.push(serde_json::json!({"path": "newest"}));
    let catalogue = serde_json::to_string(&catalogue).unwrap();
    network.replace_catalogue(&catalogue);
    network.wait_for_generation(2.0);
    let file = network.folder.path().join("catalogue.bin");
    wait_until("the write", || {
        std::fs::read(&file).is_ok_and(|bytes| bytes.windows(7).any(|part| part == b"/newest"))
    });
    let Network { mut balancer, folder } = network;
    balancer.program_mut().kill();
    drop(balancer);
    // The listings do not answer any more, and the order of the list is another one.
    let hangs = Script::prompt().hangs().start();
    let lines = [&partial, &full].map(|mirror| format!("{} scan={}", mirror.authority, hangs.url("/")));
    let network = Network::start_in(folder, &lines, &catalogue);
    assert_eq!(network.has_file(&partial, "/release").0, "no");
    assert_eq!(network.targets("/release", 20), BTreeSet::from([full.authority.clone()]));
    let (has_file, reason) = network.has_file(&full, "/newest");
    assert!(has_file == "no" && reason.contains("the scan of"), "{reason}");
}

#[test]
fn an_operator_requests_a_scan() {
    let [mirror, other] = [Mirror::start(&FILES), Mirror::start(&FILES)];
    let network = Network::start(&[scanned(&mirror, ""), other.authority.clone()], &with_sizes());
    network.wait_for_coverage(&mirror, 100.0);
    let output = network.command(&["scan", &mirror.authority, "--now"]);
    assert!(output.starts_with(&format!("http://{}: ", mirror.authority)), "{output}");
    network.balancer.program().wait_for_stderr("a scan is requested");
    for (name, status) in [(&other.authority, 409), (&"none:1".to_owned(), 404)] {
        let request = format!(
            "POST /api/v1/backends/{name}/scan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: 2\r\n\r\n{{}}"
        );
        assert_eq!(http::request(network.balancer.admin_address(), request).status, status, "{name}");
    }
    // A form of a web page cannot request it.
    let request = format!(
        "POST /api/v1/backends/{}/scan HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}",
        mirror.authority
    );
    assert_eq!(http::request(network.balancer.admin_address(), request).status, 415);
}

/// A daemon of rsync for the folder of a mirror.
struct RsyncDaemon(Child);

impl RsyncDaemon {
    /// `None` if rsync is not installed, which is reported; `FINGERPOST_TEST_NO_SKIP` forbids this.
    fn start(mirror: &Mirror, port: u16) -> Option<Self> {
        let configuration = mirror.root.path().join("rsyncd.conf");
        let path = mirror.root.path().display();
        std::fs::write(
            &configuration,
            format!("use chroot = no\nuid = root\ngid = root\n[files]\npath = {path}\n"),
        )
        .unwrap();
        let daemon = Command::new("rsync")
            .args(["--daemon", "--no-detach", "--address=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--config={}", configuration.display()))
            .stdin(Stdio::null())
            .spawn();
        if daemon.is_err() {
            assert!(std::env::var_os("FINGERPOST_TEST_NO_SKIP").is_none(), "install rsync");
            eprintln!("skipped: rsync is not installed");
        }
        daemon.ok().map(Self)
    }
}

impl Drop for RsyncDaemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_listing_of_rsync_is_a_scan() {
    let [full, partial] = [Mirror::start(&FILES), Mirror::start(&FILES)];
    partial.remove("pool/a b&c.deb");
    std::os::unix::fs::symlink("pool", partial.root.path().join("link")).unwrap();
    // The port is free for a moment, until the daemon opens it.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let Some(_daemon) = RsyncDaemon::start(&partial, port) else { return };
    let lines =
        [full.authority.clone(), format!("{} scan=rsync://127.0.0.1:{port}/files/", partial.authority)];
    let network = Network::start(&lines, &with_sizes());
    network.wait_for_coverage(&partial, 75.0);
    assert_eq!(network.targets("/pool/a%20b&c.deb", 30), BTreeSet::from([full.authority.clone()]));
    assert_eq!(network.has_file(&partial, "/pool/sub/%C3%BC.deb").0, "yes");

    let lines = [lines[0].clone(), format!("{} scan=rsync://127.0.0.1:{port}/none/", partial.authority)];
    network.balancer.replace_list(&lines.join("\n"));
    network.wait_for_error(&partial, "rsync failed (exit status: 5): @ERROR: Unknown module 'none'");

    // The child ends with the program, although the server never answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("rsync://{}/files/", silent.local_addr().unwrap());
    network
        .balancer
        .replace_list(&[lines[0].clone(), format!("{} scan={url}", partial.authority)].join("\n"));
    let runs = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .any(|line| line.starts_with(b"rsync") && String::from_utf8_lossy(&line).contains(&url))
    };
    wait_until("the child", runs);
    let Network { mut balancer, .. } = network;
    balancer.program().signal(rustix::process::Signal::TERM);
    balancer.program_mut().wait();
    wait_until("the end of the child", || !runs());
}
