//! Servers that restart between two probes, and several servers behind one address.

use std::time::Duration;

use fingerpost::internals::health::{FailureKind, ProbeFailure, ProbeOutcome};
use fingerpost::internals::list;
use fingerpost::internals::load_report::LoadReport;
use fingerpost::internals::policy::{LoadSlab, MonotonicClock};
use fingerpost::internals::table::BackendEntry;
use proptest::prelude::*;
use tokio::time::Instant;

use super::health::HEALTH_CHECK;

/// One address that is probed every second.
struct Address {
    entry: BackendEntry,
    clock: MonotonicClock,
    now: Instant,
}

impl Address {
    fn new() -> Self {
        let now = Instant::now();
        let backend = list::parse(b"server:80").backends.remove(0);
        let entry = BackendEntry::new(backend, &mut LoadSlab::default(), now);
        Self { entry, clock: MonotonicClock::new(now), now }
    }

    fn observe(&mut self, outcome: &ProbeOutcome) {
        self.now += Duration::from_secs(1);
        self.entry.observe(outcome, &HEALTH_CHECK, &self.clock, self.now);
    }

    /// Observes a report of the server process `boot`, which has completed `completed` requests.
    fn succeed(&mut self, boot: u64, completed: u64) {
        let report = LoadReport {
            in_flight: 1,
            completed: Some(completed),
            busy: Some(Duration::from_secs(completed)),
            boot: Some(boot),
            ..LoadReport::default()
        };
        let took = Duration::from_millis(1);
        self.observe(&ProbeOutcome::Success {
            connect: took,
            first_byte: took,
            total: took,
            report: Some(report),
        });
    }

    fn fail(&mut self) {
        let failure = ProbeFailure { kind: FailureKind::Refused, detail: String::new() };
        self.observe(&ProbeOutcome::Failure(failure));
    }

    fn slow_start_share(&self) -> f64 {
        self.entry.health.slow_start_share(&HEALTH_CHECK, self.now)
    }

    fn is_warm(&self) -> bool {
        (self.slow_start_share() - 1.0).abs() < f64::EPSILON
    }

    fn reason(&self) -> String {
        self.entry.health.reason().to_string()
    }
}

#[test]
fn a_restart_between_two_probes_begins_a_slow_start_and_shows_in_the_reason() {
    let mut address = Address::new();
    (0..30).for_each(|second| address.succeed(1, second));
    assert!(address.is_warm());
    let steady = address.reason();
    address.succeed(2, 0);
    assert!(address.slow_start_share() <= 0.1);
    assert_ne!(address.reason(), steady);
    (1..11).for_each(|second| address.succeed(2, second));
    assert!(address.is_warm());
    assert!(!address.entry.estimate.is_shared());
}

#[test]
fn servers_that_share_an_address_have_one_slow_start_and_their_reports_are_ignored() {
    for turns in [vec![1, 2], vec![1, 1, 1, 2], vec![1, 2, 3, 4, 5]] {
        let mut address = Address::new();
        for (second, boot) in (0..60).zip(turns.iter().cycle()) {
            address.succeed(*boot, second);
        }
        assert!(address.entry.estimate.is_shared(), "{turns:?}");
        assert_eq!(address.entry.estimate.throughput(), None, "{turns:?}");
        assert!(address.is_warm(), "{turns:?}");
        // One of them alone for more than a minute.
        (0..70).for_each(|second| address.succeed(1, second));
        assert!(!address.entry.estimate.is_shared(), "{turns:?}");
        assert!(address.entry.estimate.throughput().is_some(), "{turns:?}");
    }
}

#[test]
fn repeated_crashes_begin_a_slow_start_each_and_do_not_look_like_a_shared_address() {
    let mut address = Address::new();
    for boot in 0..10 {
        for second in 0..8 {
            address.succeed(boot, second);
        }
        assert!(!address.entry.estimate.is_shared(), "boot {boot}");
        (0..HEALTH_CHECK.fall).for_each(|_| address.fail());
        (0..HEALTH_CHECK.rise).for_each(|_| address.succeed(boot + 1, 0));
        assert!(address.slow_start_share() <= 0.1, "boot {boot}");
    }
}

proptest! {
    #[test]
    fn the_full_weight_is_reached_for_any_sequence_of_boots(
        boots in proptest::collection::vec(0_u64..3, 80..120),
    ) {
        let mut address = Address::new();
        let mut reached = false;
        for (second, boot) in (0..).zip(&boots) {
            address.succeed(*boot, second);
            reached |= second > 20 && address.is_warm();
        }
        prop_assert!(reached);
    }
}
