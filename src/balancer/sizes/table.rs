//! The sizes of files by path, in a table of fixed size that all workers read and write without a lock.

use std::array;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::balancer::policy::{Timestamp, digest};

/// The slots of one cache line, in which a path can be.
const WAYS: usize = 8;

/// With 12.6 MB, a million paths fill two of three slots.
const BUCKETS: usize = 3 << 16;

/// The slots of running means.
const MEANS: usize = 1 << 12;

/// A time is counted in units of 2^36 ns, 69 s.
const TIME_UNIT_BITS: u32 = 36;

/// The age in units at which a size is looked up again: one day.
const OLD: u64 = (86_400_000_000_000 >> TIME_UNIT_BITS) + 1;

/// The age in units at which a path is looked up again if the answer had no size: ten minutes.
const RETRY: u64 = (600_000_000_000 >> TIME_UNIT_BITS) + 1;

/// The part of a running mean that one more size replaces.
const NEWEST: f32 = 1.0 / 16.0;

/// A size counts in a running mean as at most this multiple of the mean, so that one false size at most triples it.
const MOST_SUDDEN: f32 = 32.0;

/// A larger size counts as this, 1 TB, so that a false size does not book work without limit.
const LARGEST: u64 = 1_000_000_000_000;

/// The ratio between two size classes.
const RATIO: f64 = 1.4;

/// The knowledge about a path: one byte of a slot. An empty slot is 0.
mod class {
    /// The path was requested once.
    pub(super) const SEEN: u8 = 1;
    /// The path was offered for a look-up.
    pub(super) const OFFERED: u8 = 2;
    /// The class of an empty file. Further classes follow.
    pub(super) const FIRST: u8 = 3;
}

/// Sizes by path, and the mean sizes of similar paths.
///
/// A slot is one word: from the top, the key (32 bits), a digest of the entity tag (8), the time of the change (16), and the
/// class (8). Of two concurrent
/// writes to a slot one is lost, and the path is looked up later. If all slots of a path are in use, the oldest entry
/// without a size is overwritten, else the oldest size.
#[derive(Debug)]
pub struct SizeTable {
    buckets: Box<[Bucket]>,
    means: Box<[AtomicU32]>,
    /// The size of each class in bytes.
    sizes: [f32; 256],
}

#[derive(Debug)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// The answer of a server about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundSize {
    /// The size in bytes.
    pub bytes: u64,
    /// The [`tag_digest`] of its entity tag; 0 without one.
    pub tag: u8,
}

/// The expected size of a download in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExpectedSize {
    /// The size of the file, rounded to its size class.
    Known(f32),
    /// The mean of similar files.
    Mean(f32),
}

impl ExpectedSize {
    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> f32 {
        match self {
            Self::Known(bytes) | Self::Mean(bytes) => bytes,
        }
    }
}

/// The result of a look-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SizeLookup {
    /// The size of the path, or the running mean of similar paths; `None` if neither is known.
    pub size: Option<ExpectedSize>,
    /// Whether the size should be looked up at a server: the path was requested before, and its size is unknown or old.
    pub is_wanted: bool,
}

impl Default for SizeTable {
    fn default() -> Self {
        let size = |class: usize| match u8::try_from(class).unwrap_or(u8::MAX).saturating_sub(class::FIRST) {
            0 => 0.0,
            class => RATIO.powi(class.into()) as f32,
        };
        Self {
            buckets: (0..BUCKETS).map(|_| Bucket(array::from_fn(|_| AtomicU64::new(0)))).collect(),
            means: (0..MEANS).map(|_| AtomicU32::new(0)).collect(),
            sizes: array::from_fn(size),
        }
    }
}

/// The parts of a slot.
#[derive(Clone, Copy)]
struct SizeEntry(u64);

impl SizeEntry {
    fn new(key: u64, tag: u8, now: Timestamp, class: u8) -> Self {
        let time = (now.0 >> TIME_UNIT_BITS) & 0xFFFF;
        Self((key << 32) | (u64::from(tag) << 24) | (time << 8) | u64::from(class))
    }

    fn key(self) -> u64 {
        self.0 >> 32
    }

    fn tag(self) -> u8 {
        (self.0 >> 24) as u8
    }

    fn class(self) -> u8 {
        self.0 as u8
    }

    fn age(self, now: Timestamp) -> u64 {
        (now.0 >> TIME_UNIT_BITS).wrapping_sub(self.0 >> 8) & 0xFFFF
    }

    fn has_size(self) -> bool {
        self.class() >= class::FIRST
    }

    /// Whether the size should be looked up again. A client with another version of the file may have a newer or an older one.
    fn is_old(self, tag: Option<&[u8]>, now: Timestamp) -> bool {
        let age = self.age(now);
        let is_other = |tag| self.tag() != 0 && tag_digest(tag) != self.tag();
        age >= OLD || age >= RETRY && tag.is_some_and(is_other)
    }
}

