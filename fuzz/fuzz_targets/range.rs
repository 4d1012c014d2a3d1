//! Any `Range` header, for a file of any length: parts are inside the file, apart from each other, and few.
#![no_main]

use fingerpost::internals::range::{self, MOST_PARTS, RequestedRanges};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (length, header) = input;
    if let RequestedRanges::Parts(parts) = range::parse(header, length) {
        assert!(!parts.is_empty() && parts.len() <= MOST_PARTS);
        for (index, part) in parts.iter().enumerate() {
            assert!(part.start < part.end && part.end <= length);
            assert!(
                parts.iter().skip(index + 1).all(|other| part.end < other.start || other.end < part.start)
            );
        }
    }
});
