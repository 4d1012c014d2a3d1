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
mod tests;
