//! Whole connections in memory and virtual time, with any cut of the input.

use proptest::prelude::*;

use super::super::connection::Connection;
use super::super::driver::{FAST, Outcome, Script, drive};
use super::*;

/// The longest life of a connection whose client reads: until its head is refused or late, answered, and the close.
const LONGEST: Duration = Duration::from_secs(30);

fn input() -> impl Strategy<Value = Vec<u8>> {
    let request = |text: &'static str| Just(text.as_bytes().to_vec());
    let part = prop_oneof![
        4 => Just(FAST.to_vec()),
        4 => request("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"),
        2 => request("HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n"),
        2 => request("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"),
        1 => request("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"),
        1 => request("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        1 => request("GET /b HTTP/1.0\r\n\r\n"),
        1 => request("GET /empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        1 => request("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
        1 => request("POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        1 => request("GET / HTTP/2.0\r\n\r\n"),
        1 => request("\r\n"),
        1 => request("GET /half HTTP/1.1\r\nHo"),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

/// The answers before a refusal. Which of two faults of a head is found first may depend on the cut.
fn answers(outcome: &Outcome) -> String {
    let text = String::from_utf8_lossy(&outcome.sent);
    let end = ["HTTP/1.1 4", "HTTP/1.1 5"].iter().filter_map(|start| text.find(start)).min();
    let lines = text[..end.unwrap_or(text.len())].split_inclusive('\n');
    lines.filter(|line| !line.starts_with("Date: ")).collect()
}

fn whole(bytes: &[u8], closes: bool) -> Outcome {
    drive(&Script { pieces: vec![bytes], closes, reads: true })
}

proptest! {
    #[test]
    fn answers_do_not_depend_on_how_the_input_is_cut(
        bytes in input(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        closes in any::<bool>(),
    ) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut start = 0;
        let pieces = ends.iter().map(|end| &bytes[std::mem::replace(&mut start, *end)..*end]).collect();
        let cut = drive(&Script { pieces, closes, reads: true });
        let whole = whole(&bytes, closes);
        prop_assert_eq!(answers(&cut), answers(&whole));
        for outcome in [cut, whole] {
            prop_assert!(outcome.ended_after.is_some_and(|after| after <= LONGEST), "{:?}", outcome.ended_after);
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_keeps_no_connection(bytes in input()) {
        let outcome = drive(&Script { pieces: vec![&bytes], closes: false, reads: false });
        let longest = Limits::default().write_timeout * 2;
        prop_assert!(outcome.ended_after.is_some_and(|after| after <= longest), "{:?}", outcome.ended_after);
    }
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection>() <= 192, "{}", size_of::<Connection>());
}

#[test]
fn an_idle_connection_ends_between_one_and_two_keep_alive_times() {
    let keep_alive = Limits::default().keep_alive;
    let outcome = whole(FAST, false);
    assert!(outcome.sent.ends_with(b"[/fast]"));
    let after = outcome.ended_after.unwrap();
    assert!(after >= keep_alive && after <= 2 * keep_alive, "{after:?}");
}

#[test]
fn a_late_head_gets_408_however_it_trickles() {
    let head = b"GET /a HTTP/1.1\r\nHost: x\r\nA: b";
    let outcome = drive(&Script { pieces: head.chunks(1).collect(), closes: false, reads: true });
    assert!(outcome.sent.starts_with(b"HTTP/1.1 408 "));
    assert!(outcome.ended_after.unwrap() >= Limits::default().head_timeout);
}

#[test]
fn a_stream_to_an_old_client_ends_with_the_connection() {
    let outcome = whole(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false);
    let sent = String::from_utf8(outcome.sent).unwrap();
    assert!(sent.starts_with("HTTP/1.0 200 OK\r\n") && !sent.contains("Transfer-Encoding"), "{sent}");
    assert!(sent.ends_with("\r\n\r\nsome chunks"), "{sent}");
}
