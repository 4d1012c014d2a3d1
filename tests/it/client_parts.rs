//! `fingerpost get` and partial answers: announced range, received bytes, and the end of a file of unknown
//! size.

use base64::Engine as _;
use sha2::{Digest, Sha256};

use super::support::digits;
use super::support::downloads::Downloads;
use super::support::misbehaving::{Fault, FileServer, Framing, Ranges, Script, Times, content};

const FILE: usize = 300_000;

/// For files of unknown size, the first answer ends after this many bytes.
const BROKEN_AT: usize = 100_000;

fn balancer(servers: &[&FileServer]) -> FileServer {
    let links: Vec<String> =
        servers.iter().map(|server| format!("<{}>; rel=duplicate", server.url("/f"))).collect();
    Script::redirect(&servers[0].url("/f"), &[&format!("Link: {}", links.join(", "))]).start()
}

fn ranges(server: &FileServer) -> Vec<String> {
    let exchanges = server.exchanges();
    exchanges.iter().map(|exchange| exchange.header("Range").unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_end_of_a_part_is_not_the_end_of_a_file_of_unknown_size() {
    let file = content(FILE);
    let server = Script::of(&file)
        .framing(Framing::Chunked)
        .ranges(Ranges::Unsized(50_000))
        .fault(Fault::ClosesAt(BROKEN_AT), Times::Next(1))
        .start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&server.url("/f"), "--max-time", "20"]).ended_with(0);
    assert!(downloads.read("f") == file);
    // The last request is answered with a 416, which shows the end of the file.
    let asked = ["", "100000", "150000", "200000", "250000", "300000"];
    let asked = asked.map(|from| if from.is_empty() { String::new() } else { format!("bytes={from}-") });
    assert_eq!(ranges(&server), asked);
}

#[test]
fn a_truncated_part_is_not_the_end_of_a_file_of_unknown_size() {
    let file = content(FILE);
    let first = Script::of(&file).framing(Framing::Chunked).closes_at(BROKEN_AT).start();
    // Announces all remaining bytes, but closes the connection earlier. The end of the connection is the only
    // mark of the end.
    let second = Script::of(&file)
        .framing(Framing::UntilClose)
        .ranges(Ranges::Unsized(FILE))
        .fault(Fault::ClosesAt(70_000), Times::WithRange)
        .start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&balancer(&[&first, &second]).url("/f"), "--max-time", "20"]).ended_with(0);
    assert!(downloads.read("f") == file);
    assert_eq!(ranges(&second)[0], format!("bytes={BROKEN_AT}-"));
}

#[test]
fn a_whole_answer_shorter_than_the_received_bytes_is_an_error() {
    let file = content(FILE);
    let first = Script::of(&file)
        .framing(Framing::Chunked)
        .fault(Fault::ClosesAt(BROKEN_AT), Times::Next(1))
        .answers(404, vec![])
        .start();
    let second = Script::of(&file)
        .framing(Framing::UntilClose)
        .ranges(Ranges::Ignored)
        .fault(Fault::ClosesAt(BROKEN_AT / 2), Times::Always)
        .start();
    let downloads = Downloads::new();
    let balancer = balancer(&[&first, &second]);
    downloads.get_quickly(&[&balancer.url("/f"), "--max-time", "20", "--retry", "2"]).ended_with(18);
    assert_eq!(downloads.names(), [""; 0]);
}

#[test]
fn a_part_without_bytes_is_requested_five_times() {
    let head = format!("Content-Range: bytes {BROKEN_AT}-{}/{FILE}", FILE - 1);
    let empty =
        format!("HTTP/1.1 206 Part\r\nETag: \"e\"\r\n{head}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let server = Script::of(&content(FILE))
        .etag(Some("\"e\""))
        .fault(Fault::ClosesAt(BROKEN_AT), Times::Next(1))
        .fault(Fault::Sends(empty.into_bytes()), Times::WithRange)
        .start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&server.url("/f"), "--max-time", "20"]).ended_with(18);
    assert_eq!(downloads.names(), ["f.part", "f.part.journal"]);
    assert_eq!(server.exchanges().len(), 1 + 5);
}

#[test]
fn whole_answers_that_end_at_the_same_byte_are_not_progress() {
    let server = Script::of(&content(FILE)).ranges(Ranges::Ignored).closes_at(BROKEN_AT).start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&server.url("/f"), "--max-time", "20"]).ended_with(18);
    assert!(server.sent() <= 8 * BROKEN_AT, "{} bytes were sent", server.sent());
}

