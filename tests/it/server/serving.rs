//! The bytes of files, and the start and end of a server.

use std::time::Duration;

use rustix::process::Signal;

use super::{Server, pattern, request};
use crate::support::http::{self, Expect};
use crate::support::program::fingerpost;

#[test]
fn the_ready_line_names_the_port_and_sigint_stops_the_server() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut server = Server::start();
        assert_eq!(server.get("/nothing").status, 404);
        server.program_mut().signal(signal);
        let status = server.program_mut().wait();
        assert!(status.success(), "{signal:?}: {status}");
        let stdout = server.program().stdout();
        assert!(stdout.starts_with("Will wait for client connections at port "), "{stdout}");
        assert!(stdout.ends_with("Interrupt received, shutting down ...\n"), "{stdout}");
    }
}

#[test]
fn a_folder_that_cannot_be_served_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let output = fingerpost().args(["server", "--root"]).arg(&missing).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("Error: cannot serve the folder") && stderr.contains("missing"), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn custom_pages_replace_single_built_in_pages() {
    let pages = tempfile::tempdir().unwrap();
    std::fs::write(pages.path().join("404.html"), "<title>404 gone fishing</title>").unwrap();
    let server = Server::start_with(&["--pages", pages.path().to_str().unwrap()]);
    assert_eq!(server.get("/nothing").text(), "<title>404 gone fishing</title>");
    assert!(server.get("/%").text().contains("<title>400 Bad Request</title>"));
}

#[test]
fn files_of_all_sizes_are_sent_completely() {
    for server in Server::start_both() {
        for size in [0, 1, 1000, 128 << 10, (128 << 10) + 1, 5_000_000] {
            let bytes = pattern(size);
            server.put(&format!("{size}.png"), &bytes);
            let answer = server.get(&format!("/files/{size}.png"));
            assert_eq!(answer.status, 200);
            assert!(answer.body == bytes, "{size} bytes expected, {} received", answer.body.len());
            assert_eq!(answer.header("Content-Type"), Some("image/png"));
            assert_eq!(answer.header("Accept-Ranges"), Some("bytes"));
            assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        }
    }
}

#[test]
fn one_connection_carries_many_answers_of_all_kinds() {
    for server in Server::start_both() {
        let (small, medium, large) = (pattern(1000), pattern(100_000), pattern(3_000_000));
        server.put("small", &small);
        server.put("medium", &medium);
        server.put("large", &large);
        let mut connection = server.connect();
        for _ in 0..20 {
            assert!(connection.get("/small").unwrap().body == small);
            assert!(connection.get("/medium").unwrap().body == medium);
            assert!(connection.get("/large").unwrap().body == large);
            connection.send(request("HEAD", "/large", &[])).unwrap();
            let head = connection.answer(Expect::HeadOnly).unwrap();
            assert_eq!(head.header("Content-Length"), Some("3000000"));
        }
        for target in ["/large", "/medium", "/small", "/medium", "/large"] {
            connection.send(request("GET", target, &[])).unwrap();
        }
        for expected in [&large, &medium, &small, &medium, &large] {
            assert!(&connection.answer(Expect::Body).unwrap().body == expected);
        }
    }
}

#[test]
fn head_has_the_headers_of_get() {
    // A digest might become known between the two requests.
    let flags = ["--digests", "off"];
    for server in [Server::start_with(&flags), Server::start_reading(&flags)] {
        server.put("small", pattern(1000));
        server.put("medium", pattern(100_000));
        server.put("large", pattern(300_000));
        for target in ["/small", "/medium", "/medium", "/large", "/nothing", "/plshelp.txt"] {
            let get = server.get(target);
            let head = server.ask("HEAD", target, &[]);
            let told = |answer: &crate::support::http::Answer| {
                let mut headers = answer.headers.clone();
                headers.retain(|(name, _)| name != "Date" && name != "Endpoint-Load-Metrics");
                headers.sort();
                (answer.status, headers)
            };
            assert_eq!(told(&get), told(&head), "{target}");
        }
    }
}

