//! Statistics of downloads: which requests are counted, and that the counts survive restarts and damage.

use std::path::PathBuf;
use std::time::SystemTime;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::misbehaving::BODY;
use super::support::operated::Operated;
use super::support::{http, wait_until};

/// A balancer with a catalogue of three files and statistics of three days.
struct Counting {
    balancer: Operated,
    _catalogue: TempDir,
}

/// Requests of different clients. The tests connect from a trusted proxy.
fn request(method: &str, path: &str, client: u8, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.{client}\r\n{headers}\r\n")
}

fn date(age_in_days: u64) -> String {
    let time = SystemTime::now() - std::time::Duration::from_secs(86_400 * age_in_days);
    humantime::format_rfc3339_seconds(time).to_string()[..10].to_owned()
}

impl Counting {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |path: &str| json!({ "path": path, "size": BODY.len() });
        let catalogue = folder.path().join("catalogue.json");
        let files = json!([file("a/x y.iso"), file("a/z.iso"), file("b.iso")]);
        std::fs::write(&catalogue, files.to_string()).unwrap();
        let flags = ["--statistics-days", "3", "--catalogue", catalogue.to_str().unwrap()];
        Self { balancer: Operated::start(&flags), _catalogue: folder }
    }

    fn send(&self, request: &str) {
        let answer = http::request(self.balancer.program.address(), request);
        assert_eq!(answer.status, 301, "{answer:?}");
    }

    fn report(&self, query: &str) -> Value {
        let answer = http::get(self.balancer.admin(), &format!("/api/v1/stats{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Waits for the sum of all downloads: workers hand their downloads over once a second.
    fn wait_for(&self, downloads: u64) {
        wait_until("the downloads", || self.report("")["downloads"] == downloads);
    }

    fn rows(&self, query: &str) -> Vec<(String, u64, u64)> {
        let report = self.report(query);
        let rows = report["rows"].as_array().unwrap().iter();
        let number = |value: &Value| value.as_u64().unwrap();
        rows.map(|row| {
            (row["name"].as_str().unwrap().to_owned(), number(&row["downloads"]), number(&row["bytes"]))
        })
        .collect()
    }

    fn file(&self, date: &str) -> PathBuf {
        self.balancer.state(&format!("statistics-{date}.json"))
    }

    fn restart(&mut self) {
        self.balancer.program.signal(Signal::TERM);
        self.balancer.program.wait();
        self.balancer.restart();
        self.balancer.wait_until_up();
    }
}

#[test]
fn whole_files_and_the_first_part_of_a_download_are_counted() {
    let counting = Counting::start();
    let size = BODY.len() as u64;
    for (method, path, client, headers) in [
        ("GET", "/a/x%20y.iso", 1, ""),
        ("GET", "/files/a/x%20y.iso?query", 2, ""),
        ("GET", "/a/z.iso", 1, "Range: bytes=0-4\r\n"),
        ("GET", "/a/z.iso", 1, "Range: bytes=5-\r\n"),
        ("GET", "/a/z.iso", 2, "Range: bytes=5-\r\n"),
        ("GET", "/b.iso", 1, ""),
        ("GET", "/b.iso", 1, "Range: bytes=5-\r\nIf-Range: \"x\"\r\n"),
        ("HEAD", "/b.iso", 3, ""),
    ] {
        counting.send(&request(method, path, client, headers));
    }
    // These are not redirects of files.
    for path in ["/none", "/a/z.iso.meta4", "/a?mirrorlist"] {
        http::get(counting.balancer.program.address(), path);
    }
    counting.wait_for(5);
    let row = |name: &str, downloads| (name.to_owned(), downloads, downloads * size);
    assert_eq!(counting.rows(""), [row("/a/x y.iso", 2), row("/a/z.iso", 2), row("/b.iso", 1)]);
    assert_eq!(counting.rows("?by=directory"), [row("/a", 4), row("/", 1)]);
    assert_eq!(counting.rows("?by=day"), [row(&date(0), 5)]);
    let servers = counting.rows("?by=server");
    assert_eq!(servers.iter().map(|(_, downloads, _)| downloads).sum::<u64>(), 5);
    assert!(servers.iter().all(|(name, ..)| name.starts_with("http://127.0.0.1:")), "{servers:?}");
    assert_eq!(counting.balancer.metric("fingerpost_downloads_total"), Some(5.0));
    assert_eq!(counting.balancer.metric("fingerpost_download_bytes_total"), Some((5 * size) as f64));
    assert_eq!(counting.balancer.metric("fingerpost_downloads_dropped_total"), Some(0.0));

    let text = counting.balancer.succeed(&["stats"]);
    assert!(text.contains("5 downloads, 65 B\n") && text.contains("  /a/x y.iso\n"), "{text}");
    let csv = counting.balancer.succeed(&["stats", "--by", "directory", "--limit", "1", "--csv"]);
    assert_eq!(csv, "name,downloads,bytes\r\n\"/a\",4,52\r\n");
    let json = counting.balancer.succeed(&["stats", "--json", "--days", "2"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["from"], date(1));
    let page = || http::get(counting.balancer.admin(), "/").text();
    wait_until("the files on the page", || page().contains("<code>/a/x y.iso</code>"));
    assert!(page().contains("2 · 26 B · 40.0 %"), "{}", page());
}

#[test]
fn counts_survive_restarts_and_damage() {
    let mut counting = Counting::start();
    counting.send(&request("GET", "/b.iso", 1, ""));
    counting.wait_for(1);
    counting.send(&request("GET", "/b.iso", 2, ""));
    // The end of the balancer writes even the downloads that no worker has handed over.
    counting.restart();
    counting.wait_for(2);

    // Files of earlier days, of which the two latest are kept.
    let text = std::fs::read_to_string(counting.file(&date(0))).unwrap();
    for age in [1, 2, 3, 9] {
        let renamed = text.replace(&date(0), &date(age));
        std::fs::write(counting.file(&date(age)), renamed).unwrap();
    }
    counting.restart();
    counting.send(&request("GET", "/b.iso", 3, ""));
    counting.wait_for(3);
    assert_eq!(counting.rows("?days=3")[0].1, 7);
    assert_eq!(counting.report("?days=1000")["from"], date(2));
    let days: Vec<_> =
        counting.rows("?days=3&by=day").into_iter().map(|(day, count, _)| (day, count)).collect();
    assert_eq!(days, [(date(2), 2), (date(1), 2), (date(0), 3)]);
    let kept = [0, 1, 2, 3, 9].map(|age| counting.file(&date(age)).exists());
    assert_eq!(kept, [true, true, true, false, false]);

    counting.balancer.program.kill();
    for age in [0, 1] {
        std::fs::write(counting.file(&date(age)), "damage").unwrap();
    }
    counting.balancer.restart();
    assert_eq!(counting.report("?days=3")["downloads"], 2);
    counting.balancer.program.wait_for_stderr("a state file is not usable and was moved aside");
    for age in [0, 1] {
        assert!(counting.file(&date(age)).with_extension("json.damaged").exists());
    }
}

#[test]
fn without_the_setting_only_samples_are_shown() {
    let balancer = Operated::start(&[]);
    let answer = http::get(balancer.admin(), "/api/v1/stats");
    assert_eq!(answer.status, 404, "{answer:?}");
    let output = balancer.command(&["stats"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("--statistics-days N turns this on"), "{message}");
    http::get(balancer.program.address(), "/sample.iso");
    let page = || http::get(balancer.admin(), "/").text();
    wait_until("the sample on the page", || page().contains("<code>/sample.iso</code>"));
    assert_eq!(balancer.metric("fingerpost_downloads_total"), None);
    assert_eq!(
        std::fs::read_dir(balancer.folder.path().join("state"))
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("statistics")
            })
            .count(),
        0
    );
}
