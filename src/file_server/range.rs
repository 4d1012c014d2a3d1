//! Parses a `Range` header to parts of a file (RFC 9110, section 14). Pure.

/// A request for more parts than this gets the whole file.
pub const MOST_PARTS: usize = 32;

/// Parts with a smaller gap, in bytes, are joined: the bytes between them cost less than the head of another part.
const GAP: u64 = 80;

/// A part `start..end` of a file, in bytes; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePart {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl FilePart {
    /// The length in bytes.
    #[must_use]
    pub(crate) fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// The result of a `Range` header for a file of a given length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedRanges {
    /// The header has another unit, is malformed or asks for too many parts, and is ignored.
    Ignored,
    /// No requested byte exists in the file.
    Unsatisfiable,
    /// The requested parts, in the order of the header; parts that overlap or touch are joined.
    Parts(Vec<FilePart>),
}

/// Parses a `Range` header for a file of `length` bytes.
#[must_use]
pub fn parse(header: &[u8], length: u64) -> RequestedRanges {
    let Some((unit, list)) =
        header.iter().position(|byte| *byte == b'=').and_then(|at| header.split_at_checked(at))
    else {
        return RequestedRanges::Ignored;
    };
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return RequestedRanges::Ignored;
    }
    let mut parts: Vec<FilePart> = Vec::new();
    let mut specs = 0;
    for spec in list.get(1..).unwrap_or_default().split(|byte| *byte == b',') {
        let spec = spec.trim_ascii();
        if spec.is_empty() {
            continue;
        }
        specs += 1;
        if specs > MOST_PARTS {
            return RequestedRanges::Ignored;
        }
        let Some((start, end)) = parse_spec(spec, length) else { return RequestedRanges::Ignored };
        if start < end {
            add(&mut parts, FilePart { start, end });
        }
    }
    match (specs, parts.is_empty()) {
        (0, _) => RequestedRanges::Ignored,
        (_, true) => RequestedRanges::Unsatisfiable,
        (_, false) => RequestedRanges::Parts(parts),
    }
}

/// Parses one `first-last`, `first-` or `-suffix` to start and end. The end is not after the start if no requested
/// byte exists in the file. `None` if the text is malformed.
fn parse_spec(spec: &[u8], length: u64) -> Option<(u64, u64)> {
    let dash = spec.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (spec.get(..dash)?.trim_ascii(), spec.get(dash + 1..)?.trim_ascii());
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => Some((length.saturating_sub(number(last)?), length)),
        (false, true) => Some((number(first)?, length)),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| (first, last.saturating_add(1).min(length)))
        }
    }
}

/// Parses decimal digits. A number that does not fit is `u64::MAX`.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    })
}

/// Adds a part, and joins it with all parts that it overlaps or nearly touches, at the position of the first.
fn add(parts: &mut Vec<FilePart>, mut part: FilePart) {
    let mut place = parts.len();
    let mut at = parts.len();
    while at > 0 {
        at -= 1;
        let Some(other) = parts.get(at).copied() else { break };
        if other.start <= part.end.saturating_add(GAP) && part.start <= other.end.saturating_add(GAP) {
            part = FilePart { start: part.start.min(other.start), end: part.end.max(other.end) };
            parts.remove(at);
            // The joined part may now reach parts that were compared before.
            place = at;
            at = parts.len();
        }
    }
    parts.insert(place.min(parts.len()), part);
}

#[cfg(test)]
mod tests {
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
}
