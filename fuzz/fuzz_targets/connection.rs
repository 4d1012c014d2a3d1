//! A whole connection: bytes in, bytes out. It must neither panic nor outlive its deadlines.
#![no_main]

use std::time::Duration;

use fingerpost::internals::driver::{Script, drive};
use libfuzzer_sys::fuzz_target;

/// The time for a head, a close, and a reader that takes nothing, each with its tolerance.
const LONGEST: Duration = Duration::from_secs(300);

fuzz_target!(|input: (u8, Vec<u8>, &[u8])| {
    let (mode, cuts, mut bytes) = input;
    let mut pieces = Vec::new();
    for cut in cuts.into_iter().take(16) {
        let (piece, rest) = bytes.split_at(usize::from(cut).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    let script = Script { pieces, closes: mode & 1 == 0, reads: mode & 2 == 0 };
    let outcome = drive(&script);
    assert!(outcome.ended_after.is_some_and(|after| after <= LONGEST), "{:?}", outcome.ended_after);
});
