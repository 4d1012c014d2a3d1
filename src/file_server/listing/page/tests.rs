use proptest::prelude::*;

use super::*;

fn page(path: &str, name: &[u8], kind: EntryKind) -> String {
    let list = vec![FolderEntry { name: name.to_owned(), kind, modified: 784_111_777 }];
    let place = ListingContext { path: path.as_bytes(), is_bare_root: path.is_empty() };
    let html = html(place, View::default(), &Entries { list, is_cut: false });
    String::from_utf8(html.to_vec()).unwrap()
}

#[test]
fn a_row_has_name_size_and_date() {
    let html = page("sub/deep", b"a b.iso", EntryKind::File(1_234_567));
    let row = "<tr><td><a href=\"a%20b.iso\">a b.iso</a><td title=\"1234567 bytes\">1.2 MiB<td>1994-11-06 08:49:37\n";
    assert!(html.contains(row), "{html}");
    let heading = "<h1><a href=\"../../\">/</a><a href=\"../\">sub/</a>deep/</h1>";
    assert!(html.contains(heading) && html.contains("<title>/sub/deep</title>"), "{html}");
    assert!(html.contains("<a href=\"../\">../</a>"), "{html}");
    assert!(page("", b"sub", EntryKind::Folder).contains("<a href=\"sub/\">sub/</a><td><td>"));
}

#[test]
fn a_folder_called_files_is_linked() {
    assert!(page("", b"files", EntryKind::Folder).contains("<a href=\"files/files/\">files/</a>"));
    assert!(page("", b"files", EntryKind::File(0)).contains("<a href=\"files\">"));
    assert!(page("sub", b"files", EntryKind::Folder).contains("<a href=\"files/\">"));
}

#[test]
fn an_incomplete_page_has_a_note() {
    let place = ListingContext { path: b"", is_bare_root: true };
    let of = |is_cut| html(place, View::default(), &Entries { list: Vec::new(), is_cut });
    let text = |html: Bytes| String::from_utf8(html.to_vec()).unwrap();
    assert!(text(of(true)).contains("10000 entries"));
    assert!(text(of(false)).contains("empty"));
}

#[test]
fn json_has_the_fields_of_nginx_and_a_url() {
    let entry = |name: &[u8], kind, modified| FolderEntry { name: name.to_owned(), kind, modified };
    let list = vec![entry(b"sub", EntryKind::Folder, -1), entry(b"a\"\xff", EntryKind::File(7), 784_111_777)];
    let place = ListingContext { path: b"", is_bare_root: true };
    assert_eq!(
        json(place, &Entries { list, is_cut: false }),
        "[{\"name\":\"sub\",\"url\":\"sub/\",\"type\":\"directory\",\"mtime\":\"Thu, 01 Jan 1970 00:00:00 GMT\"},\
             {\"name\":\"a\\\"\u{fffd}\",\"url\":\"a%22%FF\",\"type\":\"file\",\"mtime\":\"Sun, 06 Nov 1994 08:49:37 GMT\",\"size\":7}]\n"
    );
}

/// The numbers of tags, quotes and ampersands in a page.
fn markup(html: &str) -> [usize; 4] {
    ["<", ">", "\"", "'"].map(|mark| html.matches(mark).count())
}

proptest! {
    #[test]
    fn no_name_adds_markup(name in "[^/\\x00-\\x1f\\x7f.][^/\\x00-\\x1f\\x7f]{0,30}", marks in "[<>&\"'{}]{0,9}") {
        let name = format!("n{marks}{name}");
        let plain = page("sub", b"plain", EntryKind::File(0));
        for (path, name, usual) in [("sub", &*name, plain.clone()), (&*name, "plain", plain)] {
            prop_assert_eq!(markup(&page(path, name.as_bytes(), EntryKind::File(0))), markup(&usual));
        }
    }

    #[test]
    fn every_link_decodes_to_its_name(name: Vec<u8>, modified: i64, size: u64) {
        let html = page("sub", &name, EntryKind::File(size));
        let start = html.rfind("<a href=\"").unwrap() + 9;
        let link = &html[start..start + html[start..].find('"').unwrap()];
        let path = format!("/sub/{link}");
        if crate::file_server::path::is_served_name(&name) && !name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            let found = crate::file_server::path::parse(&path).unwrap();
            prop_assert_eq!(&found.bytes[4..], &name[..]);
        }
        let entry = FolderEntry { name, kind: EntryKind::File(size), modified };
        let list = Entries { list: vec![entry], is_cut: true };
        let place = ListingContext { path: b"sub", is_bare_root: false };
        let json: serde_json::Value = serde_json::from_slice(&json(place, &list)).unwrap();
        prop_assert_eq!(json[0]["url"].as_str(), Some(link));
    }
}
