//! `fingerpost get` with servers that fail, hang or are slow: the other servers supply the file.

use std::time::{Duration, Instant};

use super::support::black_hole::{AcceptsOnly, BlackHole};
use super::support::downloads::Downloads;
use super::support::misbehaving::{Fault, FileServer, Framing, Ranges, Script, Times, content};
use super::support::wait_until;

const FILE: usize = 600_000;

/// A balancer that redirects to the first server and names the others, in this order.
fn balancer(servers: &[&FileServer]) -> FileServer {
    let links: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(index, server)| format!("<{}>; rel=duplicate; pri={}", server.url("/f"), index + 1))
        .collect();
    Script::redirect(&servers[0].url("/f"), &[&format!("Link: {}", links.join(", "))]).start()
}

#[test]
fn a_file_missing_on_all_servers_prints_one_line() {
    let servers: Vec<FileServer> = (0..3).map(|_| Script::of(b"").answers(404, vec![]).start()).collect();
    let links: Vec<String> =
        servers.iter().map(|server| format!("<{}>; rel=duplicate", server.url("/f"))).collect();
    let link = format!("Link: {}", links.join(", "));
    let balancer = Script::redirect(&servers[0].url("/f"), &[&link]).start();
    let outcome = Downloads::new().get_quickly(&[&balancer.url("/f")]);
    let stderr = outcome.ended_with(22).stderr();
    assert!(stderr.contains("none of 3 servers has") && stderr.lines().count() == 1, "{stderr}");
    assert!(!outcome.stdout().contains("404 page"), "{}", outcome.stdout());
}

#[test]
fn after_any_broken_answer_the_next_server_continues_at_the_same_byte() {
    let file = content(FILE);
    let breaking = [
        Script::of(&file).closes_at(FILE / 3),
        Script::of(&file).resets_at(FILE / 3),
        Script::of(&file).framing(Framing::Chunked).closes_at(FILE / 3),
        Script::of(&file).stalls_at(FILE / 3),
    ];
    for script in breaking {
        let (bad, good) = (script.clone().start(), Script::of(&file).start());
        let downloads = Downloads::new();
        downloads.get_quickly(&[&balancer(&[&bad, &good]).url("/f")]).ended_with(0);
        assert!(downloads.read("f") == file, "{script:?}");
        // Bytes from the first server are not fetched again.
        let resumed = good.exchanges()[0].header("Range").expect("the whole file was asked for").to_owned();
        let from: usize = resumed["bytes=".len()..resumed.len() - 1].parse().unwrap();
        assert!(from > 0 && from <= FILE / 3, "{resumed}");
        assert_eq!(good.exchanges()[0].header("If-Range"), bad.etag().as_deref());
    }
}

#[test]
fn after_any_missing_answer_the_next_server_is_asked() {
    let file = content(FILE);
    let faults = [
        Fault::ClosesWithoutAnswer,
        Fault::Hangs,
        Fault::StallsAt(0),
        Fault::Answers(404, vec![]),
        Fault::Answers(408, vec![]),
        Fault::Answers(410, vec![]),
        Fault::Answers(429, vec!["Retry-After: 3600".to_owned()]),
        Fault::Answers(500, vec![]),
        Fault::Answers(503, vec!["Retry-After: 3600".to_owned()]),
        Fault::Sends(b"not HTTP\r\n\r\n".to_vec()),
    ];
    for fault in faults {
        let bad = Script::of(&file).fault(fault.clone(), Times::Always).start();
        let good = Script::of(&file).start();
        let downloads = Downloads::new();
        let began = Instant::now();
        downloads.get_quickly(&[&balancer(&[&bad, &good]).url("/f")]).ended_with(0);
        assert!(downloads.read("f") == file, "{fault:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{fault:?} was waited for");
    }
}

/// The shortest of three downloads through a 301 to `first`, with `good` in its Link header.
fn least_time(first: &str, good: &FileServer, file: &[u8]) -> Duration {
    let link = format!("Link: <{}>; rel=duplicate; pri=1", good.url("/f"));
    let balancer = Script::redirect(first, &[&link]).start();
    let mut least = Duration::MAX;
    for _ in 0..3 {
        let downloads = Downloads::new();
        let began = Instant::now();
        downloads.get(&[&balancer.url("/f")]).ended_with(0);
        least = least.min(began.elapsed());
        assert!(downloads.read("f") == file);
        if least < Duration::from_secs(2) {
            break;
        }
    }
    least
}

#[test]
fn a_server_that_hangs_costs_less_than_two_seconds() {
    let file = content(FILE);
    let good = Script::of(&file).start();
    let (hole, accepts) = (BlackHole::start(), AcceptsOnly::start());
    let (hangs, stalls) = (Script::of(&file).hangs().start(), Script::of(&file).stalls_after_head().start());
    for first in [hole.url("/f"), accepts.url("/f"), hangs.url("/f"), stalls.url("/f")] {
        let time = least_time(&first, &good, &file);
        assert!(time < Duration::from_secs(2), "{first}: {time:?}");
    }
}

#[test]
fn a_single_unresponsive_server_is_given_up() {
    let hole = BlackHole::start();
    let downloads = Downloads::new();
    downloads.get(&[&hole.url("/f"), "--connect-timeout", "0.3"]).ended_with(28);
    assert_eq!(downloads.names(), [""; 0]);
}

