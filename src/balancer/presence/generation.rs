//! One state of a catalogue, with the index of the files on mirrors. A new catalogue makes a new generation, which replaces the
//! old one as a whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use percent_encoding::percent_decode;

use super::index::{AGES, IndexFull, MOST_MIRRORS, MirrorSets, OLD, PathState, PresenceIndex, SetInterner};
use crate::balancer::catalogue::{self, Catalogue, CatalogueContent, CatalogueEntry, PieceDigests};
use crate::balancer::policy::{Holders, LINE_MIRRORS, MirrorSet, SetLine};

/// The path below which every file of the root can be requested, too.
const ALIAS: &[u8] = b"/files";

/// A catalogue, and the mirrors that lack each of its files.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Grows by one with each changed catalogue.
    pub(crate) number: u64,
    /// The time at which the catalogue was read.
    pub(crate) made_at: SystemTime,
    /// The digest of the list.
    pub(crate) source: [u8; 32],
    /// The files.
    pub(crate) catalogue: Arc<Catalogue>,
    /// The mirrors that lack them.
    pub(crate) index: PresenceIndex,
    /// For each age, the mirrors that are not proven to have files of this age.
    unproven: Box<[SetLine]>,
}

/// The place of a requested path in a catalogue.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Location<'a> {
    /// The catalogue does not have it.
    Unknown,
    /// A folder with this decoded path.
    Folder(&'a [u8]),
    /// A file.
    File(FileLocation<'a>),
}

/// A file of a catalogue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileLocation<'a> {
    /// The key of its path.
    pub(crate) key: u64,
    /// The generations since it got its content.
    pub(crate) age: u8,
    /// Its decoded path.
    pub(crate) path: &'a [u8],
    /// Its content.
    pub(crate) content: CatalogueContent,
    /// The mirrors that may get requests for it.
    pub(crate) holders: Holders<'a>,
}

