//! Actors are restarted after a panic, without an effect on clients.

use super::support::fleet::Balancer;
use super::support::http;
use super::support::load::Load;
use super::support::misbehaving::{FileServer, Script};
use super::support::wait_until;

#[test]
fn each_actor_is_restarted_after_a_panic_while_every_request_is_answered() {
    let peers = [Script::prompt().start(), Script::prompt().start()];
    let list = peers.each_ref().map(FileServer::authority).join("\n");
    let balancer =
        Balancer::start_with_keys(&list, &[("FAULT_INJECTION", "true"), ("PROBE_INTERVAL", "200ms")]);
    for peer in &peers {
        balancer.wait_for_state(&peer.authority(), "up");
    }
    let load = Load::start(&balancer);
    for (actor, label) in [("probe", "Probe"), ("ranking", "Ranking"), ("redirect", "Redirect")] {
        let restarts = format!("fingerpost_actor_restarts_total{{actor=\"{label}\"}}");
        let before = balancer.metric(&restarts).unwrap_or(0.0);
        let asked = http::request(
            balancer.admin_address(),
            format!(
                "POST /debug/panic/{actor} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
            ),
        );
        assert_eq!(asked.status, 202, "{asked:?}");
        wait_until(&format!("the restart of {actor}"), || {
            balancer.metric(&restarts).is_some_and(|restarts| restarts > before)
        });
        let count = load.count();
        wait_until("load", || load.count() > count + 100);
        // The actor works again: the balancer detects that a server fails and that it recovers.
        peers[1].becomes(Script::status(500));
        balancer.wait_for_state(&peers[1].authority(), "down");
        let count = load.count();
        wait_until("load on the server that is left", || {
            let latest = load.redirects_after(load.count().saturating_sub(50));
            load.count() > count + 50 && latest.authorities() == [peers[0].authority()]
        });
        peers[1].becomes(Script::prompt());
        balancer.wait_for_state(&peers[1].authority(), "up");
    }
    load.stop();
    // Each panic is counted, and logged with its location and its reason.
    assert!(balancer.metric("fingerpost_panics_total").is_some_and(|panics| panics >= 4.0));
    assert_eq!(balancer.metric("fingerpost_probe_results_lost_total"), Some(0.0));
    assert_eq!(balancer.metric("fingerpost_tables_lost_total"), Some(0.0));
    let log = balancer.program().stderr();
    let panic = log.lines().find(|line| line.contains("panicked")).unwrap_or_else(|| panic!("{log}"));
    assert!(panic.contains(".rs:") && panic.contains("panic on request"), "{panic}");
}

#[test]
fn an_actor_that_panics_too_often_ends_the_program_with_an_error() {
    let peer = Script::prompt().start();
    let mut balancer = Balancer::start_with_keys(&peer.authority(), &[("FAULT_INJECTION", "true")]);
    let admin = balancer.admin_address();
    let ask = || {
        let mut connection = http::Connection::open(admin).unwrap();
        connection
            .send("POST /debug/panic/ranking HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        connection
    };
    for panics in 1..10 {
        drop(ask().answer(http::Expect::Body).unwrap());
        wait_until("the restart of the ranking", || {
            balancer.metric("fingerpost_actor_restarts_total{actor=\"Ranking\"}") == Some(f64::from(panics))
        });
    }
    // The program may end before it sends an answer.
    let _last = ask();
    let ended = balancer.program_mut().wait();
    let log = balancer.program().stderr();
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(
        log.ends_with(
            "Error: RankingActor ranking panicked 10 times within 60s; the log above has the reasons\n"
        ),
        "{log}"
    );
}

#[test]
fn without_fault_injection_a_request_for_a_panic_is_refused() {
    let peer = Script::prompt().start();
    let balancer = Balancer::start(&peer.authority());
    let request = "POST /debug/panic/ranking HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(http::request(balancer.admin_address(), request).status, 403);
}
