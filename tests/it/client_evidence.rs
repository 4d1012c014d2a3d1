//! `fingerpost get` joins bytes only if they are proven to be of one version: validators of one resource,
//! strong dates, no coded bytes.

use super::support::downloads::Downloads;
use super::support::misbehaving::{Fault, FileServer, Ranges, Script, Times, content};

const FILE: usize = 400_000;

/// Two different files of the same size.
fn two_files() -> (Vec<u8>, Vec<u8>) {
    let (first, mut second) = (content(FILE), content(FILE));
    second.reverse();
    (first, second)
}

/// Runs `get` until half of `script`'s file was received. `f.part` is kept if `is_kept`.
fn half(downloads: &Downloads, server: &FileServer, url: &str, script: &Script, is_kept: bool) {
    server.becomes(script.clone().closes_at(FILE / 2));
    let outcome = downloads.get_quickly(&[url, "-o", "f", "--retry", "0"]);
    assert_ne!(outcome.code(), 0, "{}", outcome.stderr());
    assert_eq!(downloads.names().contains(&"f.part".to_owned()), is_kept, "{script:?}");
}

#[test]
fn validators_of_another_address_are_no_evidence() {
    let (first, second) = two_files();
    let dated = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    for script in
        [|file: &[u8]| Script::of(file).etag(Some("\"1\"")), |file: &[u8]| Script::of(file).etag(None)]
    {
        let script = |file: &[u8]| script(file).header(dated).ranges(Ranges::IfRangeIgnored);
        let downloads = Downloads::new();
        let server = script(&first).start();
        half(&downloads, &server, &server.url("/disk-a.img"), &script(&first), true);
        server.becomes(script(&second));
        downloads.get_quickly(&[&server.url("/disk-b.img"), "-o", "f"]).ended_with(0);
        assert!(downloads.read("f") == second);
    }
}

#[test]
fn a_redirect_to_the_next_release_is_another_resource() {
    let (first, second) = two_files();
    let server = Script::of(b"").start();
    let latest = Script::redirect(&server.url("/1.0/disk.img"), &[]).start();
    let downloads = Downloads::new();
    let address = latest.url("/latest");
    half(&downloads, &server, &address, &Script::of(&first).etag(Some("\"1\"")), true);
    latest.becomes(Script::redirect(&server.url("/1.1/disk.img"), &[]));
    server.becomes(Script::of(&second).etag(Some("\"1\"")));
    downloads.get_quickly(&[&address, "-o", "f"]).ended_with(0);
    assert!(downloads.read("f") == second);
}

#[test]
fn an_address_with_a_new_signature_is_the_same_resource() {
    let file = content(FILE);
    let server = Script::of(b"").start();
    let releases = Script::redirect(&server.url("/bucket/5?signature=1"), &[]).start();
    let downloads = Downloads::new();
    let address = releases.url("/releases/f");
    half(&downloads, &server, &address, &Script::of(&file), true);
    releases.becomes(Script::redirect(&server.url("/bucket/5?signature=2"), &[]));
    server.becomes(Script::of(&file));
    downloads.get_quickly(&[&address, "-o", "f"]).ended_with(0);
    assert!(downloads.read("f") == file);
    let range = format!("bytes={}-", FILE / 2);
    assert_eq!(server.exchanges().last().unwrap().header("Range"), Some(range.as_str()));
}

