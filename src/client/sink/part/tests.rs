use super::*;

#[test]
fn two_clients_cannot_write_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("file");
    let first = PartFile::open(&target).unwrap();
    assert!(matches!(PartFile::open(&target), Err(SinkError::Locked { .. })));
    drop(first);
    PartFile::open(&target).unwrap();
}

#[test]
fn a_file_that_appeared_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("file");
    let part = PartFile::open(&target).unwrap();
    part.write_at(0, b"new").unwrap();
    std::fs::write(&target, "other").unwrap();
    assert!(matches!(part.finish(Existing::Keep, Durability::Synced), Err(SinkError::Appeared { .. })));
    assert_eq!(std::fs::read(&target).unwrap(), b"other");
    part.finish(Existing::Replace, Durability::Synced).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"new");
}

#[test]
fn a_replaced_part_file_is_neither_named_nor_removed() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("file");
    let part = PartFile::open(&target).unwrap();
    part.write_at(0, b"ours").unwrap();
    std::fs::write(folder.path().join("other"), "theirs").unwrap();
    std::fs::rename(folder.path().join("other"), part.path()).unwrap();
    for existing in [Existing::Keep, Existing::Replace] {
        let result = part.finish(existing, Durability::Cached);
        assert!(matches!(result, Err(SinkError::Displaced { .. })), "{result:?}");
    }
    assert!(matches!(part.discard(), Err(SinkError::Displaced { .. })));
    assert_eq!(std::fs::read(part.path()).unwrap(), b"theirs");
    assert!(!target.exists());
}

#[test]
fn a_planted_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), folder.path().join("file.part")).unwrap();
    assert!(PartFile::open(&folder.path().join("file")).is_err());
    assert!(!folder.path().join("elsewhere").exists());
}
