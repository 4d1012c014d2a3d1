//! What a server that lies in its load reports can and cannot bring about, from the header to the pick.

use std::time::Duration;

use fingerpost::balancer::backends::list;
use fingerpost::balancer::health::{ProbeOutcome, Thresholds};
use fingerpost::balancer::load_report;
use fingerpost::balancer::policy::{Book, Clock, Picks, PolicyName, Request};
use fingerpost::balancer::ranking::table::{Entry, Member, RoutingTable};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

const SERVERS: usize = 10;

/// Redirects a second; each server carries 100.
const RATE: u32 = 600;

const THRESHOLDS: Thresholds = Thresholds {
    fall: 3,
    rise: 2,
    interval: Duration::from_secs(1),
    backoff_max: Duration::from_secs(30),
    slow_start: Duration::ZERO,
};

/// Ten equal servers that are probed each second, of which the first may say anything.
struct Fleet {
    entries: Vec<Entry>,
    clock: Clock,
    now: Instant,
    random: SmallRng,
    seconds: u32,
    /// Redirects a second.
    rate: u32,
}

impl Fleet {
    fn new() -> Self {
        let lines: Vec<String> = (0..SERVERS).map(|server| format!("server{server}:80")).collect();
        let backends = list::parse(lines.join("\n").as_bytes()).backends;
        let now = Instant::now();
        let mut book = Book::default();
        let entries = backends.into_iter().map(|backend| Entry::new(Member::new(backend, &mut book), now));
        Self {
            entries: entries.collect(),
            clock: Clock::new(now),
            now,
            random: SmallRng::seed_from_u64(1),
            seconds: 0,
            rate: RATE,
        }
    }

    /// Probes all and redirects for a second; how many clients each server was sent.
    fn second(&mut self, lie: Option<&str>) -> Vec<u32> {
        self.second_of(|server| lie.filter(|_| server == 0).map(str::to_owned))
    }

    /// The same with what each server says instead of the truth.
    fn second_of(&mut self, says: impl Fn(usize) -> Option<String>) -> Vec<u32> {
        self.seconds += 1;
        for (server, entry) in self.entries.iter_mut().enumerate() {
            let truth = format!(
                "\"in_flight\":2,\"completed\":{0}00,\"sent_bytes\":{0}00000000,\"busy_seconds\":{0}",
                self.seconds
            );
            let metrics = says(server).unwrap_or(truth);
            let header = format!("JSON {{\"named_metrics\":{{{metrics}}}}}");
            let report = load_report::parse(header.as_bytes()).ok().map(|parsed| parsed.report);
            let took = Duration::from_millis(1);
            let outcome = ProbeOutcome::Success { connect: took, first_byte: took, total: took, report };
            entry.observe(&outcome, &THRESHOLDS, &self.clock, self.now);
        }
        let (name, random) = (PolicyName::Adaptive, &mut self.random);
        let table =
            RoutingTable::build(1, &mut self.entries, name, &THRESHOLDS, &self.clock, self.now, random);
        let mut sent = vec![0; SERVERS];
        for _ in 0..self.rate {
            self.now += Duration::from_secs(1) / self.rate;
            let mut picks = Picks::new(0);
            table.policy.pick(&Request::default(), self.clock.tick(self.now), random, &mut picks);
            sent[picks.chosen().unwrap() as usize] += 1;
        }
        sent
    }

    fn seconds(&mut self, seconds: u32, lie: Option<&str>) -> Vec<u32> {
        let mut sent = vec![0; SERVERS];
        for _ in 0..seconds {
            for (all, more) in sent.iter_mut().zip(self.second(lie)) {
                *all += more;
            }
        }
        sent
    }
}

/// Whether all of these are within a quarter of their mean.
fn are_alike(sent: &[u32]) -> bool {
    let mean = sent.iter().sum::<u32>() / sent.len() as u32;
    sent.iter().all(|count| count.abs_diff(mean) <= mean / 4)
}

