//! A server that starts anew between two probes, and an address behind which several servers take turns.

use std::time::Duration;

use fingerpost::balancer::backends::list;
use fingerpost::balancer::health::{Failure, FailureKind, ProbeOutcome};
use fingerpost::balancer::load_report::LoadReport;
use fingerpost::balancer::policy::{Book, Clock};
use fingerpost::balancer::ranking::table::{Entry, Member};
use proptest::prelude::*;
use tokio::time::Instant;

use super::health::THRESHOLDS;

/// One address, probed each second.
struct Address {
    entry: Entry,
    clock: Clock,
    now: Instant,
}

impl Address {
    fn new() -> Self {
        let now = Instant::now();
        let backend = list::parse(b"server:80").backends.remove(0);
        let member = Member::new(backend, &mut Book::default());
        Self { entry: Entry::new(member, now), clock: Clock::new(now), now }
    }

    fn observe(&mut self, outcome: &ProbeOutcome) {
        self.now += Duration::from_secs(1);
        self.entry.observe(outcome, &THRESHOLDS, &self.clock, self.now);
    }

    /// The answer of a server that began at this time, in seconds after the first.
    fn answers(&mut self, boot: u64, completed: u64) {
        let report = LoadReport {
            in_flight: 1,
            unsent_bytes: None,
            completed: Some(completed),
            busy: Some(Duration::from_secs(completed)),
            sent_bytes: None,
            egress: None,
            boot: Some(boot),
        };
        let took = Duration::from_millis(1);
        self.observe(&ProbeOutcome::Success {
            connect: took,
            first_byte: took,
            total: took,
            report: Some(report),
        });
    }

    fn fails(&mut self) {
        let failure = Failure { kind: FailureKind::Refused, detail: String::new() };
        self.observe(&ProbeOutcome::Failure(failure));
    }

    fn warmth(&self) -> f64 {
        self.entry.health.warmth(&THRESHOLDS, self.now)
    }

    fn is_warm(&self) -> bool {
        (self.warmth() - 1.0).abs() < f64::EPSILON
    }

    fn reason(&self) -> String {
        self.entry.health.reason().to_string()
    }
}

#[test]
fn a_server_that_started_anew_between_two_probes_starts_slowly_and_its_reason_says_so() {
    let mut address = Address::new();
    (0..30).for_each(|second| address.answers(1, second));
    assert_eq!((address.is_warm(), address.reason().as_str()), (true, "answers"));
    address.answers(2, 0);
    assert!(address.warmth() <= 0.1);
    assert_eq!(address.reason(), "answers (restarted since the last probe)");
    (1..11).for_each(|second| address.answers(2, second));
    assert!(address.is_warm());
    assert!(!address.entry.estimate.is_shared());
}

#[test]
fn servers_that_take_turns_at_an_address_start_slowly_once_and_report_nothing() {
    for turns in [vec![1, 2], vec![1, 1, 1, 2], vec![1, 2, 3, 4, 5]] {
        let mut address = Address::new();
        for (second, boot) in (0..60).zip(turns.iter().cycle()) {
            address.answers(*boot, second);
        }
        assert!(address.entry.estimate.is_shared(), "{turns:?}");
        assert_eq!(address.entry.estimate.throughput(), None, "{turns:?}");
        assert!(address.is_warm(), "{turns:?}");
        // One of them alone, for more than a minute.
        (0..70).for_each(|second| address.answers(1, second));
        assert!(!address.entry.estimate.is_shared(), "{turns:?}");
        assert!(address.entry.estimate.throughput().is_some(), "{turns:?}");
    }
}

#[test]
fn a_server_that_crashes_again_and_again_starts_slowly_each_time_and_is_one_server() {
    let mut address = Address::new();
    for boot in 0..10 {
        for second in 0..8 {
            address.answers(boot, second);
        }
        assert!(!address.entry.estimate.is_shared(), "boot {boot}");
        (0..THRESHOLDS.fall).for_each(|_| address.fails());
        (0..THRESHOLDS.rise).for_each(|_| address.answers(boot + 1, 0));
        assert!(address.warmth() <= 0.1, "boot {boot}");
    }
}

proptest! {
    #[test]
    fn however_the_boots_change_the_whole_weight_is_reached(
        boots in proptest::collection::vec(0_u64..3, 80..120),
    ) {
        let mut address = Address::new();
        let mut whole = false;
        for (second, boot) in (0..).zip(&boots) {
            address.answers(*boot, second);
            whole |= second > 20 && address.is_warm();
        }
        prop_assert!(whole);
    }
}
