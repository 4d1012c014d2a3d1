use super::*;

const MEBIBYTE: usize = 1 << 20;

/// Sends like one connection for a period, and returns the number of bytes.
fn send_for(pace: &Pace, connections: usize, time: Duration) -> Vec<u64> {
    let mut sent = vec![0; connections];
    let mut ready = vec![pace.started; connections];
    while let Some((index, now)) = ready.iter().copied().enumerate().min_by_key(|(_, at)| *at) {
        if now >= pace.started + time {
            break;
        }
        let leave = pace.ask(MEBIBYTE, now);
        ready[index] = now + leave.wait + Duration::from_micros(1);
        if ready[index] < pace.started + time {
            sent[index] += leave.bytes as u64;
        }
    }
    sent
}

#[test]
fn the_rate_is_kept_and_shared() {
    for rate in [20_000, 1_000_000, 100_000_000] {
        for connections in [1, 5] {
            let pace = Pace::new(NonZeroU64::new(rate).unwrap());
            let sent = send_for(&pace, connections, Duration::from_secs(10));
            let all: u64 = sent.iter().sum();
            let expected = rate * 10;
            assert!(all.abs_diff(expected) * 20 < expected, "{all} of {expected}");
            let share = all / connections as u64;
            assert!(sent.iter().all(|sent| sent.abs_diff(share) * 4 < share), "{sent:?}");
        }
    }
}

#[test]
fn an_idle_line_makes_up_for_little() {
    let pace = Pace::new(NonZeroU64::new(1_000_000).unwrap());
    let later = pace.started + Duration::from_mins(1);
    let mut at_once = 0;
    loop {
        let leave = pace.ask(MEBIBYTE, later);
        if !leave.wait.is_zero() {
            break;
        }
        at_once += leave.bytes;
    }
    assert!(at_once <= 50_000, "{at_once}");
}
