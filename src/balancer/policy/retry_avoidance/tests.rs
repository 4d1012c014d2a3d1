use super::*;

fn backend(number: u32) -> Visited {
    Visited { identity: 1_000_000_000 + number, index: number }
}

fn milliseconds(milliseconds: u64) -> Timestamp {
    Timestamp(Duration::from_millis(milliseconds).as_nanos() as u64)
}

/// Requests the same file at each of these milliseconds, and is redirected to backend 1, then 2, and so on. Compares
/// the backends to avoid.
#[track_caller]
fn check(requests: &[u64], avoided: &[Option<u32>]) {
    let memory = RetryAvoidance::new(Counter::default());
    let found: Vec<Option<u32>> = (1..)
        .zip(requests)
        .map(|(number, time)| {
            let lookup = memory.look_up(7, false, milliseconds(*time));
            memory.record(&lookup, backend(number));
            lookup.avoid.map(|visited| visited.identity - 1_000_000_000)
        })
        .collect();
    assert_eq!(found, avoided, "{requests:?}");
}

#[test]
fn a_retry_avoids_the_previous_backend() {
    check(&[0, 1_000], &[None, Some(1)]);
    check(&[0, 60_000], &[None, Some(1)]);
    check(&[0, 5_000, 10_000], &[None, Some(1), Some(2)]);
}

#[test]
fn a_request_after_more_than_a_minute_is_not_a_retry() {
    check(&[0, 61_000], &[None, None]);
}

#[test]
fn parallel_parts_and_shared_addresses_avoid_no_backend() {
    check(&[0, 100, 200, 5_000], &[None, None, None, None]);
    check(&[0, 2_000, 4_000, 6_000, 8_000], &[None, Some(1), Some(2), Some(3), None]);
}

#[test]
fn a_get_after_a_head_returns_to_its_backend() {
    let memory = RetryAvoidance::new(Counter::default());
    let request = |is_head, seconds: u64| {
        let lookup = memory.look_up(7, is_head, milliseconds(seconds * 1_000));
        memory.record(&lookup, backend(seconds as u32));
        (lookup.same.map(|visited| visited.index), lookup.avoid.map(|visited| visited.index))
    };
    assert_eq!(request(true, 0), (None, None));
    assert_eq!(request(false, 0), (Some(0), None));
    // This GET is a retry of the one before, and so is the HEAD.
    assert_eq!(request(false, 2), (None, Some(0)));
    assert_eq!(request(true, 4), (None, Some(2)));
    assert_eq!(request(false, 5), (Some(4), None));
    assert_eq!(request(true, 100), (None, None));
    assert_eq!(request(false, 161), (None, None));
}

#[test]
fn clients_with_different_keys_do_not_affect_each_other() {
    let memory = RetryAvoidance::new(Counter::default());
    let lookup = memory.look_up(1, false, milliseconds(0));
    memory.record(&lookup, backend(9));
    assert_eq!(memory.look_up(2, false, milliseconds(2_000)).avoid, None);
    assert_eq!(memory.look_up(1, false, milliseconds(2_000)).avoid, Some(backend(9)));
}

fn failures(memory: &RetryAvoidance, network: u64, seconds: u64) -> Vec<u32> {
    memory.failures(network, milliseconds(seconds * 1_000)).map(|(identity, _)| identity).collect()
}

#[test]
fn a_reported_failure_is_remembered_for_an_hour_for_its_network() {
    let memory = RetryAvoidance::new(Counter::default());
    assert_eq!(failures(&memory, 1, 0), [0; 0]);
    memory.record_failure(1, 77, FailureEvidence::Report, milliseconds(1_000));
    assert_eq!(failures(&memory, 1, 2), [77]);
    assert_eq!(failures(&memory, 2, 2), [0; 0]);
    assert_eq!(failures(&memory, 1, 3_590), [77]);
    assert_eq!(failures(&memory, 1, 3_610), [0; 0]);
}

#[test]
fn retries_count_if_they_are_most_of_the_redirects() {
    let memory = RetryAvoidance::new(Counter::default());
    let (time, retry) = (milliseconds(0), FailureEvidence::Retry);
    for _ in 0..2 {
        memory.record_failure(1, 5, retry, time);
        memory.record_redirect(1, 5);
        assert_eq!(failures(&memory, 1, 0), [0; 0]);
    }
    memory.record_failure(1, 5, retry, time);
    assert_eq!(failures(&memory, 1, 0), [5]);
    // Many other clients of the network do not come back.
    for _ in 0..10 {
        memory.record_redirect(1, 5);
    }
    assert_eq!(failures(&memory, 1, 0), [0; 0]);
    for _ in 0..1000 {
        memory.record_failure(1, 5, retry, time);
    }
    assert_eq!(failures(&memory, 1, 0), [5]);
}

#[test]
fn the_oldest_failure_of_a_group_is_replaced() {
    let replaced = Counter::default();
    let memory = RetryAvoidance::new(replaced.clone());
    for identity in 1..=9 {
        memory.record_failure(
            1,
            identity,
            FailureEvidence::Report,
            milliseconds(u64::from(identity) * 10_000),
        );
    }
    let mut found = failures(&memory, 1, 91);
    found.sort_unstable();
    assert_eq!(found, (2..=9).collect::<Vec<_>>());
    assert_eq!(replaced.get(), 1);
}
