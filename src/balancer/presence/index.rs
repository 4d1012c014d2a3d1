//! Which mirrors must not get a request for which file: an index of all paths of a catalogue.
//!
//! A path is a 64-bit key with the number of a set of mirrors. Equal sets are stored once, so the memory depends on the
//! number of distinct sets, not on files times mirrors. Sets list the mirrors that lack the file: set 0 is empty, and a
//! mirror without a bit is assumed to have every file.
//!
//! Sets never change after they are published, and the number of a path's set is one atomic word. So a writer changes paths
//! in place, and readers never wait.

use std::array;
use std::collections::HashMap;
use std::iter;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::balancer::policy::{LINE_MIRRORS, LINE_WORDS, MirrorSet, SetLine};

/// The largest number of mirrors with bits in a set. Further mirrors are assumed to have every file.
pub(crate) const MOST_MIRRORS: usize = 4096;

/// The largest number of distinct sets.
const MOST_SETS: usize = 1 << 20;

/// The sets of one allocation.
const CHUNK_SETS: usize = 1 << 12;

/// The number of ages: generations since a file got its content. The last age includes all older files.
pub(crate) const AGES: usize = 16;

/// The age of a file whose first generation is not known, or long past.
pub const OLD: u8 = AGES as u8 - 1;

const AGE_BITS: u32 = 4;

/// The paths of one bucket, which fill a cache line.
const WAYS: usize = 5;

/// The mean number of paths in a bucket.
const MEAN: usize = 4;

/// The paths of a catalogue, each with its age and the set of mirrors that lack it.
#[derive(Debug)]
pub struct PresenceIndex {
    buckets: Box<[PathBucket]>,
    paths: usize,
    /// The buckets that a key can select; overflowing paths continue in the next bucket.
    homes: u64,
    sets: MirrorSets,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct PathBucket {
    /// In ascending order. 0 is an empty place.
    keys: [u64; WAYS],
    /// From the top: the number of the set (28 bits), and the age (4).
    states: [AtomicU32; WAYS],
    /// The number of paths in all buckets before.
    before: u32,
}

/// A path of the index.
#[derive(Debug, Clone, Copy)]
pub struct FoundPath<'a> {
    /// Its rank among all keys, and so the number of its record in the catalogue.
    pub rank: u32,
    /// The generations since the file got its content, up to [`OLD`].
    pub age: u8,
    /// The mirrors that lack it.
    pub lacking: MirrorSet<'a>,
}

/// More paths or distinct sets than the index can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexFull {
    /// Too many paths.
    #[error("the catalogue has more than {} paths", u32::MAX)]
    Paths,
    /// Too many distinct sets of mirrors.
    #[error("the files have more than {MOST_SETS} different sets of mirrors")]
    Sets,
}

/// The state of a path for [`PresenceIndex::build`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathState {
    /// The number of an interned set.
    pub set: u32,
    /// The age.
    pub age: u8,
}

impl PathState {
    fn word(self) -> u32 {
        (self.set << AGE_BITS) | u32::from(self.age.min(OLD))
    }

    fn of(word: u32) -> Self {
        Self { set: word >> AGE_BITS, age: (word as u8) & OLD }
    }
}

impl PresenceIndex {
    /// Makes an index of `keys`, which must be sorted and different. `sets` holds the sets to which `state` refers by number.
    pub fn build(
        keys: &[u64],
        sets: MirrorSets,
        mut state: impl FnMut(usize) -> PathState,
    ) -> Result<Self, IndexFull> {
        if u32::try_from(keys.len()).is_err() {
            return Err(IndexFull::Paths);
        }
        let homes = keys.len().div_ceil(MEAN).max(1) as u64;
        let mut buckets: Vec<PathBucket> = Vec::with_capacity(homes as usize + 16);
        buckets.push(PathBucket::default());
        let mut used = 0;
        for (rank, key) in keys.iter().enumerate() {
            let key = stored(*key);
            let home = home(key, homes);
            while buckets.len() <= home || used == WAYS {
                used = 0;
                buckets.push(PathBucket { before: rank as u32, ..PathBucket::default() });
            }
            if let Some(bucket) = buckets.last_mut()
                && let (Some(place), Some(word)) = (bucket.keys.get_mut(used), bucket.states.get_mut(used))
            {
                *place = key;
                *word = AtomicU32::new(state(rank).word());
                used += 1;
            }
        }
        while buckets.len() <= homes as usize {
            buckets.push(PathBucket { before: keys.len() as u32, ..PathBucket::default() });
        }
        Ok(Self { buckets: buckets.into_boxed_slice(), paths: keys.len(), homes, sets })
    }

