//! The effect of false load reports on the distribution of clients, from the header to the pick.

use std::time::Duration;

use fingerpost::internals::health::{HealthCheckConfig, ProbeOutcome};
use fingerpost::internals::list;
use fingerpost::internals::load_report;
use fingerpost::internals::policy::{LoadSlab, MonotonicClock, PickRequest, Picks, PolicyName};
use fingerpost::internals::table::{BackendEntry, RoutingTable};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

const SERVERS: usize = 10;

/// Redirects per second. Each server can serve 100.
const RATE: u32 = 600;

const HEALTH_CHECK: HealthCheckConfig = HealthCheckConfig {
    fall: 3,
    rise: 2,
    interval: Duration::from_secs(1),
    backoff_max: Duration::from_secs(30),
    slow_start: Duration::ZERO,
};

/// Ten equal servers that are probed every second. The first one may send any report.
struct Fleet {
    entries: Vec<BackendEntry>,
    clock: MonotonicClock,
    now: Instant,
    random: SmallRng,
    seconds: u32,
    /// Redirects per second.
    rate: u32,
}

impl Fleet {
    fn new() -> Self {
        let lines: Vec<String> = (0..SERVERS).map(|server| format!("server{server}:80")).collect();
        let backends = list::parse(lines.join("\n").as_bytes()).backends;
        let now = Instant::now();
        let mut slab = LoadSlab::default();
        let entries = backends.into_iter().map(|backend| BackendEntry::new(backend, &mut slab, now));
        Self {
            entries: entries.collect(),
            clock: MonotonicClock::new(now),
            now,
            random: SmallRng::seed_from_u64(1),
            seconds: 0,
            rate: RATE,
        }
    }

    /// Probes all servers and redirects for one second. Returns the number of redirects to each server.
    fn second(&mut self, claim: Option<&str>) -> Vec<u32> {
        self.second_of(|server| claim.filter(|_| server == 0).map(str::to_owned))
    }

    /// As [`Self::second`], with metrics for each server that replace its true ones.
    fn second_of(&mut self, metrics: impl Fn(usize) -> Option<String>) -> Vec<u32> {
        self.seconds += 1;
        for (server, entry) in self.entries.iter_mut().enumerate() {
            let truth = format!(
                "\"in_flight\":2,\"completed\":{0}00,\"sent_bytes\":{0}00000000,\"busy_seconds\":{0}",
                self.seconds
            );
            let metrics = metrics(server).unwrap_or(truth);
            let header = format!("JSON {{\"named_metrics\":{{{metrics}}}}}");
            let report = load_report::parse(header.as_bytes()).ok().map(|parsed| parsed.report);
            let took = Duration::from_millis(1);
            let outcome = ProbeOutcome::Success { connect: took, first_byte: took, total: took, report };
            entry.observe(&outcome, &HEALTH_CHECK, &self.clock, self.now);
        }
        let (name, random) = (PolicyName::Adaptive, &mut self.random);
        let table =
            RoutingTable::build(1, &mut self.entries, name, &HEALTH_CHECK, &self.clock, self.now, random);
        let mut sent = vec![0; SERVERS];
        for _ in 0..self.rate {
            self.now += Duration::from_secs(1) / self.rate;
            let mut picks = Picks::new(0);
            table.policy.pick(&PickRequest::default(), self.clock.timestamp(self.now), random, &mut picks);
            sent[picks.chosen().unwrap() as usize] += 1;
        }
        sent
    }

    fn seconds(&mut self, seconds: u32, claim: Option<&str>) -> Vec<u32> {
        let mut sent = vec![0; SERVERS];
        for _ in 0..seconds {
            for (all, more) in sent.iter_mut().zip(self.second(claim)) {
                *all += more;
            }
        }
        sent
    }
}

/// Whether all counts are within a quarter of their mean.
fn are_even(sent: &[u32]) -> bool {
    let mean = sent.iter().sum::<u32>() / sent.len() as u32;
    sent.iter().all(|count| count.abs_diff(mean) <= mean / 4)
}

