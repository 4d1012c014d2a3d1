use super::*;

#[test]
fn the_header_is_a_dictionary_of_byte_sequences() {
    // The example of RFC 9530, appendix B.1.
    let header = header_of(b"{\"hello\": \"world\"}\n");
    assert_eq!(header, "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:");
}

#[test]
fn the_digest_of_a_file_is_valid_for_one_state_and_every_path() {
    let folder = tempfile::tempdir().unwrap();
    let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
    std::fs::write(&file, "hello").unwrap();
    std::fs::hard_link(&file, &link).unwrap();
    let identity = |path| FileState::of(&std::fs::File::open(path).unwrap()).unwrap();
    let table = Table::default();
    table.insert(&identity(&file), [7; 32]);
    assert_eq!(table.find(&identity(&link)), Some([7; 32]));
    std::fs::write(&link, "other").unwrap();
    assert_eq!(table.find(&identity(&file)), None);
    table.insert(&identity(&file), [8; 32]);
    assert_eq!((table.find(&identity(&link)), table.known()), (Some([8; 32]), 1));
}

#[test]
fn digests_of_files_that_no_walk_finds_are_removed() {
    let table = Table::default();
    let identity = FileState::embedded(7);
    table.insert(&identity, [7; 32]);
    for (is_seen, retired) in [(false, 0), (true, 0), (false, 0), (false, 1)] {
        if is_seen {
            assert!(table.find(&identity).is_some());
        }
        table.walks.fetch_add(1, Relaxed);
        assert_eq!(table.retire_unseen(), retired);
    }
}
