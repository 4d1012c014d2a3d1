//! The entries of a folder that are served, in the order that was asked for.

use std::cmp::Ordering;

use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::super::path::is_served_name;
use super::super::root::{Identity, OpenError, Patience, Root};
use super::view::{Key, Order, View};

/// Entries that are shown.
pub(super) const MOST_SHOWN: usize = 10_000;

/// Entries that are read, hidden ones included. The order is right among these.
const MOST_READ: usize = 1_000_000;

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    /// Seconds from 1970 to its last modification.
    pub(super) modified: i64,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    /// A file of so many bytes.
    File(u64),
}

/// The first entries of a folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries {
    pub(super) list: Vec<Entry>,
    /// Whether there are more.
    pub(super) is_cut: bool,
}

/// Reads the entries of a folder. The list has the first [`MOST_SHOWN`] of them in the order of `view`.
pub(super) fn read(root: &Root, path: &[u8], view: View) -> Result<Entries, OpenError> {
    let mut folder = root.folder(path)?;
    let mut first = First { view, entries: Vec::new(), is_cut: false };
    let mut entries_read = 0;
    while let Some(entry) = folder.read() {
        let entry = entry?;
        if entries_read == MOST_READ {
            first.is_cut = true;
            break;
        }
        entries_read += 1;
        let name = entry.file_name().to_bytes();
        if is_served_name(name)
            && let Some(entry) = look(root, path, &folder, name)
        {
            first.add(entry);
        }
    }
    Ok(first.into_entries())
}

/// Keeps the first [`MOST_SHOWN`] entries of any number, in memory for twice as many.
#[derive(Debug)]
struct First {
    view: View,
    entries: Vec<(Rank, Entry)>,
    is_cut: bool,
}

impl First {
    fn add(&mut self, entry: Entry) {
        self.entries.push((Rank::of(&entry, self.view.key), entry));
        if self.entries.len() == 2 * MOST_SHOWN {
            let order = self.view.order;
            self.entries.select_nth_unstable_by(MOST_SHOWN, |(a, _), (b, _)| a.compare(b, order));
            self.cut();
        }
    }

    fn into_entries(mut self) -> Entries {
        self.entries.sort_unstable_by(|(a, _), (b, _)| a.compare(b, self.view.order));
        self.cut();
        Entries { list: self.entries.into_iter().map(|(_, entry)| entry).collect(), is_cut: self.is_cut }
    }

    fn cut(&mut self) {
        self.is_cut |= self.entries.len() > MOST_SHOWN;
        self.entries.truncate(MOST_SHOWN);
    }
}

/// The place of an entry: folders before files, then by the key, then by the name without regard to case.
#[derive(Debug)]
struct Rank {
    is_file: bool,
    key: i128,
    lower_case: String,
    name: Vec<u8>,
}

impl Rank {
    fn of(entry: &Entry, key: Key) -> Self {
        let key = match (key, entry.kind) {
            (Key::Time, _) => i128::from(entry.modified),
            (Key::Size, Kind::File(size)) => i128::from(size),
            (Key::Size, Kind::Folder) | (Key::Name, _) => 0,
        };
        let lower_case = String::from_utf8_lossy(&entry.name).to_lowercase();
        Self { is_file: entry.kind != Kind::Folder, key, lower_case, name: entry.name.clone() }
    }

    fn compare(&self, other: &Self, order: Order) -> Ordering {
        let ascending = || {
            self.key
                .cmp(&other.key)
                .then_with(|| self.lower_case.cmp(&other.lower_case))
                .then_with(|| self.name.cmp(&other.name))
        };
        self.is_file.cmp(&other.is_file).then_with(|| match order {
            Order::Ascending => ascending(),
            Order::Descending => ascending().reverse(),
        })
    }
}

/// An entry as it is shown. `None` if it is not served or is gone.
fn look(root: &Root, path: &[u8], folder: &Dir, name: &[u8]) -> Option<Entry> {
    let stat = statat(folder.fd().ok()?, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let (kind, modified) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => (Kind::File(u64::try_from(stat.st_size).unwrap_or(0)), stat.st_mtime),
        FileType::Directory => (Kind::Folder, stat.st_mtime),
        FileType::Symlink => behind(root, &join(path, name))?,
        _ => return None,
    };
    Some(Entry { name: name.to_owned(), kind, modified })
}

/// What a link leads to, if that is served.
fn behind(root: &Root, path: &[u8]) -> Option<(Kind, i64)> {
    match root.file(path, Patience::Disk) {
        Ok((_, Identity { length, modified, .. })) => Some((Kind::File(length), modified.0)),
        Err(OpenError::Folder) => {
            let stat = root.folder(path).ok()?.stat().ok()?;
            Some((Kind::Folder, stat.st_mtime))
        }
        Err(_) => None,
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_owned() } else { [folder, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| std::str::from_utf8(&entry.name).unwrap()).collect()
    }

    #[test]
    fn folders_come_first_in_every_order() {
        let entry = |name: &str, kind, modified| Entry { name: name.into(), kind, modified };
        let entries = [
            entry("b", Kind::File(1), 30),
            entry("A", Kind::File(2), 20),
            entry("c", Kind::File(2), 10),
            entry("z", Kind::Folder, 5),
            entry("y", Kind::Folder, 50),
        ];
        for (key, order, expected) in [
            (Key::Name, Order::Ascending, ["y", "z", "A", "b", "c"]),
            (Key::Name, Order::Descending, ["z", "y", "c", "b", "A"]),
            (Key::Size, Order::Ascending, ["y", "z", "b", "A", "c"]),
            (Key::Time, Order::Descending, ["y", "z", "b", "A", "c"]),
        ] {
            let view = View { key, order, ..View::default() };
            let mut first = First { view, entries: Vec::new(), is_cut: false };
            entries.clone().into_iter().for_each(|entry| first.add(entry));
            assert_eq!(names(&first.into_entries().list), expected, "{key:?} {order:?}");
        }
    }

    #[test]
    fn the_first_entries_of_many_are_kept_whatever_their_order() {
        let count = 3 * i64::try_from(MOST_SHOWN).unwrap() + 7;
        // Every number below `count` once, in no order: 7919 is a prime that does not divide it.
        let numbers = (0..count).map(|number| number * 7919 % count);
        for order in [Order::Ascending, Order::Descending] {
            let view = View { key: Key::Time, order, ..View::default() };
            let mut first = First { view, entries: Vec::new(), is_cut: false };
            for number in numbers.clone() {
                let name = number.to_string().into_bytes();
                first.add(Entry { name, kind: Kind::File(0), modified: number });
                assert!(first.entries.len() < 2 * MOST_SHOWN);
            }
            let entries = first.into_entries();
            let times: Vec<_> = entries.list.iter().map(|entry| entry.modified).collect();
            let expected: Vec<_> = match order {
                Order::Ascending => (0..count).take(MOST_SHOWN).collect(),
                Order::Descending => (0..count).rev().take(MOST_SHOWN).collect(),
            };
            assert!(entries.is_cut && times == expected, "{order:?}");
        }
    }

    #[test]
    fn a_folder_that_fits_is_not_cut() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MOST_SHOWN {
            std::fs::File::create(folder.path().join(format!("{number}"))).unwrap();
        }
        let root = Root::open(folder.path()).unwrap();
        let read = || read(&root, b"", View::default()).unwrap();
        let entries = read();
        assert_eq!((entries.list.len(), entries.is_cut), (MOST_SHOWN, true));
        std::fs::remove_file(folder.path().join("0")).unwrap();
        assert!(!read().is_cut);
    }
}
