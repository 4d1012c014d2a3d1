//! `fingerpost get` and Metalinks, from the disk and from an address.

use sha2::Sha256;

use super::support::digits;
use super::support::downloads::{Downloads, Outcome};
use super::support::misbehaving::{Fault, FileServer, Script, Times, content};
use super::support::wait_until;

const TYPE: &str = "Content-Type: application/metalink4+xml";

fn metalink(files: &[String]) -> String {
    format!("<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">{}</metalink>", files.concat())
}

fn file(name: &str, inner: &str, server: &FileServer) -> String {
    format!("<file name=\"{name}\">{inner}<url>{}</url></file>", server.url(&format!("/{name}")))
}

fn reports(outcome: &Outcome) -> Vec<serde_json::Value> {
    let mut reports: Vec<serde_json::Value> =
        outcome.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    reports.sort_by_key(|report| report["file"].to_string());
    reports
}

#[test]
fn an_empty_file_is_created_and_verified_without_a_request() {
    let server = Script::of(&content(1000)).start();
    let hash =
        |bytes: &[u8]| format!("<size>0</size><hash type=\"sha-256\">{}</hash>", digits::<Sha256>(bytes));
    for (inner, code) in [("<size>0</size>".to_owned(), 0), (hash(b""), 0), (hash(b"more"), 32)] {
        let downloads = Downloads::new();
        std::fs::write(downloads.path().join("a.meta4"), metalink(&[file("empty", &inner, &server)]))
            .unwrap();
        let outcome = downloads.get(&["a.meta4", "--json"]);
        let report = &reports(outcome.ended_with(code))[0];
        assert_eq!(report["exit"], code, "{report}");
        if code == 0 {
            assert_eq!((&report["size"], downloads.read("empty")), (&0.into(), vec![]), "{report}");
        } else {
            assert_eq!(downloads.names(), ["a.meta4"]);
        }
    }
    assert_eq!(server.exchanges(), []);
}

#[test]
fn a_wrong_piece_stays_missing_for_later_runs() {
    let right = content(200_000);
    let server = Script::of(&right).stalls_after_head().start();
    let hashes: Vec<String> =
        right.chunks(100_000).map(|piece| format!("<hash>{}</hash>", digits::<Sha256>(piece))).collect();
    let hashes = hashes.concat();
    let pieces = format!("<size>200000</size><pieces length=\"100000\" type=\"sha-256\">{hashes}</pieces>");
    let downloads = Downloads::new();
    std::fs::write(downloads.path().join("a.meta4"), metalink(&[file("f", &pieces, &server)])).unwrap();
    // The second half of the bytes of an earlier run is wrong.
    let mut wrong = right.clone();
    wrong[150_000] ^= 1;
    std::fs::write(downloads.path().join("f.part"), wrong).unwrap();
    let etags = [server.etag().unwrap()];
    let identity = serde_json::json!({
        "size": 200_000, "digest": null, "etags": etags, "last_modified": null, "resource": server.url("/f")
    });
    let lines = [
        serde_json::json!({ "fingerpost": 1, "file": identity }),
        serde_json::json!({ "start": 0, "end": 200_000, "from": "" }),
    ];
    let journal = format!("{}\n{}\n", lines[0], lines[1]);
    std::fs::write(downloads.path().join("f.part.journal"), journal).unwrap();
    let mut running = downloads.start(&["a.meta4"]);
    wait_until("a question", || !server.exchanges().is_empty());
    running.kill();
    // Without the Metalink, only the journal records this.
    server.becomes(Script::of(&right));
    downloads.get(&[&server.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == right);
    assert_eq!(server.exchanges().last().unwrap().header("Range"), Some("bytes=100000-"));
}

#[test]
fn each_file_of_a_metalink_has_its_own_result() {
    let good = Script::of(b"I am a file.").start();
    let missing = Script::of(b"").answers(404, vec![]).start();
    let text = metalink(&[
        file("a", "", &missing),
        file("b", "", &good),
        // The second of two files of one name would replace the first.
        file("folder/../b", "", &good),
        file("list", "", &good),
    ]);
    let catalogue = Script::of(text.as_bytes()).header(TYPE).start();
    let front = Script::redirect(&catalogue.url("/list"), &[]).start();
    let downloads = Downloads::new();
    let outcome = downloads.get(&[&front.url("/list"), "--json", "-H", "Authorization: Bearer secret"]);
    let reports = reports(outcome.ended_with(22));
    let output: Vec<_> =
        reports.iter().map(|report| (report["file"].as_str(), report["exit"].as_u64())).collect();
    let expected = [(Some("a"), Some(22)), (Some("b"), Some(0)), (Some("list"), Some(0)), (None, Some(2))];
    assert_eq!(output, expected, "{}", outcome.stdout());
    assert_eq!(downloads.names(), ["b", "list"]);
    // The Metalink is read from the answer to a normal request.
    assert_eq!(front.exchanges()[0].header("Authorization"), Some("Bearer secret"));
    // Another port is another origin.
    let asked = catalogue.exchanges();
    assert_eq!((asked.len(), asked[0].header("Authorization")), (1, None));
    assert!(good.exchanges().iter().all(|exchange| exchange.header("Authorization").is_none()));
}

#[test]
fn a_missing_or_invalid_metalink_is_reported() {
    let refusing = Script::of(b"no").answers(401, vec![TYPE.to_owned()]).start();
    let nonsense = Script::of(b"<a>").header(TYPE).start();
    let half = Script::of(&[b' '; 1000]).header(TYPE).closes_at(500).start();
    for (server, code) in [(refusing, 22), (nonsense, 82), (half, 18)] {
        let downloads = Downloads::new();
        let outcome = downloads.get(&[&server.url("/f"), "--json"]);
        let reports = reports(outcome.ended_with(code));
        assert_eq!(reports.len(), 1, "{}", outcome.stdout());
        assert_eq!((&reports[0]["url"], &reports[0]["exit"]), (&server.url("/f").into(), &code.into()));
        assert_eq!(downloads.names(), [""; 0]);
    }
}

#[test]
fn max_time_and_ctrl_c_end_the_transfer_of_a_metalink() {
    let server = Script::of(&[b' '; 1000]).header(TYPE).stalls_at(500).start();
    let downloads = Downloads::new();
    downloads.get(&[&server.url("/f"), "--max-time", "0.3"]).ended_with(28);
    let mut running = downloads.start(&[&server.url("/f")]);
    wait_until("half of it", || server.sent() >= 1000);
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.wait().code(), Some(130));
}

#[test]
fn a_metalink_after_bytes_of_a_file_does_not_end_the_download() {
    let right = content(300_000);
    let other = Script::of(b"another file").start();
    let text = metalink(&[file("other", "", &other)]);
    let misled = Script::of(text.as_bytes()).header(TYPE).start();
    let script = Script::of(&right).fault(Fault::ClosesAt(200_000), Times::Next(1));
    for (first, expected) in [(script.clone(), None), (script.answers(404, vec![]), Some(22))] {
        let first = first.start();
        let links = format!("Link: <{}>; rel=duplicate; pri=2", misled.url("/f"));
        let balancer = Script::redirect(&first.url("/f"), &[&links]).start();
        let downloads = Downloads::new();
        let outcome = downloads.get_quickly(&[&balancer.url("/f")]);
        match expected {
            None => {
                outcome.ended_with(0);
                assert!(downloads.read("f") == right);
            }
            Some(code) => assert_eq!(
                (outcome.code(), downloads.names().contains(&"other".to_owned())),
                (code, false),
                "{}",
                outcome.stderr()
            ),
        }
    }
    assert_eq!(other.exchanges(), []);
}

#[test]
fn a_metalink_replaces_a_file_that_was_half_downloaded_before() {
    let right = content(300_000);
    let server = Script::of(&right).closes_at(200_000).start();
    let downloads = Downloads::new();
    downloads.get(&[&server.url("/f"), "--retry", "0"]).ended_with(18);
    let other = Script::of(&right).start();
    server.becomes(Script::of(metalink(&[file("f", "", &other)]).as_bytes()).header(TYPE));
    downloads.get_quickly(&[&server.url("/f")]).ended_with(0);
    assert_eq!(downloads.names(), ["f"]);
    assert!(downloads.read("f") == right);
}

/// A Metalink of `file` with digests of its pieces, and `servers` as mirrors.
fn described_by_pieces(file: &[u8], length: usize, servers: &[&FileServer]) -> String {
    let hashes: Vec<String> =
        file.chunks(length).map(|piece| format!("<hash>{}</hash>", digits::<Sha256>(piece))).collect();
    let urls: Vec<String> = servers.iter().map(|server| format!("<url>{}</url>", server.url("/f"))).collect();
    metalink(&[format!(
        "<file name=\"f\"><size>{}</size><pieces length=\"{length}\" type=\"sha-256\">{}</pieces>{}</file>",
        file.len(),
        hashes.concat(),
        urls.concat()
    )])
}

#[test]
fn right_pieces_are_kept_after_a_wrong_piece() {
    let file = content(4 << 20);
    let length = 1 << 20;
    for at in [3 << 20, 1 << 20] {
        let corrupt = Script::of(&file).corrupts(at + 5).start();
        let silent = Script::of(&file).stalls_after_head().start();
        let downloads = Downloads::new();
        let describe = |servers: &[&FileServer]| {
            let text = described_by_pieces(&file, length, servers);
            std::fs::write(downloads.path().join("a.meta4"), text).unwrap();
        };
        // After an interruption, the right pieces are kept.
        describe(&[&corrupt, &silent]);
        let mut running =
            downloads.start(&["a.meta4", "-v", "--sources", "1", "--checkpoint-interval", "60"]);
        running.wait_for_stderr("pieces had a wrong digest");
        wait_until("a question", || !silent.exchanges().is_empty());
        running.signal(rustix::process::Signal::INT);
        assert_eq!(running.wait().code(), Some(130));
        let right = Script::of(&file).start();
        describe(&[&right]);
        downloads.get(&["a.meta4"]).ended_with(0);
        assert!(downloads.read("f") == file);
        let again = right.sent();
        assert!(again < 2 * length, "{again} bytes came a second time");
    }
}

#[test]
fn if_no_server_has_a_right_piece_the_other_pieces_are_kept() {
    let file = content(4 << 20);
    let length = 1 << 20;
    let corrupt = Script::of(&file).corrupts(length + 5).start();
    let downloads = Downloads::new();
    let text = described_by_pieces(&file, length, &[&corrupt]);
    std::fs::write(downloads.path().join("a.meta4"), text).unwrap();
    let outcome = downloads.get(&["a.meta4"]);
    let output = outcome.ended_with(32).stderr();
    assert!(output.contains("pieces with a wrong digest on every source: 1"), "{output}");
    assert_eq!(downloads.names(), ["a.meta4", "f.part", "f.part.journal"]);
    corrupt.becomes(Script::of(&file));
    let before = corrupt.sent();
    downloads.get(&["a.meta4"]).ended_with(0);
    assert!(downloads.read("f") == file);
    assert!(corrupt.sent() - before < file.len() / 2, "it was fetched once more");
}

#[test]
fn pieces_are_verified_for_outputs_in_order() {
    let file = content(400_000);
    for (script, code) in [(Script::of(&file), 0), (Script::of(&file).corrupts(150_000), 32)] {
        let server = script.start();
        let downloads = Downloads::new();
        let text = described_by_pieces(&file, 100_000, &[&server]);
        std::fs::write(downloads.path().join("a.meta4"), text).unwrap();
        let outcome = downloads.get(&["a.meta4", "-o", "-"]);
        let came = outcome.ended_with(code).stdout_bytes();
        if code == 0 {
            assert!(came == file);
        } else {
            assert!(outcome.stderr().contains("begins at byte 100000 has a wrong"), "{}", outcome.stderr());
            assert!(came.len() < 200_000 && came[..100_000] == file[..100_000]);
        }
        downloads.get(&["a.meta4", "-o", "/dev/null"]).ended_with(code);
    }
}

#[test]
fn a_right_server_that_shares_pieces_with_a_corrupt_one_is_kept() {
    let right = content(6 << 20);
    // One case has a single piece, so that both servers contribute to the wrong one.
    for pieces in [3, 1] {
        for first_is_corrupt in [true, false] {
            let servers = [first_is_corrupt, !first_is_corrupt].map(|is_corrupt| {
                let script = Script::of(&right).bytes_per_second(8 << 20);
                if is_corrupt { script.corrupts_blocks(64 << 10).start() } else { script.start() }
            });
            let text = described_by_pieces(&right, right.len() / pieces, &[&servers[0], &servers[1]]);
            let downloads = Downloads::new();
            std::fs::write(downloads.path().join("a.meta4"), text).unwrap();
            let flags = ["a.meta4", "--max-time", "20", "--parallel-time", "0.05", "--parallel-size", "1MiB"];
            downloads.get_quickly(&flags).ended_with(0);
            assert!(downloads.read("f") == right, "{pieces} pieces, corrupt first: {first_is_corrupt}");
        }
    }
}
