//! `Repr-Digest`: computed in the background, dropped when the file changes, stored across restarts, and used by
//! `get`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::{Server, pattern, request};
use crate::support::downloads::Downloads;
use crate::support::http::{self, Expect};
use crate::support::misbehaving::Script;
use crate::support::program::Program;
use crate::support::{wait_at_most, wait_for, wait_until};

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

fn header(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", base64(bytes))
}

/// A digest in the form of the file of digests.
fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(Sha256::digest(bytes))
}

/// Waits for the digest of a file.
fn digest(server: &Server, target: &str) -> String {
    wait_for("the digest", || server.ask("HEAD", target, &[]).header("Repr-Digest").map(str::to_owned))
}

/// The value of a metric.
fn metric(program: &Program, name: &str) -> u64 {
    let text = http::get(program.admin_address(), "/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("fingerpost_server_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

/// Starts a server on an existing folder that stores its digests in the file `kept`.
fn serve(root: &Path, kept: &Path) -> Program {
    let program = Program::start(
        ["server", "--host", "127.0.0.1", "--workers", "1", "--admin", "127.0.0.1:0", "--root"]
            .map(Path::new)
            .into_iter()
            .chain([root, Path::new("--digests"), kept]),
    );
    program.port();
    program
}

/// A folder with files, and a file of digests for all of them, written by a server that has stopped.
fn kept(files: &[(&str, &[u8])]) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (root, kept) = (folder.path().join("root"), folder.path().join("digests"));
    std::fs::create_dir(&root).unwrap();
    for (name, bytes) in files {
        std::fs::write(root.join(name), bytes).unwrap();
    }
    let mut program = serve(&root, &kept);
    // The writing thread has the lowest priority, and pauses after each save for fifty times the duration of the
    // save.
    wait_at_most(Duration::from_mins(3), "all digests in the file", || {
        let text = std::fs::read_to_string(&kept).ok()?;
        (text.lines().count() == files.len() + 2).then_some(())
    });
    program.kill();
    (folder, root, kept)
}

#[test]
fn a_known_digest_is_sent_with_the_file() {
    let server = Server::start_with(&ADMIN);
    let (small, large) = (pattern(1000), pattern(3_000_000));
    server.put("small", &small);
    server.put("sub/large", &large);
    server.put("sub/index.html", "hello");
    for (target, bytes) in [("/small", &small[..]), ("/sub/large", &large), ("/sub/", b"hello")] {
        assert_eq!(digest(&server, target), header(bytes), "{target}");
        let whole = server.get(target);
        assert_eq!(whole.header("Repr-Digest"), Some(header(bytes).as_str()), "{target}");
        assert!(whole.body == bytes);
        // The digest is that of the whole file, whatever part is sent.
        let part = server.get_with(target, &["Range: bytes=1-2"]);
        assert_eq!((part.status, part.header("Repr-Digest")), (206, Some(header(bytes).as_str())));
        let etag = format!("If-None-Match: {}", whole.header("Etag").unwrap());
        for (line, status) in [(etag.as_str(), 304), ("Range: bytes=9999999-", 416), ("If-Match: \"x\"", 412)]
        {
            let other = server.get_with(target, &[line]);
            assert_eq!((other.status, other.header("Repr-Digest")), (status, None), "{line}");
        }
    }
    let probe = server.get("/plshelp.txt");
    assert_eq!(probe.header("Repr-Digest"), Some(header(&probe.body).as_str()));
    let program = server.program();
    wait_until("nothing to be pending", || metric(program, "digests_pending") == 0);
    assert_eq!(metric(program, "digests_known"), 3);
    assert_eq!(metric(program, "digest_failures_total"), 0);
    assert!(metric(program, "digest_bytes_total") >= 3_001_005);
}

#[test]
fn digests_are_computed_without_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let (root, kept) = (folder.path().join("root"), folder.path().join("digests"));
    std::fs::create_dir_all(root.join("sub/.git")).unwrap();
    for name in ["a", "sub/b", "sub/.git/config", ".hidden"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    let program = serve(&root, &kept);
    wait_until("the digests", || metric(&program, "digests_known") == 2);
    assert_eq!(metric(&program, "digest_walks_total"), 1);
    assert_eq!(http::get(program.address(), "/sub/b").header("Repr-Digest"), Some(header(b"sub/b").as_str()));
}

#[test]
fn all_paths_and_hard_links_of_a_file_need_one_read() {
    let folder = tempfile::tempdir().unwrap();
    let (root, kept) = (folder.path().join("root"), folder.path().join("digests"));
    std::fs::create_dir(&root).unwrap();
    let bytes = pattern(200_000);
    std::fs::write(root.join("file"), &bytes).unwrap();
    std::os::unix::fs::symlink(".", root.join("loop")).unwrap();
    std::fs::hard_link(root.join("file"), root.join("hard-link")).unwrap();
    let program = serve(&root, &kept);
    wait_until("the digest", || metric(&program, "digests_known") == 1);
    let by_links = (1..30).map(|depth| format!("{}/file", "/loop".repeat(depth)));
    for target in by_links.chain(["/hard-link".to_owned()]) {
        let told = wait_for("the digest by another path", || {
            http::get(program.address(), &target).header("Repr-Digest").map(str::to_owned)
        });
        assert_eq!(told, header(&bytes));
    }
    assert_eq!(metric(&program, "digest_bytes_total"), 200_000);
}

#[test]
fn with_digests_off_the_header_is_absent() {
    let server = Server::start_with(&["--digests", "off", "--admin", "127.0.0.1:0"]);
    server.put("a", "hello");
    assert_eq!(server.get("/a").header("Repr-Digest"), None);
    assert_eq!(server.get("/plshelp.txt").header("Repr-Digest"), None);
    assert!(!http::get(server.program().admin_address(), "/metrics").text().contains("digest"));
}

#[test]
fn a_changed_file_never_has_the_digest_of_another_state() {
    let server = Server::start();
    for (name, length) in [("small", 1000), ("large", 300_000)] {
        let target = format!("/{name}");
        server.put(name, pattern(length));
        digest(&server, &target);
        let path = server.root().join(name);
        let modified = path.metadata().unwrap().modified().unwrap();
        // The same size and the same modification time: only the ctime differs.
        let mut other = pattern(length);
        other.reverse();
        server.put(name, &other);
        std::fs::File::open(&path).unwrap().set_modified(modified).unwrap();
        wait_until("the digest of the new file", || {
            let answer = server.get(&target);
            let told = answer.header("Repr-Digest");
            assert!(told.is_none() || told == Some(header(&answer.body).as_str()), "{answer:?}");
            told.is_some() && answer.body == other
        });
    }
}

#[test]
fn digests_survive_a_kill() {
    let (_folder, root, kept) = kept(&[("a", b"hello"), ("b c", &pattern(300_000))]);
    std::fs::write(root.join("b c"), "changed meanwhile").unwrap();
    let program = serve(&root, &kept);
    wait_until("the digest of a", || {
        let answer = http::get(program.address(), "/a");
        answer.header("Repr-Digest") == Some(header(b"hello").as_str())
    });
    let changed = |answer: http::Answer| answer.header("Repr-Digest").map(str::to_owned);
    let told = wait_for("the digest of b c", || changed(http::get(program.address(), "/b%20c")));
    assert_eq!(told, header(b"changed meanwhile"));
    // Only the changed file was read.
    assert_eq!(metric(&program, "digest_bytes_total"), 17);
}

#[test]
fn damaged_digests_are_computed_again() {
    let (_folder, root, kept) = kept(&[("a", b"hello")]);
    let whole = std::fs::read_to_string(&kept).unwrap();
    let wrong = whole.replace(&base64(b"hello"), &base64(b"other"));
    assert_ne!(wrong, whole);
    for garbage in [wrong.as_bytes(), &whole.as_bytes()[..whole.len() / 2], b"", &pattern(1 << 20)] {
        std::fs::write(&kept, garbage).unwrap();
        let mut program = serve(&root, &kept);
        program.wait_for_stderr("the digests of files are computed again");
        wait_until("the file to be right again", || {
            std::fs::read_to_string(&kept).is_ok_and(|text| text == whole)
        });
        program.kill();
    }
}

#[test]
fn an_unwritable_file_of_digests_is_only_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "hello").unwrap();
    let mut program = serve(folder.path(), Path::new("/nowhere/digests"));
    program.wait_for_stderr("the digests of files cannot be saved");
    let answer = http::get(program.address(), "/a");
    assert_eq!(answer.header("Repr-Digest"), Some(header(b"hello").as_str()));
    program.signal(rustix::process::Signal::TERM);
    assert!(program.wait().success());
    assert_eq!(program.stderr().matches("cannot be saved").count(), 1, "{}", program.stderr());
}