impl SizeTable {
    /// Looks up the size of `path` for a request at `now`, and records the request if it is the first one. `hash` is the
    /// [`digest`] of the path, and `tag` the entity tag of the client's copy.
    #[inline]
    #[must_use]
    pub fn look_up(&self, path: &[u8], hash: u64, tag: Option<&[u8]>, now: Timestamp) -> SizeLookup {
        let found = self.find(hash).map(|(_, entry)| entry);
        let is_wanted = match found {
            Some(entry) if entry.has_size() => entry.is_old(tag, now),
            Some(entry) => entry.class() == class::SEEN || entry.age(now) >= RETRY,
            None => {
                self.store(hash, 0, now, class::SEEN);
                false
            }
        };
        SizeLookup { size: self.size_of(path, found), is_wanted }
    }

    /// The expected size of `path`, without a record of a request.
    pub(crate) fn expected(&self, path: &[u8], hash: u64) -> Option<ExpectedSize> {
        self.size_of(path, self.find(hash).map(|(_, entry)| entry))
    }

    #[inline]
    fn size_of(&self, path: &[u8], found: Option<SizeEntry>) -> Option<ExpectedSize> {
        match found.filter(|entry| entry.has_size()) {
            Some(entry) => self.sizes.get(usize::from(entry.class())).copied().map(ExpectedSize::Known),
            None => self.mean(path).map(ExpectedSize::Mean),
        }
    }

    /// Records that the path was offered for a look-up, so that it is not offered again soon. A known size stays in use.
    pub(crate) fn mark_offered(&self, hash: u64, now: Timestamp) {
        let known = self.find(hash).map(|(_, entry)| entry).filter(|entry| entry.has_size());
        let (tag, class) = known.map_or((0, class::OFFERED), |entry| (entry.tag(), entry.class()));
        self.store(hash, tag, now, class);
    }

    /// Records the size of a file.
    pub fn learn(&self, path: &[u8], hash: u64, found: FoundSize, now: Timestamp) {
        let size = found.bytes.min(LARGEST) as f32;
        let class = self.sizes.partition_point(|known| *known * (RATIO.sqrt() as f32) < size);
        // The first classes have no size, so `partition_point` skips them for every size but 0.
        self.store(hash, found.tag, now, u8::try_from(class).unwrap_or(u8::MAX).max(class::FIRST));
        if let Some(mean) = self.means.get(kind(path)) {
            let before = f32::from_bits(mean.load(Relaxed));
            let after =
                if before > 0.0 { before + (size.min(before * MOST_SUDDEN) - before) * NEWEST } else { size };
            mean.store(after.to_bits(), Relaxed);
        }
    }

    /// The running mean of the looked-up sizes of similar paths.
    fn mean(&self, path: &[u8]) -> Option<f32> {
        let mean = f32::from_bits(self.means.get(kind(path))?.load(Relaxed));
        (mean > 0.0).then_some(mean)
    }

    fn bucket(&self, hash: u64) -> Option<&Bucket> {
        self.buckets.get((((hash >> 32) * BUCKETS as u64) >> 32) as usize)
    }

    #[inline]
    fn find(&self, hash: u64) -> Option<(&AtomicU64, SizeEntry)> {
        let key = key(hash);
        let slots = self.bucket(hash)?.0.iter();
        slots.map(|slot| (slot, SizeEntry(slot.load(Relaxed)))).find(|(_, entry)| entry.key() == key)
    }

    fn store(&self, hash: u64, tag: u8, now: Timestamp, class: u8) {
        let Some(bucket) = self.bucket(hash) else { return };
        let least_useful = || {
            let usefulness = |slot: &&AtomicU64| {
                let entry = SizeEntry(slot.load(Relaxed));
                (entry.0 != 0, entry.has_size(), u64::MAX - entry.age(now))
            };
            bucket.0.iter().min_by_key(usefulness)
        };
        if let Some(slot) = self.find(hash).map(|(slot, _)| slot).or_else(least_useful) {
            let entry = SizeEntry(slot.load(Relaxed));
            // Many different paths, each requested once, must not displace the sizes.
            if class != class::SEEN || !entry.has_size() {
                slot.store(SizeEntry::new(key(hash), tag, now, class).0, Relaxed);
            }
        }
    }
}

/// The key of a path within its bucket; never 0.
fn key(hash: u64) -> u64 {
    (hash & u64::from(u32::MAX)).max(1)
}

/// A digest of an entity tag; never 0. A weak tag has the digest of the strong one.
pub(crate) fn tag_digest(tag: &[u8]) -> u8 {
    let tag = tag.trim_ascii();
    (digest(tag.strip_prefix(b"W/").unwrap_or(tag)) as u8).max(1)
}

/// The place of the running mean: paths with the same extension share it, or else with the same directory.
fn kind(path: &[u8]) -> usize {
    let name = memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1);
    let (directory, name) = path.split_at_checked(name).unwrap_or_default();
    let extension = memchr::memrchr(b'.', name).and_then(|dot| name.get(dot + 1..));
    let kind = extension.filter(|extension| (1..=8).contains(&extension.len())).unwrap_or(directory);
    (digest(kind) % MEANS as u64) as usize
}

#[cfg(test)]
mod tests;
