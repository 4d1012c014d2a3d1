use super::*;

#[test]
fn a_file_is_read_as_it_was_written_and_every_damage_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::open(&folder.path().join("a/b")).unwrap();
    assert_eq!(state.read("x.json"), FileContent::Missing);
    state.write("x.json", 7, b"{\"a\":1}").unwrap();
    state.write("x.json", 7, b"{\"a\":2}").unwrap();
    assert_eq!(state.read("x.json"), FileContent::Valid { version: 7, body: b"{\"a\":2}".to_vec() });
    let whole = fs::read(state.file("x.json")).unwrap();
    for length in 0..whole.len() {
        fs::write(state.file("x.json"), &whole[..length]).unwrap();
        assert!(matches!(state.read("x.json"), FileContent::Damaged(_)), "{length}");
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(state.file("x.json"), &bytes).unwrap();
        assert!(matches!(state.read("x.json"), FileContent::Damaged(_)), "{at}");
    }
    state.set_aside("x.json", "test");
    assert_eq!(state.read("x.json"), FileContent::Missing);
    assert!(state.file("x.json.damaged").exists());
}

#[test]
fn a_folder_belongs_to_one_holder_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::open(folder.path()).unwrap();
    let message = StateFolder::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
    drop(state);
    StateFolder::open(folder.path()).unwrap();
}
