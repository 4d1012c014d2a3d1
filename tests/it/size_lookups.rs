//! Look-ups of file sizes, with servers that misbehave.

use std::time::Instant;

use super::support::fleet::Balancer;
use super::support::http;
use super::support::misbehaving::{FileServer, Framing, Script};
use super::support::program::fingerpost;
use super::support::{wait_for, wait_until};

/// The server adds this to its probe answers, so that `adaptive` knows its capacity.
const REPORT: &str = "endpoint-load-metrics: JSON {\"named_metrics\":{\"in_flight\":1}}";

fn start(script: Script) -> (FileServer, Balancer) {
    let peer = script.start();
    let keys = [("FAULT_INJECTION", "true"), ("PROBE_INTERVAL", "200ms")];
    let balancer = Balancer::start_with_keys(&peer.authority(), &keys);
    balancer.wait_for_state(&peer.authority(), "up");
    (peer, balancer)
}

/// The paths of all HEAD requests to this server.
fn looked_up(peer: &FileServer) -> Vec<String> {
    let requests = peer.requests().into_iter().filter_map(|request| {
        Some(request.strip_prefix("HEAD ")?.split(' ').next().unwrap_or_default().to_owned())
    });
    requests.collect()
}

fn outcomes(balancer: &Balancer, outcome: &str) -> f64 {
    balancer.metric(&format!("fingerpost_size_lookups_total{{outcome=\"{outcome}\"}}")).unwrap()
}

fn explained(balancer: &Balancer, path: &str) -> serde_json::Value {
    let answer = http::get(balancer.admin_address(), &format!("/api/v1/explain?path={path}"));
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn a_file_is_looked_up_at_its_second_request_even_if_it_is_a_head() {
    let (peer, balancer) = start(Script::of(&[7; 5000]).header(REPORT));
    balancer.get("/once.bin");
    balancer.get("/twice.bin?query");
    let head = "HEAD /twice.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(http::request(balancer.address(), head).status, 301);
    let start = Instant::now();
    wait_until("the look-up", || outcomes(&balancer, "learned") > 0.0);
    assert!(start.elapsed().as_secs() < 3, "{:?}", start.elapsed());
    assert_eq!(looked_up(&peer), ["/twice.bin"]);
    let known = explained(&balancer, "/twice.bin");
    assert_eq!(known["size_origin"], "known");
    assert!((4000..6300).contains(&known["size"].as_u64().unwrap()), "{known}");
    assert_eq!(explained(&balancer, "/once.bin")["size_origin"], "similar-files");
    assert_eq!(explained(&balancer, "/other")["size"], serde_json::Value::Null);
    // The weight of the download on the only candidate.
    let candidate = &known["backends"][0];
    assert!(candidate["expected_seconds"].as_f64().unwrap() > 0.0, "{known}");
    assert!(candidate["booked_bytes"].is_u64(), "{known}");
    let admin = format!("http://{}", balancer.admin_address());
    let output = fingerpost().args(["explain", "/twice.bin", "--admin", &admin]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(" bytes, known to its size class\n") && text.contains(", sent in "), "{text}");
}

#[test]
fn answers_without_a_usable_size_harm_neither_the_server_nor_a_request() {
    let garbage = b"\x00\xFF\x13garbage\r\n\r\n".to_vec();
    let scripts = [
        ("no_size", Script::prompt().framing(Framing::Chunked)),
        ("no_size", Script::prompt().framing(Framing::UntilClose)),
        ("no_size", Script::status(404)),
        ("no_size", Script::redirect("http://127.0.0.1:1/", &[])),
        (
            "learned",
            Script::prompt().sends(&b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n"[..]),
        ),
        ("failed", Script::prompt().sends(garbage)),
        ("failed", Script::prompt().hangs()),
        ("failed", Script::prompt().sends(&b""[..])),
        ("no_size", Script::prompt().sends_forever("X: y", b"body")),
    ];
    let count = scripts.len();
    let peer = Script::prompt().start();
    let other = Script::prompt().start();
    // The second server is down, so it gets no look-up.
    other.kill();
    let list = format!("{}\n{}", peer.authority(), other.authority());
    let balancer = Balancer::start_with_keys(&list, &[("PROBE_INTERVAL", "1h")]);
    balancer.wait_for_state(&peer.authority(), "up");
    for (number, (outcome, script)) in scripts.into_iter().enumerate() {
        let before = outcomes(&balancer, outcome);
        peer.becomes(script);
        let path = format!("/{number}");
        balancer.get(&path);
        balancer.get(&path);
        wait_until(&format!("the look-up of {path}: {outcome}"), || outcomes(&balancer, outcome) > before);
        assert_eq!(balancer.get(&path).location(), peer.url(&path));
        assert_eq!(balancer.state(&peer.authority()).as_deref(), Some("up"));
    }
    assert_eq!(looked_up(&peer).len(), count);
}

#[test]
fn look_ups_continue_after_a_panic_of_their_actor() {
    let (peer, balancer) = start(Script::prompt());
    for panics in 1..=2_u64 {
        let request = "POST /debug/panic/size HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(http::request(balancer.admin_address(), request).status, 202);
        wait_for("the restart", || {
            let restarts = balancer.metric("fingerpost_actor_restarts_total{actor=\"Size\"}")?;
            (restarts as u64 == panics).then_some(())
        });
        let path = format!("/{panics}");
        balancer.get(&path);
        balancer.get(&path);
        wait_until("the look-up", || outcomes(&balancer, "learned") as u64 == panics);
    }
    assert_eq!(looked_up(&peer), ["/1", "/2"]);
}