impl Generation {
    /// The generation of `catalogue` after `old`, for mirrors with numbers below `mirrors`. Files of unchanged content keep the
    /// mirrors that lack them; other files lack the mirrors `scanned`, whose evidence is an earlier scan. Without an old
    /// generation, all files count as old.
    pub(crate) fn next(
        old: Option<&Self>,
        catalogue: Arc<Catalogue>,
        source: [u8; 32],
        mirrors: usize,
        scanned: &[u32],
        made_at: SystemTime,
    ) -> Result<Self, IndexFull> {
        let sets = MirrorSets::new(mirrors);
        let mut translation = SetTranslation::new(&sets);
        let mut unlisted = vec![0_u64; sets.capacity() / 64];
        for mirror in scanned {
            if let Some(word) = unlisted.get_mut(*mirror as usize / 64) {
                *word |= 1 << (mirror % 64);
            }
        }
        let unlisted = translation.interner.intern(&sets, &unlisted)?;
        let keys = catalogue.keys();
        let mut states = Vec::with_capacity(keys.len());
        for (rank, key) in (0..).zip(&keys) {
            let Some(old) = old else {
                states.push(PathState { set: 0, age: OLD });
                continue;
            };
            let before = old.index.find(*key).zip(old.index.state(*key));
            let is_same = |known: &CatalogueEntry<'_>| {
                catalogue.entry(rank).is_some_and(|entry| {
                    entry.path == known.path
                        && entry.is_folder == known.is_folder
                        && entry.content.may_equal(&known.content)
                })
            };
            let same =
                before.filter(|(found, _)| old.catalogue.entry(found.rank).as_ref().is_some_and(is_same));
            states.push(if let Some((_, state)) = same {
                PathState {
                    set: translation.translate(&sets, old.index.sets(), state.set)?,
                    age: state.age.saturating_add(1).min(OLD),
                }
            } else {
                let is_file = catalogue.entry(rank).is_some_and(|entry| !entry.is_folder);
                PathState { set: if is_file { unlisted } else { 0 }, age: 0 }
            });
        }
        let state = |rank: usize| states.get(rank).copied().unwrap_or(PathState { set: 0, age: 0 });
        let number = old.map_or(1, |old| old.number + 1);
        let index = PresenceIndex::build(&keys, sets, state)?;
        Ok(Self::new(number, made_at, source, catalogue, index))
    }

    /// The same generation with room for mirrors with numbers below `mirrors`, and without sets that no file has.
    pub(crate) fn rebuilt(&self, mirrors: usize) -> Result<Self, IndexFull> {
        let sets = MirrorSets::new(mirrors);
        let mut translation = SetTranslation::new(&sets);
        let (mut keys, mut states) = (Vec::new(), Vec::new());
        for (key, state) in self.index.states() {
            keys.push(key);
            let set = translation.translate(&sets, self.index.sets(), state.set)?;
            states.push(PathState { set, ..state });
        }
        let state = |rank: usize| states.get(rank).copied().unwrap_or(PathState { set: 0, age: 0 });
        let index = PresenceIndex::build(&keys, sets, state)?;
        Ok(Self::new(self.number, self.made_at, self.source, Arc::clone(&self.catalogue), index))
    }

    /// A generation in which no mirror is proven to have files that are not old.
    pub(super) fn new(
        number: u64,
        made_at: SystemTime,
        source: [u8; 32],
        catalogue: Arc<Catalogue>,
        index: PresenceIndex,
    ) -> Self {
        let lines = index.sets().capacity() / LINE_MIRRORS;
        let of_age = |age: usize| if age < usize::from(OLD) { u64::MAX } else { 0 };
        let line = |place: usize| SetLine(std::array::from_fn(|_| AtomicU64::new(of_age(place / lines))));
        let unproven = (0..AGES * lines).map(line).collect();
        Self { number, made_at, source, catalogue, index, unproven }
    }

    /// The number of mirrors with bits, and so the limit of their numbers.
    #[must_use]
    pub(crate) fn capacity(&self) -> usize {
        self.index.sets().capacity()
    }

    /// Whether there is no room for the mirror with this number, but a rebuilt generation has room.
    #[must_use]
    pub(crate) fn lacks_room_for(&self, mirror: u32) -> bool {
        (self.capacity()..MOST_MIRRORS).contains(&(mirror as usize))
    }

    /// Records that `mirror` has all files that are at least `age` generations old; none for an `age` above [`OLD`].
    pub(crate) fn set_proven_age(&self, mirror: u32, age: u8) {
        for own in 0..AGES as u8 {
            if let Some(word) = self.unproven_at(own).word(mirror) {
                let bit = 1 << (mirror % 64);
                if own < age {
                    word.fetch_or(bit, Relaxed)
                } else {
                    word.fetch_and(!bit, Relaxed)
                };
            }
        }
    }

    /// The number of files for which each of these mirrors may get requests.
    #[must_use]
    pub(super) fn coverage(&self, mirrors: &[u32]) -> Vec<usize> {
        // Files with equal mirrors are counted at once.
        let mut classes = HashMap::<(u32, u8), usize>::new();
        for (rank, (_, PathState { set, age })) in (0..).zip(self.index.states()) {
            if self.catalogue.entry(rank).is_some_and(|entry| !entry.is_folder) {
                *classes.entry((set, age)).or_default() += 1;
            }
        }
        let has = |(set, age): &(u32, u8), mirror| {
            let (lacking, unproven) = (self.index.sets().get(*set), self.unproven_at(*age));
            Holders { lacking, unproven }.contains(mirror)
        };
        let count = |mirror: &u32| {
            classes.iter().filter(|(class, _)| has(class, *mirror)).map(|(_, files)| files).sum()
        };
        mirrors.iter().map(count).collect()
    }

    fn unproven_at(&self, age: u8) -> MirrorSet<'_> {
        let lines = self.unproven.len() / AGES;
        let start = usize::from(age) * lines;
        MirrorSet::new(self.unproven.get(start..start + lines).unwrap_or_default())
    }

    /// Looks up the path of a request, which is percent-encoded. `hash` is its `digest`.
    #[must_use]
    #[inline]
    pub(crate) fn locate(&self, path: &[u8], hash: u64) -> Location<'_> {
        if let Some(found) = self.at(hash.max(1)) {
            return found;
        }
        self.locate_decoded(path)
    }

    fn locate_decoded(&self, path: &[u8]) -> Location<'_> {
        let path: Cow<'_, [u8]> = percent_decode(path).into();
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        let below_alias = path.strip_prefix(ALIAS).filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
        let own = self.at(catalogue::key(path));
        own.or_else(|| self.at(catalogue::key(below_alias?))).unwrap_or(Location::Unknown)
    }

    /// The digests of the pieces of the file with this key, if the catalogue has them.
    #[must_use]
    pub(crate) fn pieces(&self, key: u64) -> Option<&PieceDigests> {
        self.catalogue.pieces(self.index.find(key)?.rank)
    }

    /// Whether the mirror lacks the path with this key.
    #[must_use]
    pub(super) fn lacks(&self, key: u64, mirror: u32) -> bool {
        self.index.find(key).is_some_and(|found| found.lacking.contains(mirror))
    }

    /// The file or folder with this key.
    #[inline]
    pub(crate) fn at(&self, key: u64) -> Option<Location<'_>> {
        let found = self.index.find(key)?;
        let entry = self.catalogue.entry(found.rank)?;
        if entry.is_folder {
            return Some(Location::Folder(entry.path));
        }
        let holders = Holders { lacking: found.lacking, unproven: self.unproven_at(found.age) };
        let (path, content) = (entry.path, entry.content);
        Some(Location::File(FileLocation { key, age: found.age, path, content, holders }))
    }
}

/// Copies sets of an old generation.
struct SetTranslation {
    interner: SetInterner,
    known: HashMap<u32, u32>,
}

impl SetTranslation {
    fn new(sets: &MirrorSets) -> Self {
        Self { interner: SetInterner::new(sets), known: HashMap::from([(0, 0)]) }
    }

    fn translate(&mut self, sets: &MirrorSets, old: &MirrorSets, set: u32) -> Result<u32, IndexFull> {
        if let Some(known) = self.known.get(&set) {
            return Ok(*known);
        }
        let words: Vec<u64> = old.get(set).words().collect();
        let new = self.interner.intern(sets, &words)?;
        self.known.insert(set, new);
        Ok(new)
    }
}

#[cfg(test)]
mod tests;
