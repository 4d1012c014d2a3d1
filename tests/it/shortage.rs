//! A lack on the side of the balancer is not the fault of a server: no server is marked as down, and the process does not
//! end.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::client_tls;
use super::support::black_hole::BlackHole;
use super::support::fleet::Balancer;
use super::support::http::{Connection, get};
use super::support::misbehaving::Script;
use super::support::program::fingerpost;
use super::support::wait_until;

/// A command that executes its further arguments as a balancer, by this shell script.
fn shell(script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{script}; exec \"$@\""), "bash"]);
    command.arg(fingerpost().get_program());
    command
}

/// The reason for the state of a server.
fn reason(balancer: &Balancer, authority: &str) -> String {
    let address = format!("http://{authority}");
    let own = balancer.backends().into_iter().find(|backend| backend["address"] == address).unwrap();
    own["reason"].as_str().unwrap().to_owned()
}

/// A command for a balancer whose resolver reads `hosts` and then asks a DNS server that does not exist. `None` if this
/// user may not mount files.
fn with_broken_resolver(folder: &Path) -> Option<Command> {
    fs::write(folder.join("hosts"), "127.0.0.1 known.example\n").unwrap();
    fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.77\noptions timeout:1 attempts:1\n").unwrap();
    fs::write(folder.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    let mount = ["hosts", "resolv.conf", "nsswitch.conf"]
        .map(|name| format!("mount --bind {0}/{name} /etc/{name}", folder.display()))
        .join(" && ");
    let map_root = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let trial = Command::new("unshare").args([map_root, "sh", "-c", &mount]).output().ok()?;
    let mut command = Command::new("unshare");
    command.args([map_root, "sh", "-c", &format!("{mount} && exec \"$@\""), "sh"]);
    command.arg(fingerpost().get_program());
    trial.status.success().then_some(command)
}

#[test]
fn a_broken_resolver_affects_only_names_that_were_never_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut command) = with_broken_resolver(folder.path()) else {
        println!("left out: this user may not mount files");
        return;
    };
    let server = Script::prompt().start();
    let port = server.address().port();
    let [by_address, known, unknown] =
        ["127.0.0.1", "known.example", "late.example"].map(|host| format!("{host}:{port}"));
    let balancer = Balancer::start_by(&mut command, &format!("{by_address}\n{known}\n{unknown}"));
    balancer.wait_for_state(&by_address, "up");
    balancer.wait_for_state(&known, "up");
    balancer.wait_for_state(&unknown, "down");
    assert!(reason(&balancer, &unknown).contains("resolve"), "{}", reason(&balancer, &unknown));
    // The resolver forgets the one name and learns the other one.
    let mut hosts = OpenOptions::new().write(true).truncate(true).open(folder.path().join("hosts")).unwrap();
    hosts.write_all(b"127.0.0.1 late.example\n").unwrap();
    balancer.wait_for_state(&unknown, "up");
    let before = server.requests().len();
    wait_until("thirty more probes", || server.requests().len() > before + 30);
    let log = balancer.program().stderr();
    for steady in [&by_address, &known] {
        assert_eq!(log.matches(&format!("backend changed backend=http://{steady}")).count(), 1, "{log}");
    }
}

#[test]
fn a_name_whose_first_address_is_silent_is_probed_at_the_second_one() {
    // The resolver returns ::1 before 127.0.0.1.
    let found = (0..20).find_map(|_| {
        let server = Script::prompt().start();
        let hole = BlackHole::start_at((Ipv6Addr::LOCALHOST, server.address().port()).into()).ok()?;
        Some((server, hole))
    });
    let Some((server, _hole)) = found else {
        println!("left out: this machine has no IPv6");
        return;
    };
    let authority = format!("localhost:{}", server.address().port());
    let balancer = Balancer::start_with(&authority, &["--probe-interval", "2s"]);
    balancer.wait_for_state(&authority, "up");
    wait_until("more probes", || server.requests().len() > 3);
    assert_eq!(balancer.program().stderr().matches("backend changed").count(), 1);
}