#[test]
fn a_stop_saves_the_known_digests() {
    let (_folder, root, kept) = kept(&[("a", b"hello")]);
    let before = std::fs::read(&kept).unwrap();
    std::fs::write(&kept, "").unwrap();
    let mut program = serve(&root, &kept);
    wait_until("the digest", || metric(&program, "digests_known") == 1);
    program.signal(rustix::process::Signal::TERM);
    assert!(program.wait().success());
    assert_eq!(std::fs::read(&kept).unwrap(), before);
}

#[test]
fn get_detects_a_mirror_with_a_corrupt_disk() {
    let good = pattern(700_000);
    let mut rotten = good.clone();
    rotten[400_000] ^= 1;
    // A program cannot change a file without a change of its times; a disk can. The test changes the stored digest
    // instead, and updates the digest of the lines.
    let (_folder, root, kept) = kept(&[("f", &rotten)]);
    let text = std::fs::read_to_string(&kept).unwrap().replace(&base64(&rotten), &base64(&good));
    let sealed = &text[..text.find("all ").unwrap()];
    std::fs::write(&kept, format!("{sealed}all {}\n", base64(sealed.as_bytes()))).unwrap();
    let bad_mirror = serve(&root, &kept);
    let bad = format!("http://{}/f", bad_mirror.address());
    wait_until("the digest", || {
        http::get(bad_mirror.address(), "/f").header("Repr-Digest") == Some(header(&good).as_str())
    });
    let downloads = Downloads::new();
    downloads.get_quickly(&[&bad]).ended_with(32);
    assert_eq!(downloads.names(), [""; 0]);

    let good_mirror = Server::start();
    good_mirror.put("f", &good);
    let modified = root.join("f").metadata().unwrap().modified().unwrap();
    std::fs::File::open(good_mirror.root().join("f")).unwrap().set_modified(modified).unwrap();
    let link = format!(
        "Link: <{bad}>; rel=duplicate, <http://{}/f>; rel=duplicate",
        good_mirror.program().address()
    );
    let balancer = Script::redirect(&bad, &[&link]).start();
    downloads.get_quickly(&[&balancer.url("/f")]).ended_with(0);
    assert!(downloads.read("f") == good);
}

#[test]
fn head_and_get_on_one_connection_send_the_same_digest() {
    let server = Server::start();
    server.put("a", "hello");
    digest(&server, "/a");
    let mut connection = server.connect();
    for (method, expect) in [("GET", Expect::Body), ("HEAD", Expect::HeadOnly)] {
        connection.send(request(method, "/a", &["Want-Repr-Digest: sha-256=10"])).unwrap();
        let answer = connection.answer(expect).unwrap();
        assert_eq!(answer.header("Repr-Digest"), Some(header(b"hello").as_str()), "{method}");
    }
}

#[test]
fn digests_are_computed_at_idle_priority() {
    const SCHED_IDLE: &str = "5";
    let server = Server::start();
    let tasks = format!("/proc/{}/task", server.program().pid());
    wait_until("the thread to be at idle priority", || {
        std::fs::read_dir(&tasks).unwrap().flatten().any(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let (name, fields) = stat.rsplit_once(") ").unwrap_or_default();
            // Field 41 of the line. The split begins with field 3.
            name.ends_with("(digests") && fields.split(' ').nth(38) == Some(SCHED_IDLE)
        })
    });
}
