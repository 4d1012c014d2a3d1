use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::balancer::backends::list;
use crate::balancer::health::{FailureKind, ProbeFailure};
use crate::balancer::policy::{PickRequest, Picks};

const HEALTH_CHECK: HealthCheckConfig = HealthCheckConfig {
    fall: 3,
    rise: 2,
    interval: Duration::from_secs(2),
    backoff_max: Duration::from_secs(30),
    slow_start: Duration::ZERO,
};

/// The backends to which clients with these needs are redirected. Backends whose line ends in `down` are down.
fn chosen(name: PolicyName, lines: &[&str], https: bool, ipv4: bool) -> Vec<String> {
    let now = Instant::now();
    let (clock, mut random, mut slab) =
        (MonotonicClock::new(now), SmallRng::seed_from_u64(1), LoadSlab::default());
    let text = lines.join("\n").replace(" down", "");
    let backends = list::parse(text.as_bytes()).backends;
    let mut entries: Vec<BackendEntry> =
        backends.into_iter().map(|backend| BackendEntry::new(backend, &mut slab, now)).collect();
    for (entry, line) in entries.iter_mut().zip(lines) {
        let took = Duration::from_millis(1);
        let outcome = if line.ends_with(" down") {
            ProbeOutcome::Failure(ProbeFailure { kind: FailureKind::Refused, detail: String::new() })
        } else {
            ProbeOutcome::Success { connect: took, first_byte: took, total: took, report: None }
        };
        entry.observe(&outcome, &HEALTH_CHECK, &clock, now);
    }
    let table = RoutingTable::build(1, &mut entries, name, &HEALTH_CHECK, &clock, now, &mut random);
    let mut found = std::collections::BTreeSet::new();
    for path_hash in 0..200 {
        let mut picks = Picks::new(3);
        let request = PickRequest { path_hash: path_hash << 55, ..PickRequest::default() };
        table.policy_for(Needs::new(https, ipv4)).pick(
            &request,
            clock.timestamp(now),
            &mut random,
            &mut picks,
        );
        let chosen = table.entries.get(picks.chosen().unwrap() as usize).unwrap();
        found.insert(chosen.backend.id().to_string());
    }
    found.into_iter().collect()
}

#[track_caller]
fn check(lines: &[&str], (https, ipv4): (bool, bool), expected: &[&str]) {
    for name in PolicyName::ALL {
        assert_eq!(chosen(name, lines, https, ipv4), expected, "{name} {lines:?}");
    }
}

#[test]
fn clients_over_https_are_sent_to_http_only_if_no_https_server_is_usable() {
    let lines = ["http://a:1", "https://b:1", "http://c:1", "https://d:1"];
    check(&lines, (true, true), &["https://b:1", "https://d:1"]);
    check(&lines, (false, false), &["http://a:1", "http://c:1", "https://b:1", "https://d:1"]);
    check(&["http://a:1", "https://b:1 tier=7", "https://c:1 tier=8"], (true, false), &["https://b:1"]);
    check(&["http://a:1", "https://b:1 tier=7"], (false, true), &["http://a:1"]);
    check(&["http://a:1", "https://b:1 down"], (true, false), &["http://a:1"]);
    check(&["http://a:1"], (true, true), &["http://a:1"]);
}

#[test]
fn clients_over_ipv4_are_sent_to_an_ipv6_address_only_if_no_other_server_is_usable() {
    check(
        &["http://[::1]:1", "http://b:1", "http://127.0.0.1:1"],
        (false, true),
        &["http://127.0.0.1:1", "http://b:1"],
    );
    check(&["http://[::1]:1", "http://b:1 down"], (false, true), &["http://[::1]:1"]);
    check(&["https://[::1]:1", "http://b:1"], (true, true), &["http://b:1"]);
    check(&["https://[::1]:1", "http://[::2]:1"], (true, true), &["https://[::1]:1"]);
    check(&["http://[::1]:1", "https://[::2]:1"], (true, true), &["https://[::2]:1"]);
}
