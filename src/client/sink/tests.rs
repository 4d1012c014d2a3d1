//! Tests of stores on the disk.

use bytes::Bytes;

use super::*;
use crate::client::byte_map::ByteMap;

fn create(target: &Path, size: Option<u64>, hashing: DigestMode) -> Arc<dyn Store> {
    GroupCommit::new(Durability::Synced, 1).create(target, size, hashing).unwrap()
}

fn digest(bytes: &'static [u8]) -> Checksum {
    digest::of_parts(&[(0, Bytes::from_static(bytes))], Algorithm::Sha256)
}

#[test]
fn a_wrong_piece_of_several_chunks_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let pieces = Pieces { length: 5, size: 10, digests: [digest(b"right"), digest(b"again")].into() };
    let store = create(&folder.path().join("f"), Some(10), DigestMode::Off);
    let mut map = ByteMap::new(Some(10), RangeSet::new());
    let mut write = |chunks: &[(u64, &'static str)]| {
        let parts: Vec<_> = chunks.iter().map(|(offset, text)| (*offset, Bytes::from(*text))).collect();
        let ranges: Vec<_> =
            chunks.iter().map(|(offset, text)| ByteRange::new(*offset, offset + text.len() as u64)).collect();
        let follow_up = map.follow_up(&ranges, Some(&pieces));
        map.on_written(&ranges, &[]);
        store.write(&Batch { parts, follow_up }).unwrap()
    };
    assert_eq!(write(&[(0, "wr"), (2, "on")]), []);
    assert_eq!(write(&[(4, "gagain")]), [ByteRange::new(0, 5)]);
    assert_eq!(write(&[(0, "rig"), (3, "ht")]), []);
}

#[test]
fn a_digest_does_not_depend_on_the_order_of_the_bytes() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let folder = tempfile::tempdir().unwrap();
        let store = create(&folder.path().join("f"), Some(9), DigestMode::On(Algorithm::Sha256));
        let mut map = ByteMap::new(Some(9), RangeSet::new());
        for index in order {
            let range = ByteRange::new(index * 3, index * 3 + 3);
            let text = &b"abcdefghi"[range.start as usize..range.end as usize];
            let batch = Batch {
                parts: vec![(range.start, Bytes::from_static(text))],
                follow_up: map.follow_up(&[range], None),
            };
            store.write(&batch).unwrap();
            map.on_written(&[range], &[]);
        }
        assert_eq!(
            store.digest(&Batch::default(), 9, Algorithm::Sha256).unwrap(),
            Some(digest(b"abcdefghi"))
        );
    }
}

#[test]
fn a_finished_file_is_alone_even_if_a_killed_run_left_half_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let store = create(&folder.path().join("f"), Some(0), DigestMode::Off);
    std::fs::write(folder.path().join("f.part.new"), "{\"finger").unwrap();
    let (existing, durability) = (Existing::Keep, Durability::Synced);
    store.finish(&FileCompletion { size: 0, modified: None, existing, durability, is_saved: false }).unwrap();
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["f"]);
}