    /// The number of paths.
    #[must_use]
    pub fn paths(&self) -> usize {
        self.paths
    }

    /// The memory of the index and of its sets, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let chunks = self.sets.chunks.iter().filter_map(OnceLock::get);
        size_of_val(&*self.buckets) + chunks.map(|words| size_of_val(&**words)).sum::<usize>()
    }

    /// Looks up the path with this key.
    #[must_use]
    #[inline]
    pub fn find(&self, key: u64) -> Option<FoundPath<'_>> {
        let (word, rank) = self.place(key)?;
        // Pairs with `Release` in `store`: the words of the set are visible.
        let PathState { set, age } = PathState::of(word.load(Acquire));
        Some(FoundPath { rank, age, lacking: self.sets.get(set) })
    }

    /// The state of the path with this key.
    #[must_use]
    pub fn state(&self, key: u64) -> Option<PathState> {
        self.place(key).map(|(word, _)| PathState::of(word.load(Acquire)))
    }

    /// The states of all paths in the order of their keys.
    pub fn states(&self) -> impl Iterator<Item = (u64, PathState)> {
        let pairs = self.buckets.iter().flat_map(|bucket| bucket.keys.iter().zip(&bucket.states));
        pairs.filter(|(key, _)| **key != 0).map(|(key, word)| (*key, PathState::of(word.load(Acquire))))
    }

    /// The sets.
    #[must_use]
    pub fn sets(&self) -> &MirrorSets {
        &self.sets
    }

    #[inline]
    fn place(&self, key: u64) -> Option<(&AtomicU32, u32)> {
        let key = stored(key);
        let mut buckets = self.buckets.get(home(key, self.homes)..)?.iter();
        loop {
            let bucket = buckets.next()?;
            let found = (0..WAYS)
                .rfold(WAYS, |found, way| if bucket.keys.get(way) == Some(&key) { way } else { found });
            if let Some(word) = bucket.states.get(found) {
                return Some((word, bucket.before + found as u32));
            }
            if bucket.keys.last().is_none_or(|last| *last == 0 || *last > key) {
                return None;
            }
        }
    }

    /// Replaces the set of a path. `false` if the index does not have it.
    fn store(&self, key: u64, set: u32) -> bool {
        let Some((word, _)) = self.place(key) else { return false };
        let age = PathState::of(word.load(Relaxed)).age;
        word.store(PathState { set, age }.word(), Release);
        true
    }
}

/// 0 marks an empty place.
fn stored(key: u64) -> u64 {
    key.max(1)
}

/// The first bucket in which the key can be. Grows with the key, so buckets are in the order of the keys.
#[inline]
fn home(key: u64, homes: u64) -> usize {
    ((u128::from(key) * u128::from(homes)) >> 64) as usize
}

/// Sets of mirrors, as bits. Only grows; readers need no lock.
#[derive(Debug)]
pub struct MirrorSets {
    chunks: [OnceLock<Box<[SetLine]>>; MOST_SETS / CHUNK_SETS],
    /// The lines of one set.
    lines: usize,
    /// The number of sets.
    count: AtomicU32,
}

impl MirrorSets {
    /// The empty set, as number 0. Sets have room for at least `mirrors` mirrors.
    #[must_use]
    pub fn new(mirrors: usize) -> Self {
        let lines = mirrors.clamp(1, MOST_MIRRORS).div_ceil(LINE_MIRRORS);
        let sets = Self { chunks: array::from_fn(|_| OnceLock::new()), lines, count: AtomicU32::new(0) };
        // The first set always fits.
        let _ = sets.push(&[]);
        sets
    }

