//! A request head in pieces: where it ends, and what is refused, must not depend on how it was cut.
#![no_main]

use fingerpost::internals::head::{HeadLimits, HeadScan, Scan};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { line: 8 << 10, total: 64 << 10 };

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let whole = HeadScan::default().feed(bytes, LIMITS);
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    let mut scan = HeadScan::default();
    let in_pieces = match scan.feed(first, LIMITS) {
        Scan::Partial => match scan.feed(second, LIMITS) {
            Scan::Complete(end) => Scan::Complete(end + first.len()),
            other => other,
        },
        other => other,
    };
    assert_eq!(whole, in_pieces);
});
