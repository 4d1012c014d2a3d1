use super::*;

#[test]
fn the_file_has_its_mode_and_is_removed_with_its_listener() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (_listener, file) = listen(&path, 0o620).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
    UnixStream::connect(&path).unwrap();
    drop(file);
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_one_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    let (_listener, _file) = listen(&path, 0o600).unwrap();
    let message = listen(&path, 0o600).unwrap_err().to_string();
    let holder = format!("process {} (", std::process::id());
    assert!(message.contains(&holder), "{message}");
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_file_that_is_not_a_socket_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("precious"), folder.path().join("link"));
    std::fs::write(&path, "bytes").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for place in [&path, &link] {
        assert!(matches!(listen(place, 0o600), Err(ListenError::NoSocket { .. })));
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"bytes");
}

#[test]
fn the_file_of_a_successor_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (_listener, file) = listen(&path, 0o600).unwrap();
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    let _successor = listen(&path, 0o600).unwrap();
    drop(file);
    assert!(path.exists());
}
