use std::os::unix::fs::symlink;

use super::*;

fn tree() -> (tempfile::TempDir, Root) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    std::fs::write(root.join("a.txt"), "hello").unwrap();
    std::fs::write(root.join("sub/b.txt"), "there").unwrap();
    symlink("../../secret", root.join("sub/out")).unwrap();
    symlink("/etc/passwd", root.join("absolute")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let opened = Root::open(&root).unwrap();
    (folder, opened)
}

#[test]
fn only_regular_files_beneath_the_root_can_be_opened() {
    let (_folder, root) = tree();
    symlink("sub/b.txt", root.path.join("inside")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.path.join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    for (path, expected) in [
        (&b"a.txt"[..], Ok(5)),
        (b"inside", Ok(5)),
        (b"sub/out", Err(OpenError::Missing)),
        (b"absolute", Err(OpenError::Missing)),
        (b"loop", Err(OpenError::Missing)),
        (b"fifo", Err(OpenError::Missing)),
        (b"nothing", Err(OpenError::Missing)),
        (b"a.txt/b", Err(OpenError::Missing)),
        (b"../secret", Err(OpenError::Missing)),
        (b"sub", Err(OpenError::Folder)),
    ] {
        let open = |blocking_io| root.file(path, blocking_io).map(|(_, identity)| identity.length);
        assert_eq!(open(BlockingIo::Allowed), expected, "{}", path.escape_ascii());
        // A rename on the file system may prevent the kernel from resolving a path without waiting.
        let cached = open(BlockingIo::Forbidden);
        let is_expected = cached == expected || cached == Err(OpenError::WouldBlock);
        assert!(is_expected, "{} {cached:?}", path.escape_ascii());
    }
}

#[test]
fn an_error_of_the_file_system_does_not_count_as_a_missing_file() {
    for errno in [
        Errno::IO,
        Errno::STALE,
        Errno::NOTCONN,
        Errno::TIMEDOUT,
        Errno::CONNABORTED,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NODATA,
        Errno::SHUTDOWN,
        Errno::BADMSG,
        Errno::OVERFLOW,
        Errno::BUSY,
    ] {
        assert_eq!(OpenError::from(errno), OpenError::Failed(errno));
    }
}

#[test]
fn an_impossible_name_counts_as_missing() {
    let (_folder, root) = tree();
    for name in [&[b'x'; 256][..], &[b'x'; 5000], b"a\0b"] {
        let found = root.file(name, BlockingIo::Allowed).map(|_| ());
        assert_eq!(found, Err(OpenError::Missing), "{}", name.escape_ascii());
    }
}

#[test]
fn a_replaced_directory_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root");
    std::fs::create_dir(&path).unwrap();
    let root = Root::open(&path).unwrap();
    let open = || root.file(b"a", BlockingIo::Allowed).map(|(_, identity)| identity.length);
    assert_eq!((root.refresh(), open()), (Refreshed::Unchanged, Err(OpenError::Missing)));
    std::fs::remove_dir(&path).unwrap();
    assert_eq!((root.refresh(), open()), (Refreshed::Gone(Errno::NOENT), Err(OpenError::RootGone)));
    assert_eq!(root.refresh(), Refreshed::Unchanged);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("a"), "1").unwrap();
    assert_eq!((root.refresh(), open()), (Refreshed::Restored, Ok(1)));
    // Replaced between two checks, possibly with the number of the old inode.
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("a"), "12").unwrap();
    assert_eq!((root.refresh(), open()), (Refreshed::Replaced, Ok(2)));
}

#[test]
fn the_error_for_a_missing_folder_names_it() {
    let message = Root::open(Path::new("/nowhere/at/all")).unwrap_err().to_string();
    assert!(message.contains("/nowhere/at/all"), "{message}");
}
