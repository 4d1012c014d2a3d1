use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(header: &str, length: u64, expected: &[(u64, u64)]) {
    let expected = expected.iter().map(|(start, end)| FilePart { start: *start, end: *end }).collect();
    assert_eq!(parse(header.as_bytes(), length), RequestedRanges::Parts(expected), "{header}");
}

#[test]
fn single_parts() {
    check("bytes=0-0", 1000, &[(0, 1)]);
    check("Bytes=0-0", 1000, &[(0, 1)]);
    check("bytes=10-", 1000, &[(10, 1000)]);
    check("bytes=-10", 1000, &[(990, 1000)]);
    check("bytes= 1-2 ", 1000, &[(1, 3)]);
    check("bytes=0-99999999999999999999", 1000, &[(0, 1000)]);
    check("bytes=-99999999999999999999", 1000, &[(0, 1000)]);
}

#[test]
fn multiple_parts_keep_their_order_and_neighbours_are_joined() {
    check("bytes=500-599,0-9", 1000, &[(500, 600), (0, 10)]);
    check("bytes=0-9,10-19", 1000, &[(0, 20)]);
    check("bytes=0-9,500-509,20-29", 1000, &[(0, 30), (500, 510)]);
    check("bytes=0-9,300-309,600-609,0-700", 1000, &[(0, 701)]);
    check("bytes=0-9,5000-", 1000, &[(0, 10)]);
}

#[test]
fn a_range_without_an_existing_byte_is_unsatisfiable() {
    for header in ["bytes=-0", "bytes=1000-", "bytes=2000-3000,-0"] {
        assert_eq!(parse(header.as_bytes(), 1000), RequestedRanges::Unsatisfiable, "{header}");
    }
    assert_eq!(parse(b"bytes=0-", 0), RequestedRanges::Unsatisfiable);
}

#[test]
fn other_units_and_malformed_ranges_are_ignored() {
    for header in
        ["", "bytes", "bytes=", "bytes=,", "lines=0-1", "bytes=a-b", "bytes=5-1", "bytes=-", "bytes=1"]
    {
        assert_eq!(parse(header.as_bytes(), 1000), RequestedRanges::Ignored, "{header}");
    }
    let many = format!("bytes={}", "0-0,".repeat(1300));
    assert_eq!(parse(many.as_bytes(), 1000), RequestedRanges::Ignored);
}

proptest! {
    #[test]
    fn parts_are_apart_and_inside(header in "bytes=([0-9]{0,4}-[0-9]{0,4},?){0,40}", length in 0_u64..5000) {
        if let RequestedRanges::Parts(parts) = parse(header.as_bytes(), length) {
            prop_assert!(!parts.is_empty() && parts.len() <= MOST_PARTS);
            for (index, part) in parts.iter().enumerate() {
                prop_assert!(part.start < part.end && part.end <= length);
                for other in parts.iter().skip(index + 1) {
                    prop_assert!(part.end + GAP < other.start || other.end + GAP < part.start);
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(header: Vec<u8>, length: u64) {
        let _ = parse(&header, length);
    }
}