/// What the first server says instead of the truth.
fn lies() -> impl Strategy<Value = String> {
    let numbers =
        ["-1", "0", "1e18", "-1e18", "1e308", "9007199254740991", "1e-300", "1e999", "NaN", "\"1\"", "null"];
    let number = || proptest::sample::select(numbers.to_vec());
    (number(), number(), number(), number()).prop_map(|(in_flight, completed, sent, busy)| {
        format!(
            "\"in_flight\":{in_flight},\"completed\":{completed},\"sent_bytes\":{sent},\"busy_seconds\":{busy}"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_one_server_says_the_others_share_the_rest_evenly(lie in lies()) {
        let mut fleet = Fleet::new();
        fleet.seconds(5, None);
        let sent = fleet.seconds(5, Some(&lie));
        prop_assert!(are_alike(&sent[1..]), "{}: {:?}", lie, sent);
    }
}

#[test]
fn what_one_server_said_is_made_good_by_minutes_of_truth() {
    for (sent, busy) in [("1e18", "1e18"), ("1e18", "11"), ("-1e18", "11"), ("1e12", "11.001"), ("0", "1e18")]
    {
        let mut fleet = Fleet::new();
        fleet.seconds(10, None);
        fleet.second(Some(&format!(
            "\"in_flight\":1,\"completed\":1e18,\"sent_bytes\":{sent},\"busy_seconds\":{busy}"
        )));
        fleet.seconds(180, None);
        let sent_to = fleet.seconds(5, None);
        assert!(are_alike(&sent_to), "{sent} bytes in {busy} s: {sent_to:?}");
    }
}

#[test]
fn a_server_that_claims_to_be_swamped_gets_clients_again_with_its_first_true_report() {
    let mut fleet = Fleet::new();
    fleet.seconds(5, None);
    assert_eq!(fleet.seconds(3, Some("\"in_flight\":1e6"))[0], 0);
    assert!(fleet.seconds(2, None)[0] > 60);
}

#[test]
fn a_server_that_claims_to_be_swamped_beyond_all_belief_keeps_its_share() {
    for lie in ["\"in_flight\":1e18", "\"in_flight\":-1e18", "\"in_flight\":1e999"] {
        let mut fleet = Fleet::new();
        fleet.seconds(5, None);
        let sent = fleet.seconds(5, Some(lie));
        assert!(are_alike(&sent), "{lie}: {sent:?}");
    }
}

#[test]
fn a_server_that_claims_to_be_ever_so_fast_does_not_take_all() {
    let mut fleet = Fleet::new();
    fleet.seconds(10, None);
    let mut second = 10;
    let mut sent = vec![0; SERVERS];
    for _ in 0..10 {
        second += 1;
        let lie = format!(
            "\"in_flight\":1,\"sent_bytes\":{second}e15,\"completed\":{second}e12,\"busy_seconds\":{second}"
        );
        sent = fleet.second(Some(&lie));
    }
    assert!(sent[1..].iter().all(|count| *count > 0), "{sent:?}");
}

#[test]
fn a_report_that_never_changes_is_left_out_once_clients_were_sent() {
    for lie in [
        "\"in_flight\":0,\"completed\":1e18,\"sent_bytes\":1e18,\"busy_seconds\":1e18",
        "\"in_flight\":1,\"completed\":7",
        "\"in_flight\":2,\"sent_bytes\":7",
    ] {
        let mut fleet = Fleet::new();
        fleet.seconds(5, None);
        // The first such report is news, and those sent after it may not have come when the next one is made.
        fleet.seconds(2, Some(lie));
        let sent = fleet.seconds(5, Some(lie));
        assert!(fleet.entries[0].estimate.is_stuck(), "{lie}");
        assert!(are_alike(&sent), "{lie}: {sent:?}");
        fleet.seconds(2, None);
        assert!(!fleet.entries[0].estimate.is_stuck(), "{lie}");
    }
}

#[test]
fn a_report_that_does_not_change_while_nobody_comes_is_believed() {
    let mut fleet = Fleet::new();
    fleet.seconds(5, None);
    // Swamped, so that nobody is sent there.
    let idle = "\"in_flight\":1000000,\"completed\":500,\"sent_bytes\":5e8,\"busy_seconds\":5";
    let sent = fleet.seconds(10, Some(idle));
    assert_eq!(sent[0], 0);
    assert!(!fleet.entries[0].estimate.is_stuck());
}

#[test]
fn a_server_that_was_swamped_and_reports_no_more_gets_clients_again_at_once() {
    for silent in [0, 3] {
        let mut fleet = Fleet::new();
        let nothing = || Some("\"other\":1".to_owned());
        let others = |server: usize| (1..=silent).contains(&server).then(nothing).flatten();
        let swamped = || Some("\"in_flight\":1e5".to_owned());
        // What a client costs is known from the first table on.
        for expected in [None, Some(0), Some(0)] {
            let sent = fleet.second_of(|server| if server == 0 { swamped() } else { others(server) });
            assert!(expected.is_none_or(|expected| sent[0] == expected), "{sent:?}");
        }
        for second in 0..3 {
            let sent = fleet.second_of(|server| if server == 0 { nothing() } else { others(server) });
            assert!(sent[0] > 20, "{silent} silent others, second {second}: {sent:?}");
        }
    }
}

#[test]
fn an_address_at_which_several_servers_take_turns_gets_the_share_of_one_without_reports() {
    let sent = [false, true].map(|takes_turns| {
        let mut fleet = Fleet::new();
        fleet.rate = 10 * RATE;
        let mut all = vec![0; SERVERS];
        for second in 0..30 {
            let says = |server: usize| match server {
                0 if takes_turns => Some(format!("\"in_flight\":2,\"completed\":{second},\"boot\":{second}")),
                0..7 => Some("\"other\":1".to_owned()),
                _ => None,
            };
            for (all, more) in all.iter_mut().zip(fleet.second_of(says)) {
                *all += if second < 20 { 0 } else { more };
            }
        }
        all
    });
    assert!(sent[1][0].abs_diff(sent[0][0]) <= sent[0][0] / 4, "{sent:?}");
}
