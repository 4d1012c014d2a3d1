//! Servers that register in Redis or Valkey, and balancers that find them there.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::support::engine::Engine;
use super::support::fleet::Balancer;
use super::support::http::{self, Connection};
use super::support::program::{Program, fingerpost};
use super::support::{DEADLINE, wait_until};

/// The time by which a promise may be late on a machine that also builds.
const SLACK: Duration = Duration::from_secs(1);

/// A server that registers with its own port.
pub(super) struct Server {
    program: Program,
    pub(super) authority: String,
}

impl Server {
    pub(super) fn start(engine: &Engine, flags: &[&str]) -> Self {
        Self::start_with(&engine.url(), "0", flags, &[])
    }

    fn start_with(engine: &str, port: &str, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("files");
        let mut command = fingerpost();
        command.args(["server", "--host", "127.0.0.1", "--port", port, "--workers", "1", "--root"]).arg(root);
        if !flags.contains(&"--advertise") {
            command.args(["--advertise", "http://127.0.0.1:0"]);
        }
        command.args(["--register", engine]).args(flags);
        let program = Program::spawn(command.envs(variables.iter().copied()));
        let authority = format!("127.0.0.1:{}", program.port());
        Self { program, authority }
    }

    fn wait_until_registered(&self) {
        self.program.wait_for_stderr("server registered");
    }
}

/// A balancer whose only servers are the registered ones. Its list is empty.
fn balancer(engine: &Engine, flags: &[&str]) -> Balancer {
    let url = engine.url();
    let flags = [&["--backends", &url], flags].concat();
    Balancer::start_with("", &flags)
}

fn authorities(servers: &[Server]) -> Vec<&str> {
    let mut authorities: Vec<_> = servers.iter().map(|server| server.authority.as_str()).collect();
    authorities.sort_unstable();
    authorities
}

#[track_caller]
fn wait_for_servers(balancer: &Balancer, servers: &[Server]) {
    for authority in authorities(servers) {
        balancer.wait_for_state(authority, "up");
    }
    balancer.wait_for_backends(&authorities(servers));
}

/// Requests redirects until the last `quiet` requests of each balancer lead elsewhere. Returns the time of the last redirect
/// to the server.
fn last_redirect(balancers: &[Balancer], authority: &str, quiet: Duration) -> Duration {
    let start = Instant::now();
    let mut last = Duration::ZERO;
    while start.elapsed() < last + quiet {
        assert!(start.elapsed() < DEADLINE, "{authority} still gets clients");
        if balancers.iter().any(|balancer| balancer.redirects(10).to(authority) > 0) {
            last = start.elapsed();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    last
}

#[test]
fn registered_servers_get_clients_from_all_balancers_until_they_stop() {
    let Some(engine) = Engine::start(&[]) else { return };
    let mut servers: Vec<_> = (0..5).map(|_| Server::start(&engine, &[])).collect();
    // The default interval is 2 s, and 1 s for servers in use.
    let balancers: Vec<_> = (0..3).map(|_| balancer(&engine, &[])).collect();
    for balancer in &balancers {
        wait_for_servers(balancer, &servers);
    }

    servers.push(Server::start(&engine, &["--weight", "3", "--tier", "0", "--zone", "eu"]));
    let (start, sixth) = (Instant::now(), servers[5].authority.clone());
    for balancer in &balancers {
        wait_until("a redirect to the sixth server", || balancer.redirects(10).to(&sixth) > 0);
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3) + SLACK, "the sixth server got clients after {took:?}");
    let reported = balancers[0].backends();
    let reported = reported.iter().find(|backend| backend["address"] == format!("http://{sixth}")).unwrap();
    assert_eq!((&reported["weight"], &reported["zone"]), (&Value::from(3), &Value::from("eu")));

    servers[5].program.signal(Signal::TERM);
    let last = last_redirect(&balancers, &sixth, Duration::from_secs(2));
    assert!(last < Duration::from_secs(1) + SLACK, "the stopped server got clients for {last:?}");
    assert!(servers[5].program.wait().success());
    servers.pop();
    wait_for_servers(&balancers[0], &servers);

    let fifth = servers[4].authority.clone();
    servers[4].program.kill();
    let last = last_redirect(&balancers, &fifth, Duration::from_secs(4));
    assert!(last < Duration::from_secs(3) + SLACK, "the killed server got clients for {last:?}");
}

#[test]
fn the_server_that_registers_an_address_last_has_it() {
    let Some(engine) = Engine::start(&[]) else { return };
    let first = Server::start(&engine, &["--advertise", "http://127.0.0.1:9", "--weight", "2"]);
    first.wait_until_registered();
    let value =
        |engine: &Engine| engine.command::<String>(&["GET", "{fingerpost}:1:server:http://127.0.0.1:9"]);
    assert!(value(&engine).starts_with("1 ") && value(&engine).contains(" weight=2 "));
    let second = Server::start(&engine, &["--advertise", "http://127.0.0.1:9/"]);
    second.wait_until_registered();
    first.program.wait_for_stderr("a server that started later registered this address");
    assert!(value(&engine).starts_with("2 ") && value(&engine).contains(" weight=1 "));
    // An engine without data does not change the order.
    engine.command::<()>(&["FLUSHALL"]);
    wait_until("the second registration", || engine.servers().len() == 1 && value(&engine).starts_with("2 "));
    // A restart after a crash has the address at once.
    let port = second.authority.rsplit_once(':').unwrap().1.to_owned();
    drop(second);
    let third = Server::start_with(&engine.url(), &port, &["--advertise", "http://127.0.0.1:9"], &[]);
    third.wait_until_registered();
    assert!(value(&engine).starts_with("3 "));
    let mut connection = Connection::open(first.program.address()).unwrap();
    assert_eq!(connection.get("/plshelp.txt").unwrap().status, 200);
}

#[test]
fn a_wrong_password_does_not_stop_a_server_and_a_corrected_one_needs_no_restart() {
    let Some(engine) = Engine::start(&[]) else { return };
    let acl = ["ACL", "SETUSER", "mirror", "on", ">hush", "~{fingerpost}:*", "-@all"];
    let commands = ["+eval", "+get", "+set", "+pexpire", "+incr", "+scan", "+getrange"];
    engine.command::<()>(&[&acl[..], &commands].concat());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "wrong\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let url = engine.url().replace("//", "//mirror@");
    let variables = [("FINGERPOST__FLEET__PASSWORD_FILE", path.to_str().unwrap())];
    let server = Server::start_with(&url, "0", &[], &variables);
    server.program.wait_for_stderr("the engine denied access");
    assert_eq!(http::get(server.program.address(), "/plshelp.txt").status, 200);
    std::fs::write(&path, "hush\n").unwrap();
    server.wait_until_registered();

    let mut command = fingerpost();
    command.args(["balancer", "--host", "127.0.0.1", "--workers", "1", "--backends", &url]);
    let balancer = Program::spawn(command.env("FINGERPOST__FLEET__PASSWORD", "hush"));
    wait_until("a redirect", || http::get(balancer.address(), "/plshelp.txt").status == 301);
    for output in [server.program.stderr(), balancer.stderr(), balancer.stdout()] {
        assert!(!output.contains("hush") && !output.contains("wrong"), "{output}");
    }
}

#[test]
fn the_engine_may_require_tls() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls/");
    let (certificate, key) = (format!("{folder}certificate.pem"), format!("{folder}key.pem"));
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().to_string();
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &certificate];
    let flags = [&["--tls-auth-clients", "no", "--tls-port", &port], &files[..]].concat();
    let Some(engine) = Engine::start(&flags) else { return };
    let url = format!("rediss://localhost:{port}");
    let server = Server::start_with(&url, "0", &[], &[("FINGERPOST__FLEET__CA", &certificate)]);
    server.wait_until_registered();
    assert_eq!(engine.servers().len(), 1);
    let stranger = Server::start_with(&url, "0", &[], &[]);
    stranger.program.wait_for_stderr("cannot register this server");
    assert_eq!(engine.servers().len(), 1);
}

