//! `fingerpost get --wait` while a balancer has no server: shows its page, waits for `Retry-After`, counts
//! down.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::support::downloads::Downloads;
use super::support::misbehaving::{Fault, FileServer, Script, Times, content};

/// A balancer that has no server for the first two requests, with `Retry-After` of `seconds`.
fn busy(server: &FileServer, seconds: u64) -> FileServer {
    let unavailable = Fault::Answers(503, vec![format!("Retry-After: {seconds}")]);
    let location = format!("Location: {}", server.url("/f"));
    Script::of(b"").fault(unavailable, Times::Next(2)).answers(301, vec![location]).start()
}

#[test]
fn a_balancer_without_servers_is_waited_for_only_with_the_flag() {
    let file = content(1000);
    let server = Script::of(&file).start();
    let downloads = Downloads::new();
    let outcome = downloads.get(&[&busy(&server, 1).url("/f")]);
    assert!(outcome.ended_with(22).stdout().contains("503 page"), "{}", outcome.stdout());
    let balancer = busy(&server, 1);
    let began = Instant::now();
    let outcome = downloads.get(&[&balancer.url("/f"), "--wait"]);
    assert!(outcome.ended_with(0).stdout().contains("503 page"), "{}", outcome.stdout());
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    // Without a terminal, each wait prints one line.
    assert_eq!(outcome.stderr().matches("asking again in 1 s").count(), 2, "{}", outcome.stderr());
    assert_eq!(balancer.exchanges().len(), 3);
    assert!(downloads.read("f") == file);
}

#[test]
fn max_time_and_ctrl_c_end_the_wait() {
    let server = Script::of(b"").start();
    let downloads = Downloads::new();
    let began = Instant::now();
    downloads.get(&[&busy(&server, u64::MAX).url("/f"), "--wait", "--max-time", "0.3"]).ended_with(28);
    assert!(began.elapsed() < Duration::from_secs(10));

    let balancer = busy(&server, 3600);
    let mut waiting = downloads.start(&[&balancer.url("/f"), "--wait"]);
    waiting.wait_for_stderr("asking again in 600 s");
    waiting.signal(rustix::process::Signal::INT);
    assert_eq!(waiting.wait().code(), Some(130));
    assert_eq!(downloads.names(), [""; 0]);
}

/// Opens both ends of a terminal.
fn terminal() -> (File, File) {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let path = ptsname(&near, Vec::new()).unwrap().into_string().unwrap();
    // It must not become the terminal of this process, which would end with it.
    let no_own = OFlags::NOCTTY.bits().cast_signed();
    (near.into(), OpenOptions::new().read(true).write(true).custom_flags(no_own).open(path).unwrap())
}

#[test]
fn a_terminal_shows_a_countdown() {
    let file = content(1000);
    let server = Script::of(&file).start();
    let balancer = busy(&server, 2);
    let downloads = Downloads::new();
    let (mut near, far) = terminal();
    let mut command = downloads.command(&[&balancer.url("/f"), "--wait"]);
    command.env("TERM", "xterm").stdout(std::process::Stdio::null()).stderr(far);
    let mut child = command.spawn().unwrap();
    // The command holds the far end open too. Otherwise, reading the near end fails once the child has
    // exited.
    drop(command);
    let mut shown = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = near.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let shown = String::from_utf8_lossy(&shown);
    for words in ["asking again in 2 s", "asking again in 1 s"] {
        assert!(shown.contains(words), "{shown:?}");
    }
    assert!(downloads.read("f") == file);
}
