//! Orders of operators: who may give them, their effect, and that they survive every end of the balancer.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::support::http::{self, Answer};
use super::support::misbehaving::Script;
use super::support::operated::Operated;
use super::support::program::{Program, fingerpost};
use super::support::{wait_for, wait_until};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn token_file(folder: &Path, mode: u32) -> PathBuf {
    let path = folder.join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn post(admin: SocketAddr, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    http::request(admin, format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
}

const JSON: &str = "Host: localhost\r\nContent-Type: application/json\r\n";
const DRAIN: &str = r#"{"order":"drain"}"#;

#[test]
fn a_drained_server_stays_drained_after_kill_9() {
    let mut balancer = Operated::start(&[]);
    let (drained, other) = (balancer.name(0), balancer.name(1));
    balancer.succeed(&["drain", &drained, "--note", "new disk", "--until", "2h"]);
    // The order is in force once it is acknowledged.
    assert_eq!(balancer.targets(), [other.as_str()]);
    balancer.program.kill();
    balancer.restart();
    assert_eq!(balancer.targets(), [other]);
    balancer.wait_until_up();
    let status = balancer.succeed(&["status"]);
    assert!(
        status.contains("no, by order; order: drain until ") && status.contains(": new disk"),
        "{status}"
    );
    assert!(http::get(balancer.admin(), "/").text().contains(": new disk"));
    assert_eq!(balancer.metric("fingerpost_orders"), Some(1.0));
    balancer.succeed(&["enable", &drained]);
    wait_until("clients at both servers", || balancer.targets().len() == 2);
}

#[test]
fn a_disabled_server_gets_neither_clients_nor_probes_until_it_is_enabled() {
    let balancer = Operated::start(&[]);
    balancer.succeed(&["disable", &balancer.name(0)]);
    assert_eq!(balancer.targets(), [balancer.name(1)]);
    let count = |peer: usize| balancer.peers[peer].requests().len();
    let other = count(1);
    // One probe may have been on its way.
    let before = count(0);
    wait_until("probes of the other server", || count(1) > other + 5);
    assert!(count(0) <= before + 1);
    assert_eq!(balancer.backends()[0]["state"], "unknown");
    assert_eq!(http::get(balancer.admin(), "/readyz").status, 200);
    balancer.succeed(&["enable", &format!("http://{}", balancer.name(0))]);
    wait_until("clients at both servers", || balancer.targets().len() == 2);
}

#[test]
fn an_order_ends_at_its_time() {
    let balancer = Operated::start(&[]);
    balancer.succeed(&["drain", &balancer.name(0), "--until", "1s"]);
    wait_until("clients at both servers", || balancer.targets().len() == 2);
    assert_eq!(balancer.backends()[0]["orders"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_weight_and_the_orders_of_a_zone_override_the_list() {
    let balancer = Operated::start(&["--policy", "round-robin"]);
    balancer.succeed(&["weight", &balancer.name(0), "9"]);
    let mut connection = http::Connection::open(balancer.program.address()).unwrap();
    let first =
        (0..100).filter(|_| connection.get("/x").unwrap().location().contains(&balancer.name(0))).count();
    assert!((85..95).contains(&first), "{first}");
    balancer.succeed(&["weight", &balancer.name(0), "list"]);
    let answer = balancer.succeed(&["drain", "zone=eu", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["backends"], serde_json::json!([format!("http://{}", balancer.name(0))]));
    assert_eq!(answer["durable"], true);
    // On a busy machine, a worker receives the table some time after the acknowledgement.
    wait_until("the first order to be in force", || balancer.targets() == [balancer.name(1)]);
    balancer.succeed(&["drain", "zone=us"]);
    wait_until("both orders to be in force", || http::get(balancer.program.address(), "/x").status == 503);
}

#[test]
fn drain_waits_for_the_last_download() {
    let report = |in_flight: u32| {
        let named = format!(r#"{{"in_flight":{in_flight}}}"#);
        Script::prompt().header(format!("endpoint-load-metrics: JSON {{\"named_metrics\":{named}}}"))
    };
    let balancer = Operated::start_with([report(3), Script::prompt()], &[]);
    balancer.wait_until_up();
    let admin = format!("http://{}/", balancer.admin());
    let mut waiting = Program::start(["drain", "--wait", "--admin", &admin, &balancer.name(0)]);
    waiting.wait_for_stderr("in_flight=2");
    assert!(waiting.is_running());
    balancer.peers[0].becomes(report(1));
    assert!(waiting.wait().success());
    let output = balancer.command(&["drain", "--wait", &balancer.name(1)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no load report"), "{output:?}");
}

#[test]
fn an_ambiguous_or_unknown_server_is_an_error() {
    let balancer = Operated::start(&[]);
    let name = balancer.name(0);
    let list = format!("{name}\nhttps://{name}\n");
    std::fs::write(balancer.folder.path().join("list"), list).unwrap();
    wait_until("the new list", || balancer.backends()[1]["address"] == format!("https://{name}"));
    for (backend, words) in [
        (name.as_str(), "is ambiguous: http://"),
        ("127.0.0.1:1", "no server of the list"),
        ("zone=none", "no server of the list has the zone none"),
    ] {
        let output = balancer.command(&["drain", backend]);
        assert_eq!(output.status.code(), Some(1), "{backend}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
    balancer.succeed(&["drain", &format!("https://{name}")]);
}

#[test]
fn another_address_than_loopback_needs_a_token() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("balancer_server_list.txt"), "127.0.0.1:1\n").unwrap();
    let start = |flags: &[&str]| {
        let flags = ["balancer", "--admin", "0.0.0.0:0"].iter().chain(flags);
        let mut program = Program::start_in(folder.path(), flags);
        let code = program.wait().code();
        (code, program.stderr())
    };
    let (code, log) = start(&[]);
    assert_eq!(code, Some(1));
    assert!(
        log.contains("not a loopback address, so it needs a token") && log.contains("--admin-token"),
        "{log}"
    );
    token_file(folder.path(), 0o644);
    let (code, log) = start(&["--admin-token", "token"]);
    assert_eq!(code, Some(1));
    assert!(log.contains("0644, so other users can use it: chmod 600 token"), "{log}");
}

#[test]
fn with_a_token_every_change_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let token = token_file(folder.path(), 0o600);
    let token = token.to_str().unwrap();
    let balancer = Operated::start(&["--admin-token", token]);
    let (admin, name) = (balancer.admin(), balancer.name(0));
    let path = format!("/api/v1/backends/{name}/orders");
    for headers in [
        JSON.to_owned(),
        format!("{JSON}Authorization: Bearer wrong\r\n"),
        format!("{JSON}Cookie: fingerpost-admin=0\r\n"),
    ] {
        for path in [path.as_str(), "/api/v1/zones/eu/orders", "/api/v1/session", "/debug/panic/ranking"] {
            let answer = post(admin, path, &headers, DRAIN);
            assert_eq!(answer.status, 401, "{answer:?}");
            assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
            assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
        }
    }
    assert_eq!(balancer.command(&["drain", &name]).status.code(), Some(1));
    assert_eq!(balancer.targets().len(), 2);
    // Reading needs no token.
    for page in ["/", "/metrics", "/api/v1/backends"] {
        assert_eq!(http::get(admin, page).status, 200, "{page}");
    }
    balancer.succeed(&["drain", &name, "--token", token]);
    balancer.program.wait_for_stderr("an order is in force");
    assert_eq!(balancer.targets(), [balancer.name(1)]);
    let session = post(admin, "/api/v1/session", &format!("{JSON}Authorization: Bearer {TOKEN}\r\n"), "{}");
    let cookie = session.header("Set-Cookie").unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict") && !cookie.contains(TOKEN), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let headers = format!("{JSON}Origin: http://localhost\r\nCookie: {cookie}\r\n");
    assert_eq!(post(admin, &path, &headers, r#"{"order":"enable"}"#).status, 200);
    let foreign = format!("{JSON}Origin: http://evil.example\r\nCookie: {cookie}\r\n");
    assert_eq!(post(admin, &path, &foreign, DRAIN).status, 403);
}

#[test]
fn a_page_of_another_origin_cannot_give_orders() {
    let balancer = Operated::start(&[]);
    let admin = balancer.admin();
    let path = format!("/api/v1/backends/{}/orders", balancer.name(0));
    let host = format!("Host: {admin}\r\n");
    let json = "Content-Type: application/json\r\n";
    for (headers, status) in [
        (format!("{host}Content-Type: text/plain\r\nOrigin: http://evil.example\r\n"), 415),
        (format!("{host}Content-Type: application/x-www-form-urlencoded\r\n"), 415),
        (host.clone(), 415),
        (format!("{host}{json}Origin: http://evil.example\r\n"), 403),
        (format!("{host}{json}Origin: null\r\n"), 403),
        (format!("{host}{json}Origin: http://localhost\r\n"), 403),
        (format!("Host: evil.example:{}\r\n{json}", admin.port()), 403),
        (format!("Host: evil.example\r\n{json}Origin: http://evil.example\r\n"), 403),
    ] {
        let answer = post(admin, &path, &headers, DRAIN);
        assert_eq!(answer.status, status, "{headers}: {answer:?}");
    }
    // A GET changes nothing, and a preflight request permits nothing.
    assert_eq!(http::get(admin, &path).status, 405);
    let preflight = format!(
        "OPTIONS {path} HTTP/1.1\r\n{host}Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n"
    );
    let preflight = http::request(admin, preflight);
    assert_eq!((preflight.status, preflight.header("Access-Control-Allow-Origin")), (405, None));
    assert_eq!(balancer.targets().len(), 2);
    let own = format!("{host}{json}Origin: http://{admin}\r\n");
    assert_eq!(post(admin, &path, &own, DRAIN).status, 200);
}

#[test]
fn a_bad_order_is_refused_with_its_reason_and_changes_nothing() {
    let balancer = Operated::start(&[]);
    let path = format!("/api/v1/backends/http%3A%2F%2F{}/orders", balancer.name(0).replace(':', "%3A"));
    let long = format!(r#"{{"order":"drain","note":"{}"}}"#, "x".repeat(20_000));
    for (path, body, status, words) in [
        (path.as_str(), "", 400, "not an order"),
        (&path, "[]", 400, "not an order"),
        (&path, r#"{"order":"stop"}"#, 400, "unknown variant"),
        (&path, r#"{"order":"drain","unit":1}"#, 400, "unknown field"),
        (&path, r#"{"order":"weight","weight":0}"#, 400, "from 1 to 1000"),
        (&path, r#"{"order":"drain","until":"1999-01-01T00:00:00Z"}"#, 400, "in the past"),
        (&path, &long, 413, "the body cannot be read"),
        ("/api/v1/backends/127.0.0.1:1/orders", DRAIN, 404, "no server of the list"),
        ("/api/v1/backends/%FF/orders", DRAIN, 404, ""),
        ("/api/v1/none", DRAIN, 404, "no such path"),
    ] {
        let answer = post(balancer.admin(), path, JSON, body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"), "{path} {body}");
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
    assert_eq!(balancer.targets().len(), 2);
    assert_eq!(post(balancer.admin(), &path, JSON, DRAIN).status, 200);
}

#[test]
fn a_second_balancer_with_the_same_state_does_not_start() {
    let balancer = Operated::start(&[]);
    let mut second = fingerpost();
    second.args(["balancer", "--servers", "list", "--state", "state"]).current_dir(balancer.folder.path());
    let mut second = Program::spawn(&mut second);
    assert_eq!(second.wait().code(), Some(1));
    let (log, pid) = (second.stderr(), balancer.program.pid());
    assert!(log.contains(&format!("in use by another process (pid {pid})")), "{log}");
}

#[test]
fn a_loss_of_orders_raises_an_alarm_until_it_is_acknowledged() {
    let mut balancer = Operated::start(&[]);
    balancer.succeed(&["drain", &balancer.name(0)]);
    balancer.program.kill();
    // One of the two files is enough.
    std::fs::write(balancer.state("orders.json"), "garbage").unwrap();
    balancer.restart();
    assert_eq!(balancer.targets(), [balancer.name(1)]);
    assert_eq!(balancer.metric("fingerpost_orders_lost"), Some(0.0));
    balancer.program.kill();
    std::fs::write(balancer.state("orders.json"), "garbage").unwrap();
    std::fs::remove_file(balancer.state("orders.backup.json")).unwrap();
    balancer.restart();
    for _ in 0..2 {
        assert_eq!(balancer.metric("fingerpost_orders_lost"), Some(1.0));
        let status = balancer.succeed(&["status"]);
        assert!(status.starts_with("WARNING: orders of operators were lost"), "{status}");
        assert!(http::get(balancer.admin(), "/").text().contains("orders of operators were lost"));
        balancer.program.kill();
        balancer.restart();
    }
    assert_eq!(std::fs::read_to_string(balancer.state("orders.json.damaged")).unwrap(), "garbage");
    std::fs::remove_file(balancer.state("orders.lost")).unwrap();
    assert_eq!(balancer.metric("fingerpost_orders_lost"), Some(0.0));
}

#[test]
fn an_order_that_cannot_be_stored_is_refused() {
    let balancer = Operated::start(&[]);
    let state = balancer.folder.path().join("state");
    // Root ignores modes, so a folder in the place of the file makes the write fail.
    std::fs::remove_file(state.join("orders.backup.json")).unwrap();
    std::fs::create_dir(state.join("orders.backup.json")).unwrap();
    let output = balancer.command(&["drain", &balancer.name(0)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot be stored, so it is not in force"),
        "{output:?}"
    );
    assert_eq!(balancer.targets().len(), 2);
}

#[test]
fn every_acknowledged_order_is_in_force_after_kill_9_at_a_random_moment() {
    let mut balancer = Operated::start(&[]);
    let mut seed: u64 = 7;
    for round in 0..50 {
        let (admin, path) = (balancer.admin(), format!("/api/v1/backends/{}/orders", balancer.name(0)));
        let giving = std::thread::spawn(move || {
            let mut acknowledged = None;
            let mut tried = 0;
            for weight in 1..=1000 {
                tried = weight;
                let body = format!(r#"{{"order":"weight","weight":{weight}}}"#);
                let length = body.len();
                let request = format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n{JSON}\r\n{body}");
                let answer = http::Connection::open(admin).and_then(|mut connection| {
                    connection.send(request)?;
                    connection.answer(http::Expect::Body)
                });
                match answer {
                    Ok(answer) if answer.status == 200 => acknowledged = Some(weight),
                    _ => break,
                }
            }
            (acknowledged, tried)
        });
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(std::time::Duration::from_micros((seed >> 33) % 60_000));
        balancer.program.kill();
        let (acknowledged, tried) = giving.join().unwrap();
        balancer.restart();
        let found = balancer.backends()[0]["orders"][0]["weight"].as_u64();
        let expected = acknowledged.or(found);
        // The last one may have been stored although its answer was lost.
        assert!(
            found == expected || found == Some(tried),
            "round {round}: {found:?}, {acknowledged:?}, {tried}"
        );
        assert_eq!(balancer.metric("fingerpost_orders_lost"), Some(0.0));
    }
    wait_for("a redirect", || (http::get(balancer.program.address(), "/x").status == 301).then_some(()));
}