#[test]
fn a_sentinel_leads_to_the_engine_also_after_a_failover() {
    let Some(mut first) = Engine::start(&[]) else { return };
    let port = |engine: &Engine| engine.url().rsplit_once(':').unwrap().1.to_owned();
    let Some(second) = Engine::start(&["--replicaof", "127.0.0.1", &port(&first)]) else { return };
    let sentinel = Engine::start_sentinel(&format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\n",
        port(&first)
    ));
    wait_until("the Sentinel to know the replica", || {
        !sentinel.command::<Vec<redis::Value>>(&["SENTINEL", "REPLICAS", "main"]).is_empty()
    });
    let url = sentinel.url().replace("redis://", "redis+sentinel://127.0.0.1:9,") + "/main";
    let start = || Server::start_with(&url, "0", &[], &[]);
    let mut servers = vec![start()];
    let balancer = Balancer::start_with("", &["--backends", &url, "--fleet", &url]);
    wait_for_servers(&balancer, &servers);
    first.kill();
    wait_until("the failover", || {
        // A Sentinel ends all connections of the engine that it makes the primary.
        let role: Vec<redis::Value> = second.try_command(&["ROLE"]).unwrap_or_default();
        role.first() == Some(&redis::Value::BulkString(b"master".to_vec()))
    });
    servers.push(start());
    wait_for_servers(&balancer, &servers);
    wait_until("the fleet to use the new engine", || {
        balancer.metric("fingerpost_fleet_engine_up") == Some(1.0)
    });
}

#[test]
fn a_hung_engine_does_not_delay_the_stop_of_a_server() {
    let Some(engine) = Engine::start(&[]) else { return };
    let mut server = Server::start(&engine, &[]);
    server.wait_until_registered();
    engine.signal(Signal::STOP);
    let start = Instant::now();
    server.program.signal(Signal::TERM);
    assert!(server.program.wait().success());
    assert!(start.elapsed() < Duration::from_secs(4) + SLACK, "{:?}", start.elapsed());
    server.program.wait_for_stderr("cannot end the registration");
    engine.signal(Signal::CONT);
}

#[test]
fn an_invalid_registration_is_an_error_at_the_start() {
    for (flags, reason) in [
        (["--register", "redis://h", "--advertise", "h:80"], "server.advertise"),
        (["--register", "redis://h", "--advertise", "http://h/?x"], "server.advertise"),
        (["--register", "http://h", "--advertise", "http://h"], "server.register"),
        (["--register", "redis://u:hush@h", "--advertise", "http://h"], "fleet.password_file"),
    ] {
        let output = fingerpost().arg("server").args(flags).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(reason) && !stderr.contains("hush"), "{stderr}");
    }
    let missing = fingerpost().args(["server", "--register", "redis://h"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
}