#[test]
fn a_dead_port_leads_to_the_next_server() {
    let file = content(FILE);
    let (dead, good) = (Script::of(&file).start(), Script::of(&file).start());
    let balancer = balancer(&[&dead, &good]);
    dead.kill();
    let downloads = Downloads::new();
    downloads.get(&[&balancer.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
}

#[test]
fn without_a_link_the_balancer_is_asked_again_with_servers_to_avoid() {
    let file = content(FILE);
    let bad = Script::of(&file).fault(Fault::Hangs, Times::Always).start();
    let good = Script::of(&file).start();
    let first = Fault::Answers(301, vec![format!("Location: {}", bad.url("/f"))]);
    let balancer = Script::redirect(&good.url("/f"), &[]).before(first, Times::Next(1)).start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&balancer.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
    let avoided: Vec<_> = balancer
        .exchanges()
        .iter()
        .filter_map(|asked| asked.header("Fingerpost-Avoid").map(ToOwned::to_owned))
        .collect();
    assert!(avoided.contains(&bad.address().to_string()), "{avoided:?}");
}

#[test]
fn a_server_that_fails_repeatedly_with_progress_stays_in_use() {
    let file = content(FILE);
    for script in [
        Script::of(&file).closes_at(100_000),
        Script::of(&file).framing(Framing::Chunked).closes_at(100_000),
        // With one failure only, as if the server was restarted.
        Script::of(&file).fault(Fault::ClosesAt(100_000), Times::Next(1)),
    ] {
        let server = script.clone().start();
        let downloads = Downloads::new();
        downloads.get(&[&server.url("/f")]).ended_with(0);
        assert!(downloads.read("f") == file, "{script:?}");
        assert_eq!(server.sent(), FILE, "{script:?}");
    }
    // A reset discards bytes that the client had not read yet.
    let server = Script::of(&file).resets_at(100_000).start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&server.url("/f"), "--retry", "50"]).ended_with(0);
    assert!(downloads.read("f") == file);
}

#[test]
fn a_server_that_is_killed_costs_little() {
    let file = content(4_000_000);
    let dying = Script::of(&file).bytes_per_second(8_000_000).start();
    let others: Vec<FileServer> = (0..2).map(|_| Script::of(&file).start()).collect();
    let balancer = balancer(&[&dying, &others[0], &others[1]]);
    let downloads = Downloads::new();
    let mut running = downloads.start(&[&balancer.url("/f")]);
    wait_until("a third to be sent", || dying.sent() > file.len() / 3);
    dying.kill();
    running.wait();
    assert!(downloads.read("f") == file);
    let sent = dying.sent() + others.iter().map(FileServer::sent).sum::<usize>();
    // Bytes that a killed server had written but not delivered count as sent here.
    assert!(sent < file.len() + (3 << 20), "{sent} bytes were sent for {}", file.len());
}

#[test]
fn servers_without_ranges_are_asked_for_the_whole_file() {
    let file = content(FILE);
    for ranges in [Ranges::Ignored, Ranges::Refused, Ranges::IfRangeRefused] {
        let bad = Script::of(&file).closes_at(FILE / 2).start();
        let whole = Script::of(&file).ranges(ranges.clone()).start();
        let downloads = Downloads::new();
        let outcome = downloads.get_quickly(&[&balancer(&[&bad, &whole]).url("/f")]);
        outcome.ended_with(0);
        assert!(downloads.read("f") == file, "{ranges:?}");
    }
}

#[test]
fn a_wrong_content_range_is_never_used() {
    let file = content(FILE);
    for value in [
        "bytes 0-9/600000",
        "bytes -5-9/600000",
        "bytes 99999999999999999999-9/600000",
        "bytes 200000-599999/18446744073709551616",
        "bytes 200000-599998/600001",
        "lines 200000-599999/600000",
        "nonsense",
    ] {
        let bad = Script::of(&file).closes_at(FILE / 3).start();
        let odd = Script::of(&file).ranges(Ranges::Wrong(value.to_owned())).start();
        let downloads = Downloads::new();
        downloads.get_quickly(&[&balancer(&[&bad, &odd]).url("/f")]).ended_with(0);
        assert!(downloads.read("f") == file, "{value}");
    }
}

#[test]
fn several_servers_share_a_large_file() {
    let file = content(12 << 20);
    let servers: Vec<FileServer> =
        (0..3).map(|_| Script::of(&file).bytes_per_second(4 << 20).start()).collect();
    let balancer = balancer(&servers.iter().collect::<Vec<_>>());
    let downloads = Downloads::new();
    downloads.get(&[&balancer.url("/f"), "--parallel-time", "0.2"]).ended_with(0);
    assert!(downloads.read("f") == file);
    for server in &servers {
        assert!(server.sent() > 1 << 20, "one server did nothing");
    }
    let asked: Vec<_> = servers.iter().flat_map(FileServer::exchanges).collect();
    for exchange in asked.iter().filter(|exchange| exchange.header("Range").is_some()) {
        assert!(exchange.header("If-Range").is_some(), "{exchange:?}");
    }
}

#[test]
fn a_small_file_takes_one_request() {
    let file = content(50_000);
    let servers: Vec<FileServer> = (0..3).map(|_| Script::of(&file).start()).collect();
    let balancer = balancer(&servers.iter().collect::<Vec<_>>());
    Downloads::new().get(&[&balancer.url("/f")]).ended_with(0);
    assert_eq!(balancer.exchanges().len(), 1);
    assert_eq!(servers.iter().map(|server| server.exchanges().len()).sum::<usize>(), 1);
}

#[test]
fn a_hundred_links_are_accepted() {
    let file = content(FILE);
    let (bad, good) = (Script::of(&file).closes_at(10).start(), Script::of(&file).start());
    let mut links: Vec<String> = (0..100)
        .map(|index| format!("<http://127.0.0.1:1/f{index}>; rel=duplicate; pri={}", index + 2))
        .collect();
    links.push(format!("<{}>; rel=duplicate; pri=1", good.url("/f")));
    let balancer = Script::redirect(&bad.url("/f"), &[&format!("Link: {}", links.join(", "))]).start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&balancer.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
}
