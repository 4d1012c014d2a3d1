//! Health after any sequence of probe outcomes, and the selection of candidates from any fleet.

use std::time::Duration;

use fingerpost::internals::health::{
    FailureKind, Health, HealthCheckConfig, ProbeFailure, ProbeOutcome, State, Traffic, Transition,
};
use fingerpost::internals::list;
use fingerpost::internals::policy::{LoadSlab, MonotonicClock};
use fingerpost::internals::selection::{Eligibility, Mode, select};
use fingerpost::internals::table::BackendEntry;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

pub(super) const HEALTH_CHECK: HealthCheckConfig = HealthCheckConfig {
    fall: 3,
    rise: 2,
    interval: Duration::from_secs(2),
    backoff_max: Duration::from_secs(30),
    slow_start: Duration::from_secs(10),
};

pub(super) fn success() -> ProbeOutcome {
    let time = Duration::from_millis(1);
    ProbeOutcome::Success { connect: time, first_byte: time, total: time, report: None }
}

pub(super) fn failure(kind: FailureKind) -> ProbeOutcome {
    ProbeOutcome::Failure(ProbeFailure { kind, detail: String::new() })
}

fn kinds() -> impl Strategy<Value = FailureKind> {
    proptest::sample::select(vec![
        FailureKind::Refused,
        FailureKind::TimedOut,
        FailureKind::Status(500),
        FailureKind::Unreachable,
    ])
}

pub(super) fn outcomes() -> impl Strategy<Value = Vec<Option<FailureKind>>> {
    proptest::collection::vec(proptest::option::of(kinds()), 0..60)
}

pub(super) fn outcome(failed: Option<FailureKind>) -> ProbeOutcome {
    failed.map_or_else(success, failure)
}

/// Observes `outcomes` one second apart, and calls `check` after each.
fn play(
    outcomes: &[Option<FailureKind>],
    mut check: impl FnMut(&Health, &[Option<FailureKind>], Option<Transition>, Instant),
) -> Health {
    let start = Instant::now();
    let mut health = Health::new(start);
    for (index, failed) in outcomes.iter().enumerate() {
        let now = start + Duration::from_secs(index as u64);
        let transition = health.observe(&outcome(*failed), &HEALTH_CHECK, now);
        check(&health, &outcomes[..=index], transition, now);
    }
    health
}

