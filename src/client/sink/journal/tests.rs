use proptest::prelude::*;

use super::*;

fn identity() -> ContentIdentity {
    ContentIdentity { size: Some(1000), etags: vec!["\"tag\"".to_owned()], ..ContentIdentity::default() }
}

const DONE: [ByteRange; 2] = [ByteRange { start: 0, end: 10 }, ByteRange { start: 500, end: 600 }];

fn done() -> RangeSet {
    let mut done = RangeSet::new();
    done.extend(DONE);
    done
}

#[test]
fn a_written_journal_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("f");
    claim(&target).unwrap();
    write(&target, &identity(), &done()).unwrap();
    let remembered = read(&journal_path(&target)).unwrap();
    assert_eq!(remembered.identity, identity());
    assert_eq!(remembered.done, done());
}

proptest! {
    /// A broken file system may cut the journal anywhere, and the rest of the file may hold any bytes.
    #[test]
    fn a_truncated_journal_lists_no_wrong_bytes(keep in 0_usize..300, tail in "[ -~\n]{0,20}") {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("f");
        write(&target, &identity(), &done()).unwrap();
        let path = journal_path(&target);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.truncate(keep.min(text.len()));
        std::fs::write(&path, text + &tail).unwrap();
        if let Some(remembered) = read(&path) {
            prop_assert!(remembered.done.iter().all(|range| DONE.contains(&range)));
        }
    }
}
