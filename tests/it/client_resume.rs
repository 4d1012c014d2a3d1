//! `fingerpost get` run again: after a kill, after a failure, with a complete file, with a file that changed.

use std::time::Duration;

use rand::RngExt;

use super::support::downloads::{Downloads, chance};
use super::support::misbehaving::{FileServer, Ranges, Script, content};
use super::support::wait_until;

const FILE: usize = 1_000_000;

/// Downloads from a server that ends the answer at `at` and then refuses all requests, so that the first run
/// fails there.
fn half_a_download(downloads: &Downloads, script: &Script, at: usize) -> FileServer {
    let server = script.clone().closes_at(at).start();
    let outcome = downloads.get(&[&server.url("/f"), "--retry", "0"]);
    outcome.ended_with(18);
    assert_eq!(downloads.names(), ["f.part", "f.part.journal"]);
    server
}

#[test]
fn the_second_run_resumes_at_the_end_of_the_first() {
    let file = content(FILE);
    let downloads = Downloads::new();
    let server = half_a_download(&downloads, &Script::of(&file), FILE / 2);
    server.becomes(Script::of(&file));
    downloads.get(&[&server.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
    assert_eq!(downloads.names(), ["f"]);
    let second = &server.exchanges()[1];
    assert_eq!(second.header("Range"), Some(format!("bytes={}-", FILE / 2).as_str()));
    assert_eq!(second.header("If-Range"), server.etag().as_deref());
    assert_eq!(server.sent(), FILE);
}

#[test]
fn a_file_that_changed_between_runs_is_fetched_whole() {
    let (old, mut new) = (content(FILE), content(FILE));
    new.reverse();
    let changed: [(Script, &[u8]); 4] = [
        (Script::of(&new), &new),
        (Script::of(&new[..FILE / 4]), &new[..FILE / 4]),
        // Servers that ignore If-Range.
        (Script::of(&new).ranges(Ranges::IfRangeIgnored), &new),
        (Script::of(&new).ranges(Ranges::IfRangeRefused), &new),
    ];
    for (script, expected) in changed {
        let downloads = Downloads::new();
        let server = half_a_download(&downloads, &Script::of(&old), FILE / 2);
        server.becomes(script.clone());
        downloads.get_quickly(&[&server.url("/f")]).ended_with(0);
        assert!(downloads.read("f") == expected, "{script:?}");
    }
}

#[test]
fn a_file_that_changes_during_the_download_is_never_mixed() {
    let (old, mut new) = (content(FILE), content(FILE));
    new.reverse();
    for ranges in [Ranges::Honoured, Ranges::IfRangeIgnored, Ranges::Ignored] {
        let server = Script::of(&old).bytes_per_second(4_000_000).closes_at(FILE / 2).start();
        let downloads = Downloads::new();
        let mut running = downloads.start(&[&server.url("/f")]);
        wait_until("the first bytes", || server.sent() > 0);
        server.becomes(Script::of(&new).ranges(ranges.clone()));
        assert_eq!(running.wait().code(), Some(0));
        assert!(downloads.read("f") == new, "{ranges:?}");
    }
}

#[test]
fn no_byte_of_a_stale_mirror_of_the_same_size_is_used() {
    let (new, mut old) = (content(FILE), content(FILE));
    old.reverse();
    let fresh = Script::of(&new).closes_at(FILE / 3).start();
    let stale = Script::of(&old).start();
    let link = format!("Link: <{}>; rel=duplicate; pri=1", stale.url("/f"));
    let balancer = Script::redirect(&fresh.url("/f"), &[&link]).start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&balancer.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == new);
}

#[test]
fn a_complete_file_is_not_fetched_again() {
    let file = content(FILE);
    let date = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let server = Script::of(&file).header(date).start();
    let downloads = Downloads::new();
    downloads.get(&[&server.url("/f")]).ended_with(0);
    let before = server.sent();
    downloads.get(&[&server.url("/f")]).ended_with(0);
    assert_eq!(server.sent(), before);
    // A file with a new modification time may have changed, so it is fetched.
    std::fs::write(downloads.path().join("f"), vec![0; FILE]).unwrap();
    downloads.get(&[&server.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
    // A new version replaces the old one, unless the flags forbid it.
    let newer = content(FILE / 2);
    server.becomes(Script::of(&newer));
    downloads.get(&[&server.url("/f"), "--no-clobber"]).ended_with(0);
    assert!(downloads.read("f") == file);
    downloads.get(&[&server.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == newer);
}

#[test]
fn a_kill_at_any_time_never_leaves_a_wrong_file() {
    let file = content(FILE);
    let server = Script::of(&file).bytes_per_second(8_000_000).start();
    let downloads = Downloads::new();
    let url = server.url("/f");
    let flags = [url.as_str(), "--checkpoint-interval", "0.005"];
    let mut kills = 0;
    let mut chance = chance();
    for _ in 0..50 {
        let mut running = downloads.start(&flags);
        std::thread::sleep(Duration::from_micros(chance.random_range(20_000..110_000)));
        running.kill();
        kills += 1;
        match std::fs::read(downloads.path().join("f")) {
            Ok(bytes) => {
                assert!(bytes == file, "a wrong file after {kills} kills");
                std::fs::remove_file(downloads.path().join("f")).unwrap();
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
    downloads.get(&flags).ended_with(0);
    assert!(downloads.read("f") == file);
    assert_eq!(downloads.names(), ["f"]);
    // At least one run resumed, always with If-Range for this version.
    let resumed: Vec<_> =
        server.exchanges().into_iter().filter(|exchange| exchange.header("Range").is_some()).collect();
    assert!(!resumed.is_empty(), "no run resumed");
    assert!(resumed.iter().all(|exchange| exchange.header("If-Range").is_some()));
}

#[test]
fn a_large_amount_of_bytes_triggers_an_early_checkpoint() {
    let file = content(24 << 20);
    let server = Script::of(&file).stalls_at(20 << 20).start();
    let downloads = Downloads::new();
    let url = server.url("/f");
    let mut running = downloads.start(&[&url, "--checkpoint-interval", "3600"]);
    wait_until("the journal", || downloads.names().contains(&"f.part.journal".to_owned()));
    // The first line is written before the bytes.
    wait_until("bytes in the journal", || {
        downloads.read("f.part.journal").split(|&byte| byte == b'\n').count() > 2
    });
    running.kill();
    server.becomes(Script::of(&file));
    downloads.get(&[&url]).ended_with(0);
    assert!(downloads.read("f") == file);
    let range = server.exchanges().last().unwrap().header("Range").unwrap().to_owned();
    let from: u64 = range["bytes=".len()..range.len() - 1].parse().unwrap();
    assert!(from >= 16 << 20, "{range}");
}

#[test]
fn ctrl_c_keeps_the_received_bytes() {
    let file = content(FILE);
    let server = Script::of(&file).bytes_per_second(2_000_000).start();
    let downloads = Downloads::new();
    let mut running = downloads.start(&[&server.url("/f")]);
    wait_until("some bytes", || server.sent() > FILE / 4);
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.wait().code(), Some(130));
    assert_eq!(downloads.names(), ["f.part", "f.part.journal"]);
    server.becomes(Script::of(&file));
    downloads.get(&[&server.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
    assert!(server.exchanges().last().unwrap().header("Range").is_some());
}

#[test]
fn two_clients_do_not_write_one_file() {
    let file = content(FILE);
    let server = Script::of(&file).bytes_per_second(1_000_000).start();
    let downloads = Downloads::new();
    let mut first = downloads.start(&[&server.url("/f")]);
    wait_until("the part file", || downloads.names().contains(&"f.part".to_owned()));
    downloads.get(&[&server.url("/f")]).ended_with(36);
    assert_eq!(first.wait().code(), Some(0));
    assert!(downloads.read("f") == file);
}

#[test]
fn a_part_file_with_a_broken_journal_is_begun_again() {
    let file = content(FILE);
    let server = Script::of(&file).start();
    for journal in [
        "",
        "{}\n",
        "not json",
        "{\"fingerpost\":1,\"file\":{\"size\":1000000,\"etags\":[\"\\\"x\\\"\"]}}\n{\"start\":0,\"end\":99999999,\"from\":\"\"}\n",
    ] {
        let downloads = Downloads::new();
        std::fs::write(downloads.path().join("f.part"), vec![7; FILE / 2]).unwrap();
        std::fs::write(downloads.path().join("f.part.journal"), journal).unwrap();
        downloads.get(&[&server.url("/f")]).ended_with(0);
        assert!(downloads.read("f") == file);
        assert_eq!(downloads.names(), ["f"]);
    }
}

#[test]
fn no_resume_starts_over() {
    let file = content(FILE);
    let downloads = Downloads::new();
    let server = half_a_download(&downloads, &Script::of(&file), FILE / 2);
    server.becomes(Script::of(&file));
    downloads.get(&[&server.url("/f"), "--no-resume"]).ended_with(0);
    assert!(downloads.read("f") == file);
    assert_eq!(server.exchanges()[1].header("Range"), None);
}

#[test]
fn a_journal_does_not_describe_bytes_of_a_later_run() {
    let (old, mut new) = (content(FILE), content(FILE));
    new.reverse();
    let downloads = Downloads::new();
    let server = half_a_download(&downloads, &Script::of(&old), FILE / 2);
    // A run with another version is killed before its first checkpoint.
    server.becomes(Script::of(&new).stalls_at(FILE * 3 / 4));
    let url = server.url("/f");
    let mut running = downloads.start(&[&url, "--no-resume", "--checkpoint-interval", "3600"]);
    let part = downloads.path().join("f.part");
    wait_until("more than half of it", || {
        let is_begun = server.exchanges().len() > 1;
        is_begun && part.metadata().is_ok_and(|part| part.len() > FILE as u64 / 2)
    });
    running.kill();
    server.becomes(Script::of(&old));
    downloads.get_quickly(&[&url]).ended_with(0);
    assert!(downloads.read("f") == old);
}

#[test]
fn other_files_download_while_the_pieces_of_an_earlier_run_are_verified() {
    let size = 32 << 20;
    let server = Script::of(&content(1000)).start();
    let downloads = Downloads::new();
    let digest = "0".repeat(64);
    let metalink = format!(
        "<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\"><file name=\"f\"><size>{size}</size>\
         <pieces length=\"{size}\" type=\"sha-256\"><hash>{digest}</hash></pieces><url>{}</url></file></metalink>",
        server.url("/f")
    );
    std::fs::write(downloads.path().join("f.meta4"), metalink).unwrap();
    std::fs::File::create(downloads.path().join("f.part")).unwrap().set_len(size).unwrap();
    let journal = format!(
        "{{\"fingerpost\":1,\"file\":{{\"size\":{size},\"digest\":null,\"etags\":[\"\\\"x\\\"\"],\"last_modified\":null,\"resource\":\"\"}}}}\n\
         {{\"start\":0,\"end\":{size},\"from\":\"\"}}\n"
    );
    std::fs::write(downloads.path().join("f.part.journal"), journal).unwrap();
    downloads.get_quickly(&["f.meta4", &server.url("/other"), "-j", "2", "--retry", "0"]);
    let asked: Vec<String> = server.exchanges().into_iter().map(|exchange| exchange.request).collect();
    // The piece was found wrong and requested after the other file.
    assert!(asked[0].starts_with("GET /other ") && asked[1].starts_with("GET /f "), "{asked:?}");
}

#[test]
fn a_run_that_lost_its_part_file_keeps_the_journal_of_the_next_run() {
    let file = content(6 << 20);
    // The first run makes no checkpoint, many checkpoints, or finds a wrong digest in the end.
    let wrong = format!("sha-1={}", "0".repeat(40));
    for more in [["--checkpoint-interval", "60"], ["--checkpoint-interval", "0.05"], ["--checksum", &wrong]] {
        let slow = Script::of(&file).bytes_per_second(3_000_000).start();
        let breaking = Script::of(&file).stalls_at(2 << 20).start();
        let downloads = Downloads::new();
        let (part, journal) = (downloads.path().join("f.part"), downloads.path().join("f.part.journal"));
        let mut first = downloads.start(&[&[slow.url("/f").as_str()], &more[..]].concat());
        wait_until("a part file", || part.metadata().is_ok_and(|metadata| metadata.len() > 0));
        if more[1] == "0.05" {
            wait_until("a journal", || journal.exists());
        }
        std::fs::remove_file(&part).unwrap();
        let mut second = downloads.start(&[&breaking.url("/f"), "--checkpoint-interval", "0.05"]);
        wait_until("all that comes", || breaking.sent() >= 2 << 20);
        wait_until("the second journal", || {
            std::fs::read_to_string(&journal).is_ok_and(|text| text.contains(&breaking.url("/f")))
        });
        assert_eq!(first.wait().code(), Some(23), "{more:?}");
        second.kill();
        // However the first run ended, the second run can be resumed.
        assert_eq!(downloads.names(), ["f.part", "f.part.journal"], "{more:?}");
        breaking.becomes(Script::of(&file));
        downloads.get(&[&breaking.url("/f")]).ended_with(0);
        assert!(downloads.read("f") == file);
        let last = breaking.exchanges().last().unwrap().header("Range").map(ToOwned::to_owned);
        assert!(last.is_some(), "it was fetched whole");
    }
}
