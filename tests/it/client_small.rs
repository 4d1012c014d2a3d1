//! `fingerpost get` and small files, which are named from memory: they are whole or absent, and as safe as
//! large files if the download is slow.

use std::process::Command;
use std::time::Duration;

use rand::RngExt;

use super::support::downloads::{Downloads, chance};
use super::support::misbehaving::{Script, content};
use super::support::wait_until;

const SMALL: usize = 60_000;

#[test]
fn a_kill_at_any_time_leaves_small_files_whole_or_absent() {
    let file = content(1024);
    // Existing files are not fetched again.
    let server = Script::of(&file).header("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT").start();
    let mut chance = chance();
    let list: Vec<String> = (0..400).map(|index| server.url(&format!("/n{index}"))).collect();
    for flags in [&["-j", "16"][..], &["-j", "16", "--no-sync"]] {
        let downloads = Downloads::new();
        let lists = tempfile::tempdir().unwrap();
        let path = lists.path().join("list");
        std::fs::write(&path, list.join("\n")).unwrap();
        let arguments = [&["-s", "-i", path.to_str().unwrap()], flags].concat();
        for _ in 0..10 {
            let mut running = downloads.start(&arguments);
            std::thread::sleep(Duration::from_micros(chance.random_range(10_000..150_000)));
            running.kill();
            for name in downloads.names() {
                assert!(name.starts_with('n') && !name.contains('.'), "{name} was left");
                assert!(downloads.read(&name) == file, "{name} is not whole");
            }
        }
        downloads.get(&arguments).ended_with(0);
        assert_eq!(downloads.names().len(), list.len());
    }
}

#[test]
fn a_small_file_that_appears_meanwhile_is_not_replaced() {
    let file = content(SMALL);
    let server = Script::of(&file).bytes_per_second(60_000).start();
    let downloads = Downloads::new();
    let mut running = downloads.start(&[&server.url("/f")]);
    wait_until("the first bytes", || server.sent() > 0);
    assert_eq!(downloads.names(), [""; 0]);
    std::fs::write(downloads.path().join("f"), "another file").unwrap();
    assert_eq!(running.wait().code(), Some(23));
    assert_eq!(downloads.read("f"), b"another file");
    // The received bytes are complete and kept.
    assert!(downloads.read("f.part") == file);
}

#[test]
fn ctrl_c_keeps_the_received_bytes_of_a_small_file() {
    let file = content(SMALL);
    let server = Script::of(&file).stalls_at(SMALL / 2).start();
    let downloads = Downloads::new();
    let mut running = downloads.start(&[&server.url("/f"), "--checkpoint-interval", "3600"]);
    wait_until("half of it", || server.sent() >= SMALL / 2);
    std::thread::sleep(Duration::from_millis(100));
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.wait().code(), Some(130));
    completes(&downloads, &server.url("/f"), &file, || server.becomes(Script::of(&file)));
    assert!(server.exchanges().last().unwrap().header("Range").is_some());
}

#[test]
fn a_slow_small_file_has_checkpoints() {
    let file = content(SMALL);
    let server = Script::of(&file).stalls_at(SMALL / 2).start();
    let downloads = Downloads::new();
    let mut running = downloads.start(&[&server.url("/f"), "--checkpoint-interval", "0.05"]);
    wait_until("the journal", || downloads.names().contains(&"f.part.journal".to_owned()));
    wait_until("bytes in the journal", || {
        downloads.read("f.part.journal").split(|&byte| byte == b'\n').count() > 2
    });
    running.kill();
    completes(&downloads, &server.url("/f"), &file, || server.becomes(Script::of(&file)));
    assert!(server.exchanges().last().unwrap().header("Range").is_some());
}

/// Checks that a part file and its journal exist, and that a healthy server completes the file.
fn completes(downloads: &Downloads, url: &str, file: &[u8], heal: impl FnOnce()) {
    assert_eq!(downloads.names(), ["f.part", "f.part.journal"]);
    heal();
    downloads.get(&[url]).ended_with(0);
    assert!(downloads.read("f") == file);
    assert_eq!(downloads.names(), ["f"]);
}

#[test]
fn a_part_file_beside_a_small_file_does_not_outlive_it() {
    let file = content(SMALL);
    let server = Script::of(&file).start();
    for flags in [&[][..], &["--no-resume"]] {
        let downloads = Downloads::new();
        std::fs::write(downloads.path().join("f.part"), "of another day").unwrap();
        std::fs::write(downloads.path().join("f.part.journal"), "").unwrap();
        downloads.get(&[&[server.url("/f").as_str()][..], flags].concat()).ended_with(0);
        assert!(downloads.read("f") == file);
        assert_eq!(downloads.names(), ["f"]);
    }
}

#[test]
fn a_small_file_may_have_the_longest_possible_name() {
    let server = Script::of(b"I am a file.").start();
    let downloads = Downloads::new();
    let name = "n".repeat(255);
    downloads.get(&[&server.url("/f"), "-o", &name]).ended_with(0);
    assert_eq!(downloads.names(), [name]);
    downloads.get(&[&server.url("/f"), "-o", &"n".repeat(256)]).ended_with(23);
}

#[test]
fn if_unnamed_files_cannot_be_linked_a_part_file_is_used() {
    let server = Script::of(b"I am a file.").start();
    let downloads = Downloads::new();
    let map_root = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    // The program links descriptors by their paths in /proc.
    let script = format!(
        "mount -t tmpfs none /proc && {} get -s {}; echo code $?",
        env!("CARGO_BIN_EXE_fingerpost"),
        server.url("/f")
    );
    let output = Command::new("unshare")
        .args([map_root, "sh", "-c", &script])
        .current_dir(downloads.path())
        .output()
        .unwrap();
    if !output.status.success() || !String::from_utf8_lossy(&output.stdout).contains("code 0") {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.contains("unshare") || output.contains("mount"), "{output}");
        println!("not allowed to hide /proc: {output}");
        return;
    }
    assert_eq!(downloads.read("f"), b"I am a file.");
    assert_eq!(downloads.names(), ["f"]);
}
