use super::*;

fn at(hours: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 20_000 + hours)
}

#[test]
fn the_availability_is_the_share_of_the_observed_time() {
    let mut history = History::default();
    assert_eq!(history.availability(State::Up, at(0)), AvailabilityShares::default());
    history.count(State::Unknown, at(0));
    history.count(State::Up, at(18));
    history.count(State::Down, at(24));
    let seen = history.availability(State::Suspect, at(48));
    // The last 24 hours, then 2 days of which 6 hours were down.
    assert_eq!(seen, AvailabilityShares { day: Some(1.0), week: Some(0.875), month: Some(0.875) });
    let later = history.availability(State::Suspect, at(24 * 40));
    assert_eq!(later.month, Some(1.0));
    assert!(history.availability(State::Up, at(3)).day.is_some());
}

#[test]
fn the_time_of_unknown_states_is_not_observed() {
    let mut history = History::default();
    history.count(State::Up, at(0));
    history.count(State::Down, at(1));
    history.count(State::Unknown, at(10));
    assert_eq!(history.availability(State::Up, at(11)).day, Some(0.5));
}

#[test]
fn the_last_events_are_kept_and_their_causes_are_cut() {
    let mut history = History::default();
    for number in 0..150_u64 {
        let change = Change::State { from: State::Up, to: State::Down };
        history.record(at(number), change, &"x".repeat(1000), 10_000);
    }
    assert_eq!(history.events().count(), MOST_EVENTS);
    assert_eq!(history.events().next().unwrap().time, at(50));
    assert_eq!(history.events().next().unwrap().cause.len(), LONGEST_CAUSE);
    let change = Change::State { from: State::Up, to: State::Down };
    history.record(at(150), change, "", 100_000);
    assert_eq!(history.events().count(), 10);
    let text = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
}
