use super::*;

fn names(entries: &[FolderEntry]) -> Vec<&str> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.name).unwrap()).collect()
}

#[test]
fn folders_come_first_in_every_order() {
    let entry = |name: &str, kind, modified| FolderEntry { name: name.into(), kind, modified };
    let entries = [
        entry("b", EntryKind::File(1), 30),
        entry("A", EntryKind::File(2), 20),
        entry("c", EntryKind::File(2), 10),
        entry("z", EntryKind::Folder, 5),
        entry("y", EntryKind::Folder, 50),
    ];
    for (key, order, expected) in [
        (SortKey::Name, SortOrder::Ascending, ["y", "z", "A", "b", "c"]),
        (SortKey::Name, SortOrder::Descending, ["z", "y", "c", "b", "A"]),
        (SortKey::Size, SortOrder::Ascending, ["y", "z", "b", "A", "c"]),
        (SortKey::Time, SortOrder::Descending, ["y", "z", "b", "A", "c"]),
    ] {
        let view = View { key, order, ..View::default() };
        let mut first = FirstEntries { view, entries: Vec::new(), is_cut: false };
        entries.clone().into_iter().for_each(|entry| first.add(entry));
        assert_eq!(names(&first.into_entries().list), expected, "{key:?} {order:?}");
    }
}

#[test]
fn the_first_entries_are_returned_whatever_the_order_of_reading() {
    let count = 3 * i64::try_from(MOST_SHOWN).unwrap() + 7;
    // Each number below `count` once, in mixed order: 7919 is a prime that does not divide `count`.
    let numbers = (0..count).map(|number| number * 7919 % count);
    for order in [SortOrder::Ascending, SortOrder::Descending] {
        let view = View { key: SortKey::Time, order, ..View::default() };
        let mut first = FirstEntries { view, entries: Vec::new(), is_cut: false };
        for number in numbers.clone() {
            let name = number.to_string().into_bytes();
            first.add(FolderEntry { name, kind: EntryKind::File(0), modified: number });
            assert!(first.entries.len() < 2 * MOST_SHOWN);
        }
        let entries = first.into_entries();
        let times: Vec<_> = entries.list.iter().map(|entry| entry.modified).collect();
        let expected: Vec<_> = match order {
            SortOrder::Ascending => (0..count).take(MOST_SHOWN).collect(),
            SortOrder::Descending => (0..count).rev().take(MOST_SHOWN).collect(),
        };
        assert!(entries.is_cut && times == expected, "{order:?}");
    }
}

#[test]
fn a_folder_below_the_limit_is_not_cut() {
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
