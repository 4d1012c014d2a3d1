//! Precompressed files.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::{Server, pattern};
use crate::support::http::Answer;
use crate::support::{wait_for, wait_until};

/// Starts a server with a page and its compressed forms. The content of each is its name.
fn server() -> Server {
    let server = Server::start_with(&["--precompressed"]);
    for name in ["page.html", "page.html.br", "page.html.zst", "page.html.gz"] {
        put(&server, name, name, 0);
    }
    server
}

/// Creates a file with a modification time `seconds` after a fixed time.
fn put(server: &Server, name: &str, bytes: impl AsRef<[u8]>, seconds: u64) {
    server.put(name, bytes);
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(0x2ebc_98a1 + seconds);
    std::fs::File::open(server.root().join(name)).unwrap().set_modified(modified).unwrap();
}

fn ask(server: &Server, target: &str, accepted: &str) -> Answer {
    server.get_with(target, &[&format!("Accept-Encoding: {accepted}")])
}

#[test]
fn a_client_gets_the_coding_that_it_accepts() {
    let server = server();
    for (accepted, name, coding) in [
        ("gzip, deflate, br, zstd", "page.html.br", Some("br")),
        ("gzip, zstd", "page.html.zst", Some("zstd")),
        ("gzip", "page.html.gz", Some("gzip")),
        ("br;q=0.5, gzip", "page.html.gz", Some("gzip")),
        ("*", "page.html.br", Some("br")),
        ("*, br;q=0", "page.html.zst", Some("zstd")),
        ("identity;q=0, gzip", "page.html.gz", Some("gzip")),
        ("gzip;q=0", "page.html", None),
        ("identity, gzip;q=0.9", "page.html", None),
        ("identity;q=0", "page.html", None),
        ("deflate", "page.html", None),
        ("", "page.html", None),
        ("gzip;q=nonsense", "page.html", None),
    ] {
        for head_matters in [false, true] {
            let line = format!("Accept-Encoding: {accepted}");
            let method = if head_matters { "HEAD" } else { "GET" };
            let answer = server.ask(method, "/page.html", &[&line]);
            assert_eq!(answer.status, 200, "{accepted}");
            assert_eq!(answer.header("Content-Encoding"), coding, "{accepted}");
            assert_eq!(answer.header("Vary"), Some("Accept-Encoding"), "{accepted}");
            assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"), "{accepted}");
            assert_eq!(answer.header("Content-Length"), Some(name.len().to_string().as_str()), "{accepted}");
            assert!(head_matters || answer.text() == name, "{accepted}: {answer:?}");
        }
    }
    assert_eq!(server.get("/page.html").text(), "page.html");
    // Requested by its own name, a compressed file is a regular file.
    let archive = ask(&server, "/page.html.gz", "gzip, br");
    assert_eq!((archive.header("Content-Encoding"), archive.header("Vary")), (None, None));
    assert_eq!(archive.header("Content-Type"), Some("application/gzip"));
}

#[test]
fn without_the_option_no_compressed_file_is_selected() {
    let server = Server::start();
    server.put("page.html", "plain");
    server.put("page.html.gz", "compressed");
    let answer = ask(&server, "/page.html", "gzip");
    assert_eq!((answer.text().as_str(), answer.header("Vary")), ("plain", None));
}

#[test]
fn only_files_with_compressed_forms_have_vary() {
    let server = server();
    server.put("alone.html", "alone");
    server.put("orphan.html.gz", "orphan");
    server.put("plshelp.txt", "plain");
    server.put("plshelp.txt.gz", "compressed");
    let alone = ask(&server, "/alone.html", "gzip");
    assert_eq!((alone.text().as_str(), alone.header("Vary")), ("alone", None));
    assert_eq!(ask(&server, "/orphan.html", "gzip").status, 404);
    let probe = ask(&server, "/plshelp.txt", "gzip");
    assert_eq!((probe.text().as_str(), probe.header("Vary")), ("plain", None));
    server.put("sub/index.html", "index");
    server.put("sub/index.html.gz", "compressed index");
    assert_eq!(ask(&server, "/sub/", "gzip").text(), "compressed index");
}