#[test]
fn clients_that_use_all_descriptors_do_not_take_servers_down() {
    let servers = [(); 5].map(|()| Script::prompt().start());
    let lines = servers.each_ref().map(|server| format!("localhost:{}", server.address().port()));
    let mut balancer = Balancer::start_by(&mut shell("ulimit -n 60"), &lines.join("\n"));
    for line in &lines {
        balancer.wait_for_state(line, "up");
    }
    let mut kept = Connection::open(balancer.address()).unwrap();
    let mut redirect = || kept.get("/plshelp.txt").unwrap().status;
    assert_eq!(redirect(), 301);
    let held: Vec<_> = (0..200).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    let began = Instant::now();
    // Fifteen intervals of probes.
    wait_until("probes during the shortage", || {
        assert_eq!(redirect(), 301);
        began.elapsed().as_secs() >= 3
    });
    drop(held);
    wait_until("new connections", || get(balancer.address(), "/plshelp.txt").status == 301);
    for line in &lines {
        balancer.wait_for_state(line, "up");
    }
    assert!(balancer.program_mut().is_running());
    let log = balancer.program().stderr();
    assert!(!log.contains("to=down"), "{log}");
}

#[test]
fn without_a_thread_for_lookups_servers_with_an_address_stay_up() {
    // The limit counts the threads of a user, so this process needs a user of its own.
    let user = 100_000 + std::process::id() % 100_000;
    let program = fingerpost().get_program().to_owned();
    let as_user = |limit: &str| {
        let switch = format!("setpriv --reuid={user} --regid={user} --clear-groups");
        let mut command = Command::new("bash");
        let script = format!("exec {switch} bash -c '{limit}exec \"$@\"' bash \"$@\"");
        command.args(["-c", &script, "bash"]).arg(&program);
        command
    };
    let trial = as_user("").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !trial.is_ok_and(|status| status.success()) {
        println!("left out: this user may not start a program as another user");
        return;
    }
    let server = Script::prompt().start();
    let authority = server.authority();
    let mut balancer = Balancer::start_by(&mut as_user("ulimit -u 40; "), &authority);
    balancer.wait_for_state(&authority, "up");
    let sleep = || Command::new("setpriv").args([&format!("--reuid={user}"), "sleep", "60"]).spawn().unwrap();
    let others: Vec<_> = (0..50).map(|_| sleep()).collect();
    let named = format!("name.invalid:{}", server.address().port());
    balancer.replace_list(&format!("{authority}\n{named}"));
    wait_until("the shortage of threads", || {
        balancer.state(&named).is_some() && reason(&balancer, &named).contains("short of threads")
    });
    let before = server.requests().len();
    wait_until("more probes", || server.requests().len() > before + 20);
    assert_eq!(balancer.redirects(100).to(&authority), 100);
    assert!(balancer.program_mut().is_running());
    let log = balancer.program().stderr();
    assert!(!log.contains("to=down") && !log.contains("panicked"), "{log}");
    for mut other in others {
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

#[test]
fn missing_trust_anchors_are_logged_once_and_are_the_reason_of_every_https_server() {
    let folder = tempfile::tempdir().unwrap();
    let serve = || client_tls::serve("127.0.0.1:0", client_tls::config(), Vec::new()).0;
    let lines = [(); 3].map(|()| format!("https://{}", serve()));
    let mut command = fingerpost();
    command.env("SSL_CERT_DIR", folder.path()).env("SSL_CERT_FILE", folder.path().join("missing.pem"));
    let balancer = Balancer::start_by(&mut command, &lines.join("\n"));
    wait_until("all servers to be down", || {
        balancer.backends().iter().all(|backend| backend["state"] == "down")
    });
    for backend in balancer.backends() {
        let reason = backend["reason"].as_str().unwrap();
        assert!(reason.contains("no certificate authorities found on this machine: install"), "{reason}");
    }
    let log = balancer.program().stderr();
    assert_eq!(log.matches("https servers cannot be verified").count(), 1, "{log}");
}

#[test]
fn a_self_signed_certificate_among_the_trust_anchors_identifies_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let name = "subjectAltName=IP:127.0.0.1,IP:::1";
    let Some((certificate, key)) = client_tls::self_signed(folder.path(), &[name]) else { return };
    let addresses = ["127.0.0.1:0", "[::1]:0"].into_iter().filter(|at| TcpListener::bind(at).is_ok());
    let authorities: Vec<_> = addresses
        .map(|at| {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
            client_tls::serve(at, client_tls::config_of(&certificate, &key), answer).0.to_string()
        })
        .collect();
    let list: Vec<_> = authorities.iter().map(|authority| format!("https://{authority}")).collect();
    let mut command = fingerpost();
    command.env("SSL_CERT_FILE", &certificate).env("SSL_CERT_DIR", folder.path().join("missing"));
    let balancer = Balancer::start_by(&mut command, &list.join("\n"));
    wait_until("all servers to be up", || balancer.backends().iter().all(|backend| backend["state"] == "up"));
}
