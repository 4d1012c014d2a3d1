//! `fingerpost up`: everything in one command.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::http;
use crate::support::program::{Program, fingerpost};

#[test]
fn one_command_brings_a_balancer_and_three_servers_that_answer_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Program::start_in(folder.path(), ["up"]);
    let address = up.address();
    for (path, page) in [("/plshelp.txt", "/plshelp.txt"), ("/files/plshelp.txt", "/files/plshelp.txt")] {
        let moved = http::get(address, path);
        assert_eq!(moved.status, 301);
        let (server, target) = moved.location().strip_prefix("http://").unwrap().split_once('/').unwrap();
        assert_eq!(format!("/{target}"), page);
        let file = http::get(server.parse().unwrap(), page);
        assert_eq!(
            (file.status, file.body.as_slice()),
            (200, &include_bytes!("../../files/plshelp.txt")[..])
        );
    }
    let servers = up.stdout().lines().filter(|line| line.starts_with("Server ")).count();
    assert_eq!(servers, 3);
    assert!(up.stdout().lines().last().unwrap().starts_with("Will wait for client connections at port"));
    up.signal(rustix::process::Signal::INT);
    let ended = up.wait();
    assert!(ended.success(), "{ended:?}");
    assert!(up.stdout().contains("Interrupt received, shutting down ..."));
}

#[test]
fn it_ends_with_its_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Program::start_in(folder.path(), ["up"]);
    up.address();
    up.signal(rustix::process::Signal::HUP);
    let ended = up.wait();
    assert!(ended.success(), "{ended:?}");
}

#[test]
fn a_folder_of_ones_own_is_served_and_downloaded_with_the_line_that_up_prints() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/plshelp.txt"), "my own").unwrap();
    let up = Program::start_in(folder.path(), ["up", "--servers", "1", "--root", "mine"]);
    up.address();
    let line = up.stdout_after("To download through it: fingerpost ");
    let get = fingerpost().args(line.split(' ')).current_dir(folder.path()).output().unwrap();
    assert_eq!(get.status.code(), Some(0), "{}", String::from_utf8_lossy(&get.stderr));
    assert_eq!(std::fs::read(folder.path().join("plshelp.txt")).unwrap(), b"my own");
}

#[test]
fn a_root_that_is_not_there_is_an_error_that_names_it() {
    let output = fingerpost().args(["up", "--root", "/nowhere/at/all"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/at/all"));
}

#[test]
fn settings_of_one_server_do_not_get_into_the_way_of_several() {
    let folder = tempfile::tempdir().unwrap();
    let keys =
        "[server]\nport = 1\nadmin = '127.0.0.1:1'\nunix_socket = 'a'\n[balancer]\nunix_socket = 'b'\n";
    std::fs::write(folder.path().join("own.toml"), keys).unwrap();
    let up = Program::start_in(folder.path(), ["up", "--config", "own.toml"]);
    assert_eq!(http::get(up.address(), "/plshelp.txt").status, 301);
    assert_eq!(up.stdout().lines().filter(|line| line.starts_with("Server ")).count(), 3);
}

#[test]
fn a_reader_that_has_gone_away_does_not_end_it_and_a_signal_still_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = fingerpost();
    command.args(["up", "--servers", "1"]).current_dir(folder.path());
    let mut up = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(up.stdout.take());
    // The log goes on to say what happens: the first probe is in, so every ready line has been written to nobody.
    let log = BufReader::new(up.stderr.take().unwrap());
    assert!(log.lines().any(|line| line.unwrap().contains("to=up")));
    let pid = rustix::process::Pid::from_child(&up);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(up.wait().unwrap().success());
}