proptest! {
    #[test]
    fn the_state_follows_from_the_latest_outcomes(outcomes in outcomes()) {
        let mut before = State::Unknown;
        play(&outcomes, |health, seen, transition, now| {
            let in_a_row = seen.iter().rev().take_while(|it| it.is_some()).count() as u32;
            match health.state() {
                State::Unknown => panic!("the state is unknown after a probe"),
                State::Up => assert_eq!(in_a_row, 0),
                State::Suspect => assert!((1..HEALTH_CHECK.fall).contains(&in_a_row)),
                State::Down => assert!(in_a_row == 0 || in_a_row >= HEALTH_CHECK.fall || before != State::Suspect),
            }
            assert_eq!(transition.is_some(), before != health.state());
            if let Some(transition) = transition {
                assert_eq!((transition.from, transition.to), (before, health.state()));
                assert_eq!(health.since(), now);
            }
            before = health.state();
        });
    }

    #[test]
    fn rise_successes_in_a_row_bring_any_backend_up(outcomes in outcomes()) {
        let mut health = play(&outcomes, |_, _, _, _| {});
        for _ in 0..HEALTH_CHECK.rise {
            health.observe(&success(), &HEALTH_CHECK, Instant::now());
        }
        prop_assert_eq!(health.state(), State::Up);
    }

    #[test]
    fn fall_failures_in_a_row_bring_any_backend_down(outcomes in outcomes(), kind in kinds()) {
        let mut health = play(&outcomes, |_, _, _, _| {});
        for _ in 0..HEALTH_CHECK.fall {
            health.observe(&failure(kind), &HEALTH_CHECK, Instant::now());
        }
        prop_assert_eq!(health.state(), State::Down);
        prop_assert!(health.reason().to_string().contains(&kind.to_string()));
    }

    #[test]
    fn a_failure_of_the_prober_does_not_change_the_state(outcomes in outcomes()) {
        let mut health = play(&outcomes, |_, _, _, _| {});
        let before = health.state();
        prop_assert_eq!(health.observe(&failure(FailureKind::Prober), &HEALTH_CHECK, Instant::now()), None);
        prop_assert_eq!(health.state(), before);
    }

    #[test]
    fn the_pause_before_the_next_probe_is_within_its_limits(outcomes in outcomes(), seed in any::<u64>()) {
        let health = play(&outcomes, |_, _, _, _| {});
        let mut random = SmallRng::seed_from_u64(seed);
        for traffic in [Traffic::Idle, Traffic::Active] {
            let delay = health.next_probe(&HEALTH_CHECK, traffic, &mut random);
            prop_assert!(delay >= HEALTH_CHECK.interval.mul_f64(0.9 / 4.0));
            let longest = match health.state() {
                State::Down => HEALTH_CHECK.backoff_max,
                State::Suspect => HEALTH_CHECK.interval / 4,
                State::Unknown | State::Up => HEALTH_CHECK.interval,
            };
            prop_assert!(delay <= longest.mul_f64(1.1));
        }
    }

    #[test]
    fn slow_start_share_grows_to_one(outcomes in outcomes()) {
        let health = play(&outcomes, |_, _, _, _| {});
        let now = Instant::now() + Duration::from_secs(outcomes.len() as u64);
        let mut last = 0.1;
        for second in 0..12 {
            let share = health.slow_start_share(&HEALTH_CHECK, now + Duration::from_secs(second));
            prop_assert!((last..=1.0).contains(&share));
            last = share;
        }
        prop_assert!((last - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn all_chosen_backends_belong_to_one_tier_and_have_a_positive_share(
        fleet in proptest::collection::vec((outcomes(), 0_u8..3, any::<Option<u16>>()), 0..40),
    ) {
        let healths: Vec<Health> = fleet.iter().map(|(outcomes, ..)| play(outcomes, |_, _, _, _| {})).collect();
        let servers = healths.iter().zip(&fleet).map(|(health, (_, tier, milliseconds))| {
            (health.clone(), *tier, milliseconds.map(|it| Duration::from_millis(it.into())))
        });
        let entries = entries(servers);
        let now = Instant::now() + Duration::from_mins(1);
        let selection = select(&entries, &HEALTH_CHECK, now);
        prop_assert_eq!(selection.eligibilities.len(), entries.len());
        let tiers: Vec<u8> = selection
            .eligibilities
            .iter()
            .zip(&entries)
            .filter(|(eligibility, _)| matches!(eligibility, Eligibility::Chosen(_)))
            .map(|(_, entry)| entry.backend.tier())
            .collect();
        prop_assert!(tiers.windows(2).all(|pair| pair[0] == pair[1]), "more than one tier: {:?}", tiers);
        prop_assert_eq!(tiers.is_empty(), selection.mode == Mode::Nothing);
        let ejected = selection.eligibilities.iter().filter(|it| matches!(it, Eligibility::Ejected(_))).count();
        let has = |state: State| healths.iter().any(|health| health.state() == state);
        let up = healths.iter().filter(|health| health.state() == State::Up).count();
        prop_assert!(ejected <= up / 10);
        if has(State::Up) {
            prop_assert!(matches!(selection.mode, Mode::Normal | Mode::Panic | Mode::ProberDoubted));
        } else if has(State::Suspect) {
            prop_assert!(matches!(selection.mode, Mode::Suspects | Mode::Panic | Mode::ProberDoubted));
        }
        for (eligibility, entry) in selection.eligibilities.iter().zip(&entries) {
            let share = match eligibility {
                Eligibility::Chosen(share) => *share,
                _ => continue,
            };
            prop_assert!(share > 0.0 && share <= 1.0);
            if selection.mode == Mode::Normal {
                prop_assert_eq!(entry.health.state(), State::Up);
            }
        }
    }
}

/// Entries of backends with this health, tier and response time.
pub(super) fn entries(
    servers: impl IntoIterator<Item = (Health, u8, Option<Duration>)>,
) -> Vec<BackendEntry> {
    let (now, mut slab) = (Instant::now(), LoadSlab::default());
    let clock = MonotonicClock::new(now);
    let entry = |(health, tier, response_time): (Health, u8, Option<Duration>)| {
        let backend = list::parse(format!("server:80 tier={tier}").as_bytes()).backends.remove(0);
        let mut entry = BackendEntry::new(backend, &mut slab, now);
        if let Some(time) = response_time {
            let outcome =
                ProbeOutcome::Success { connect: time, first_byte: time, total: time, report: None };
            entry.observe(&outcome, &HEALTH_CHECK, &clock, now);
        }
        entry.health = health;
        entry
    };
    servers.into_iter().map(entry).collect()
}

/// A fleet of `up` backends that answer, and `failed` backends that stopped one second ago.
fn fleet(up: usize, failed: usize, kind: FailureKind) -> (Vec<Health>, Instant) {
    let start = Instant::now();
    let now = start + Duration::from_secs(1);
    let mut healths = vec![Health::new(start); up + failed];
    for (index, health) in healths.iter_mut().enumerate() {
        health.observe(&success(), &HEALTH_CHECK, start);
        for _ in 0..HEALTH_CHECK.fall {
            if index >= up {
                health.observe(&failure(kind), &HEALTH_CHECK, now);
            }
        }
    }
    (healths, now)
}

#[track_caller]
fn check(up: usize, failed: usize, kind: FailureKind, later: u64, mode: Mode, chosen: usize) {
    let (healths, now) = fleet(up, failed, kind);
    let entries = entries(healths.into_iter().map(|health| (health, 0, None)));
    let selection = select(&entries, &HEALTH_CHECK, now + Duration::from_secs(later));
    let count = selection.eligibilities.iter().filter(|it| matches!(it, Eligibility::Chosen(_))).count();
    assert_eq!((selection.mode, count), (mode, chosen), "{up} up, {failed} {kind}");
}

#[test]
fn silence_of_many_backends_at_once_puts_the_prober_in_doubt() {
    check(13, 7, FailureKind::TimedOut, 0, Mode::ProberDoubted, 20);
    check(0, 20, FailureKind::TimedOut, 0, Mode::ProberDoubted, 20);
    check(14, 6, FailureKind::TimedOut, 0, Mode::Normal, 14);
}

#[test]
fn silent_backends_are_excluded_or_cause_panic_after_the_doubt() {
    check(13, 7, FailureKind::TimedOut, 20, Mode::Normal, 13);
    check(5, 15, FailureKind::TimedOut, 20, Mode::Panic, 20);
    check(5, 15, FailureKind::TimedOut, 100, Mode::Normal, 5);
    check(0, 20, FailureKind::TimedOut, 100, Mode::Nothing, 0);
}

#[test]
fn backends_that_refuse_or_fail_are_excluded_in_any_number() {
    check(10, 90, FailureKind::Refused, 0, Mode::Normal, 10);
    check(0, 100, FailureKind::Status(500), 0, Mode::Nothing, 0);
}

#[test]
fn silent_backends_of_a_small_fleet_are_excluded_at_once() {
    check(2, 1, FailureKind::TimedOut, 0, Mode::Normal, 2);
    check(0, 3, FailureKind::TimedOut, 0, Mode::Nothing, 0);
}

#[test]
fn at_most_a_tenth_of_the_backends_are_ejected_as_slow() {
    let (healths, now) = fleet(20, 0, FailureKind::Refused);
    let servers = healths.into_iter().zip(0..).map(|(health, index)| {
        let milliseconds = if index < 3 { 900 + index } else { 30 };
        (health, 0, Some(Duration::from_millis(milliseconds)))
    });
    let eligibilities = select(&entries(servers), &HEALTH_CHECK, now).eligibilities;
    let ejected: Vec<usize> =
        (0..20).filter(|index| matches!(eligibilities[*index], Eligibility::Ejected(_))).collect();
    assert_eq!(ejected, [1, 2], "the slowest two of three");
}

/// In a fleet of a thousand, a backend gets a client only every few seconds. Its failure must still be noticed quickly.
#[test]
fn a_client_within_four_intervals_makes_a_backend_active() {
    let interval = HEALTH_CHECK.interval;
    assert_eq!(Traffic::after(None, interval), Traffic::Idle);
    assert_eq!(Traffic::after(Some(interval * 3), interval), Traffic::Active);
    assert_eq!(Traffic::after(Some(interval * 5), interval), Traffic::Idle);
}
