//! `fingerpost get` never exits with 0 and wrong bytes: announced digests, given digests, corrupt servers.

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::support::digits;
use super::support::downloads::{Downloads, PATIENT, QUICK};
use super::support::misbehaving::{Fault, FileServer, Framing, Script, Times, content};

const FILE: usize = 700_000;

fn hex(bytes: &[u8]) -> String {
    digits::<Sha256>(bytes)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(bytes))
}

fn repr_digest(bytes: &[u8]) -> String {
    format!("Repr-Digest: sha-256=:{}:", base64(bytes))
}

fn balancer(servers: &[&FileServer], header: &str) -> FileServer {
    let links: Vec<String> =
        servers.iter().map(|server| format!("<{}>; rel=duplicate", server.url("/f"))).collect();
    Script::redirect(&servers[0].url("/f"), &[&format!("Link: {}", links.join(", ")), header]).start()
}

#[test]
fn a_given_checksum_is_verified() {
    let file = content(FILE);
    let server = Script::of(&file).start();
    let downloads = Downloads::new();
    let right = format!("sha-256={}", hex(&file));
    downloads.get(&[&server.url("/f"), "--checksum", &right]).ended_with(0);
    // The file exists and is right: no server is asked.
    let before = server.exchanges().len();
    downloads.get(&[&server.url("/f"), "--checksum", &right]).ended_with(0);
    assert_eq!(server.exchanges().len(), before);

    let wrong = format!("sha-256={}", hex(b"another file"));
    let outcome = downloads.get_quickly(&[&server.url("/f"), "--checksum", &wrong, "-o", "g"]);
    assert!(outcome.ended_with(32).stderr().contains(&hex(&file)), "{}", outcome.stderr());
    assert_eq!(downloads.names(), ["f"]);
    downloads.get(&[&server.url("/f"), "--checksum", "md5=00"]).ended_with(2);

    for (name, right) in [("sha-1", digits::<Sha1>(&file)), ("sha-512", digits::<Sha512>(&file))] {
        downloads
            .get(&[&server.url("/f"), "--checksum", &format!("{name}={right}"), "-o", name])
            .ended_with(0);
        assert!(downloads.read(name) == file);
        let wrong = format!("{name}={}", "0".repeat(right.len()));
        let outcome = downloads.get_quickly(&[&server.url("/f"), "--checksum", &wrong, "-o", "g"]);
        assert!(outcome.ended_with(32).stderr().contains(&right), "{}", outcome.stderr());
    }
}

#[test]
fn unsupported_digests_of_a_metalink_print_a_warning() {
    let file = content(FILE);
    let server = Script::of(&file).start();
    let metalink = format!(
        "<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\"><file name=\"f\"><size>{FILE}</size>\
         <hash type=\"md5\">00</hash><url>{}</url></file></metalink>",
        server.url("/f")
    );
    let downloads = Downloads::new();
    std::fs::write(downloads.path().join("f.meta4"), metalink).unwrap();
    let outcome = downloads.get(&["f.meta4"]);
    assert!(outcome.ended_with(0).stderr().contains("unsupported kinds: md5"), "{}", outcome.stderr());
    assert!(downloads.read("f") == file);
}

