//! The served entries of a folder, in the requested order.

use std::cmp::Ordering;

use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::super::file_state::{FileState, OpenError};
use super::super::path::is_served_name;
use super::super::root::{BlockingIo, Root};
use super::view::{SortKey, SortOrder, View};

/// Maximum number of entries in a listing.
pub(super) const MOST_SHOWN: usize = 10_000;

/// Maximum number of entries that are read, hidden ones included. Later entries are not considered.
const MOST_READ: usize = 1_000_000;

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FolderEntry {
    pub(super) name: Vec<u8>,
    pub(super) kind: EntryKind,
    /// Seconds from 1970 to its last modification.
    pub(super) modified: i64,
}

/// The type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    Folder,
    /// A file of this size in bytes.
    File(u64),
}

/// The first entries of a folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries {
    pub(super) list: Vec<FolderEntry>,
    /// Whether the folder has more entries.
    pub(super) is_cut: bool,
}

/// Reads the entries of a folder. The result has the first [`MOST_SHOWN`] of them in the order of `view`.
pub(super) fn read(root: &Root, path: &[u8], view: View) -> Result<Entries, OpenError> {
    let mut folder = root.folder(path)?;
    let mut first = FirstEntries { view, entries: Vec::new(), is_cut: false };
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

/// Collects the first [`MOST_SHOWN`] of any number of entries, with memory for twice that number.
#[derive(Debug)]
struct FirstEntries {
    view: View,
    entries: Vec<(EntryRank, FolderEntry)>,
    is_cut: bool,
}

impl FirstEntries {
    fn add(&mut self, entry: FolderEntry) {
        self.entries.push((EntryRank::of(&entry, self.view.key), entry));
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

/// The sort key of an entry: folders before files, then the requested key, then the name in lower case.
#[derive(Debug)]
struct EntryRank {
    is_file: bool,
    key: i128,
    lower_case: String,
    name: Vec<u8>,
}

impl EntryRank {
    fn of(entry: &FolderEntry, key: SortKey) -> Self {
        let key = match (key, entry.kind) {
            (SortKey::Time, _) => i128::from(entry.modified),
            (SortKey::Size, EntryKind::File(size)) => i128::from(size),
            (SortKey::Size, EntryKind::Folder) | (SortKey::Name, _) => 0,
        };
        let lower_case = String::from_utf8_lossy(&entry.name).to_lowercase();
        Self { is_file: entry.kind != EntryKind::Folder, key, lower_case, name: entry.name.clone() }
    }

    fn compare(&self, other: &Self, order: SortOrder) -> Ordering {
        let ascending = || {
            self.key
                .cmp(&other.key)
                .then_with(|| self.lower_case.cmp(&other.lower_case))
                .then_with(|| self.name.cmp(&other.name))
        };
        self.is_file.cmp(&other.is_file).then_with(|| match order {
            SortOrder::Ascending => ascending(),
            SortOrder::Descending => ascending().reverse(),
        })
    }
}

/// Reads the properties of an entry. `None` if it is not served or was removed.
fn look(root: &Root, path: &[u8], folder: &Dir, name: &[u8]) -> Option<FolderEntry> {
    let stat = statat(folder.fd().ok()?, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let (kind, modified) = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => (EntryKind::File(u64::try_from(stat.st_size).unwrap_or(0)), stat.st_mtime),
        FileType::Directory => (EntryKind::Folder, stat.st_mtime),
        FileType::Symlink => behind(root, &join(path, name))?,
        _ => return None,
    };
    Some(FolderEntry { name: name.to_owned(), kind, modified })
}

/// Reads the properties of the target of a link. `None` if it is not served.
fn behind(root: &Root, path: &[u8]) -> Option<(EntryKind, i64)> {
    match root.file(path, BlockingIo::Allowed) {
        Ok((_, FileState { length, modified, .. })) => Some((EntryKind::File(length), modified.0)),
        Err(OpenError::Folder) => {
            let stat = root.folder(path).ok()?.stat().ok()?;
            Some((EntryKind::Folder, stat.st_mtime))
        }
        Err(_) => None,
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_owned() } else { [folder, b"/", name].concat() }
}

#[cfg(test)]
mod tests;
