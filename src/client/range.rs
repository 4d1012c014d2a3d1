//! Ranges of bytes, and sets of them.

use std::collections::BTreeMap;

/// The bytes from `start` to `end`, exclusive. Empty if both are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl ByteRange {
    /// The range from `start` to `end`; empty if `end` is less than `start`.
    pub(super) fn new(start: u64, end: u64) -> Self {
        Self { start, end: end.max(start) }
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the range has no bytes.
    pub(super) fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The intersection of both ranges; may be empty.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// A set of bytes, stored as ordered, disjoint ranges that do not touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet {
    /// Start to end.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The set of the bytes of one range.
    pub(super) fn of(range: ByteRange) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }

    /// Adds the bytes of `range`.
    pub(super) fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Overlapping and adjacent ranges are merged.
        while let Some((&other_start, &other_end)) = self.ranges.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            start = start.min(other_start);
            end = end.max(other_end);
            self.ranges.remove(&other_start);
        }
        self.ranges.insert(start, end);
    }

    /// Removes the bytes of `range`.
    pub(super) fn remove(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.ranges.range(..range.end).next_back() {
            if end <= range.start {
                break;
            }
            self.ranges.remove(&start);
            if start < range.start {
                self.ranges.insert(start, range.start);
            }
            if end > range.end {
                self.ranges.insert(range.end, end);
            }
        }
    }

    /// The bytes of `range` that are in this set.
    pub(super) fn within(&self, range: ByteRange) -> Vec<ByteRange> {
        let first = self.ranges.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        if range.is_empty() {
            return Vec::new();
        }
        self.ranges
            .range(first..range.end)
            .map(|(&start, &end)| ByteRange::new(start, end).intersection(&range))
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// The ranges in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.ranges.iter().map(|(&start, &end)| ByteRange::new(start, end))
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.iter().map(|range| range.len()).sum()
    }

    /// Whether the set has no bytes.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl Extend<ByteRange> for RangeSet {
    fn extend<I: IntoIterator<Item = ByteRange>>(&mut self, ranges: I) {
        for range in ranges {
            self.insert(range);
        }
    }
}

#[cfg(test)]
mod tests;