#[test]
fn a_corrupt_server_is_detected_by_its_own_digest() {
    let file = content(FILE);
    let corrupt = Script::of(&file).header(repr_digest(&file)).corrupts(300_000);
    let alone = corrupt.clone().start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&alone.url("/f")]).ended_with(32);
    assert_eq!(downloads.names(), [""; 0]);

    let good = Script::of(&file).start();
    let first = corrupt.start();
    let balancer = balancer(&[&first, &good], "X-Nothing: 1");
    downloads.get_quickly(&[&balancer.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
    assert!(first.sent() + good.sent() <= 2 * FILE);
}

#[test]
fn a_corrupt_server_is_detected_by_the_digest_of_the_balancer() {
    let file = content(FILE);
    let corrupt = Script::of(&file).corrupts(10).start();
    let good = Script::of(&file).start();
    let digest = format!("Digest: SHA-256={}", base64(&file));
    let downloads = Downloads::new();
    let balancer = balancer(&[&corrupt, &good], &digest);
    downloads.get_quickly(&[&balancer.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
}

#[test]
fn one_corrupt_server_of_two_that_share_a_file_is_detected() {
    let file = content(12 << 20);
    for first_is_corrupt in [true, false] {
        let make = |is_corrupt: bool| {
            let script = Script::of(&file).bytes_per_second(20 << 20);
            // Every part from this server is wrong.
            if is_corrupt { script.corrupts_everywhere() } else { script }
        };
        let (first, second) = (make(first_is_corrupt).start(), make(!first_is_corrupt).start());
        let digest = format!("Digest: SHA-256={}", base64(&file));
        let downloads = Downloads::new();
        let balancer = balancer(&[&first, &second], &digest);
        let address = balancer.url("/f");
        downloads.get(&[&[address.as_str(), "--parallel-time", "0.1"][..], &PATIENT].concat()).ended_with(0);
        assert!(downloads.read("f") == file, "corrupt first: {first_is_corrupt}");
        // All servers together, with the bytes in flight when a part was shortened, and each server alone.
        let sent = first.sent() + second.sent();
        assert!(sent <= 3 * file.len() + (6 << 20), "{sent} bytes were sent");
    }
}

/// Downloads `file` from several servers. The one at index `corrupt` sends wrong bytes as defined by `spoil`.
/// Returns the bytes that all servers sent.
fn shared_with_a_corrupt_one(
    file: &[u8],
    servers: usize,
    corrupt: usize,
    spoil: fn(Script) -> Script,
) -> usize {
    let servers: Vec<FileServer> = (0..servers)
        .map(|index| {
            let script = Script::of(file).bytes_per_second(10 << 20);
            if index == corrupt { spoil(script).start() } else { script.start() }
        })
        .collect();
    let digest = format!("Digest: SHA-256={}", base64(file));
    let downloads = Downloads::new();
    let balancer = balancer(&servers.iter().collect::<Vec<_>>(), &digest);
    let address = balancer.url("/f");
    downloads.get(&[&[address.as_str(), "--parallel-time", "0.05"][..], &PATIENT].concat()).ended_with(0);
    assert!(downloads.read("f") == file, "server {corrupt} is corrupt");
    assert_eq!(downloads.names(), ["f"]);
    servers.iter().map(FileServer::sent).sum()
}

#[test]
fn one_corrupt_server_among_several_costs_at_most_the_file_twice_more() {
    let file = content(9 << 20);
    for servers in [2, 3] {
        for corrupt in 0..servers {
            let spoil = |script: Script| script.corrupts_blocks(256 << 10);
            let sent = shared_with_a_corrupt_one(&file, servers, corrupt, spoil);
            // All servers together, the corrupt one alone, another one alone.
            assert!(sent <= 3 * file.len() + (6 << 20), "{sent} bytes were sent, {corrupt} of {servers}");
        }
    }
}

#[test]
fn several_corrupt_servers_cost_at_most_five_times_the_file() {
    let file = content(4 << 20);
    let digest = format!("Digest: SHA-256={}", base64(&file));
    for good in 0..4 {
        let servers: Vec<FileServer> = (0..4)
            .map(|index| {
                let script = Script::of(&file).bytes_per_second(10 << 20);
                if index == good { script.start() } else { script.corrupts_blocks(200 << 10).start() }
            })
            .collect();
        let balancer = balancer(&servers.iter().collect::<Vec<_>>(), &digest);
        let downloads = Downloads::new();
        let flags = ["--parallel-time", "0.05", "--parallel-size", "1MiB"];
        let outcome = downloads.get_quickly(&[&[balancer.url("/f").as_str()][..], &flags].concat());
        let sent: usize = servers.iter().map(FileServer::sent).sum();
        assert!(sent <= 5 * file.len() + (3 << 20), "{sent} bytes were sent, {good} is good");
        // Among many wrong servers the right one may not be found; then no file is left, and never a wrong
        // one.
        match outcome.code() {
            0 => assert!(downloads.read("f") == file),
            code => assert_eq!((code, downloads.names()), (32, vec![]), "{}", outcome.stderr()),
        }
    }
}

#[test]
fn after_a_failure_of_a_server_asked_alone_the_next_is_asked() {
    let file = content(9 << 20);
    let good = Script::of(&file).bytes_per_second(10 << 20).start();
    // Sends most bytes, all of them wrong, and then fails.
    let corrupt = Script::of(&file).bytes_per_second(30 << 20).corrupts_everywhere().start();
    let digest = format!("Digest: SHA-256={}", base64(&file));
    let balancer = balancer(&[&good, &corrupt], &digest);
    let downloads = Downloads::new();
    let mut running = downloads
        .start(&[&[balancer.url("/f").as_str(), "--parallel-time", "0.1", "-v"][..], &QUICK].concat());
    running.wait_for_stderr("the file had a wrong digest");
    corrupt.kill();
    assert_eq!(running.wait().code(), Some(0));
    assert!(downloads.read("f") == file);
}

#[test]
fn a_server_that_announces_another_digest_is_not_used() {
    let (file, mut other) = (content(FILE), content(FILE));
    other.reverse();
    let good = Script::of(&file).header(repr_digest(&file)).closes_at(FILE / 2).start();
    // The same tag and size, but another file.
    let impostor = Script::of(&other).etag(good.etag().as_deref()).header(repr_digest(&other)).start();
    let downloads = Downloads::new();
    let balancer = balancer(&[&good, &impostor], "X-Nothing: 1");
    downloads.get_quickly(&[&balancer.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
}

#[test]
fn a_checksum_that_no_server_has_ends_with_32_before_any_download() {
    let file = content(FILE);
    let server = Script::of(&file).header(repr_digest(&file)).start();
    let wrong = format!("sha-256={}", hex(b"another file"));
    for first in [&server, &balancer(&[&server], "X-Nothing: 1")] {
        let downloads = Downloads::new();
        let outcome = downloads.get_quickly(&[&first.url("/f"), "--checksum", &wrong]);
        let words = format!("has a file with the digest sha-256={} instead of {wrong}", hex(&file));
        assert!(outcome.ended_with(32).stderr().contains(&words), "{}", outcome.stderr());
        assert_eq!(downloads.names(), [""; 0]);
    }
}

#[test]
fn a_short_body_is_an_error_in_every_framing() {
    let file = content(FILE);
    let endings = [Fault::ClosesAt(FILE / 3), Fault::ResetsAt(FILE / 3)];
    for fault in endings {
        for framing in [Framing::Length, Framing::Chunked] {
            // Without a validator, parts cannot be joined either.
            let script = Script::of(&file).etag(None).framing(framing).fault(fault.clone(), Times::Always);
            let server = script.start();
            let downloads = Downloads::new();
            let code = downloads.get_quickly(&[&server.url("/f"), "--retry", "1"]).code();
            assert!([18, 56].contains(&code), "{fault:?} {framing:?}: {code}");
            assert_eq!(downloads.names(), [""; 0]);
        }
    }
}

#[test]
fn chunks_and_closing_servers_are_downloaded() {
    let file = content(FILE);
    for framing in [Framing::Chunked, Framing::UntilClose] {
        let server = Script::of(&file).framing(framing).start();
        let downloads = Downloads::new();
        downloads.get(&[&server.url("/f")]).ended_with(0);
        assert!(downloads.read("f") == file, "{framing:?}");
    }
    let empty = Script::of(b"").start();
    let downloads = Downloads::new();
    downloads.get(&[&empty.url("/f")]).ended_with(0);
    assert_eq!(downloads.read("f"), b"");
}

#[test]
fn a_metalink_repairs_the_pieces_of_a_corrupt_server() {
    repaired_by_a_metalink::<Sha256, Sha256>("sha-256", "sha-256");
    repaired_by_a_metalink::<Sha512, Sha1>("sha-512", "sha-1");
}

/// The whole file and its pieces have digests of different algorithms.
fn repaired_by_a_metalink<Whole: Digest, Piece: Digest>(whole: &str, pieces: &str) {
    let file = content(4 << 20);
    let piece = 256 * 1024;
    let corrupt = Script::of(&file).corrupts(5 * piece + 7).start();
    let good = Script::of(&file).start();
    let hashes: Vec<String> =
        file.chunks(piece).map(|bytes| format!("<hash>{}</hash>", digits::<Piece>(bytes))).collect();
    let metalink = format!(
        "<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\"><file name=\"../f\"><size>{}</size>\
         <hash type=\"{whole}\">{}</hash><pieces length=\"{piece}\" type=\"{pieces}\">{}</pieces>\
         <url priority=\"1\">{}</url><url priority=\"2\">{}</url></file></metalink>",
        file.len(),
        digits::<Whole>(&file),
        hashes.concat(),
        corrupt.url("/f"),
        good.url("/f"),
    );
    let downloads = Downloads::new();
    std::fs::write(downloads.path().join("f.meta4"), &metalink).unwrap();
    downloads.get_quickly(&["f.meta4"]).ended_with(0);
    assert!(downloads.read("f") == file);
    // Only wrong and missing bytes were fetched from the good server.
    assert!(corrupt.sent() + good.sent() < 2 * file.len(), "{} and {}", corrupt.sent(), good.sent());

    // The same with an address that answers with the Metalink.
    let catalogue = Script::of(metalink.as_bytes()).header("Content-Type: application/metalink4+xml").start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&catalogue.url("/download")]).ended_with(0);
    assert!(downloads.read("f") == file);
    let nonsense = Script::of(b"<a>").header("Content-Type: application/metalink4+xml").start();
    downloads.get_quickly(&[&nonsense.url("/download")]).ended_with(82);
}