#[test]
fn a_second_request_with_the_own_tag_of_a_server_does_not_end_the_file() {
    let file = content(FILE);
    let coded = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(&file));
    let digest = format!("Repr-Digest: sha-256=:{coded}:");
    let script = Script::of(&file).framing(Framing::Chunked).header(digest);
    let first = script
        .clone()
        .etag(Some("\"a\""))
        .fault(Fault::ClosesAt(BROKEN_AT), Times::Next(1))
        .answers(404, vec![])
        .start();
    let second = script.etag(Some("\"b\"")).start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&balancer(&[&first, &second]).url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
    assert_eq!(ranges(&second), [format!("bytes={BROKEN_AT}-"), format!("bytes={BROKEN_AT}-")]);
    assert_eq!(second.exchanges()[1].header("If-Range"), Some("\"b\""));
}

#[test]
fn a_head_of_another_version_does_not_set_the_size() {
    let file = content(FILE);
    // The stalled server announces a longer, a shorter or an unknown size.
    for (announced, framing) in
        [(FILE / 2, Framing::Length), (2 * FILE, Framing::Length), (FILE / 2, Framing::Chunked)]
    {
        let silent = Script::of(&content(announced)).stalls_after_head().start();
        let good = Script::of(&file).framing(framing).start();
        let downloads = Downloads::new();
        let balancer = balancer(&[&silent, &good]);
        downloads.get_quickly(&[&balancer.url("/f"), "--max-time", "20"]).ended_with(0);
        assert!(downloads.read("f") == file, "{announced} {framing:?}: {}", downloads.read("f").len());
    }
}

#[test]
fn a_server_with_this_version_determines_the_end_of_the_file() {
    let (file, longer) = (content(FILE), content(2 * FILE));
    let past_end = || vec![format!("Content-Range: bytes */{FILE}")];
    let broken =
        || Script::of(&longer).framing(Framing::Chunked).fault(Fault::ClosesAt(FILE), Times::Next(1));
    // A server that has sent this version shows the end, with a tag or without.
    for tag in [None, Some(format!("ETag: {}", broken().start().etag().unwrap()))] {
        let lines = past_end().into_iter().chain(tag).collect();
        let server = broken().answers(416, lines).start();
        let downloads = Downloads::new();
        downloads.get_quickly(&[&server.url("/f")]).ended_with(0);
        assert!(downloads.read("f") == file);
    }
    // Another server with the same tag does so, too.
    let (first, second) = (broken().answers(404, vec![]).start(), Script::of(&file));
    let second = second.etag(first.etag().as_deref()).start();
    let downloads = Downloads::new();
    downloads.get_quickly(&[&balancer(&[&first, &second]).url("/f")]).ended_with(0);
    assert!(downloads.read("f") == file);
}

#[test]
fn a_server_without_this_version_does_not_determine_the_end_of_the_file() {
    let file = content(FILE);
    let breaking = || {
        let script = Script::of(&file).framing(Framing::Chunked);
        script.fault(Fault::ClosesAt(BROKEN_AT), Times::Next(1)).answers(404, vec![]).start()
    };
    let misleading = || {
        let past_end = Fault::Answers(416, vec![format!("Content-Range: bytes */{BROKEN_AT}")]);
        Script::of(b"").fault(past_end, Times::Next(1)).answers(404, vec![]).start()
    };
    let (first, second) = (breaking(), misleading());
    let downloads = Downloads::new();
    downloads.get_quickly(&[&balancer(&[&first, &second]).url("/f")]).ended_with(22);
    assert_eq!(ranges(&second), [format!("bytes={BROKEN_AT}-"), String::new()]);
    assert_eq!(downloads.names(), [""; 0]);

    // It does not prevent the right file either, if a digest identifies that.
    let (first, second) = (breaking(), misleading());
    let third = Script::of(&file).etag(Some("\"right\"")).framing(Framing::Chunked).start();
    let checksum = format!("sha-256={}", digits::<Sha256>(&file));
    let balancer = balancer(&[&first, &second, &third]);
    downloads.get_quickly(&[&balancer.url("/f"), "--checksum", &checksum]).ended_with(0);
    assert!(downloads.read("f") == file);
}
