use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

fn paths(catalogue: &Catalogue) -> Vec<String> {
    let mut paths: Vec<String> = catalogue
        .entries()
        .map(|entry| {
            String::from_utf8_lossy(entry.path).into_owned() + if entry.is_folder { "/" } else { "" }
        })
        .collect();
    paths.sort();
    paths
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(paths(&parse(text.as_bytes()).unwrap()), expected, "{text}");
}

#[track_caller]
fn fails(text: &str, expected: &str) {
    let message = parse(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(message, expected, "{text}");
}

#[test]
fn lines_of_sha256sum_are_files_and_their_folders() {
    check(&format!("{A}  x.iso\n"), &["/", "/x.iso"]);
    check(
        &format!("# made today\r\n\r\n{A} *./a/b/c\r\n{B}  /a/d"),
        &["/", "/a/", "/a/b/", "/a/b/c", "/a/d"],
    );
    check(&format!("SHA256 (a (b) = c) = {A}\n"), &["/", "/a (b) = c"]);
    check(&format!("\\{A}  a\\\\b\\nc\n"), &["/", "/a\\b\nc"]);
    check(&format!("{A}  x\n{A}  ./x\n"), &["/", "/x"]);
    check(&format!("{A}   x \n"), &["/", "/ x "]);
}

#[test]
fn a_listing_as_json_is_a_catalogue() {
    let text = format!(
        r#"[{{"name":"a b","url":"./a%20b","type":"file","mtime":"x","size":5}},
            {{"name":"pool","type":"directory"}}, {{"path":"c/d","sha256":"{A}","more":[1]}}]"#
    );
    check(&text, &["/", "/a b", "/c/", "/c/d"]);
    let catalogue = parse(format!(r#" {{"files":{text}}}"#).as_bytes()).unwrap();
    assert_eq!(catalogue.find(b"/a b").unwrap().content, CatalogueContent { size: Some(5), sha256: None });
    assert_eq!(
        catalogue.find(b"/c/d").unwrap().content,
        CatalogueContent { size: None, sha256: Some([0xAA; 32]) }
    );
    assert_eq!(catalogue.files(), 2);
}

#[test]
fn an_error_names_the_line() {
    fails("", "line 1: the list has no file; an empty list would make every path unknown");
    fails(
        "<html>",
        "line 1: <html>: write a SHA-256 digest of 64 hexadecimal digits and a path, as sha256sum does",
    );
    fails(
        &format!("{A}  x\n0123456789abcdef0123456789abcdef  y"),
        "line 2: 32 hexadecimal digits are not a SHA-256 digest, which has 64; use sha256sum",
    );
    fails(
        &format!("{A}  x\n{B}  y\n{B}  x"),
        "line 3: /x is listed twice with different sizes or digests; remove one of them",
    );
    fails(&format!("{A}  x\n{B}  x/y"), "line 2: /x is a file here, and a folder in another line");
    for path in ["", "/", "..", "a//b", "a/./b", "a/../b", "a/", "a\0"] {
        let message = parse(format!("\n{A}  {path}\n").as_bytes()).unwrap_err().to_string();
        assert!(
            message.starts_with("line 2: ") && message.contains("a path must have no empty"),
            "{message}"
        );
    }
    fails("[{}]", "entry 1: an entry has neither \"path\", \"url\" nor \"name\"");
    let message = parse(b"[\n{\"path\":1}]").unwrap_err().to_string();
    assert!(message.starts_with("line 2: the list is not valid JSON: "), "{message}");
}

#[test]
fn pieces_belong_to_their_files_and_survive_encoding() {
    let list = format!(
        r#"[{{"path":"b/x","size":25,"sha256":"{A}","pieces":{{"length":10,"sha256":["{A}","{B}","{A}"]}}}},{{"path":"a"}}]"#
    );
    let catalogue = parse(list.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    catalogue.encode(&mut bytes);
    let decoded = Catalogue::decode(&mut ByteReader(&bytes)).unwrap();
    for catalogue in [catalogue, decoded] {
        let pieces = |path: &[u8]| {
            let rank = catalogue.keys().binary_search(&key(path)).unwrap();
            catalogue.pieces(rank as u32).map(|pieces| (pieces.length, pieces.digests.len()))
        };
        assert_eq!((pieces(b"/b/x"), pieces(b"/a"), pieces(b"/b")), (Some((10, 3)), None, None));
    }
    for (size, length, digests) in [("25", 10, 2), ("25", 0, 3), ("null", 10, 3)] {
        let digests = vec![format!("\"{A}\""); digests].join(",");
        let list =
            format!(r#"[{{"path":"x","size":{size},"pieces":{{"length":{length},"sha256":[{digests}]}}}}]"#);
        let message = parse(list.as_bytes()).unwrap_err().to_string();
        assert!(message.starts_with("entry 1: x: \"pieces\" must have a \"length\""), "{message}");
    }
}

#[test]
fn a_sample_of_a_folder_has_files_of_all_its_folders() {
    let line = |number: u32| format!("{A}  a/{}/{number}\n{A}  a{number}\n", number / 10);
    let list = (0..100).map(line).collect::<Vec<_>>().concat();
    let catalogue = parse(list.as_bytes()).unwrap();
    let of = |folder: &[u8], most| catalogue.some_files_below(folder, most).count();
    assert!((8..=16).contains(&of(b"/a", 16)), "{}", of(b"/a", 16));
    assert_eq!((of(b"/a/3", 16), of(b"/a1", 16), of(b"/none", 16)), (10, 0, 0));
    assert!(of(b"", 1000) >= 200);
    let folders: std::collections::HashSet<_> =
        catalogue.some_files_below(b"/a", 16).map(|file| parent(file.path).to_vec()).collect();
    assert!(folders.len() > 6, "{folders:?}");
}

#[test]
fn the_files_of_a_folder_are_found() {
    let list = format!("{A}  a/x\n{A}  a/b/y\n{A}  a-\n{A}  a/z\n{A}  b/x\n{A}  a0");
    let catalogue = parse(list.as_bytes()).unwrap();
    let of = |folder: &[u8]| {
        let files = catalogue.files_of(folder);
        files.map(|entry| String::from_utf8_lossy(entry.path).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(b"/a"), ["/a/x", "/a/z"]);
    assert_eq!(of(b"/a/b"), ["/a/b/y"]);
    assert_eq!(of(b""), ["/a-", "/a0"]);
    assert_eq!(of(b"/nothing"), Vec::<String>::new());
}

proptest! {
    #[test]
    fn every_file_of_a_list_is_found(
        files in proptest::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,3}", any::<[u8; 32]>(), 1..40),
    ) {
        let text: Vec<String> =
            files.iter().map(|(path, digest)| format!("{}  {path}
", digits(digest))).collect();
        let text = text.concat();
        let is_folder = |path: &String| files.keys().any(|other| other.starts_with(&format!("{path}/")));
        let parsed = parse(text.as_bytes());
        if files.keys().any(is_folder) {
            prop_assert!(parsed.is_err());
            return Ok(());
        }
        let catalogue = parsed.unwrap();
        prop_assert_eq!(catalogue.files(), files.len());
        let keys = catalogue.keys();
        prop_assert!(keys.is_sorted());
        let found: BTreeMap<String, [u8; 32]> = catalogue.entries().filter(|entry| !entry.is_folder).map(|entry| {
            (String::from_utf8_lossy(&entry.path[1..]).into_owned(), entry.content.sha256.unwrap())
        }).collect();
        prop_assert_eq!(&found, &files);
        for (path, digest) in &files {
            let path = format!("/{path}");
            let rank = keys.binary_search(&key(path.as_bytes())).unwrap();
            prop_assert_eq!(catalogue.entry(rank as u32).unwrap().path, path.as_bytes());
            prop_assert_eq!(catalogue.find(path.as_bytes()).unwrap().content.sha256, Some(*digest));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(text: Vec<u8>, end in "[\\[{}\\]\":,a-z0-9 /.\\\\\n]{0,200}") {
        let _ = parse(&text);
        let _ = parse(end.as_bytes());
    }
}
