//! The served directory is replaced, removed or restored while the server runs.

use std::os::unix::fs::symlink;

use super::Server;
use crate::support::wait_until;

#[test]
fn a_root_that_is_a_link_to_a_new_release_is_followed() {
    let server = Server::start();
    let [first, second] = ["first", "second"].map(|name| server.outside().join(name));
    std::fs::rename(server.root(), &first).unwrap();
    symlink("first", server.root()).unwrap();
    server.put("version", "release 1");
    assert_eq!(server.get("/version").text(), "release 1");
    std::fs::create_dir(&second).unwrap();
    std::fs::write(second.join("version"), "release 2").unwrap();
    symlink("second", server.outside().join("next")).unwrap();
    std::fs::rename(server.outside().join("next"), server.root()).unwrap();
    wait_until("the second release", || server.get("/version").text() == "release 2");
    std::fs::remove_dir_all(&first).unwrap();
    assert_eq!(server.get("/version").text(), "release 2");
}

#[test]
fn without_its_root_a_server_refuses_files_and_probes_until_the_root_is_restored() {
    let server = Server::start_with(&["--listing"]);
    server.put("file", "hello");
    server.put("sub/file", "hello");
    std::fs::remove_dir_all(server.root()).unwrap();
    for target in ["/files/plshelp.txt", "/file", "/sub/", "/"] {
        wait_until(target, || server.get(target).status == 503);
    }
    assert!(server.get("/file").header("Retry-After").is_some());
    std::fs::create_dir(server.root()).unwrap();
    server.put("file", "back");
    wait_until("the probe to succeed", || server.get("/files/plshelp.txt").status == 200);
    assert_eq!(server.get("/file").text(), "back");
    server.program().wait_for_stderr("the served directory can be opened again");
}

#[test]
fn a_root_that_is_replaced_by_a_file_is_missing() {
    let server = Server::start();
    std::fs::remove_dir(server.root()).unwrap();
    std::fs::write(server.root(), "a file").unwrap();
    wait_until("the probe to fail", || server.get("/files/plshelp.txt").status == 503);
}
