//! Entity tags and dates of files whose times do not identify a version.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use super::Server;
use crate::support::wait_until;

/// Creates a file that has this modification time from the start, as unpacking an archive does.
fn put_with_time(server: &Server, name: &str, text: &str, modified: SystemTime) {
    let part = server.outside().join("dated");
    std::fs::write(&part, text).unwrap();
    std::fs::File::open(&part).unwrap().set_modified(modified).unwrap();
    std::fs::rename(part, server.root().join(name)).unwrap();
}

/// Puts a file until its ctime differs from that of the file before. The clock of a file system advances in steps of up to
/// 10 ms, and the tags of two versions within one step are equal.
fn replace(server: &Server, name: &str, put: impl Fn()) {
    let ctime = || {
        let metadata = server.root().join(name).metadata().unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let before = ctime();
    wait_until("another ctime", || {
        put();
        ctime() != before
    });
}

#[test]
fn a_new_version_with_the_same_meaningless_time_and_length_is_sent() {
    let server = Server::start();
    for seconds in [0, 1] {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        put_with_time(&server, "app.js", "version=1", time);
        wait_until("the first version", || server.get("/app.js").text() == "version=1");
        let first = server.get("/app.js");
        let tag = first.header("ETag").unwrap();
        assert!(tag.starts_with("W/\""), "{tag}");
        assert_eq!(first.header("Last-Modified"), None);
        assert_eq!(server.get_with("/app.js", &[&format!("If-None-Match: {tag}")]).status, 304);
        replace(&server, "app.js", || put_with_time(&server, "app.js", "version=2", time));
        wait_until("the second version", || server.get("/app.js").text() == "version=2");
        assert_eq!(server.get_with("/app.js", &[&format!("If-None-Match: {tag}")]).status, 200);
        let rest = server.get_with("/app.js", &["Range: bytes=4-", &format!("If-Range: {tag}")]);
        assert_eq!((rest.status, rest.text().as_str()), (200, "version=2"));
        let date = "If-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT";
        assert_eq!(server.get_with("/app.js", &[date]).status, 200);
    }
}

#[test]
fn the_tag_of_a_recently_modified_file_is_provisional() {
    let server = Server::start();
    // A file that is sent from memory, and a larger one.
    for length in [1000, 200_000] {
        let name = format!("file-{length}");
        server.put(&name, vec![b'1'; length]);
        let tag = |name: &str| server.get(&format!("/{name}")).header("ETag").unwrap().to_owned();
        let young = tag(&name);
        assert_eq!(young.matches('-').count(), 2, "{young}");
        wait_until("the tag of a settled file", || tag(&name).matches('-').count() == 1);
        let settled = tag(&name);
        assert!(
            settled.starts_with('"') && young.contains(settled.trim_end_matches('"')),
            "{young} {settled}"
        );
    }
}

#[test]
fn two_versions_with_the_same_modification_time_have_different_tags() {
    let server = Server::start();
    server.put("large", vec![b'1'; 300_000]);
    let first = server.get("/large");
    replace(&server, "large", || server.put("large", vec![b'2'; 300_000]));
    let tag = first.header("ETag").unwrap();
    let second = server.get_with("/large", &[&format!("If-None-Match: {tag}")]);
    assert!(second.status == 200 && second.body[0] == b'2');
}

#[test]
fn no_last_modified_lies_in_the_future() {
    let server = Server::start();
    let tomorrow = SystemTime::now() + Duration::from_hours(24);
    put_with_time(&server, "tomorrow", "x", tomorrow);
    let answer = server.get("/tomorrow");
    assert_eq!((answer.status, answer.header("Last-Modified")), (200, None));
    assert!(answer.header("ETag").is_some());
}
