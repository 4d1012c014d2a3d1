//! Listings of folders without an index.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use super::{Server, pattern, request};
use crate::support::http::{self, Answer, Connection, Expect};
use crate::support::{DEADLINE, wait_at_most, wait_for, wait_until};

fn server() -> Server {
    Server::start_with(&["--listing", "--admin", "127.0.0.1:0"])
}

/// Makes a folder `large` whose names become six times as long when they are escaped, so that its page exceeds the
/// kernel's buffers.
fn make_large_folder(server: &Server) {
    let large = server.root().join("large");
    std::fs::create_dir(&large).unwrap();
    for number in 0..10_001 {
        std::fs::File::create(large.join(format!("{number:05}{}", "\"".repeat(245)))).unwrap();
    }
}

/// The targets of all links in a page, except those in its heading.
fn links(page: &str) -> Vec<String> {
    let links = page.split("<td><a href=\"").skip(1);
    links.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[test]
fn a_listing_has_exactly_the_served_entries() {
    let server = server();
    server.put("sub/b.iso", pattern(1_234_567));
    server.put("sub/A.txt", "hello");
    server.put("sub/inner/file", "x");
    server.put("sub/.hidden", "x");
    server.put("sub/line\nbreak", "x");
    let sub = server.root().join("sub");
    std::fs::write(server.outside().join("secret"), "secret").unwrap();
    symlink("../../secret", sub.join("out")).unwrap();
    symlink(server.outside(), sub.join("away")).unwrap();
    symlink("nothing", sub.join("broken")).unwrap();
    symlink("A.txt", sub.join("link")).unwrap();
    symlink("inner", sub.join("linked")).unwrap();
    let _socket = UnixListener::bind(sub.join("socket")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(sub.join("fifo")).status().unwrap().success());
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    std::fs::File::open(sub.join("b.iso")).unwrap().set_modified(modified).unwrap();

    let answer = server.get("/sub/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("Cache-Control"), Some("no-store"));
    assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
    let page = answer.text();
    assert_eq!(links(&page), ["../", "inner/", "linked/", "A.txt", "b.iso", "line%0Abreak", "link"]);
    assert!(page.contains("<td title=\"1234567 bytes\">1.2 MiB<td>1994-11-06 08:49:37\n"), "{page}");
    assert_eq!(
        links(&server.get("/sub/?sort=size&order=desc").text())[2..],
        ["inner/", "b.iso", "link", "A.txt", "line%0Abreak"]
    );
    let head = server.ask("HEAD", "/sub/", &[]);
    assert_eq!(head.header("Content-Length"), Some(page.len().to_string().as_str()));
    assert_eq!(links(&server.get("/").text()), ["sub/"]);
}

#[test]
fn a_program_gets_json() {
    let server = server();
    server.put("sub/file", "hello");
    server.put("sub/inner/x", "x");
    let check = |answer: &Answer| {
        assert_eq!(answer.header("Content-Type"), Some("application/json"));
        assert_eq!(answer.header("Vary"), Some("Accept"));
        let list: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(list[0]["name"], "inner");
        assert_eq!(list[0]["type"], "directory");
        assert_eq!((&list[1]["name"], &list[1]["type"]), (&"file".into(), &"file".into()));
        assert_eq!(list[1]["size"], 5);
        assert!(list[1]["mtime"].as_str().unwrap().ends_with(" GMT"));
        assert_eq!(list.as_array().unwrap().len(), 2);
    };
    check(&server.get("/sub/?format=json"));
    check(&server.get_with("/sub/", &["Accept: application/json"]));
    let page = server.get_with("/sub/?format=html", &["Accept: application/json"]);
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
}

#[test]
fn every_link_leads_to_its_file() {
    let server = server();
    let names = ["plain", "with space", "a:b", "?q", "#f", "%41", "<b>\"'&", "grün", "back\\slash", "-"];
    for name in names {
        server.put(&format!("files/{name}"), name);
    }
    for start in ["/", "/files/"] {
        let page = server.get(start).text();
        let [folder] = &links(&page)[..] else { panic!("{page}") };
        let folder = format!("{start}{folder}");
        let page = server.get(&folder).text();
        assert!(!page.contains("<b>\""), "{page}");
        let links = links(&page);
        assert_eq!(links.len(), names.len() + 1);
        let mut found: Vec<_> =
            links[1..].iter().map(|link| server.get(&format!("{folder}{link}")).text()).collect();
        found.sort();
        let mut names = names;
        names.sort_unstable();
        assert_eq!(found, names, "from {start}");
    }
}

#[test]
fn a_file_of_every_name_can_be_requested() {
    let server = server();
    let names: [&[u8]; 10] = [
        b"latin-\xe9",
        "caf\u{e9}".as_bytes(),
        b"new\nline",
        b"carriage\rreturn",
        b"tab\t",
        b"escape\x1b[31m\x7f",
        b"100%41",
        b" spaces ",
        b"a&amp;b<c>\"'",
        b"http:x?y#z;[]{}|\\^`+",
    ];
    for name in names {
        std::fs::write(server.root().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let mut expected: Vec<_> = names.map(<[u8]>::to_vec).into();
    expected.sort();
    let all = |links: &[String]| {
        let mut found: Vec<_> = links.iter().map(|link| server.get(&format!("/{link}")).body).collect();
        found.sort();
        found
    };
    assert_eq!(all(&links(&server.get("/").text())), expected);
    let json: serde_json::Value = serde_json::from_slice(&server.get("/?format=json").body).unwrap();
    let entries = json.as_array().unwrap().iter();
    let urls: Vec<_> = entries.map(|entry| entry["url"].as_str().unwrap().to_owned()).collect();
    assert_eq!(all(&urls), expected);
}

#[test]
fn adjacent_slashes_count_as_one_and_never_lead_to_another_host() {
    let server = server();
    server.put("pool/a.deb", "deb");
    server.put("evil.example/x", "x");
    for target in ["//pool/a.deb", "/pool//a.deb", "/files//pool///a.deb", "//files/pool/a.deb"] {
        assert_eq!(server.get(target).text(), "deb", "{target}");
    }
    for target in ["//evil.example", "///evil.example", "/files//evil.example"] {
        let location = server.get(target).location().to_owned();
        assert!(!location.contains("//"), "{target} {location}");
        assert_eq!(server.get(&location).status, 200, "{location}");
    }
    assert_eq!(links(&server.get("//pool//").text()), ["../", "a.deb"]);
}

#[test]
fn sorted_by_time_the_newest_of_many_files_are_shown() {
    let server = server();
    for number in 0..10_100 {
        let file = std::fs::File::create(server.root().join(number.to_string())).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + number)).unwrap();
    }
    let newest: Vec<_> = (100..10_100).rev().map(|number| number.to_string()).collect();
    assert!(links(&server.get("/?sort=time&order=desc").text()) == newest);
}

#[test]
fn only_the_listing_of_the_root_has_an_explanation() {
    let server = server();
    server.put("sub/a", "a");
    let explains = |target| server.get(target).text().matches("A fingerpost file server").count();
    assert_eq!([explains("/"), explains("/files/"), explains("/sub/")], [1, 1, 0]);
}

#[test]
fn a_folder_without_a_slash_is_redirected() {
    let server = server();
    server.put("sub/inner/file", "x");
    server.put("files/file", "x");
    for (target, location) in [
        ("/sub", "/sub/"),
        ("/sub/inner?sort=size", "/sub/inner/?sort=size"),
        ("/files/sub", "/files/sub/"),
        ("/files", "/files/files/"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.location()), (301, location));
        assert_eq!(server.get(location).status, 200, "{location}");
    }
}

#[test]
fn an_index_replaces_the_listing() {
    let server = server();
    server.put("sub/index.html", "welcome");
    assert_eq!(server.get("/sub/").text(), "welcome");
    std::fs::remove_file(server.root().join("sub/index.html")).unwrap();
    wait_until("the listing", || server.get("/sub/").text().contains("This folder is empty."));
    std::fs::create_dir(server.root().join("sub/index.html")).unwrap();
    assert_eq!(links(&server.get("/sub/").text()), ["../", "index.html/"]);
}

#[test]
fn a_large_folder_is_cut_and_the_memory_for_clients_that_do_not_read_is_limited() {
    let server = server();
    make_large_folder(&server);
    let begin = || {
        let mut connection = server.connect();
        connection.send(request("GET", "/large/", &[])).unwrap();
        let head = connection.answer(Expect::HeadOnly).unwrap();
        (head.status == 200).then_some(connection).ok_or(head)
    };
    let mut unread: Vec<Connection> = Vec::new();
    // Three pages of 23 MB, which take a debug build some time on a busy machine.
    let refused = wait_at_most(4 * DEADLINE, "a listing to be refused", || match begin() {
        Ok(connection) => {
            unread.push(connection);
            None
        }
        Err(head) => Some(head),
    });
    assert_eq!(refused.status, 503);
    assert!(refused.header("Retry-After").is_some());
    assert_eq!(unread.len(), 2);
    // Other clients do not have to wait.
    assert_eq!(server.get("/plshelp.txt").status, 200);
    drop(unread);
    let answer = wait_for("a listing", || Some(server.get("/large/")).filter(|answer| answer.status == 200));
    assert!(answer.text().contains("10000 entries"));
    assert_eq!(answer.header("Listing-Limit"), Some("10000"));
    assert_eq!(links(&answer.text()).len(), 10_001);
    let metrics = http::get(server.program().admin_address(), "/metrics").text();
    let count = |name: &str| {
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(&format!("fingerpost_server_{name}_total ")));
        line.unwrap().parse::<u32>().unwrap()
    };
    assert!(count("listings_refused") >= 1 && count("listings_cut") >= 3, "{metrics}");
}

#[test]
fn a_drain_waits_for_a_listing_as_for_a_download() {
    let mut server = Server::start_with(&["--listing", "--drain-timeout", "60s"]);
    make_large_folder(&server);
    let mut reader = TcpStream::connect(server.program().address()).unwrap();
    reader.write_all(request("GET", "/large/", &["Connection: close"]).as_bytes()).unwrap();
    reader.read_exact(&mut [0; 12]).unwrap();
    server.program().signal(Signal::TERM);
    wait_until("the drain", || server.get("/plshelp.txt").status == 503);
    // Longer than the time for small answers after the last download.
    std::thread::sleep(Duration::from_secs(3));
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"</html>\n") || rest.ends_with(b"</html>"), "{} bytes", rest.len());
    assert!(server.program_mut().wait().success());
}
