use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The files of the generated listings and their sizes.
const FILES: [(&str, u64); 8] = [
    ("100%.bin", 1000),
    (
        "a-name-that-is-longer-than-the-column-of-the-index-of-any-server-with-its-default-settings_1.0_amd64.deb",
        1_500_000,
    ),
    ("a:b;c,d=e+f.txt", 5),
    ("big.iso", 3_000_000_000),
    ("empty file", 0),
    ("link to file", 3_000_000_000),
    ("q&a \"1\" <x> 'y'.txt", 1024),
    ("\u{fc}bergr\u{f6}\u{df}e-\u{65e5}\u{672c}.txt", 70_000),
];

const BASE: &str = "http://m.example/pub/";

fn base() -> Url {
    Url::parse(BASE).unwrap()
}

fn entries(page: &[u8]) -> Result<BTreeMap<String, ListedEntry>, ListingError> {
    let mut found = BTreeMap::new();
    index(page, &base(), &mut |name, entry| {
        found.insert(String::from_utf8_lossy(name).into_owned(), entry);
    })?;
    Ok(found)
}

fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/listings/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn the_indexes_of_real_servers_have_every_file() {
    // Whether the index has sizes, and whether they are exact.
    for (name, has_sizes, is_exact) in [
        ("nginx.html", true, true),
        ("nginx.json", true, true),
        ("nginx-rounded.html", true, false),
        ("apache-fancy.html", true, false),
        ("apache-table.html", true, false),
        ("apache-plain.html", false, false),
        ("caddy.html", false, false),
        ("caddy.json", true, true),
        ("lighttpd.html", true, false),
        ("fingerpost.html", false, false),
        ("fingerpost.json", true, true),
    ] {
        let mut found = entries(&data(name)).unwrap();
        for (file, size) in FILES {
            let Some(ListedEntry::File(listed)) = found.remove(file) else {
                panic!("{name}: {file}: {found:?}")
            };
            assert!(listed.may_be(size), "{name}: {file}: {listed:?}");
            if is_exact {
                assert_eq!(listed, ListedSize::exact(size), "{name}: {file}");
            } else if has_sizes && size > 10_000 {
                // nginx rounds 1.5 MB to 1M.
                assert!(!listed.may_be(size * 2), "{name}: {file}: {listed:?}");
            } else if !has_sizes {
                assert_eq!(listed, ListedSize::UNKNOWN, "{name}: {file}");
            }
        }
        assert_eq!(found.remove("sub folder"), Some(ListedEntry::Folder), "{name}");
        assert_eq!(found.remove("link to folder"), Some(ListedEntry::Folder), "{name}");
        assert_eq!(found, BTreeMap::new(), "{name}");
    }
}

#[test]
fn the_lines_of_rsync_have_every_file() {
    for name in ["rsync.txt", "rsync-escaped.txt"] {
        let text = data(name);
        let lines = text.split(|byte| *byte == b'\n').filter_map(line);
        let mut found: BTreeMap<String, ListedEntry> =
            lines.map(|(path, entry)| (String::from_utf8(path).unwrap(), entry)).collect();
        for (file, size) in FILES.into_iter().filter(|(file, _)| *file != "link to file") {
            assert_eq!(
                found.remove(file),
                Some(ListedEntry::File(ListedSize::exact(size))),
                "{name}: {file}"
            );
        }
        for folder in [".", "sub folder", "sub folder/inner"] {
            assert_eq!(found.remove(folder), Some(ListedEntry::Folder), "{name}: {folder}");
        }
        for link in ["link to file", "link to folder"] {
            assert_eq!(found.remove(link), Some(ListedEntry::Link), "{name}: {link}");
        }
        let inner = |size| ListedEntry::File(ListedSize::exact(size));
        let rest = [("sub folder/inner file", inner(7)), ("sub folder/inner/deep", inner(8))];
        assert_eq!(found, rest.map(|(path, entry)| (path.to_owned(), entry)).into());
    }
}

#[test]
fn links_to_other_places_are_ignored() {
    let page = r##"<a>x</a><a href="../">up</a><a href=/pub/>self</a><A HREF = "/pub/ok">ok</A><a href="?C=N">sort</a>
        <a href="//evil.example/pub/a">a</a><a href="https://m.example/pub/b">b</a><a href="http://m.example:81/pub/c">c</a>
        <a href="x/y">deep</a><a href="x/../../etc">etc</a><a href="..%2fz">z</a><a href="%2e%2e/">dots</a><a href="javascript:x">j</a>
        <a href="a%00b">nul</a><a href="#top">top</a><a class=x href='two/' href="three">2</a><a href="&#x61;&amp;&#39;&bad;&">e</a>
        <abbr href="no">no</abbr><a href="%FF">bytes</a><a href="unclosed"##;
    let found = entries(page.as_bytes()).unwrap();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["a&'&bad;&", "ok", "two", "unclosed", "\u{fffd}"]);
    assert_eq!(found["two"], ListedEntry::Folder);
}

