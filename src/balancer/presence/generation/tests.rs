use super::*;
use crate::balancer::policy::digest;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// A catalogue of files whose digests consist of one digit.
fn catalogue(files: &[(&str, char)]) -> Arc<Catalogue> {
    let line = |(path, digit): &(&str, char)| format!("{}  {path}\n", digit.to_string().repeat(64));
    let text: String = files.iter().map(line).collect();
    Arc::new(catalogue::parse(text.as_bytes()).unwrap())
}

fn next(old: Option<&Generation>, files: &[(&str, char)]) -> Generation {
    Generation::next(old, catalogue(files), [0; 32], 3, &[], NOW).unwrap()
}

fn file<'a>(generation: &'a Generation, path: &str) -> FileLocation<'a> {
    match generation.locate(path.as_bytes(), digest(path.as_bytes())) {
        Location::File(file) => file,
        other => panic!("{path}: {other:?}"),
    }
}

/// Which of three mirrors may get requests for the file.
fn holders(generation: &Generation, path: &str) -> [bool; 3] {
    let file = file(generation, path);
    [0, 1, 2].map(|mirror| file.holders.contains(mirror))
}

#[test]
fn a_request_means_the_decoded_path_also_below_files() {
    let generation = next(None, &[("a b/c%.iso", '1'), ("files/x", '2'), ("x", '3')]);
    for path in ["/a%20b/c%25.iso", "/%61 b/c%.iso", "/files/a%20b/c%.iso"] {
        assert_eq!(file(&generation, path).path, b"/a b/c%.iso", "{path}");
    }
    assert_eq!(file(&generation, "/files/x").path, b"/files/x");
    assert_eq!(file(&generation, "/files/files/x").path, b"/files/x");
    for path in ["/", "/a%20b", "/a%20b/", "/files", "/files/", "/files/a%20b"] {
        let found = generation.locate(path.as_bytes(), digest(path.as_bytes()));
        assert!(matches!(found, Location::Folder(_)), "{path}: {found:?}");
    }
    for path in ["/a", "/a%20b/c", "/filesx", "/files/y", "/a%20b/c%25.iso/x"] {
        let found = generation.locate(path.as_bytes(), digest(path.as_bytes()));
        assert!(matches!(found, Location::Unknown), "{path}: {found:?}");
    }
}

#[test]
fn a_new_or_changed_file_is_sent_to_proven_mirrors_only() {
    let first = next(None, &[("a", '1'), ("b", '1')]);
    assert_eq!(holders(&first, "/a"), [true; 3]);
    let mut writer = SetInterner::new(first.index.sets());
    assert!(writer.set(&first.index, catalogue::key(b"/a"), 1, true).unwrap());
    assert!(writer.set(&first.index, catalogue::key(b"/b"), 2, true).unwrap());

    let second = next(Some(&first), &[("a", '1'), ("b", '2'), ("c", '3')]);
    assert_eq!(second.number, 2);
    // No mirror is proven yet.
    assert_eq!([holders(&second, "/a"), holders(&second, "/b")], [[true, false, true], [false; 3]]);
    second.set_proven_age(0, 0);
    second.set_proven_age(1, 1);
    second.set_proven_age(2, OLD + 1);
    assert_eq!(holders(&second, "/a"), [true, false, false]);
    assert_eq!(holders(&second, "/b"), [true, false, false]);
    assert_eq!(holders(&second, "/c"), [true, false, false]);

    let third = next(Some(&second), &[("b", '2'), ("d", '4')]);
    third.set_proven_age(0, 1);
    third.set_proven_age(1, 2);
    assert_eq!([holders(&third, "/b"), holders(&third, "/d")], [[true, false, false], [false; 3]]);
    assert_eq!(file(&third, "/b").age, 1);
}

#[test]
fn a_rebuilt_generation_has_equal_files_and_room_for_more_mirrors() {
    let first = next(None, &[("a", '1'), ("b", '1')]);
    let mut writer = SetInterner::new(first.index.sets());
    for mirror in [1, 2, 0] {
        assert!(writer.set(&first.index, catalogue::key(b"/a"), mirror, true).unwrap());
    }
    assert_eq!(first.index.sets().count(), 4);
    assert!(first.lacks_room_for(512) && !first.lacks_room_for(511) && !first.lacks_room_for(4096));
    let rebuilt = first.rebuilt(513).unwrap();
    assert!(!rebuilt.lacks_room_for(1023));
    assert_eq!(rebuilt.index.sets().count(), 2);
    assert_eq!([holders(&rebuilt, "/a"), holders(&rebuilt, "/b")], [[false; 3], [true; 3]]);
}
