//! Redirects while servers fail and recover.

use std::time::{Duration, Instant};

use super::support::fleet::{Balancer, Fleet};
use super::support::load::Load;
use super::support::misbehaving::{FileServer, Script};
use super::support::wait_until;

/// The flags of a balancer with the default probe times.
const DEFAULTS: [&str; 0] = [];

#[test]
fn three_servers_all_get_traffic() {
    let fleet = Fleet::start(3);
    let redirects = fleet.balancer().redirects(300);
    for server in 0..3 {
        assert!(redirects.to(&fleet.authority(server)) > 0, "{redirects:?}");
    }
    assert_eq!(redirects.authorities().len(), 3);
}

#[test]
fn a_server_killed_under_load_gets_no_client_after_three_seconds_and_gets_clients_after_its_restart() {
    let mut fleet = Fleet::start_with(3, &DEFAULTS);
    let victim = fleet.authority(1);
    let load = Load::start(fleet.balancer());
    wait_until("some load", || load.count() > 100);

    fleet.kill(1);
    let killed = Instant::now();
    wait_until("the time in which the failure may go unnoticed", || {
        killed.elapsed() > Duration::from_secs(3)
    });
    let noticed = load.count();
    wait_until("load on the servers that are left", || load.count() > noticed + 500);
    assert_eq!(load.redirects_after(noticed).to(&victim), 0);

    fleet.restart(1);
    let before = load.count();
    wait_until("the server to be chosen again", || load.redirects_after(before).to(&victim) > 0);
    // The load asserts that every answer is a redirect.
    load.stop();
}

#[test]
fn without_a_usable_server_clients_get_a_page_and_with_one_a_redirect() {
    let mut fleet = Fleet::start_with(2, &DEFAULTS);
    fleet.kill(0);
    fleet.kill(1);
    let answer = fleet.balancer().wait_for_status(503);
    let retry_after: u32 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    assert_eq!(answer.header("Content-Type").map(|value| value.starts_with("text/html")), Some(true));
    assert!(answer.text().contains("503"), "{}", answer.text());
    for _ in 0..50 {
        assert_eq!(fleet.balancer().get("/plshelp.txt").status, 503);
    }
    // The transition causes the warning, not each request.
    let log = fleet.balancer().program().stderr();
    assert_eq!(log.matches("no server is usable").count(), 1, "{log}");

    fleet.restart(0);
    let answer = fleet.balancer().wait_for_status(301);
    assert_eq!(answer.location(), format!("http://{}/plshelp.txt", fleet.authority(0)));
}

#[test]
fn a_tier_whose_servers_all_become_silent_gets_no_client_while_another_tier_answers() {
    let peers: Vec<_> = (0..10).map(|_| Script::prompt().start()).collect();
    let (preferred, spare) = peers.split_at(6);
    let lines = peers.iter().zip(0..).map(|(peer, index)| {
        let tier = u8::from(index >= preferred.len());
        format!("{} tier={tier}", peer.authority())
    });
    let balancer = Balancer::start(&lines.collect::<Vec<_>>().join("\n"));
    for peer in &peers {
        balancer.wait_for_state(&peer.authority(), "up");
    }
    let to = |peers: &[FileServer]| -> usize {
        let redirects = balancer.redirects(100);
        peers.iter().map(|peer| redirects.to(&peer.authority())).sum()
    };
    assert_eq!(to(preferred), 100);

    for peer in preferred {
        peer.becomes(Script::prompt().hangs());
    }
    for peer in preferred {
        balancer.wait_for_state(&peer.authority(), "down");
    }
    assert_eq!(to(spare), 100);

    preferred[0].becomes(Script::prompt());
    balancer.wait_for_state(&preferred[0].authority(), "up");
    assert_eq!(to(&preferred[..1]), 100);
}