#[test]
fn ranges_return_the_requested_bytes() {
    for server in Server::start_both() {
        for size in [10_000, 100_000, 500_000_usize] {
            let bytes = pattern(size);
            server.put(&format!("{size}"), &bytes);
            let target = &format!("/{size}");
            // A file of medium size is moved to a memfd at its second request.
            (0..2).for_each(|_| assert!(server.get(target).body == bytes));
            for (range, start, end) in
                [("0-0", 0, 1), ("100-299", 100, 300), ("-50", size - 50, size), ("9000-", 9000, size)]
            {
                let answer = server.get_with(target, &[&format!("Range: bytes={range}")]);
                assert_eq!(answer.status, 206);
                assert!(answer.body == bytes[start..end], "{range}");
                let content_range = format!("bytes {start}-{}/{size}", end - 1);
                assert_eq!(answer.header("Content-Range"), Some(content_range.as_str()));
            }
            let answer = server.get_with(target, &["Range: bytes=5000-5009,0-9,9990-9999"]);
            let kind = answer.header("Content-Type").unwrap();
            let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
            let mut expected = Vec::new();
            for (start, end) in [(5000, 5010), (0, 10), (9990, 10_000)] {
                let head = format!(
                    "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                     Content-Range: bytes {start}-{}/{size}\r\n\r\n",
                    end - 1
                );
                expected.extend_from_slice(head.as_bytes());
                expected.extend_from_slice(&bytes[start..end]);
            }
            expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
            assert!(answer.body == expected, "{}", answer.text());
            let answer = server.get_with(target, &["Range: bytes=999999999-"]);
            assert_eq!(answer.header("Content-Range"), Some(format!("bytes */{size}").as_str()));
        }
    }
}

#[test]
fn the_entity_tag_equals_that_of_other_mirrors() {
    let server = Server::start();
    server.put("file", "hello");
    let time = std::time::UNIX_EPOCH + Duration::from_secs(0x2ebc_98a1);
    std::fs::File::open(server.root().join("file")).unwrap().set_modified(time).unwrap();
    let answer = server.get("/file");
    assert_eq!(answer.header("Etag"), Some("\"2ebc98a1-5\""));
    assert_eq!(answer.header("Last-Modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(server.get_with("/file", &["If-None-Match: \"2ebc98a1-5\""]).status, 304);
}

#[test]
fn a_changed_file_is_sent_within_a_second() {
    let server = Server::start();
    let (old, new) = (pattern(100_000), pattern(100_001));
    for (old, new) in [(b"old".as_slice(), b"brand new".as_slice()), (&old, &new)] {
        server.put("file", old);
        crate::support::wait_until("the old file", || server.get("/file").body == old);
        // Each of several answers from memory is completely the old or completely the new file.
        (0..3).for_each(|_| assert!(server.get("/file").body == old));
        server.put("file", new);
        let began = std::time::Instant::now();
        crate::support::wait_until("the new file", || {
            let body = server.get("/file").body;
            assert!(body == old || body == new);
            body == new
        });
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn an_answer_to_a_probe_has_a_load_report() {
    let server = Server::start();
    let answer = server.get("/files/plshelp.txt");
    let report = answer.header("Endpoint-Load-Metrics").unwrap();
    let report = fingerpost::internals::load_report::parse(report.as_bytes()).unwrap().report;
    assert_eq!((report.in_flight, report.unsent_bytes), (1, Some(0)));
    assert!(report.boot.is_some());
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    server.put("plshelp.txt", "my own");
    assert_eq!(server.get("/plshelp.txt").text(), "my own");
    assert_eq!(server.get("/nothing").header("Endpoint-Load-Metrics"), None);
}

#[test]
fn a_file_outside_the_page_cache_is_read_before_it_is_sent() {
    let server = Server::start_with(&["--admin", "127.0.0.1:0"]);
    let bytes = pattern(5_000_000);
    server.put("large", &bytes);
    let file = std::fs::File::open(server.root().join("large")).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut byte = [0];
    let read = rustix::io::preadv2(
        &file,
        &mut [std::io::IoSliceMut::new(&mut byte)],
        4_000_000,
        rustix::io::ReadWriteFlags::NOWAIT,
    );
    if read != Err(rustix::io::Errno::AGAIN) {
        return eprintln!(
            "SKIPPED: this file system does not evict pages on request, or does not report cached pages"
        );
    }
    assert!(server.get("/large").body == bytes);
    let metrics = || http::get(server.program().admin_address(), "/metrics").text();
    let count = || {
        let text = metrics();
        let line = text.lines().find_map(|line| line.strip_prefix("fingerpost_server_cold_reads_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let cold = count();
    assert!(cold >= 1);
    assert!(server.get("/large").body == bytes);
    assert_eq!(count(), cold, "the file is in the page cache now");
}

#[test]
fn a_rate_limit_applies_to_all_clients_together() {
    let limit = ["--limit-rate", "4MiB"];
    // With sendfile, without it, and from the cache.
    for (server, size) in [
        (Server::start_with(&limit), 1 << 20),
        (Server::start_reading(&limit), 1 << 20),
        (Server::start_with(&limit), 128 << 10),
    ] {
        let bytes = pattern(size);
        server.put("file", &bytes);
        let began = std::time::Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let fetch = || (0..(1 << 20) / size).all(|_| server.get("/file").body == bytes);
                scope.spawn(move || assert!(fetch()));
            }
        });
        // Four MiB at four MiB per second. Without the limit it takes far less time on any machine.
        assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    }
}
