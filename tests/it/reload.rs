//! Changes of the configuration without a restart, over SIGHUP and the API.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::support::misbehaving::Script;
use super::support::operated::Operated;
use super::support::program::{Program, fingerpost};
use super::support::{http, wait_until};

/// A balancer with a configuration file of this text.
fn start(flags: &[&str], text: &str) -> Operated {
    let flags: Vec<_> = ["--config", "own.toml"].into_iter().chain(flags.iter().copied()).collect();
    let mut balancer = Operated::start(&flags);
    if !text.is_empty() {
        configure(&balancer, text);
        balancer.program.kill();
        balancer.restart();
        balancer.wait_until_up();
    }
    balancer
}

fn configure(balancer: &Operated, text: &str) {
    let (new, path) = (balancer.folder.path().join("own.new"), balancer.folder.path().join("own.toml"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn post(balancer: &Operated) -> (u16, Value) {
    let request = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                   Content-Length: 2\r\n\r\n{}";
    let answer = http::request(balancer.admin(), request);
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

fn policy(balancer: &Operated) -> Value {
    let answer = http::get(balancer.admin(), "/api/v1/explain?path=/x");
    serde_json::from_slice::<Value>(&answer.body).unwrap()["policy"].clone()
}

#[test]
fn changed_settings_are_in_force_after_a_signal_or_a_request() {
    let balancer = start(&[], "[balancer]\npolicy = 'random'\n");
    assert_eq!(policy(&balancer), "random");
    configure(&balancer, "[balancer]\npolicy = 'hash'\nstatus = 307\nalternates = 0\n");
    balancer.program.signal(Signal::HUP);
    wait_until("the other policy", || policy(&balancer) == "hash");
    // The workers take the settings with the next table.
    wait_until("the other status", || http::get(balancer.program.address(), "/x").status == 307);
    assert_eq!(http::get(balancer.program.address(), "/x").header("Link"), None);
    // The report follows the change.
    wait_until("the report of the reload", || balancer.report()["last_reload"].is_object());
    let report = balancer.report();
    assert_eq!(report["last_reload"]["changed"].as_array().map(Vec::len), Some(3), "{report}");
    assert!(
        balancer.succeed(&["status"]).contains(", balancer.alternates, balancer.policy, balancer.status\n")
    );

    configure(&balancer, "[balancer]\npolicy = 'round-robin'\nmax_connections_per_address = 1\n");
    let held = http::Connection::open(balancer.program.address()).unwrap();
    wait_until("the connection", || balancer.metric("fingerpost_connections") == Some(1.0));
    let (status, report) = post(&balancer);
    assert_eq!((status, &report["applied"]), (200, &true.into()), "{report}");
    // The answer follows the change.
    assert_eq!(policy(&balancer), "round-robin");
    wait_until("a refusal", || http::get(balancer.program.address(), "/x").status == 503);
    drop(held);
    wait_until("an answer", || http::get(balancer.program.address(), "/x").status == 301);
    assert_eq!(balancer.metric("fingerpost_configuration_reloads_total{result=\"applied\"}"), Some(2.0));
}

#[test]
fn an_invalid_configuration_is_rejected_as_a_whole_with_file_key_and_value() {
    let balancer = start(&[], "[balancer]\npolicy = 'random'\n");
    for (text, words) in [
        ("[balancer]\npolicy = 'hash'\nfall = 0\n", "own.toml:3: balancer.fall = 0: it must be at least 1"),
        ("[balancer]\npolicy = 'hash'\nprot = 1\n", "own.toml:3: balancer.prot: unknown key"),
        ("[balancer]\npolicy = 'hash'\n[server]\nport = 'x'\n", "own.toml:4: server.port = "),
        ("[balancer]\npolicy = 'hash'\nbackend_ca = '/missing'\n", "/missing"),
        ("[balancer]\npolicy = 'hash'\nadmin_token = '/missing'\n", "cannot read the secret /missing"),
        ("[balancer\n", "own.toml:1: "),
    ] {
        configure(&balancer, text);
        let (status, problem) = post(&balancer);
        assert_eq!(status, 422, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail}");
        assert_eq!(policy(&balancer), "random");
        assert_eq!(balancer.metric("fingerpost_configuration_rejected"), Some(1.0));
        let report = balancer.report();
        assert_eq!(report["last_reload"]["applied"], false);
        assert!(report["warnings"][0].as_str().unwrap().contains(words), "{report}");
    }
    std::fs::remove_file(balancer.folder.path().join("own.toml")).unwrap();
    assert_eq!(post(&balancer).0, 422);
    configure(&balancer, "[balancer]\npolicy = 'hash'\n");
    balancer.program.signal(Signal::HUP);
    wait_until("the valid configuration", || policy(&balancer) == "hash");
    wait_until("the metric", || balancer.metric("fingerpost_configuration_rejected") == Some(0.0));
    assert_eq!(balancer.report()["warnings"], Value::Array(Vec::new()));
}

#[test]
fn keys_that_cannot_change_are_named_and_the_others_apply() {
    let balancer = start(&["--policy", "ranked"], "");
    configure(&balancer, "[balancer]\nworkers = 2\nport = 1\npolicy = 'hash'\nfall = 4\naccess_log = 'x'\n");
    let (status, report) = post(&balancer);
    assert_eq!((status, &report["changed"]), (200, &serde_json::json!(["balancer.fall"])));
    // The flags of the start name the workers and the policy, and take precedence.
    assert_eq!(report["needs_restart"], serde_json::json!(["balancer.access_log", "balancer.port"]));
    balancer.program.wait_for_stderr("the changes of these keys need a restart");
    let warning = balancer.report()["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.ends_with("that need a restart: balancer.access_log, balancer.port"), "{warning}");
    assert_eq!(policy(&balancer), "ranked");
    configure(&balancer, "");
    assert_eq!(post(&balancer).1["changed"], serde_json::json!(["balancer.fall"]));
    assert_eq!(balancer.report()["warnings"], Value::Array(Vec::new()));
}

#[test]
fn a_shorter_probe_interval_takes_effect_at_once() {
    let mut balancer = start(&[], "");
    // Without the flag of the interval, the file decides.
    balancer.flags.drain(..2);
    balancer.program.kill();
    configure(&balancer, "[balancer]\nprobe_interval = '1h'\n");
    balancer.restart();
    balancer.wait_until_up();
    let probes = balancer.peers[0].requests().len();
    configure(&balancer, "[balancer]\nprobe_interval = '50ms'\nprobe_path = '/other'\nfall = 1\n");
    assert_eq!(post(&balancer).0, 200);
    let began = Instant::now();
    wait_until("twenty probes", || balancer.peers[0].requests().len() > probes + 20);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(balancer.peers[0].requests()[probes + 1].starts_with("GET /other "));
    balancer.peers[1].becomes(Script::status(500));
    wait_until("the state down after one probe", || balancer.backends()[1]["state"] == "down");
    assert_eq!(balancer.metric("fingerpost_probe_interval_seconds"), Some(0.05));
}

#[test]
fn no_request_fails_while_the_configuration_changes_every_100_ms() {
    let balancer = start(&[], "[balancer]\npolicy = 'random'\n");
    let mut connection = http::Connection::open(balancer.program.address()).unwrap();
    let policies = ["hash", "adaptive", "ranked", "round-robin", "two-choices", "random"];
    let began = Instant::now();
    let (mut count, mut round) = (0, 0);
    while round < 30 {
        if began.elapsed() > Duration::from_millis(100) * round {
            round += 1;
            let policy = policies[round as usize % policies.len()];
            configure(&balancer, &format!("[balancer]\npolicy = '{policy}'\nalternates = {}\n", round % 4));
            balancer.program.signal(Signal::HUP);
        }
        let answer = connection.get("/plshelp.txt").unwrap();
        assert_eq!(answer.status, 301, "{answer:?}");
        let fresh = http::get(balancer.program.address(), "/plshelp.txt");
        assert_eq!(fresh.status, 301, "{fresh:?}");
        count += 2;
    }
    assert!(count > 500, "{count}");
    wait_until("the last policy", || policy(&balancer) == policies[round as usize % policies.len()]);
}

#[test]
fn the_access_log_moves_to_another_file() {
    let balancer = start(&[], "[balancer]\naccess_log = 'first.log'\n");
    let read = |name: &str| std::fs::read_to_string(balancer.folder.path().join(name)).unwrap_or_default();
    http::get(balancer.program.address(), "/one");
    wait_until("the line", || read("first.log").contains("GET /one "));
    configure(&balancer, "[balancer]\naccess_log = 'second.log'\n");
    assert_eq!(post(&balancer).1["changed"], serde_json::json!(["balancer.access_log"]));
    http::get(balancer.program.address(), "/two");
    wait_until("the other line", || read("second.log").contains("GET /two "));
    assert!(!read("first.log").contains("/two"));
}

#[test]
fn a_token_applies_from_the_reload_on() {
    let balancer = start(&[], "");
    let token = balancer.folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    configure(&balancer, "[balancer]\nadmin_token = 'token'\n");
    assert_eq!(post(&balancer).0, 200);
    assert_eq!(post(&balancer).0, 401);
    let authorized = "POST /api/v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                      Authorization: Bearer 0123456789abcdef\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(http::request(balancer.admin(), authorized).status, 200);
}

#[test]
fn a_server_applies_pages_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["files", "pages"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    std::fs::write(path("files/large"), vec![7; 1 << 20]).unwrap();
    std::fs::write(path("pages/404.html"), "our own page").unwrap();
    std::fs::write(path("own.toml"), "").unwrap();
    let program = Program::spawn(
        fingerpost()
            .args(["server", "--host", "127.0.0.1", "--workers", "1", "--config", "own.toml"])
            .args(["--admin", "127.0.0.1:0"])
            .current_dir(folder.path()),
    );
    let address = program.address();
    assert_ne!(http::get(address, "/missing").text(), "our own page");
    let reload = |text: &str| {
        std::fs::write(path("own.toml"), text).unwrap();
        program.signal(Signal::HUP);
    };
    reload("[server]\npages = 'pages'\nhead_timeout = '300ms'\nlimit_rate = '2MiB'\nlisting = true\n");
    wait_until("the page", || http::get(address, "/missing").text() == "our own page");
    program.wait_for_stderr("the changes of these keys need a restart keys=[\"server.listing\"]");
    // The transport answers this request by itself.
    let mut slow = http::Connection::open(address).unwrap();
    slow.send("GET / HTTP/1.1\r\n").unwrap();
    assert_eq!(slow.answer(http::Expect::Body).unwrap().status, 408);
    let began = Instant::now();
    assert_eq!(http::get(address, "/large").body.len(), 1 << 20);
    assert!(began.elapsed() > Duration::from_millis(300), "{:?}", began.elapsed());
    // An invalid folder is rejected, and the rate stays.
    reload("[server]\npages = 'nowhere'\n");
    program.wait_for_stderr("cannot read the folder of error pages nowhere");
    assert_eq!(http::get(address, "/missing").text(), "our own page");
    let metrics = http::get(program.admin_address(), "/metrics").text();
    assert!(metrics.contains("fingerpost_server_configuration_rejected 1\n"), "{metrics}");
}