#[test]
fn a_young_date_is_no_evidence() {
    let (first, second) = two_files();
    let date = |name: &str| format!("{name}: Sun, 06 Nov 1994 08:49:37 GMT");
    let young = |file: &[u8]| {
        let script = Script::of(file).etag(None).header(date("Date")).header(date("Last-Modified"));
        script.ranges(Ranges::IfRangeIgnored)
    };
    let downloads = Downloads::new();
    let server = young(&first).start();
    half(&downloads, &server, &server.url("/f"), &young(&first), false);
    server.becomes(young(&second).before(Fault::ClosesAt(FILE / 3), Times::Next(1)));
    downloads.get_quickly(&[&server.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == second);
    assert!(server.exchanges().iter().all(|exchange| exchange.header("Range").is_none()));
    // A file with such a date does not count as complete: it may have changed again within the same second.
    let sent = server.sent();
    server.becomes(young(&first));
    downloads.get_quickly(&[&server.url("/f")]).ended_with(0);
    assert!(server.sent() > sent && downloads.read("f") == first);
}

#[test]
fn coded_and_plain_bytes_are_not_joined() {
    let (plain, coded) = two_files();
    let tag = Some("\"v1\"");
    let gzip = |file: &[u8]| Script::of(file).etag(tag).header("Content-Encoding: gzip");
    let downloads = Downloads::new();
    let server = gzip(&coded).start();
    // The coded answer ends early; then the plain one has the same tag.
    half(&downloads, &server, &server.url("/f"), &gzip(&coded), false);
    server.becomes(Script::of(&plain).etag(tag).ranges(Ranges::IfRangeIgnored));
    downloads.get_quickly(&[&server.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == plain);

    // The plain answer ends early; then coded parts and coded whole answers follow.
    let downloads = Downloads::new();
    half(&downloads, &server, &server.url("/f"), &Script::of(&plain).etag(tag), true);
    server.becomes(gzip(&coded).ranges(Ranges::IfRangeIgnored));
    let outcome = downloads.get_quickly(&[&server.url("/f"), "--retry", "1"]);
    assert_ne!(outcome.code(), 0);
    assert_eq!(downloads.names(), ["f.part", "f.part.journal"]);
    assert!(downloads.read("f.part")[..FILE / 2] == plain[..FILE / 2]);
    downloads.get_quickly(&[&server.url("/f"), "--no-resume"]).ended_with(0);
    assert!(downloads.read("f") == coded);
}

#[test]
fn a_page_without_validators_does_not_replace_a_proven_version() {
    let file = content(FILE);
    let page = Script::of(b"<html>Please log in</html>").etag(None);
    let downloads = Downloads::new();
    let server = Script::of(&file).start();
    half(&downloads, &server, &server.url("/f"), &Script::of(&file), true);
    server.becomes(page.clone());
    let outcome = downloads.get_quickly(&[&server.url("/f"), "--retry", "1"]);
    assert!(outcome.ended_with(36).stderr().contains("the part file is kept"), "{}", outcome.stderr());
    assert_eq!(downloads.names(), ["f.part", "f.part.journal"]);
    // After the login, the download resumes in the same run.
    server.becomes(page.fault(Fault::ClosesWithoutAnswer, Times::Next(1)));
    let mut running = downloads.start(&[&server.url("/f"), "--retry", "20", "--retry-delay", "0.05"]);
    let asked = server.exchanges().len();
    super::support::wait_until("some pages", || server.exchanges().len() > asked + 3);
    server.becomes(Script::of(&file));
    assert_eq!(running.wait().code(), Some(0));
    assert!(downloads.read("f") == file);
}

#[test]
fn an_unrequested_206_is_accepted_only_if_it_has_the_whole_file() {
    let file = content(FILE);
    let head = |range: &str, length: usize| {
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {range}\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes()
    };
    let whole = [head(&format!("0-{}/{FILE}", FILE - 1), FILE), file.clone()].concat();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&Script::of(b"").sends(whole).start().url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
    for part in [format!("0-999/{FILE}"), "0-999/*".to_owned(), format!("1-1000/{FILE}")] {
        let server = Script::of(b"").sends([head(&part, 1000), file[..1000].to_vec()].concat()).start();
        let downloads = Downloads::new();
        downloads.get_quickly(&[&server.url("/f"), "--retry", "1"]).ended_with(33);
        assert_eq!(downloads.names(), [""; 0]);
    }
}
