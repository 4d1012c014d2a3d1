//! Which source sent which bytes.

use super::super::plan::{ByteRange, RangeSet};

/// Received ranges in order of arrival, with the number of their source.
#[derive(Debug, Default)]
pub(super) struct Provenance(Vec<(ByteRange, usize)>);

impl Provenance {
    /// Records that `range` came from `source`. A continuation extends the last entry.
    pub(super) fn add(&mut self, range: ByteRange, source: usize) {
        match self.0.last_mut() {
            Some((last, from)) if last.end == range.start && *from == source => last.end = range.end,
            _ => self.0.push((range, source)),
        }
    }

    /// Moves all entries of `other` to the end.
    pub(super) fn append(&mut self, other: &mut Self) {
        for (range, source) in std::mem::take(&mut other.0) {
            self.add(range, source);
        }
    }

    /// Removes the bytes of `range`.
    pub(super) fn forget(&mut self, range: ByteRange) {
        for (run, source) in std::mem::take(&mut self.0) {
            let mut left = RangeSet::of(run);
            left.remove(range);
            self.0.extend(left.iter().map(|part| (part, source)));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(range, _)| range.len()).sum()
    }

    /// The ranges with the names of their sources.
    pub(super) fn named(self, name: impl Fn(usize) -> String) -> Vec<(ByteRange, String)> {
        self.0.into_iter().map(|(range, source)| (range, name(source))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_bytes_leave_the_rest_with_its_sources() {
        let mut sent = Provenance::default();
        for (start, end, source) in [(0, 10, 0), (10, 20, 0), (20, 30, 1)] {
            sent.add(ByteRange::new(start, end), source);
        }
        sent.forget(ByteRange::new(5, 8));
        sent.forget(ByteRange::new(18, 30));
        assert_eq!(sent.len(), 15);
        let run = |start, end| (ByteRange::new(start, end), "0".to_owned());
        assert_eq!(sent.named(|source| source.to_string()), [run(0, 5), run(8, 18)]);
    }
}
