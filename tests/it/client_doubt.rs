//! `fingerpost get` among many corrupt servers: how much it fetches, which servers it asks, which files it
//! leaves.

use sha2::Sha256;

use super::support::digits;
use super::support::downloads::{Downloads, Outcome, PATIENT, QUICK};
use super::support::misbehaving::{FileServer, Framing, Script, content};

/// Flags for quick failures, and for several servers whenever possible.
const FLAGS: [&str; 6] =
    ["--parallel-time", "0.05", "--parallel-size", "1MiB", "--checkpoint-interval", "0.05"];

fn get(downloads: &Downloads, file: &[u8], servers: &[FileServer], flags: &[&str]) -> Outcome {
    get_with(downloads, file, servers, &[flags, &QUICK].concat())
}

fn get_with(downloads: &Downloads, file: &[u8], servers: &[FileServer], flags: &[&str]) -> Outcome {
    let links: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(index, server)| format!("<{}>; rel=duplicate; pri={}", server.url("/f"), index + 1))
        .collect();
    let balancer = Script::redirect(&servers[0].url("/f"), &[&format!("Link: {}", links.join(", "))]).start();
    let checksum = format!("sha-256={}", digits::<Sha256>(file));
    downloads.get(&[&[balancer.url("/f").as_str(), "--checksum", &checksum], flags].concat())
}

fn sent(servers: &[FileServer]) -> usize {
    servers.iter().map(FileServer::sent).sum()
}

#[test]
fn a_dozen_corrupt_servers_cost_no_more_than_five_times_the_file_and_leave_nothing() {
    let file = content(6 << 20);
    let servers: Vec<FileServer> = (0..12)
        .map(|index| {
            let script = Script::of(&file).bytes_per_second(10 << 20);
            script.corrupts_blocks((100 << 10) + 1000 * index).start()
        })
        .collect();
    let downloads = Downloads::new();
    get(&downloads, &file, &servers, &FLAGS).ended_with(32);
    assert_eq!(downloads.names(), [""; 0]);
    let sent = sent(&servers);
    assert!(sent <= 5 * file.len() + (3 << 20), "{:.2} times the file", sent as f64 / file.len() as f64);
}

#[test]
fn five_servers_are_asked_in_turn_and_the_skipped_ones_are_counted() {
    let file = content(300_000);
    let servers: Vec<FileServer> = (0..7)
        .map(|index| {
            let script = Script::of(&file).bytes_per_second(2 << 20);
            if index == 4 { script.start() } else { script.corrupts(1000 * index).start() }
        })
        .collect();
    let patient = [&PATIENT[..], &["--checkpoint-interval", "0.05"]].concat();
    let downloads = Downloads::new();
    get_with(&downloads, &file, &servers, &patient).ended_with(0);
    assert!(downloads.read("f") == file);

    let downloads = Downloads::new();
    let servers: Vec<FileServer> = (0..7)
        .map(|index| Script::of(&file).corrupts(1000 * index).bytes_per_second(2 << 20).start())
        .collect();
    let outcome = get_with(&downloads, &file, &servers, &patient);
    outcome.ended_with(32);
    assert!(outcome.stderr().contains("2 sources were skipped"), "{}", outcome.stderr());
    assert_eq!(downloads.names(), [""; 0]);
    assert_eq!(sent(&servers), 5 * file.len());
}

#[test]
fn after_a_wrong_digest_each_of_several_servers_is_asked_alone() {
    let file = content(4 << 20);
    let servers: Vec<FileServer> = (0..3)
        .map(|index| {
            let script = Script::of(&file).bytes_per_second(10 << 20);
            // The right server is the slowest and sends least.
            if index == 2 {
                script.bytes_per_second(5 << 20).start()
            } else {
                script.corrupts_blocks(100 << 10).start()
            }
        })
        .collect();
    let downloads = Downloads::new();
    get(&downloads, &file, &servers, &FLAGS).ended_with(0);
    assert!(downloads.read("f") == file);
    assert!(sent(&servers) <= 5 * file.len() + (3 << 20), "{}", sent(&servers));
}

#[test]
fn a_truncated_copy_does_not_prevent_the_right_file() {
    let file = content(300_000);
    for cut in [200_000, 0] {
        // If the right server announces no size, the size of the wrong one must not remain in use.
        for framing in [Framing::Length, Framing::Chunked, Framing::UntilClose] {
            let right = Script::of(&file).framing(framing);
            let servers = [Script::of(&file[..cut]).start(), right.start()];
            let downloads = Downloads::new();
            get(&downloads, &file, &servers, &[]).ended_with(0);
            assert!(downloads.read("f") == file, "{cut} {framing:?}");
        }
    }
}
