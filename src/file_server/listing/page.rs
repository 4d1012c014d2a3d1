//! Formats a folder as an HTML page or as JSON. Pure.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use bytesize::ByteSize;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::Serialize;

use super::folder::{Entries, EntryKind, FolderEntry, MOST_SHOWN};
use super::view::{SortKey, SortOrder, View};
use crate::http::pages::{Dress, dress, escape};

/// All characters that may have a meaning in a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Explanation below the listing of the root.
const ABOUT: &str = "<p>A fingerpost file server: balancers redirect downloads to it. This list is also there \
                     <a href=\"?format=json\">as JSON</a>.</p>\n";

const STYLE: &str = include_str!("listing.css");

/// The last second that the date format supports: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The folder of a listing, and the form of its URL.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListingContext<'a> {
    /// The path of the folder below the root, without slashes at its ends.
    pub(super) path: &'a [u8],
    /// Whether the URL is `/`. Below it, `files/` means the root again and not the folder of this name.
    pub(super) is_bare_root: bool,
}

/// An entry with the fields of nginx's autoindex in JSON, so that programs can read both, and `url`.
#[derive(Serialize)]
struct JsonEntry<'a> {
    /// The name. Bytes that are not UTF-8 are shown as U+FFFD.
    name: Cow<'a, str>,
    /// The percent-encoded reference to the entry, relative to the folder. It is exact for every name.
    url: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "mtime")]
    modified: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

/// Formats the entries as a JSON array, in their order.
pub(super) fn json(place: ListingContext<'_>, entries: &Entries) -> Bytes {
    let list: Vec<_> = entries
        .list
        .iter()
        .map(|entry| JsonEntry {
            name: String::from_utf8_lossy(&entry.name),
            url: reference(place, entry),
            kind: if entry.kind == EntryKind::Folder { "directory" } else { "file" },
            modified: httpdate::fmt_http_date(time(entry)),
            size: match entry.kind {
                EntryKind::Folder => None,
                EntryKind::File(size) => Some(size),
            },
        })
        .collect();
    // Strings and numbers can always be serialized.
    let mut json = serde_json::to_vec(&list).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

/// Formats the entries as a page, in their order.
pub(super) fn html(place: ListingContext<'_>, view: View, entries: &Entries) -> Bytes {
    let mut title = BytesMut::from("/");
    escape(&String::from_utf8_lossy(place.path), &mut title);
    let mut content = BytesMut::with_capacity(512 + 256 * entries.list.len());
    content.extend_from_slice(b"<table>\n<thead><tr>");
    for (key, word, name) in [
        (SortKey::Name, "Name", "name"),
        (SortKey::Size, "Size", "size"),
        (SortKey::Time, "Modified (UTC)", "time"),
    ] {
        put_column(&mut content, view, key, word, name);
    }
    content.extend_from_slice(b"</tr></thead>\n<tbody>\n");
    if !place.path.is_empty() {
        content.extend_from_slice(b"<tr><td><a href=\"../\">../</a><td><td>\n");
    }
    for entry in &entries.list {
        put_entry(&mut content, place, entry);
    }
    content.extend_from_slice(b"</tbody>\n</table>\n");
    if place.path.is_empty() {
        content.extend_from_slice(ABOUT.as_bytes());
    }
    if entries.is_cut {
        content.extend_from_slice(
            format!(
                "<p>Only the first {MOST_SHOWN} entries of this folder are shown, in the order selected above.</p>\n"
            )
            .as_bytes(),
        );
    } else if entries.list.is_empty() {
        content.extend_from_slice(b"<p>This folder is empty.</p>\n");
    }
    dress(&Dress { title: &title, style: STYLE, heading: &crumbs(place.path), content: &content })
}

/// Links to each parent folder. They are relative, so that they are valid below `/files/` too.
fn crumbs(path: &[u8]) -> BytesMut {
    let segments: Vec<_> = path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()).collect();
    let mut html = BytesMut::new();
    for depth in 0..=segments.len() {
        let name = depth.checked_sub(1).and_then(|at| segments.get(at)).copied().unwrap_or_default();
        let up = segments.len() - depth;
        if up > 0 {
            html.extend_from_slice(format!("<a href=\"{}\">", "../".repeat(up)).as_bytes());
        }
        escape(&String::from_utf8_lossy(name), &mut html);
        html.extend_from_slice(if up > 0 { b"/</a>" } else { b"/" });
    }
    html
}

/// Appends the heading of a column. The link of the current sort column reverses the order.
fn put_column(html: &mut BytesMut, view: View, key: SortKey, word: &str, name: &str) {
    let is_sorted_by = view.key == key;
    let turns = is_sorted_by && view.order == SortOrder::Ascending;
    let order = if turns { "desc" } else { "asc" };
    let (state, arrow) = match (is_sorted_by, view.order) {
        (false, _) => ("", ""),
        (true, SortOrder::Ascending) => (" aria-sort=\"ascending\"", " \u{2191}"),
        (true, SortOrder::Descending) => (" aria-sort=\"descending\"", " \u{2193}"),
    };
    let link = format!("<th{state}><a href=\"?sort={name}&amp;order={order}\">{word}</a>{arrow}</th>");
    html.extend_from_slice(link.as_bytes());
}

/// The relative reference to an entry, percent-encoded.
fn reference(place: ListingContext<'_>, entry: &FolderEntry) -> String {
    let is_hidden_by_prefix = place.is_bare_root && entry.kind == EntryKind::Folder && entry.name == b"files";
    let prefix = if is_hidden_by_prefix { "files/" } else { "" };
    format!("{prefix}{}{}", percent_encode(&entry.name, ESCAPED), slash(entry))
}

fn slash(entry: &FolderEntry) -> &'static str {
    if entry.kind == EntryKind::Folder { "/" } else { "" }
}

fn put_entry(html: &mut BytesMut, place: ListingContext<'_>, entry: &FolderEntry) {
    html.extend_from_slice(format!("<tr><td><a href=\"{}\">", reference(place, entry)).as_bytes());
    escape(&String::from_utf8_lossy(&entry.name), html);
    html.extend_from_slice(format!("{}</a>", slash(entry)).as_bytes());
    let size = match entry.kind {
        EntryKind::Folder => "<td>".to_owned(),
        EntryKind::File(size) => format!("<td title=\"{size} bytes\">{}", ByteSize::b(size).display().iec()),
    };
    let date = humantime::format_rfc3339_seconds(time(entry)).to_string();
    let date: String = date.replace('T', " ").trim_end_matches('Z').to_owned();
    html.extend_from_slice(format!("{size}<td>{date}\n").as_bytes());
}

/// The modification time of an entry, limited to the years that the date format supports.
fn time(entry: &FolderEntry) -> SystemTime {
    let seconds = u64::try_from(entry.modified).unwrap_or(0).min(LAST_SECOND);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
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
        let list =
            vec![entry(b"sub", EntryKind::Folder, -1), entry(b"a\"\xff", EntryKind::File(7), 784_111_777)];
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
}
