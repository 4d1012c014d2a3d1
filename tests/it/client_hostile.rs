//! `fingerpost get` against hostile servers: memory stays bounded, nothing is written outside the folder,
//! exit codes are right.

use std::os::unix::fs::MetadataExt;

use super::support::downloads::Downloads;
use super::support::misbehaving::{Fault, Script, Times};
use super::support::program::Program;
use super::support::wait_until;

fn sends(bytes: impl Into<Vec<u8>>) -> super::support::misbehaving::FileServer {
    Script::of(b"").sends(bytes).start()
}

const GIGABYTES: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000000\r\n\r\n";

/// Peak memory of a program.
fn peak_memory_kilobytes(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_megabyte_of_headers_is_refused() {
    let line = format!("X-Long: {}\r\n", "a".repeat(1 << 20));
    for head in [
        format!("HTTP/1.1 200 OK\r\n{line}\r\n"),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(300)),
    ] {
        let downloads = Downloads::new();
        downloads.get(&[&sends(head).url("/f")]).ended_with(56);
        assert_eq!(downloads.names(), [""; 0]);
    }
}

#[test]
fn impossible_lengths_are_refused() {
    for length in ["-1", "18446744073709551616", "5, 6", "1e3"] {
        let downloads = Downloads::new();
        downloads
            .get(&[&sends(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nabc")).url("/f")])
            .ended_with(56);
        assert_eq!(downloads.names(), [""; 0]);
    }
    // More than any disk can hold.
    let huge = sends("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 18446744073709551615\r\n\r\nabc");
    let downloads = Downloads::new();
    downloads.get(&[&huge.url("/f")]).ended_with(23);
    assert_eq!(downloads.names(), [""; 0]);
}

#[test]
fn an_announced_size_without_bytes_takes_no_disk_space() {
    let server = sends(GIGABYTES);
    let downloads = Downloads::new();
    downloads.get_quickly(&[&server.url("/f"), "--retry", "1"]).ended_with(18);
    assert_eq!(downloads.names(), [""; 0]);
    // The same with a server that keeps the connection open.
    let silent = Script::of(b"").fault(Fault::StallsAfter(GIGABYTES.to_vec()), Times::Always).start();
    let began = std::time::Instant::now();
    // The only server has 20 times the timeout.
    let flags = ["--retry", "1", "--drop-after", "0.2", "--retry-delay", "0.02"];
    let mut running = downloads.start(&[&[silent.url("/f").as_str()][..], &flags].concat());
    wait_until("the part file", || downloads.names().contains(&"f.part".to_owned()));
    let blocks = std::fs::metadata(downloads.path().join("f.part")).unwrap().blocks();
    assert!(blocks < 100, "{blocks} blocks of 512 bytes are taken");
    assert!(peak_memory_kilobytes(&running) < 120_000);
    assert_eq!(running.wait().code(), Some(28));
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(downloads.names(), [""; 0]);
}

#[test]
fn an_endless_body_takes_no_memory() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"10000\r\n".as_slice(), vec![b'x'; 0x10000].as_slice(), b"\r\n"].concat();
    let server = Script::of(b"").fault(Fault::SendsForever(head, chunk), Times::Always).start();
    let mut running = Program::spawn(std::process::Command::new("sh").arg("-c").arg(format!(
        "exec {} get {} -o - >/dev/null",
        env!("CARGO_BIN_EXE_fingerpost"),
        server.url("/f")
    )));
    wait_until("a lot to be sent", || server.sent() > 64 << 20);
    let kilobytes = peak_memory_kilobytes(&running);
    assert!(kilobytes < 120_000, "{kilobytes} kB");
    running.kill();
}

#[test]
fn names_that_a_server_proposes_stay_in_the_folder() {
    let cases = [
        ("attachment; filename=\"../../x\"", "x"),
        ("attachment; filename=\"/etc/cron.d/x\"", "x"),
        ("attachment; filename=\"..\\\\..\\\\boot.ini\"", "boot.ini"),
        ("attachment; filename=\".bashrc\"", "bashrc"),
        ("attachment; filename*=UTF-8''..%2F..%2Fy", "y"),
    ];
    for (header, name) in cases {
        let server = Script::of(b"I am a file.").header(format!("Content-Disposition: {header}")).start();
        let downloads = Downloads::new();
        downloads.get(&[&server.url("/f"), "-J"]).ended_with(0);
        assert_eq!(downloads.names(), [name], "{header}");
        // Without -J, the server does not choose the name.
        let downloads = Downloads::new();
        downloads.get(&[&server.url("/f")]).ended_with(0);
        assert_eq!(downloads.names(), ["f"]);
    }
}

#[test]
fn names_of_addresses_stay_in_the_folder() {
    let long = format!("/{}", "n".repeat(300));
    let server = Script::of(b"I am a file.").start();
    for path in ["/..%2f..%2fx", "/%2e%2e%5cy", "/%00z", "/nul", long.as_str()] {
        let downloads = Downloads::new();
        downloads.get(&[&server.url(path)]).ended_with(0);
        assert_eq!(downloads.names().len(), 1, "{path}");
    }
}

#[test]
fn an_endless_page_of_a_redirect_is_truncated() {
    let target = Script::of(b"I am a file.").start();
    let head = format!(
        "HTTP/1.1 301 Moved\r\nLocation: {}\r\nContent-Length: 99999999999\r\n\r\n",
        target.url("/f")
    );
    let server = Script::of(b"")
        .fault(Fault::SendsForever(head.into_bytes(), vec![b'x'; 4096]), Times::Always)
        .start();
    let downloads = Downloads::new();
    let outcome = downloads.get(&[&server.url("/f")]);
    assert!(outcome.ended_with(0).stdout().len() < 100_000);
    assert_eq!(downloads.read("f"), b"I am a file.");
}

#[test]
fn interim_answers_are_skipped_up_to_a_limit() {
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    let downloads = Downloads::new();
    downloads.get(&[&sends(format!("HTTP/1.1 100 Continue\r\n\r\n{hint}{answer}")).url("/f")]).ended_with(0);
    assert_eq!(downloads.read("f"), b"abc");
    downloads.get(&[&sends(hint.repeat(50)).url("/g")]).ended_with(56);
}

#[test]
fn the_end_of_the_connection_ends_a_body_without_length() {
    // Without length or chunks, the end of the connection is the end of the file.
    let downloads = Downloads::new();
    downloads.get(&[&sends("HTTP/1.1 200 OK\r\n\r\nabc").url("/f")]).ended_with(0);
    assert_eq!(downloads.read("f"), b"abc");
}