    /// The number of mirrors for which a set has bits.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.lines * LINE_MIRRORS
    }

    /// The number of sets.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Relaxed) as usize
    }

    /// The set with this number; empty if the number is wrong.
    #[must_use]
    #[inline]
    pub fn get(&self, set: u32) -> MirrorSet<'_> {
        let (chunk, place) = (set as usize / CHUNK_SETS, set as usize % CHUNK_SETS);
        let chunk = self.chunks.get(chunk).and_then(OnceLock::get);
        let lines = chunk.and_then(|lines| lines.get(place * self.lines..(place + 1) * self.lines));
        MirrorSet::new(lines.unwrap_or_default())
    }

    /// Adds a set without comparing it to others.
    fn push(&self, words: &[u64]) -> Result<u32, IndexFull> {
        let set = self.count.load(Relaxed);
        let (chunk, place) = (set as usize / CHUNK_SETS, set as usize % CHUNK_SETS);
        let chunk = self.chunks.get(chunk).ok_or(IndexFull::Sets)?;
        let chunk = chunk.get_or_init(|| (0..CHUNK_SETS * self.lines).map(|_| SetLine::default()).collect());
        let lines = chunk.get(place * self.lines..(place + 1) * self.lines).unwrap_or_default();
        for (to, from) in lines.iter().flat_map(|line| &line.0).zip(words) {
            to.store(*from, Relaxed);
        }
        self.count.store(set + 1, Relaxed);
        Ok(set)
    }
}

/// The only writer of an index: knows the number of each set by its content.
#[derive(Debug)]
pub struct SetInterner {
    numbers: HashMap<Box<[u64]>, u32>,
}

impl SetInterner {
    /// The interner of `sets`, which may have content.
    #[must_use]
    pub fn new(sets: &MirrorSets) -> Self {
        Self {
            numbers: (0..sets.count() as u32)
                .rev()
                .map(|set| (sets.get(set).words().collect(), set))
                .collect(),
        }
    }

    /// The number of the set with these words; adds it if it is new.
    pub fn intern(&mut self, sets: &MirrorSets, words: &[u64]) -> Result<u32, IndexFull> {
        if let Some(known) = self.numbers.get(words) {
            return Ok(*known);
        }
        let length = sets.lines * LINE_WORDS;
        if words.len() != length {
            let resized: Box<[u64]> = words.iter().copied().chain(iter::repeat(0)).take(length).collect();
            return self.intern(sets, &resized);
        }
        let set = sets.push(words)?;
        self.numbers.insert(words.into(), set);
        Ok(set)
    }

    /// Records that `mirror` lacks a path, or has it. `Ok(false)` if the index does not have the path, or the mirror has no
    /// bits.
    pub fn set(
        &mut self,
        index: &PresenceIndex,
        key: u64,
        mirror: u32,
        lacks: bool,
    ) -> Result<bool, IndexFull> {
        let Some(before) = index.state(key) else { return Ok(false) };
        let mut words: Box<[u64]> = index.sets.get(before.set).words().collect();
        let Some(word) = words.get_mut(mirror as usize / 64) else { return Ok(false) };
        let bit = 1 << (mirror % 64);
        let after = if lacks { *word | bit } else { *word & !bit };
        if after == *word {
            return Ok(true);
        }
        *word = after;
        let set = self.intern(&index.sets, &words)?;
        Ok(index.store(key, set))
    }

    /// Forgets all files that `mirror` lacks, in all sets.
    pub fn forget(&mut self, index: &PresenceIndex, mirror: u32) {
        for set in 0..index.sets.count() as u32 {
            if let Some(word) = index.sets.get(set).word(mirror) {
                word.fetch_and(!(1 << (mirror % 64)), Relaxed);
            }
        }
        // Sets may have become equal.
        *self = Self::new(&index.sets);
    }
}

#[cfg(test)]
mod tests;
