//! `fingerpost get` and its own waiting: timeouts of a server are paused while the client does not read.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::support::downloads::Downloads;
use super::support::misbehaving::{Script, content};
use super::support::wait_until;

#[test]
fn a_pause_of_the_reader_does_not_drop_a_server() {
    let file = content(24 << 20);
    let server = Script::of(&file).start();
    let downloads = Downloads::new();
    let url = server.url("/f");
    let mut command =
        downloads.command(&[&url, "-o", "-", "--drop-after", "0.3", "--hedge-after", "0.1", "--retry", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    // The pipe, the memory and the socket buffers are full once no byte was sent for longer than the timeout
    // of a server.
    let (mut sent, mut since) = (0, Instant::now());
    wait_until("the server to be held back", || {
        if server.sent() != sent {
            (sent, since) = (server.sent(), Instant::now());
        }
        sent > 8 << 20 && since.elapsed() > Duration::from_secs(2)
    });
    let mut came = Vec::new();
    output.read_to_end(&mut came).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(came == file);
    assert_eq!(server.exchanges().len(), 1);
}

#[test]
fn a_rate_limit_does_not_count_as_silence_of_the_server() {
    let file = content(12_000);
    let head = format!("HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: {}\r\n\r\n", file.len());
    // Head and body arrive together: the first read returns everything.
    let server = Script::of(b"").sends([head.as_bytes(), &file].concat()).start();
    let downloads = Downloads::new();
    let began = Instant::now();
    let flags = ["--limit-rate", "4000", "--drop-after", "1", "--hedge-after", "0.5", "--retry", "1"];
    downloads.get(&[&[server.url("/f").as_str()][..], &flags].concat()).ended_with(0);
    assert!(began.elapsed() > Duration::from_millis(2500), "{:?}", began.elapsed());
    assert!(downloads.read("f") == file);
    assert_eq!(server.exchanges().len(), 1);
}

#[test]
fn times_beyond_the_range_of_the_clock_are_accepted() {
    let server = Script::of(b"I am a file.").start();
    let flags =
        ["checkpoint-interval", "head-after", "hedge-after", "drop-after", "retry-delay", "parallel-time"];
    for flag in [&flags[..], &["connect-timeout", "max-time", "retry-max-time"]].concat() {
        let downloads = Downloads::new();
        downloads.get(&[&server.url("/f"), &format!("--{flag}"), "1e19"]).ended_with(0);
        assert_eq!(downloads.read("f"), b"I am a file.", "{flag}");
    }
}

#[test]
fn the_only_server_has_a_longer_timeout_for_its_head() {
    let answer = Script::of(b"I am a file.");
    let server = answer.clone().hangs().start();
    let balancer = Script::redirect(&server.url("/f"), &[]).start();
    for first in [&server, &balancer] {
        server.becomes(answer.clone().delays_head(Duration::from_millis(1500)));
        let asked = server.exchanges().len();
        let downloads = Downloads::new();
        let flags =
            ["--drop-after", "0.3", "--hedge-after", "0.2", "--head-after", "0.1", "--retry-delay", "0.02"];
        downloads.get(&[&[first.url("/f").as_str()][..], &flags].concat()).ended_with(0);
        assert_eq!(downloads.read("f"), b"I am a file.");
        assert_eq!(server.exchanges().len(), asked + 1, "it was asked again");
    }
    // The wait is limited to 20 times the timeout.
    server.becomes(answer.hangs());
    let began = Instant::now();
    let outcome = Downloads::new().get(&[&server.url("/f"), "--drop-after", "0.05", "--retry", "0"]);
    assert!(outcome.ended_with(28).stderr().contains("sent nothing for 1s"), "{}", outcome.stderr());
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_suspended_process_continues_on_its_connection() {
    let file = content(3_000_000);
    // Without range support, a new connection would start at the first byte.
    let server = Script::of(&file).header("Accept-Ranges: none").bytes_per_second(2_000_000).start();
    let downloads = Downloads::new();
    let flags = ["--drop-after", "1", "--hedge-after", "0.5", "--head-after", "0.5"];
    let mut running = downloads.start(&[&[server.url("/f").as_str()][..], &flags].concat());
    wait_until("some bytes", || server.sent() > 200_000);
    running.signal(rustix::process::Signal::STOP);
    std::thread::sleep(Duration::from_millis(2500));
    running.signal(rustix::process::Signal::CONT);
    assert_eq!(running.wait().code(), Some(0));
    assert!(downloads.read("f") == file);
    assert_eq!(server.exchanges().len(), 1);
}
