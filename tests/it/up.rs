//! `fingerpost up`: everything in one command.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::support::program::{Program, fingerpost};
use crate::support::{http, wait_until};

#[test]
fn one_command_starts_a_balancer_and_three_servers_that_answer_at_once() {
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
fn a_hangup_of_the_terminal_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    // The tests may run where SIGHUP is ignored, which every process inherits.
    let mut command = Command::new("env");
    command.arg("--default-signal=HUP").arg(fingerpost().get_program()).arg("up");
    command.current_dir(folder.path()).stderr(Stdio::piped());
    let mut up = Program::spawn_as_it_is(&mut command);
    up.address();
    up.signal(rustix::process::Signal::HUP);
    let ended = up.wait();
    assert!(ended.success(), "{ended:?}");
}

#[test]
fn the_given_folder_is_served_and_downloaded_with_the_printed_command() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/plshelp.txt"), "my own").unwrap();
    let up = Program::start_in(folder.path(), ["up", "--servers", "1", "--root", "mine"]);
    up.address();
    let line = up.stdout_after("To download through it: ");
    // The user may paste the command into a terminal in another folder.
    let other = tempfile::tempdir().unwrap();
    let get = Command::new("sh").args(["-c", &line]).current_dir(other.path()).output().unwrap();
    assert_eq!(get.status.code(), Some(0), "{}", String::from_utf8_lossy(&get.stderr));
    assert_eq!(std::fs::read(other.path().join("plshelp.txt")).unwrap(), b"my own");
}

#[test]
fn every_printed_address_has_a_page_for_browsers() {
    let folder = tempfile::tempdir().unwrap();
    let up = Program::start_in(folder.path(), ["up"]);
    let server = up.stdout_after("Server 1 at http://");
    let listing = http::get(server.trim_end_matches('/').parse().unwrap(), "/");
    assert_eq!(listing.status, 200);
    assert!(listing.text().contains("plshelp.txt") && listing.text().contains("A fingerpost file server"));

    let moved = http::get(up.address(), "/");
    assert_eq!(moved.status, 301);
    let target = moved.location().strip_prefix("http://").unwrap().strip_suffix('/').unwrap();
    assert_eq!(http::get(target.parse().unwrap(), "/").status, 200);

    let admin = up.admin_address();
    wait_until("the first probes", || http::get(admin, "/readyz").status == 200);
    let page = http::get(admin, "/");
    assert!(page.text().contains("<dd>3<small> of 3</small>"), "{page:?}");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self';"), "{policy}");
    for link in ["/metrics", "/api/v1/backends", "/healthz", "/readyz"] {
        assert!(page.text().contains(&format!("href=\"{link}\"")), "{link}");
        assert_eq!(http::get(admin, link).status, 200, "{link}");
    }
    assert_eq!(http::request(admin, b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").status, 200);
}

#[test]
fn an_edit_or_removal_of_the_probe_file_causes_no_failed_probe() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plshelp.txt");
    let up = Program::start_in(
        folder.path(),
        ["up", "--servers", "1", "--root", ".", "--probe-interval", "100ms"],
    );
    let server = up.stdout_after("Server 1 at http://");
    let server = server.trim_end_matches('/').parse().unwrap();
    let metrics = || http::get(up.admin_address(), "/metrics").text();
    let probes = |outcome: &str| {
        let name = format!("fingerpost_probes_total{{outcome=\"{outcome}\"}} ");
        metrics().lines().find_map(|line| line.strip_prefix(&name)?.parse::<u32>().ok()).unwrap()
    };
    let built_in = include_str!("../../files/plshelp.txt");
    for content in [Some("my own"), Some("edited"), None] {
        match content {
            Some(content) => {
                // The rename of an old file is a change too.
                let new = folder.path().join("new");
                std::fs::write(&new, content).unwrap();
                std::fs::rename(new, &file).unwrap();
            }
            None => std::fs::remove_file(&file).unwrap(),
        }
        let body = || http::get(server, "/plshelp.txt").body;
        wait_until("the new content", || body() == content.unwrap_or(built_in).as_bytes());
        // The change is not recent any more after 3 s.
        let before = probes("success");
        wait_until("probes of the new content", || probes("success") > before + 40);
    }
    assert_eq!(probes("content"), 0);
}

#[test]
fn an_expectation_of_the_user_replaces_that_of_up() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["up", "--servers", "1", "--probe-interval", "200ms", "--probe-expect", "text:another owner"];
    let up = Program::start_in(folder.path(), flags);
    let table = || http::get(up.admin_address(), "/api/v1/backends").text();
    wait_until("the server to be down", || table().contains("\"state\":\"down\""));
    assert!(table().contains("other content than probes expect"), "{}", table());
}

#[test]
fn a_missing_root_is_an_error_that_names_it() {
    let output = fingerpost().args(["up", "--root", "/nowhere/at/all"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/at/all"));
}

#[test]
fn settings_that_only_fit_one_server_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let keys =
        "[server]\nport = 1\nadmin = '127.0.0.1:1'\nunix_socket = 'a'\n[balancer]\nunix_socket = 'b'\n";
    std::fs::write(folder.path().join("own.toml"), keys).unwrap();
    let up = Program::start_in(folder.path(), ["up", "--config", "own.toml"]);
    assert_eq!(http::get(up.address(), "/plshelp.txt").status, 301);
    assert_eq!(up.stdout().lines().filter(|line| line.starts_with("Server ")).count(), 3);
}

#[test]
fn a_closed_output_does_not_end_it_and_a_signal_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = fingerpost();
    command.args(["up", "--servers", "1"]).current_dir(folder.path());
    let mut up = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(up.stdout.take());
    // After the first probe, all ready lines have been written to the closed pipe.
    let log = BufReader::new(up.stderr.take().unwrap());
    assert!(log.lines().any(|line| line.unwrap().contains("to=up")));
    let pid = rustix::process::Pid::from_child(&up);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(up.wait().unwrap().success());
}
