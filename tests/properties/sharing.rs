//! The observations of several balancers: what they can change, and what they cannot.

use std::time::Duration;

use fingerpost::internals::health::{FailureKind, OwnView, SharedEvidence, State};
use fingerpost::internals::policy::LoadSlab;
use fingerpost::internals::selection::{Eligibility, Mode, select};
use fingerpost::internals::shared::{
    BackendNews, Delivery, FleetRecord, Observation, Observers, OwnSight, Publisher, RecordError, Standing,
};
use fingerpost::internals::table::BackendEntry;
use proptest::prelude::*;
use tokio::time::Instant;

use super::health::{HEALTH_CHECK, failure, success};

const STATES: [State; 4] = [State::Unknown, State::Up, State::Suspect, State::Down];

fn record(name: &str, number: u64, uptime: u64, backends: Vec<BackendNews>) -> FleetRecord {
    let balancer = Publisher { name: name.to_owned(), zone: String::new(), version: "1".to_owned() };
    FleetRecord { balancer, boot: 1, number, uptime, period: 1000, list: 0, orders: 0, backends }
}

fn news(backend: usize, state: State) -> BackendNews {
    let observation =
        Observation { state, age: 0, pause: 2000, response_time: None, in_flight: None, unsent_bytes: None };
    BackendNews { backend: backend as u64, observation: Some(observation), redirects: 0, bytes: 0 }
}

fn every_state() -> impl Iterator<Item = State> {
    STATES.into_iter()
}

#[test]
fn the_rules_hold_for_all_combinations_of_own_and_shared_observations() {
    let views = [OwnView::Alone, OwnView::Trusted, OwnView::SetAside, OwnView::CutOff];
    for own in every_state() {
        for (up, suspect, down) in (0..64).map(|all| (all % 4, all / 4 % 4, all / 16)) {
            for (own_view, is_silent) in views.into_iter().flat_map(|view| [(view, false), (view, true)]) {
                let evidence = SharedEvidence { up, suspect, down, response_time: None, own_view };
                let share = evidence.share(own, is_silent);
                let case = format!("{own} {is_silent} {evidence:?}: {share:?}");
                assert!(share.is_none_or(|share| (0.25..=1.0).contains(&share)), "{case}");
                match own {
                    State::Up => assert!(share.is_some(), "{case}"),
                    State::Unknown => {
                        let is_down = evidence.state(own) == State::Down;
                        assert_eq!(is_down, down > 0 && up + suspect == 0, "{case}");
                        assert_eq!(share.is_some() && !is_silent, up > 0 && !is_silent, "{case}");
                    }
                    State::Suspect | State::Down => {
                        let is_exempt = is_silent && matches!(own_view, OwnView::SetAside | OwnView::CutOff);
                        assert!(share.is_none() || is_exempt, "{case}");
                    }
                }
            }
        }
    }
}

/// The entry of a backend in this own state. A silent one was up before.
fn entry(slab: &mut LoadSlab, number: usize, own: (State, bool), now: Instant) -> BackendEntry {
    let list = fingerpost::internals::list::parse(format!("server{number}:80").as_bytes());
    let mut entry = BackendEntry::new(list.backends[0].clone(), slab, now);
    let kind = if own.1 { FailureKind::TimedOut } else { FailureKind::Refused };
    let failures = match own.0 {
        State::Unknown => return entry,
        State::Up => 0,
        State::Suspect => 1,
        State::Down => HEALTH_CHECK.fall,
    };
    entry.health.observe(&success(), &HEALTH_CHECK, now);
    for _ in 0..failures {
        entry.health.observe(&failure(kind), &HEALTH_CHECK, now);
    }
    entry
}

fn any_state() -> impl Strategy<Value = State> {
    proptest::sample::select(STATES.to_vec())
}

