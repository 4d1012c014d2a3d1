//! Which failures count as silence, and how long silent backends stay candidates.

use std::time::Duration;

use fingerpost::internals::health::{FailureKind, Health, HealthCheckConfig, State, Traffic};
use fingerpost::internals::selection::{Eligibility, Mode, select};
use fingerpost::internals::table::BackendEntry;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::health::{HEALTH_CHECK, entries, failure, outcome, outcomes, success};

/// The selection from ten backends that answer and ten that answered before these failures. Returns the mode and the number of
/// chosen backends.
fn selection_after(failures: &[FailureKind]) -> (Mode, usize) {
    let start = Instant::now();
    let mut healths = vec![Health::new(start); 20];
    for (index, health) in healths.iter_mut().enumerate() {
        health.observe(&success(), &HEALTH_CHECK, start);
        for kind in failures {
            if index >= 10 {
                health.observe(&failure(*kind), &HEALTH_CHECK, start);
            }
        }
    }
    let entries = entries(healths.into_iter().map(|health| (health, 0, None)));
    let selection = select(&entries, &HEALTH_CHECK, start + Duration::from_secs(1));
    let chosen = selection.eligibilities.iter().filter(|it| matches!(it, Eligibility::Chosen(_))).count();
    (selection.mode, chosen)
}

#[test]
fn only_silence_puts_the_prober_in_doubt() {
    use FailureKind::{Prober, Refused, TimedOut};
    assert_eq!(selection_after(&[TimedOut; 3]), (Mode::ProberDoubted, 20));
    assert_eq!(selection_after(&[TimedOut, TimedOut, TimedOut, Prober]), (Mode::ProberDoubted, 20));
    assert_eq!(selection_after(&[Refused, Refused, Refused, Prober]), (Mode::Normal, 10));
    assert_eq!(selection_after(&[Refused, TimedOut, TimedOut]), (Mode::Normal, 10));
    assert_eq!(selection_after(&[TimedOut, TimedOut, Refused]), (Mode::Normal, 10));
    assert_eq!(selection_after(&[TimedOut, Refused, TimedOut, TimedOut]), (Mode::Normal, 10));
}

#[test]
fn the_reason_shows_a_failure_of_the_prober_until_the_next_probe_ends() {
    let now = Instant::now();
    let mut health = Health::new(now);
    let reason = |health: &Health| health.reason().to_string();
    health.observe(&success(), &HEALTH_CHECK, now);
    let steady = reason(&health);
    health.observe(&failure(FailureKind::Prober), &HEALTH_CHECK, now);
    assert_ne!(reason(&health), steady);
    health.observe(&success(), &HEALTH_CHECK, now);
    assert_eq!(reason(&health), steady);
    for _ in 0..3 {
        health.observe(&failure(FailureKind::Refused), &HEALTH_CHECK, now);
    }
    let down = reason(&health);
    health.observe(&failure(FailureKind::Prober), &HEALTH_CHECK, now);
    assert_eq!(reason(&health), down);
}

/// Simulates a fleet in which half of the backends become silent at the same time. Returns the mode and the states at
/// each second after that.
fn half_becomes_silent(health_check: &HealthCheckConfig, seconds: u64) -> Vec<(Mode, Vec<State>)> {
    let start = Instant::now();
    let hour = start + Duration::from_hours(1);
    let mut random = SmallRng::seed_from_u64(1);
    let timeout = Duration::from_secs(1).min(health_check.interval / 2);
    let mut entries = entries(vec![(Health::new(start), 0, None); 20]);
    let mut due: Vec<Instant> = (0..20).map(|at| start + health_check.interval * at / 20).collect();
    let mut modes = Vec::new();
    for now in (0..3600 + seconds).map(|second| start + Duration::from_secs(second)) {
        for (index, BackendEntry { health, .. }) in entries.iter_mut().enumerate() {
            while due[index] <= now {
                let ended = if index < 10 || due[index] < hour {
                    health.observe(&success(), health_check, due[index]);
                    due[index]
                } else {
                    health.observe(&failure(FailureKind::TimedOut), health_check, due[index] + timeout);
                    due[index] + timeout
                };
                due[index] = ended + health.next_probe(health_check, Traffic::Idle, &mut random);
            }
        }
        if now >= hour {
            let states = entries.iter().map(|entry| entry.health.state()).collect();
            modes.push((select(&entries, health_check, now).mode, states));
        }
    }
    modes
}

#[test]
fn silence_of_half_the_fleet_puts_the_prober_in_doubt_for_any_interval() {
    for interval in [1, 2, 5, 10, 20, 60, 300] {
        let health_check = HealthCheckConfig { interval: Duration::from_secs(interval), ..HEALTH_CHECK };
        let seconds = interval.max(8) * 11;
        let modes = half_becomes_silent(&health_check, seconds);
        let noticed = modes
            .iter()
            .position(|(_, states)| states[10..].iter().all(|state| *state != State::Up))
            .unwrap();
        assert_eq!(
            modes[noticed].0,
            Mode::ProberDoubted,
            "after all silent backends are noticed, interval {interval} s"
        );
        assert_eq!(modes.last().unwrap().0, Mode::Normal, "at the end, interval {interval} s");
    }
}

proptest! {
    /// A fault of the prober must neither help nor harm a server.
    #[test]
    fn a_failure_of_the_prober_changes_neither_the_pause_nor_the_selection(
        outcomes in outcomes(),
        seed in any::<u64>(),
    ) {
        let start = Instant::now();
        let mut plain = Health::new(start);
        let mut troubled = Health::new(start);
        for (failed, second) in outcomes.iter().zip(0..) {
            let now = start + Duration::from_secs(second);
            plain.observe(&outcome(*failed), &HEALTH_CHECK, now);
            troubled.observe(&outcome(*failed), &HEALTH_CHECK, now);
            troubled.observe(&failure(FailureKind::Prober), &HEALTH_CHECK, now);
        }
        let pause = |health: &Health| {
            health.next_probe(&HEALTH_CHECK, Traffic::Idle, &mut SmallRng::seed_from_u64(seed))
        };
        prop_assert_eq!(pause(&plain), pause(&troubled));
        let selected = |health: &Health| {
            let entries = entries(vec![(health.clone(), 0, None); 12]);
            select(&entries, &HEALTH_CHECK, start + Duration::from_secs(outcomes.len() as u64))
        };
        prop_assert_eq!(selected(&plain), selected(&troubled));
    }
}
