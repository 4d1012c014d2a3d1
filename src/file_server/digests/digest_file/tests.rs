use super::super::Sha256Bytes;
use super::*;

fn table() -> Table {
    let table = Table::default();
    for (number, file) in [(0, 0), (1, 5), (u64::MAX, u64::MAX)].into_iter().enumerate() {
        let stamp = Stamp { length: 7, modified: (-3, 5), changed: (i64::MAX, 999_999_999) };
        table.known.pin().insert(file, Known::new(stamp, [number as u8; 32], 0));
    }
    table
}

fn entries(table: &Table) -> Vec<(FileId, Stamp, Sha256Bytes)> {
    let known = table.known.pin();
    let mut entries: Vec<_> = known.iter().map(|(file, known)| (*file, known.stamp, known.digest)).collect();
    entries.sort_by_key(|(file, ..)| *file);
    entries
}

#[test]
fn saved_digests_can_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("digests");
    let table = table();
    for _ in 0..2 {
        assert!(DigestFile::new(path.clone()).save(&table));
        let loaded = Table::default();
        DigestFile::new(path.clone()).load(&loaded);
        assert_eq!(entries(&loaded), entries(&table));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_with_a_changed_byte_or_length_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("digests");
    assert!(DigestFile::new(path.clone()).save(&table()));
    let whole = std::fs::read(&path).unwrap();
    let damaged = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        matches!(read(&path), Err(DigestFileError::Damaged))
    };
    assert!(!damaged(&whole));
    for at in 0..whole.len() {
        let mut other = whole.clone();
        other[at] ^= 1;
        assert!(damaged(&other), "byte {at}");
        assert!(damaged(&whole[..at]), "length {at}");
    }
    assert!(damaged(&[&whole[..], b"x"].concat()));
    assert!(damaged(&vec![b'a'; 100_000]));
    assert!(damaged(&[&whole[..], &whole[..]].concat()));
}

#[test]
fn an_unusable_path_changes_nothing() {
    let table = table();
    let before = entries(&table);
    for path in ["/nowhere/at/all", "/", "/dev/null"] {
        let mut stored = DigestFile::new(path.into());
        stored.load(&table);
        assert!(!stored.save(&table));
        assert_eq!(entries(&table), before);
    }
}