#[test]
fn a_hostile_listing_is_an_error_or_has_no_effect() {
    let long = "x".repeat(10_000_000);
    for page in [
        format!("<a href=\"{long}\">x</a>"),
        format!("[{{\"name\":\"{long}\"}}]"),
        format!("[{{\"name\":\"x\",\"url\":\"{long}\"}}]"),
    ] {
        let message = entries(page.as_bytes()).unwrap_err().to_string();
        assert!(message.contains("at most 4096 are read"), "{message}");
    }
    for (page, expected) in [
        ("[1]", "the JSON is no array of files"),
        ("[{\"name\":\"x\"}", "the JSON is no array of files"),
        ("[{\"name\":\"x\",\"size\":-1}]", "the JSON is no array of files"),
        ("{\"a\":1}", "neither HTML nor JSON"),
        ("\u{1f}\u{8b}", "neither HTML nor JSON"),
    ] {
        let message = entries(page.as_bytes()).unwrap_err().to_string();
        assert!(message.contains(expected), "{page}: {message}");
    }
    let nested = "[".repeat(1_000_000);
    assert!(entries(nested.as_bytes()).is_err());
    assert_eq!(entries(b""), Ok(BTreeMap::new()));
    assert_eq!(entries(format!("<{long}").as_bytes()), Ok(BTreeMap::new()));
    assert_eq!(
        line(format!("-rw-r--r-- 1 2026/01/01 10:00:00 {long}").as_bytes()).unwrap().0.len(),
        long.len()
    );
}

#[test]
fn a_rounded_size_fits_to_the_sizes_that_programs_round_to_it() {
    for (text, fitting, other) in [
        ("0", &[0][..], &[1][..]),
        ("1536", &[1536], &[1535, 1537]),
        ("1.5K", &[1500, 1536, 1580], &[1300, 1700]),
        ("1.5KiB", &[1536], &[1700]),
        ("12M", &[12_000_000, 12_582_912, 13_000_000], &[10_000_000, 14_000_000]),
        ("2.8G", &[3_000_000_000], &[2_600_000_000, 3_200_000_000]),
        ("1K", &[1, 973, 1500], &[3000]),
    ] {
        let size = ListedSize::parse(text).unwrap();
        assert!(fitting.iter().all(|fitting| size.may_be(*fitting)), "{text}: {size:?}");
        assert!(!other.iter().any(|other| size.may_be(*other)), "{text}: {size:?}");
    }
    for text in ["-", "", "x", "1.2.3K", "1X", "Directory", ".", "99999999999999999999999"] {
        assert_eq!(ListedSize::parse(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn names_survive_an_index(names in proptest::collection::btree_set("[^/\u{0}]{1,20}", 1..20)) {
        prop_assume!(!names.contains(".") && !names.contains(".."));
        let encode = |name: &String| percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string();
        let html: Vec<String> =
            names.iter().map(|name| format!("<a href=\"{}\">x</a> 01-Jan-2026 10:00 7\n", encode(name))).collect();
        let html = html.concat();
        let expected: BTreeMap<String, ListedEntry> =
            names.iter().map(|name| (name.clone(), ListedEntry::File(ListedSize::exact(7)))).collect();
        prop_assert_eq!(entries(html.as_bytes()).unwrap(), expected.clone());
        let json: Vec<_> = names.iter().map(|name| serde_json::json!({"name": name, "url": encode(name), "size": 7})).collect();
        prop_assert_eq!(entries(serde_json::to_string(&json).unwrap().as_bytes()).unwrap(), expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes: Vec<u8>,
        page in "(<a href=[\"']?|<a |href|</a>|[\"'<>&;#=]| 10:00 |1.5K|\\[|\\{\"name\":|\"x\"|\\}|\\]|[a-z/.%]){0,60}",
    ) {
        let _ = entries(&bytes);
        let _ = entries(page.as_bytes());
        let _ = line(&bytes);
        let _ = ListedSize::parse(&page);
    }
}