proptest! {
    /// Whatever the others publish, a backend that fails the own probes is chosen only if no other is usable, or if it is
    /// silent and this balancer sees far less than the others.
    #[test]
    fn false_records_move_a_table_only_as_far_as_the_rules_allow(
        own in prop::collection::vec((any_state(), any::<bool>()), 1..9),
        peers in prop::collection::vec(prop::collection::vec(any_state(), 8), 0..4),
        works in any::<bool>(),
    ) {
        let now = Instant::now() + Duration::from_mins(1);
        let mut observers = Observers::new("own", 9, 2, now - Duration::from_secs(30));
        let engine = if works { Ok(()) } else { Err("stopped".to_owned()) };
        for (peer, states) in peers.iter().enumerate() {
            let backends = states.iter().enumerate().map(|(backend, state)| news(backend, *state)).collect();
            observers.apply(&record(&format!("b{peer}"), 1, 50, backends), Delivery::Live, now);
        }
        observers.refresh(&engine, now);
        let mut slab = LoadSlab::default();
        let mut entries: Vec<_> =
            own.iter().enumerate().map(|(number, own)| entry(&mut slab, number, *own, now)).collect();
        let sights: Vec<_> = entries.iter().zip(0..).map(|(entry, backend)| OwnSight {
            backend,
            state: entry.health.state(),
            is_silent: entry.health.is_silent(),
        }).collect();
        let (evidence, report) = observers.combine(&sights, HEALTH_CHECK.interval, now);
        for (entry, evidence) in entries.iter_mut().zip(evidence) {
            entry.shared = evidence;
        }
        let selection = select(&entries, &HEALTH_CHECK, now);
        let is_exempt = matches!(report.own_view, OwnView::SetAside | OwnView::CutOff);
        let is_usable = |entry: &BackendEntry| {
            entry.shared.state(entry.health.state()) == State::Up
        };
        let has_usable = entries.iter().any(is_usable);
        for (entry, eligibility) in entries.iter().zip(&selection.eligibilities) {
            let is_chosen = matches!(eligibility, Eligibility::Chosen(_));
            let fails = matches!(entry.health.state(), State::Suspect | State::Down);
            if is_chosen && fails && has_usable {
                prop_assert!(is_exempt && entry.health.is_silent(), "{:?} {selection:?}", entry.shared);
            }
            // A backend that answers this balancer cannot be excluded by others.
            if entry.health.state() == State::Up {
                prop_assert!(is_chosen, "{:?} {selection:?}", entry.shared);
            }
        }
        // The others can only add candidates if no own one is left.
        if entries.iter().any(is_usable) {
            prop_assert_ne!(selection.mode, Mode::Nothing);
            prop_assert_ne!(selection.mode, Mode::SeenByOthers);
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = FleetRecord::decode(&bytes);
        let _ = FleetRecord::decode(&[&[1], bytes.as_slice()].concat());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_part_of_it_is_one(
        states in prop::collection::vec(any_state(), 0..20),
        number in any::<u64>(),
    ) {
        let backends = states.iter().enumerate().map(|(backend, state)| news(backend, *state)).collect();
        let record = record("b1", number, 1 << 41, backends);
        let bytes = record.encode();
        prop_assert_eq!(FleetRecord::decode(&bytes), Ok(record));
        for length in 0..bytes.len() {
            prop_assert!(FleetRecord::decode(&bytes[..length]).is_err());
        }
        prop_assert!(FleetRecord::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    /// Two balancers probe each backend at the full rate, and a balancer that leaves moves only its own backends.
    #[test]
    fn probes_are_divided(count in 3_usize..8, backend in any::<u64>()) {
        let names: Vec<_> = (0..count).map(|number| format!("b{number}")).collect();
        let turns = |names: &[String]| -> Vec<String> {
            let is_assigned = |own: &&String| {
                let start = Instant::now();
                let now = start + Duration::from_secs(10);
                let mut observers = Observers::new(own, 9, 2, start);
                observers.refresh(&Ok(()), start);
                for name in names {
                    observers.apply(&record(name, 1, 50, Vec::new()), Delivery::Live, now);
                }
                observers.refresh(&Ok(()), now);
                observers.is_own_turn(backend)
            };
            names.iter().filter(is_assigned).cloned().collect()
        };
        let all = turns(&names);
        prop_assert_eq!(all.len(), 2);
        if count > 3 {
            let left: Vec<_> = names.iter().filter(|name| **name != all[0]).cloned().collect();
            prop_assert!(turns(&left).contains(&all[1]));
        }
    }
}

#[test]
fn an_invalid_record_is_refused_with_its_reason() {
    let bytes = |change: fn(&mut FleetRecord)| {
        let mut record = record("b1", 1, 1, Vec::new());
        change(&mut record);
        FleetRecord::decode(&record.encode()).unwrap_err()
    };
    assert_eq!(bytes(|record| record.balancer.name.clear()), RecordError::Name);
    assert_eq!(bytes(|record| record.balancer.name = "x".repeat(65)), RecordError::Name);
    assert_eq!(bytes(|record| record.balancer.zone = "\u{1b}[31m".to_owned()), RecordError::Name);
    assert_eq!(bytes(|record| record.uptime = u64::MAX), RecordError::Malformed);
    assert_eq!(bytes(|record| record.backends = vec![news(0, State::Up); 5001]), RecordError::TooLarge);
    assert_eq!(FleetRecord::decode(&[2, 0]), Err(RecordError::Version(2)));
    assert_eq!(FleetRecord::decode(&[]), Err(RecordError::Malformed));
    assert_eq!(FleetRecord::decode(&vec![1; 300_000]), Err(RecordError::TooLarge));
}

fn standings(observers: &mut Observers, now: Instant) -> Vec<Standing> {
    let (_, report) = observers.combine(&[], HEALTH_CHECK.interval, now);
    report.balancers.iter().map(|balancer| balancer.standing).collect()
}

#[test]
fn a_record_counts_for_three_probe_intervals_and_only_if_its_balancer_is_met() {
    let start = Instant::now();
    let after = |seconds: u64| start + Duration::from_secs(seconds);
    let mut observers = Observers::new("own", 9, 2, start);
    observers.apply(&record("b1", 1, 100, Vec::new()), Delivery::Stored, start);
    assert_eq!(standings(&mut observers, start), [Standing::Lost]);
    observers.apply(&record("b1", 2, 1100, Vec::new()), Delivery::Live, after(1));
    assert_eq!(standings(&mut observers, after(7)), [Standing::Counted]);
    assert_eq!(standings(&mut observers, after(8)), [Standing::Lost]);
    // A record that was on its way for 20 s is 20 s old.
    observers.apply(&record("b1", 3, 2100, Vec::new()), Delivery::Live, after(22));
    assert_eq!(standings(&mut observers, after(22)), [Standing::Lost]);
    observers.apply(&record("b1", 4, 22_100, Vec::new()), Delivery::Live, after(22));
    assert_eq!(standings(&mut observers, after(22)), [Standing::Counted]);
    // Neither a late record nor one of an earlier run changes anything.
    for number in [2, 4] {
        let late = record("b1", number, 22_100, vec![news(0, State::Down)]);
        assert_eq!(observers.apply(&late, Delivery::Live, after(23)), []);
    }
    let mut earlier = record("b1", 99, 99_000, vec![news(0, State::Down)]);
    earlier.boot = 0;
    assert_eq!(observers.apply(&earlier, Delivery::Stored, after(23)), []);
}

/// A lost network ends the exchange and the own probes within a second, but the observations of others count for seconds.
#[test]
fn a_balancer_that_reaches_nothing_keeps_its_table_from_the_loss_of_the_engine_on() {
    let now = Instant::now();
    let mut observers = Observers::new("own", 9, 2, now);
    for peer in ["b1", "b2"] {
        let backends = (0..5).map(|backend| news(backend, State::Up)).collect();
        observers.apply(&record(peer, 1, 50, backends), Delivery::Live, now);
    }
    let own: Vec<_> =
        (0..5).map(|backend| OwnSight { backend, state: State::Down, is_silent: true }).collect();
    let mut view = |engine: Result<(), String>, seconds: u64| {
        let now = now + Duration::from_secs(seconds);
        observers.refresh(&engine, now);
        let (evidence, report) = observers.combine(&own, HEALTH_CHECK.interval, now);
        let kept = evidence.iter().filter(|evidence| evidence.share(State::Down, true).is_some());
        (report.own_view, kept.count())
    };
    let lost = || Err("timed out".to_owned());
    assert_eq!(view(Ok(()), 0), (OwnView::SetAside, 5));
    assert_eq!(view(lost(), 1), (OwnView::CutOff, 5));
    assert_eq!(view(lost(), 5), (OwnView::CutOff, 5));
    // The others have published nothing for a while: the rules of a balancer that works alone apply.
    assert_eq!(view(Ok(()), 5).0, OwnView::Alone);
}

#[test]
fn a_balancer_that_sees_far_less_than_the_others_is_set_aside() {
    use Standing::{Counted, SetAside};
    use State::{Down, Up};
    let now = Instant::now();
    let combined = |own: State, peers: [State; 2]| {
        let mut observers = Observers::new("own", 9, 2, now);
        for (peer, state) in peers.into_iter().enumerate() {
            let backends = (0..5).map(|backend| news(backend, state)).collect();
            observers.apply(&record(&format!("b{peer}"), 1, 50, backends), Delivery::Live, now);
        }
        observers.refresh(&Ok(()), now);
        let own: Vec<_> =
            (0..5).map(|backend| OwnSight { backend, state: own, is_silent: own == State::Down }).collect();
        let (evidence, report) = observers.combine(&own, HEALTH_CHECK.interval, now);
        let standings: Vec<_> = report.balancers.iter().map(|balancer| balancer.standing).collect();
        (report.own_view, standings, (evidence[0].up, evidence[0].down))
    };
    assert_eq!(combined(Up, [Up, Down]), (OwnView::Trusted, vec![Counted, SetAside], (1, 0)));
    assert_eq!(combined(Down, [Up, Up]), (OwnView::SetAside, vec![Counted, Counted], (2, 0)));
    assert_eq!(combined(Down, [Down, Up]), (OwnView::Trusted, vec![Counted, Counted], (1, 1)));
}
