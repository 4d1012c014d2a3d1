//! The parts of a file that a `Range` header asks for (RFC 9110, section 14). Pure.

/// More parts than this are not worth sending apart; such a request gets the whole file.
pub const MOST_PARTS: usize = 32;

/// Parts closer together than this are sent as one: the bytes between them cost less than another part's head.
const GAP: u64 = 80;

/// Bytes `start..end` of a file, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl Part {
    /// How many bytes it has.
    #[must_use]
    pub fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What a `Range` header comes to for a file of one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// The header is of another unit, malformed or excessive: as if it were not there.
    Ignored,
    /// No byte of the file is asked for.
    Unsatisfiable,
    /// These parts, in the order they were asked for; parts that overlap or touch have become one.
    Parts(Vec<Part>),
}

/// Reads a `Range` header for a file of `length` bytes.
#[must_use]
pub fn parse(header: &[u8], length: u64) -> Ranges {
    let Some((unit, list)) =
        header.iter().position(|byte| *byte == b'=').and_then(|at| header.split_at_checked(at))
    else {
        return Ranges::Ignored;
    };
    if !unit.trim_ascii().eq_ignore_ascii_case(b"bytes") {
        return Ranges::Ignored;
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut specs = 0;
    for spec in list.get(1..).unwrap_or_default().split(|byte| *byte == b',') {
        let spec = spec.trim_ascii();
        if spec.is_empty() {
            continue;
        }
        specs += 1;
        if specs > MOST_PARTS {
            return Ranges::Ignored;
        }
        let Some((start, end)) = parse_spec(spec, length) else { return Ranges::Ignored };
        if start < end {
            add(&mut parts, Part { start, end });
        }
    }
    match (specs, parts.is_empty()) {
        (0, _) => Ranges::Ignored,
        (_, true) => Ranges::Unsatisfiable,
        (_, false) => Ranges::Parts(parts),
    }
}

/// One `first-last`, `first-` or `-suffix` as start and end, the end not after the start where no byte of the file
/// is asked for. `None` when malformed.
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

/// Decimal digits; what does not fit is as large as can be.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        digit.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    })
}

/// Adds a part, and makes one of it and all those it overlaps or nearly touches, at the place of the first.
fn add(parts: &mut Vec<Part>, mut part: Part) {
    let mut place = parts.len();
    let mut at = parts.len();
    while at > 0 {
        at -= 1;
        let Some(other) = parts.get(at).copied() else { break };
        if other.start <= part.end.saturating_add(GAP) && part.start <= other.end.saturating_add(GAP) {
            part = Part { start: part.start.min(other.start), end: part.end.max(other.end) };
            parts.remove(at);
            // What was joined may now reach parts that were passed by.
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
        let expected = expected.iter().map(|(start, end)| Part { start: *start, end: *end }).collect();
        assert_eq!(parse(header.as_bytes(), length), Ranges::Parts(expected), "{header}");
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
    fn several_parts_keep_their_order_and_neighbours_become_one() {
        check("bytes=500-599,0-9", 1000, &[(500, 600), (0, 10)]);
        check("bytes=0-9,10-19", 1000, &[(0, 20)]);
        check("bytes=0-9,500-509,20-29", 1000, &[(0, 30), (500, 510)]);
        check("bytes=0-9,300-309,600-609,0-700", 1000, &[(0, 701)]);
        check("bytes=0-9,5000-", 1000, &[(0, 10)]);
    }

    #[test]
    fn what_no_byte_answers_is_unsatisfiable() {
        for header in ["bytes=-0", "bytes=1000-", "bytes=2000-3000,-0"] {
            assert_eq!(parse(header.as_bytes(), 1000), Ranges::Unsatisfiable, "{header}");
        }
        assert_eq!(parse(b"bytes=0-", 0), Ranges::Unsatisfiable);
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for header in
            ["", "bytes", "bytes=", "bytes=,", "lines=0-1", "bytes=a-b", "bytes=5-1", "bytes=-", "bytes=1"]
        {
            assert_eq!(parse(header.as_bytes(), 1000), Ranges::Ignored, "{header}");
        }
        let many = format!("bytes={}", "0-0,".repeat(1300));
        assert_eq!(parse(many.as_bytes(), 1000), Ranges::Ignored);
    }

    proptest! {
        #[test]
        fn parts_are_apart_and_inside(header in "bytes=([0-9]{0,4}-[0-9]{0,4},?){0,40}", length in 0_u64..5000) {
            if let Ranges::Parts(parts) = parse(header.as_bytes(), length) {
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
