use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(path: &str, expected: Result<(&str, PathKind), PathError>) {
    let found = parse(path);
    let found = found.as_ref().map(|found| (std::str::from_utf8(&found.bytes).unwrap(), found.kind));
    assert_eq!(found, expected.as_ref().map(|expected| *expected), "{path}");
}

#[test]
fn plain_paths() {
    check("/", Ok(("", PathKind::Folder)));
    check("/a.txt", Ok(("a.txt", PathKind::File)));
    check("/a/b%20c", Ok(("a/b c", PathKind::File)));
    check("/a/", Ok(("a", PathKind::Folder)));
    check("/a.txt/", Ok(("a.txt", PathKind::Folder)));
}

#[test]
fn a_first_folder_called_files_is_removed() {
    check("/files/a.txt", Ok(("a.txt", PathKind::File)));
    check("/files/", Ok(("", PathKind::Folder)));
    check("/files/files/a", Ok(("files/a", PathKind::File)));
    check("/files", Ok(("files", PathKind::File)));
    check("/filesystem/a", Ok(("filesystem/a", PathKind::File)));
}

#[test]
fn paths_with_hidden_or_ambiguous_segments_are_not_served() {
    for path in [
        "/../x",
        "/%2e%2e/x",
        "/%2e%2e%2fx",
        "/..%5cx",
        "/....//x",
        "/a/./b",
        "//evil/..",
        "/a//.b",
        "/.hidden",
        "/.git/config",
        "/a.txt%2f",
        "/files/../x",
        "/files//../x",
    ] {
        check(path, Err(PathError::Unserved));
    }
    assert_eq!(parse("/..%c0%afx"), Err(PathError::Unserved));
}

#[test]
fn adjacent_slashes_count_as_one() {
    check("//a", Ok(("a", PathKind::File)));
    check("/pool//a.deb", Ok(("pool/a.deb", PathKind::File)));
    check("//pool////a.deb", Ok(("pool/a.deb", PathKind::File)));
    check("/files//a", Ok(("a", PathKind::File)));
    check("//files///files//a//", Ok(("files/a", PathKind::Folder)));
    check("//", Ok(("", PathKind::Folder)));
    assert_eq!(merge_slashes("//evil.example//a"), "/evil.example/a");
}

#[test]
fn every_name_without_a_leading_dot_is_served() {
    check("/new%0aline", Ok(("new\nline", PathKind::File)));
    check("/tab%09/%7f", Ok(("tab\t/\u{7f}", PathKind::File)));
    assert_eq!(&*parse("/caf%e9").unwrap().bytes, b"caf\xe9");
}

#[test]
fn a_path_is_decoded_once() {
    check("/%252e%252e/x", Ok(("%2e%2e/x", PathKind::File)));
}

#[test]
fn broken_escapes_are_malformed() {
    for path in ["/%", "/%z", "/%zz", "/a%2", "/a.txt%00.html", "/%2f%zz", "", "*", "a"] {
        check(path, Err(PathError::Malformed));
    }
}

proptest! {
    #[test]
    fn every_path_stays_beneath_the_root(path in "/([a-z./%25\\\\]|%2e|%2F|%5c|\\.\\.){0,12}") {
        if let Ok(found) = parse(&path) {
            for segment in found.bytes.split(|byte| *byte == b'/') {
                prop_assert!(!segment.starts_with(b".") && !segment.contains(&0));
                prop_assert!(!segment.is_empty() || found.bytes.is_empty());
            }
            prop_assert!(!found.bytes.starts_with(b"/"));
        }
    }

    #[test]
    fn an_encoded_name_is_decoded_to_itself(name in "[^/.\\x00][^/\\x00]{0,20}") {
        let path = name.bytes().fold(String::from("/"), |path, byte| path + &format!("%{byte:02x}"));
        let found = parse(&path).unwrap();
        prop_assert_eq!(&*found.bytes, name.as_bytes());
    }
}
