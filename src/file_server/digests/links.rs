//! Files that are reached by several paths: through links of folders, or as hard links.
//!
//! Clients choose the paths they ask for, and a link may lead in a circle, so that one file has paths without end. None
//! of them costs a second read, and those that no walk meets push out each other and nothing else.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::root::Identity;
use super::{Known, MOST_DIGESTS, Made, Table};

/// Paths that were asked for and no walk has met; one more takes the place of the oldest.
const MOST_GUESTS: usize = 1 << 14;

/// Files are forgotten that no path has any more, when there are so many.
const MOST_FILES: usize = 2 * MOST_DIGESTS;

/// Why a path is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Finder {
    /// The last walk has not met it, while one before did, or a client asked for it.
    Doubt,
    /// A client asks for it.
    Request,
    /// A walk meets it.
    Walk,
}

/// What the thread of digests notes of the paths in the table.
#[derive(Debug, Default)]
pub(super) struct Paths {
    files: Files,
    guests: Guests,
}

impl Paths {
    /// What was made of a file in this state, by whatever path.
    pub(super) fn find(&self, identity: &Identity) -> Option<Arc<Made>> {
        self.files.find(identity)
    }

    /// Whether the digest of a path in this state is known; notes who came by.
    pub(super) fn meet(&mut self, table: &Table, path: &[u8], identity: &Identity, finder: Finder) -> bool {
        let known = table.known.pin();
        let Some(known) = known.get(path).filter(|known| known.made.stamp == identity.stamp()) else {
            return false;
        };
        self.files.remember(identity, &known.made);
        match finder {
            Finder::Walk => {
                known.walk.store(table.this_walk(), Relaxed);
                known.is_guest.store(false, Relaxed);
            }
            Finder::Doubt if !known.is_guest.swap(true, Relaxed) => self.guests.add(path.into(), table),
            Finder::Doubt | Finder::Request => {}
        }
        true
    }

    /// Takes a digest into the table.
    pub(super) fn keep(
        &mut self,
        table: &Table,
        path: Box<[u8]>,
        identity: &Identity,
        made: Arc<Made>,
        finder: Finder,
    ) {
        self.files.remember(identity, &made);
        let known = table.known.pin();
        let before = known.get(&path).map(|known| (known.walk.load(Relaxed), known.is_guest.load(Relaxed)));
        let (walk, is_guest) = match (finder, before) {
            (Finder::Walk, _) => (table.this_walk(), false),
            (_, Some(before)) => before,
            (_, None) => (0, true),
        };
        known.insert(path.clone(), Known { made, walk: walk.into(), is_guest: is_guest.into() });
        if is_guest && before.is_none() {
            self.guests.add(path, table);
        }
    }
}

/// What was made of files, by device and inode.
#[derive(Debug, Default)]
struct Files(HashMap<(u64, u64), Arc<Made>>);

impl Files {
    fn find(&self, identity: &Identity) -> Option<Arc<Made>> {
        self.0.get(&identity.file()).filter(|made| made.stamp == identity.stamp()).cloned()
    }

    fn remember(&mut self, identity: &Identity, made: &Arc<Made>) {
        if self.0.len() >= MOST_FILES {
            self.0.retain(|_, made| Arc::strong_count(made) > 1);
        }
        if self.0.len() < MOST_FILES {
            self.0.insert(identity.file(), Arc::clone(made));
        }
    }
}

/// Paths in the table that no walk has met, the oldest first; some have been met since.
#[derive(Debug, Default)]
struct Guests(VecDeque<Box<[u8]>>);

impl Guests {
    /// One more, which is in the table.
    fn add(&mut self, path: Box<[u8]>, table: &Table) {
        self.0.push_back(path);
        if self.0.len() <= MOST_GUESTS {
            return;
        }
        let Some(oldest) = self.0.pop_front() else { return };
        let known = table.known.pin();
        if known.get(&oldest).is_some_and(|known| known.is_guest.load(Relaxed)) {
            known.remove(&oldest);
            table.left_out.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Stamp;
    use super::*;

    fn guest() -> Known {
        let stamp = Stamp { length: 1, modified: (1, 1), changed: (1, 1) };
        let known = Known::new(stamp, [0; 32]);
        known.is_guest.store(true, Relaxed);
        known
    }

    #[test]
    fn guests_push_out_each_other_and_nobody_else() {
        let (table, mut guests) = (Table::default(), Guests::default());
        let add = |guests: &mut Guests, number: usize| {
            let path: Box<[u8]> = number.to_string().into_bytes().into();
            table.known.pin().insert(path.clone(), guest());
            guests.add(path, &table);
        };
        (0..MOST_GUESTS).for_each(|number| add(&mut guests, number));
        assert_eq!(table.known(), MOST_GUESTS);
        table.known.pin().get(&b"0"[..]).unwrap().is_guest.store(false, Relaxed);
        (MOST_GUESTS..MOST_GUESTS + 3).for_each(|number| add(&mut guests, number));
        // The first had been met by a walk, and is none.
        assert_eq!(table.known(), MOST_GUESTS + 1);
        for (path, is_known) in [(&b"0"[..], true), (b"1", false), (b"2", false), (b"3", true)] {
            assert_eq!(table.known.pin().contains_key(path), is_known, "{}", path.escape_ascii());
        }
        assert_eq!(table.left_out.load(Relaxed), 2);
    }

    #[test]
    fn a_path_is_a_guest_until_a_walk_meets_it_and_once_one_does_not() {
        let (table, mut paths) = (Table::default(), Paths::default());
        let identity = Identity::embedded(7);
        let (path, other) = (&b"loop/a"[..], &b"a"[..]);
        assert!(paths.find(&identity).is_none() && !paths.meet(&table, path, &identity, Finder::Request));
        let made = Arc::new(Made { stamp: identity.stamp(), digest: [7; 32] });
        paths.keep(&table, path.into(), &identity, made, Finder::Request);
        paths.keep(&table, other.into(), &identity, paths.find(&identity).unwrap(), Finder::Walk);
        let state = |path: &[u8]| {
            let known = table.known.pin();
            let known = known.get(path).unwrap();
            (known.is_guest.load(Relaxed), known.walk.load(Relaxed))
        };
        assert_eq!((state(path), state(other)), ((true, 0), (false, 1)));
        for (finder, expected) in
            [(Finder::Request, (true, 0)), (Finder::Walk, (false, 1)), (Finder::Doubt, (true, 1))]
        {
            assert!(paths.meet(&table, path, &identity, finder));
            assert_eq!(state(path), expected, "{finder:?}");
        }
        // In another state it is another file.
        let changed = Identity::embedded(8);
        assert!(paths.find(&changed).is_none() && !paths.meet(&table, path, &changed, Finder::Walk));
    }
}