/// Metrics with extreme numbers.
fn extreme_metrics() -> impl Strategy<Value = String> {
    let numbers =
        ["-1", "0", "1e18", "-1e18", "1e308", "9007199254740991", "1e-300", "1e999", "NaN", "\"1\"", "null"];
    let number = || proptest::sample::select(numbers.to_vec());
    (number(), number(), number(), number(), number()).prop_map(|(in_flight, completed, sent, busy, unsent)| {
        format!(
            "\"in_flight\":{in_flight},\"completed\":{completed},\"sent_bytes\":{sent},\"busy_seconds\":{busy},\
             \"unsent_bytes\":{unsent}"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_report_of_one_server_leaves_even_shares_to_the_others(claim in extreme_metrics()) {
        let mut fleet = Fleet::new();
        fleet.seconds(5, None);
        let sent = fleet.seconds(5, Some(&claim));
        prop_assert!(are_even(&sent[1..]), "{}: {:?}", claim, sent);
    }
}

#[test]
fn minutes_of_true_reports_outweigh_a_false_one() {
    for (sent, busy) in [("1e18", "1e18"), ("1e18", "11"), ("-1e18", "11"), ("1e12", "11.001"), ("0", "1e18")]
    {
        let mut fleet = Fleet::new();
        fleet.seconds(10, None);
        fleet.second(Some(&format!(
            "\"in_flight\":1,\"completed\":1e18,\"sent_bytes\":{sent},\"busy_seconds\":{busy}"
        )));
        fleet.seconds(180, None);
        let sent_to = fleet.seconds(5, None);
        assert!(are_even(&sent_to), "{sent} bytes in {busy} s: {sent_to:?}");
    }
}

#[test]
fn a_server_that_claims_overload_gets_clients_again_after_its_first_true_report() {
    let mut fleet = Fleet::new();
    fleet.seconds(5, None);
    assert_eq!(fleet.seconds(3, Some("\"in_flight\":1e6"))[0], 0);
    assert!(fleet.seconds(2, None)[0] > 60);
}

#[test]
fn a_server_that_claims_any_work_gets_clients_again_after_its_first_true_report() {
    let mut fleet = Fleet::new();
    fleet.seconds(5, None);
    assert_eq!(fleet.seconds(3, Some("\"in_flight\":1000,\"unsent_bytes\":1e15"))[0], 0);
    assert!(fleet.seconds(2, None)[0] > 60);
}

#[test]
fn a_server_that_denies_its_work_gets_at_most_its_share_and_the_clients_of_one_interval() {
    let mut fleet = Fleet::new();
    fleet.seconds(10, None);
    let mut sent = vec![0; SERVERS];
    for second in 10..20 {
        let claim = format!(
            "\"in_flight\":1,\"unsent_bytes\":0,\"completed\":{second}00,\"sent_bytes\":{second}00000000,\
             \"busy_seconds\":{second}"
        );
        for (all, more) in sent.iter_mut().zip(fleet.second(Some(&claim))) {
            *all += more;
        }
    }
    // Ten seconds of 600 redirects, of which an even share is 600.
    assert!(sent[0] < 1200, "{sent:?}");
    assert!(are_even(&sent[1..]), "{sent:?}");
}

#[test]
fn a_server_that_claims_an_impossible_overload_keeps_its_share() {
    for claim in ["\"in_flight\":1e18", "\"in_flight\":-1e18", "\"in_flight\":1e999"] {
        let mut fleet = Fleet::new();
        fleet.seconds(5, None);
        let sent = fleet.seconds(5, Some(claim));
        assert!(are_even(&sent), "{claim}: {sent:?}");
    }
}

#[test]
fn a_server_that_claims_extreme_speed_does_not_get_all_clients() {
    let mut fleet = Fleet::new();
    fleet.seconds(10, None);
    let mut second = 10;
    let mut sent = vec![0; SERVERS];
    for _ in 0..10 {
        second += 1;
        let claim = format!(
            "\"in_flight\":1,\"sent_bytes\":{second}e15,\"completed\":{second}e12,\"busy_seconds\":{second}"
        );
        sent = fleet.second(Some(&claim));
    }
    assert!(sent[1..].iter().all(|count| *count > 0), "{sent:?}");
}

#[test]
fn a_report_that_ignores_redirects_is_ignored() {
    for claim in [
        "\"in_flight\":0,\"completed\":1e18,\"sent_bytes\":1e18,\"busy_seconds\":1e18",
        "\"in_flight\":1,\"completed\":7",
        "\"in_flight\":2,\"sent_bytes\":7",
    ] {
        let mut fleet = Fleet::new();
        fleet.seconds(5, None);
        // The first such report differs from the one before, and clients redirected after it may arrive after the next.
        fleet.seconds(2, Some(claim));
        let sent = fleet.seconds(5, Some(claim));
        assert!(fleet.entries[0].estimate.is_stuck(), "{claim}");
        assert!(are_even(&sent), "{claim}: {sent:?}");
        fleet.seconds(2, None);
        assert!(!fleet.entries[0].estimate.is_stuck(), "{claim}");
    }
}

#[test]
fn an_unchanged_report_of_an_idle_server_counts() {
    let mut fleet = Fleet::new();
    fleet.seconds(5, None);
    // The server claims overload, so it gets no clients.
    let idle = "\"in_flight\":1000000,\"completed\":500,\"sent_bytes\":5e8,\"busy_seconds\":5";
    let sent = fleet.seconds(10, Some(idle));
    assert_eq!(sent[0], 0);
    assert!(!fleet.entries[0].estimate.is_stuck());
}

#[test]
fn an_overloaded_server_that_stops_reporting_gets_clients_again_at_once() {
    for others_without in [0, 3] {
        let mut fleet = Fleet::new();
        let nothing = || Some("\"other\":1".to_owned());
        let others = |server: usize| (1..=others_without).contains(&server).then(nothing).flatten();
        let overloaded = || Some("\"in_flight\":1e5".to_owned());
        // The first table sets the cost of a request, so reports take effect from the second on.
        for expected in [None, Some(0), Some(0)] {
            let sent = fleet.second_of(|server| if server == 0 { overloaded() } else { others(server) });
            assert!(expected.is_none_or(|expected| sent[0] == expected), "{sent:?}");
        }
        for second in 0..3 {
            let sent = fleet.second_of(|server| if server == 0 { nothing() } else { others(server) });
            assert!(sent[0] > 20, "{others_without} others without reports, second {second}: {sent:?}");
        }
    }
}

#[test]
fn an_address_with_several_servers_gets_the_share_of_a_server_without_reports() {
    let sent = [false, true].map(|is_shared| {
        let mut fleet = Fleet::new();
        fleet.rate = 10 * RATE;
        let mut all = vec![0; SERVERS];
        for second in 0..30 {
            let metrics = |server: usize| match server {
                0 if is_shared => Some(format!("\"in_flight\":2,\"completed\":{second},\"boot\":{second}")),
                0..7 => Some("\"other\":1".to_owned()),
                _ => None,
            };
            for (all, more) in all.iter_mut().zip(fleet.second_of(metrics)) {
                *all += if second < 20 { 0 } else { more };
            }
        }
        all
    });
    assert!(sent[1][0].abs_diff(sent[0][0]) <= sent[0][0] / 4, "{sent:?}");
}
