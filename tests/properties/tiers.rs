//! The selection from several tiers: the tier that gets the clients, and comparisons within a tier.

use std::time::Duration;

use fingerpost::internals::health::{FailureKind, Health, State};
use fingerpost::internals::selection::{Eligibility, Mode, Outlier, select};
use fingerpost::internals::table::BackendEntry;
use proptest::prelude::*;
use tokio::time::Instant;

use super::health::{HEALTH_CHECK, entries, failure, outcome, outcomes, success};

/// One tier of a fleet.
struct Tier {
    up: usize,
    silent: usize,
}

/// Servers of which the silent ones stopped answering `ago` before `now`, all at the same time.
fn fleet(tiers: &[Tier], now: Instant, ago: Duration) -> Vec<(Health, u8)> {
    let mut healths = Vec::new();
    for (tier, number) in tiers.iter().zip(0..) {
        for index in 0..tier.up + tier.silent {
            let mut health = Health::new(now - ago);
            health.observe(&success(), &HEALTH_CHECK, now - ago);
            for _ in 0..HEALTH_CHECK.fall {
                if index >= tier.up {
                    health.observe(&failure(FailureKind::TimedOut), &HEALTH_CHECK, now - ago);
                }
            }
            healths.push((health, number));
        }
    }
    healths
}

/// The mode of the selection, and the number of chosen servers of each tier.
fn chosen(tiers: &[Tier], ago: u64) -> (Mode, Vec<usize>) {
    let now = Instant::now() + Duration::from_mins(10);
    let healths = fleet(tiers, now, Duration::from_secs(ago));
    let entries = entries(healths.into_iter().map(|(health, tier)| (health, tier, None)));
    let selection = select(&entries, &HEALTH_CHECK, now);
    let mut counts = vec![0; tiers.len()];
    for (eligibility, entry) in selection.eligibilities.iter().zip(&entries) {
        counts[usize::from(entry.backend.tier())] +=
            usize::from(matches!(eligibility, Eligibility::Chosen(_)));
    }
    (selection.mode, counts)
}

#[test]
fn the_next_tier_replaces_a_silent_tier_at_once() {
    for ago in [0, 5, 20, 50, 100] {
        let tiers = [Tier { up: 0, silent: 6 }, Tier { up: 4, silent: 0 }];
        assert_eq!(chosen(&tiers, ago), (Mode::Normal, vec![0, 4]), "{ago} s ago");
        let tiers = [Tier { up: 0, silent: 60 }, Tier { up: 4, silent: 0 }];
        assert_eq!(chosen(&tiers, ago), (Mode::Normal, vec![0, 4]), "{ago} s ago");
    }
}

#[test]
fn silence_is_evaluated_within_the_chosen_tier() {
    let doubted = [Tier { up: 0, silent: 20 }, Tier { up: 13, silent: 7 }];
    assert_eq!(chosen(&doubted, 1), (Mode::ProberDoubted, vec![0, 20]));
    let panic = [Tier { up: 5, silent: 15 }, Tier { up: 100, silent: 0 }];
    assert_eq!(chosen(&panic, 20), (Mode::Panic, vec![20, 0]));
    let spare_alone = [Tier { up: 20, silent: 0 }, Tier { up: 0, silent: 100 }];
    assert_eq!(chosen(&spare_alone, 1), (Mode::Normal, vec![20, 0]));
}

#[test]
fn silence_of_all_tiers_puts_the_prober_in_doubt_even_if_each_is_small() {
    let tiers = [Tier { up: 0, silent: 5 }, Tier { up: 0, silent: 5 }];
    assert_eq!(chosen(&tiers, 1), (Mode::ProberDoubted, vec![5, 0]));
    assert_eq!(chosen(&tiers, 20), (Mode::Panic, vec![5, 0]));
    assert_eq!(chosen(&tiers, 100), (Mode::Nothing, vec![0, 0]));
}

#[test]
fn servers_are_compared_only_within_their_tier() {
    let now = Instant::now();
    let tiers = [Tier { up: 10, silent: 0 }, Tier { up: 90, silent: 0 }];
    let healths = fleet(&tiers, now, Duration::ZERO);
    let servers = healths.into_iter().zip(0..).map(|((health, tier), index)| {
        let milliseconds = match (index, tier) {
            (0, _) => 900,
            (_, 0) => 150,
            _ => 1,
        };
        (health, tier, Some(Duration::from_millis(milliseconds)))
    });
    let entries = entries(servers);
    let eligibilities = select(&entries, &HEALTH_CHECK, now).eligibilities;
    assert_eq!(eligibilities[0], Eligibility::Ejected(Outlier::Slow));
    assert!(eligibilities[1..10].iter().all(|it| *it == Eligibility::Chosen(1.0)), "{eligibilities:?}");
    assert!(eligibilities[10..].iter().all(|it| *it == Eligibility::SpareTier), "{eligibilities:?}");

    // One server in the lowest tier, nine much faster ones in the next.
    let alone = [&entries[1..2], &entries[10..19]].concat();
    let eligibilities = select(&alone, &HEALTH_CHECK, now).eligibilities;
    assert_eq!(eligibilities[0], Eligibility::Chosen(1.0), "{eligibilities:?}");
}

proptest! {
    #[test]
    fn the_lowest_tier_with_a_server_that_is_up_gets_the_clients(
        servers in proptest::collection::vec((outcomes(), 0_u8..3, any::<Option<u8>>()), 0..40),
        later in 0_u64..120,
    ) {
        let start = Instant::now();
        let healths: Vec<Health> = servers
            .iter()
            .map(|(outcomes, ..)| {
                let mut health = Health::new(start);
                for (failed, second) in outcomes.iter().zip(0..) {
                    health.observe(&outcome(*failed), &HEALTH_CHECK, start + Duration::from_secs(second));
                }
                health
            })
            .collect();
        let servers = healths.into_iter().zip(&servers).map(|(health, (_, tier, tens))| {
            (health, *tier, tens.map(|tens| Duration::from_millis(u64::from(tens) * 10)))
        });
        let entries = entries(servers);
        let selection = select(&entries, &HEALTH_CHECK, start + Duration::from_secs(later));
        let is_up = |entry: &&BackendEntry| entry.health.state() == State::Up;
        let expected = entries.iter().filter(is_up).map(|entry| entry.backend.tier()).min();
        let eligibilities = || selection.eligibilities.iter().zip(&entries);
        if let Some(expected) = expected {
            for (eligibility, entry) in eligibilities() {
                if matches!(eligibility, Eligibility::Chosen(_) | Eligibility::Ejected(_)) {
                    prop_assert_eq!(entry.backend.tier(), expected);
                }
                if *eligibility == Eligibility::SpareTier {
                    prop_assert!(entry.backend.tier() > expected);
                }
            }
            let chosen_and_up = eligibilities()
                .filter(|(eligibility, entry)| matches!(eligibility, Eligibility::Chosen(_)) && is_up(entry))
                .count();
            prop_assert!(chosen_and_up > 0, "no server that is up is chosen");
        }
    }
}
