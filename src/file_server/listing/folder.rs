//! What of a folder's entries is shown: what is served, and no more.

use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::super::path::is_served_name;
use super::super::root::{Identity, OpenError, Patience, Root};
use super::view::{Key, Order, View};

/// Entries that are shown.
pub(super) const MOST_SHOWN: usize = 10_000;

/// Entries that are looked at, hidden ones included.
const MOST_LOOKED_AT: usize = 100_000;

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

/// The entries of a folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries {
    pub(super) list: Vec<Entry>,
    /// Whether there are more.
    pub(super) is_cut: bool,
}

/// Reads the entries of a folder, in no order.
pub(super) fn read(root: &Root, path: &[u8]) -> Result<Entries, OpenError> {
    let mut entries = Entries::default();
    let mut folder = root.folder(path)?;
    let mut looked_at = 0;
    while let Some(entry) = folder.read() {
        let entry = entry?;
        if entries.list.len() >= MOST_SHOWN || looked_at >= MOST_LOOKED_AT {
            entries.is_cut = true;
            break;
        }
        looked_at += 1;
        let name = entry.file_name().to_bytes();
        if is_served_name(name) {
            entries.list.extend(look(root, path, &folder, name));
        }
    }
    Ok(entries)
}

/// An entry as it is shown; nothing where it is not served, or is gone.
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

/// Puts folders before files, and each in the order that was asked for. Pure.
pub(super) fn sort(entries: &mut [Entry], view: View) {
    entries.sort_by_cached_key(|entry| {
        let asked = match (view.key, entry.kind) {
            (Key::Time, _) => i128::from(entry.modified),
            (Key::Size, Kind::File(size)) => i128::from(size),
            (Key::Size, Kind::Folder) | (Key::Name, _) => 0,
        };
        (asked, String::from_utf8_lossy(&entry.name).to_lowercase(), entry.name.clone())
    });
    if view.order == Order::Descending {
        entries.reverse();
    }
    entries.sort_by_key(|entry| entry.kind != Kind::Folder);
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
        let mut entries = [
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
            sort(&mut entries, View { key, order, ..View::default() });
            assert_eq!(names(&entries), expected, "{key:?} {order:?}");
        }
    }

    #[test]
    fn a_large_folder_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MOST_SHOWN {
            std::fs::File::create(folder.path().join(format!("{number}"))).unwrap();
        }
        let root = Root::open(folder.path()).unwrap();
        let entries = read(&root, b"").unwrap();
        assert_eq!((entries.list.len(), entries.is_cut), (MOST_SHOWN, true));
        std::fs::remove_file(folder.path().join("0")).unwrap();
        assert!(!read(&root, b"").unwrap().is_cut);
    }
}