#[test]
fn conditions_and_ranges_apply_to_the_representation_that_is_sent() {
    let server = Server::start_with(&["--precompressed"]);
    // The same time and the same length, because compression tools preserve the time.
    for (length, name) in [(1000, "small"), (300_000, "large")] {
        let (plain, mut packed) = (pattern(length), pattern(length));
        packed.reverse();
        put(&server, name, &plain, 0);
        put(&server, &format!("{name}.gz"), &packed, 0);
        let target = format!("/{name}");
        let tag = |answer: &Answer| answer.header("Etag").unwrap().to_owned();
        let (identity, gzip) = (server.get(&target), ask(&server, &target, "gzip"));
        assert!(identity.body == plain && gzip.body == packed);
        assert_eq!(tag(&identity), format!("\"2ebc98a1-{length:x}\""));
        assert_eq!(tag(&gzip), format!("\"2ebc98a1-{length:x}-gzip\""));
        let with = |accepted: &str, line: String| {
            server.get_with(&target, &[&format!("Accept-Encoding: {accepted}"), &line])
        };
        let same = with("gzip", format!("If-None-Match: {}", tag(&gzip)));
        assert_eq!((same.status, same.header("Vary")), (304, Some("Accept-Encoding")));
        assert_eq!(with("gzip", format!("If-None-Match: {}", tag(&identity))).status, 200);
        assert_eq!(with("identity", format!("If-Match: {}", tag(&gzip))).status, 412);
        let part = with("gzip", "Range: bytes=10-19".to_owned());
        assert_eq!((part.status, part.header("Content-Encoding")), (206, Some("gzip")));
        assert_eq!(part.body, packed[10..20]);
        assert_eq!(part.header("Content-Range"), Some(format!("bytes 10-19/{length}").as_str()));
        // Parts of different representations are never combined.
        let line = format!("Range: bytes=10-19\r\nIf-Range: {}", tag(&identity));
        assert_eq!(with("gzip", line).status, 200);
    }
}

#[test]
fn a_compressed_file_has_a_digest_of_its_own() {
    let server = server();
    for (accepted, bytes) in [("identity", "page.html"), ("gzip", "page.html.gz")] {
        let digest = wait_for("the digest", || {
            ask(&server, "/page.html", accepted).header("Repr-Digest").map(str::to_owned)
        });
        assert_eq!(digest, format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(bytes))));
    }
}

#[test]
fn after_an_edit_the_old_text_is_never_sent() {
    let server = server();
    assert_eq!(ask(&server, "/page.html", "gzip").text(), "page.html.gz");
    put(&server, "page.html", "edited", 1);
    wait_until("the edited file", || ask(&server, "/page.html", "gzip").text() == "edited");
    assert_eq!(ask(&server, "/page.html", "br").text(), "edited");
    put(&server, "page.html.gz", "edited and compressed", 1);
    wait_until("the new one", || ask(&server, "/page.html", "gzip").text() == "edited and compressed");
    std::fs::remove_file(server.root().join("page.html.gz")).unwrap();
    wait_until("the file itself", || ask(&server, "/page.html", "gzip").text() == "edited");
    put(&server, "page.html.zst", "appeared", 2);
    wait_until("the one that appeared", || ask(&server, "/page.html", "gzip, zstd").text() == "appeared");
}

#[test]
fn a_compressed_file_whose_tool_kept_whole_seconds_is_not_older() {
    let server = server();
    let modified = |nanoseconds| SystemTime::UNIX_EPOCH + Duration::new(0x2ebc_98a1, nanoseconds);
    let file = std::fs::File::open(server.root().join("page.html")).unwrap();
    for (nanoseconds, expected) in [(123_456_789, Some("gzip")), (0, Some("gzip"))] {
        file.set_modified(modified(nanoseconds)).unwrap();
        wait_until("the time to be noticed", || {
            ask(&server, "/page.html", "gzip").header("Content-Encoding") == expected
        });
    }
    let sibling = std::fs::File::open(server.root().join("page.html.gz")).unwrap();
    file.set_modified(modified(123_456_789)).unwrap();
    sibling.set_modified(modified(123_455_000)).unwrap();
    wait_until("the older file to be left out", || {
        ask(&server, "/page.html", "gzip").header("Content-Encoding").is_none()
    });
}
