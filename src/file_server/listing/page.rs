//! A folder as a page for a person, or as JSON for a program. Pure.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use bytesize::ByteSize;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::Serialize;

use super::folder::{Entries, Entry, Kind, MOST_SHOWN};
use super::view::{Key, Order, View};
use crate::http::pages::{Dress, dress, escape};

/// Everything in a name that might mean something in a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The explanation below the listing of the root.
const ABOUT: &str = "<p>A fingerpost file server: balancers redirect downloads to it. This list is also there \
                     <a href=\"?format=json\">as JSON</a>.</p>\n";

const STYLE: &str = include_str!("listing.css");

/// The last second that a date can name: the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// Where a listing is seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The path of the folder below the root, without slashes at its ends.
    pub(super) path: &'a [u8],
    /// Whether it was asked for as `/`: there, `/files/` is the root once more and not the folder of this name.
    pub(super) is_bare_root: bool,
}

/// An entry with the fields of nginx's autoindex in JSON, so that programs can read both, and its `url`.
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

/// The entries as a JSON array, in their order.
pub(super) fn json(place: Place<'_>, entries: &Entries) -> Bytes {
    let list: Vec<_> = entries
        .list
        .iter()
        .map(|entry| JsonEntry {
            name: String::from_utf8_lossy(&entry.name),
            url: reference(place, entry),
            kind: if entry.kind == Kind::Folder { "directory" } else { "file" },
            modified: httpdate::fmt_http_date(time(entry)),
            size: match entry.kind {
                Kind::Folder => None,
                Kind::File(size) => Some(size),
            },
        })
        .collect();
    // Text and numbers can always be written.
    let mut json = serde_json::to_vec(&list).unwrap_or_default();
    json.push(b'\n');
    json.into()
}

/// The entries as a page, in their order.
pub(super) fn html(place: Place<'_>, view: View, entries: &Entries) -> Bytes {
    let mut title = BytesMut::from("/");
    escape(&String::from_utf8_lossy(place.path), &mut title);
    let mut content = BytesMut::with_capacity(512 + 256 * entries.list.len());
    content.extend_from_slice(b"<table>\n<thead><tr>");
    for (key, word, name) in
        [(Key::Name, "Name", "name"), (Key::Size, "Size", "size"), (Key::Time, "Modified (UTC)", "time")]
    {
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

/// A link to each folder on the way, relative, so that it holds below `/files/` as well.
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

/// The head of a column. The one that is sorted by turns round when it is followed.
fn put_column(html: &mut BytesMut, view: View, key: Key, word: &str, name: &str) {
    let is_sorted_by = view.key == key;
    let turns = is_sorted_by && view.order == Order::Ascending;
    let order = if turns { "desc" } else { "asc" };
    let (state, arrow) = match (is_sorted_by, view.order) {
        (false, _) => ("", ""),
        (true, Order::Ascending) => (" aria-sort=\"ascending\"", " \u{2191}"),
        (true, Order::Descending) => (" aria-sort=\"descending\"", " \u{2193}"),
    };
    let link = format!("<th{state}><a href=\"?sort={name}&amp;order={order}\">{word}</a>{arrow}</th>");
    html.extend_from_slice(link.as_bytes());
}

/// The relative reference to an entry, percent-encoded.
fn reference(place: Place<'_>, entry: &Entry) -> String {
    let is_hidden_by_prefix = place.is_bare_root && entry.kind == Kind::Folder && entry.name == b"files";
    let prefix = if is_hidden_by_prefix { "files/" } else { "" };
    format!("{prefix}{}{}", percent_encode(&entry.name, ESCAPED), slash(entry))
}

fn slash(entry: &Entry) -> &'static str {
    if entry.kind == Kind::Folder { "/" } else { "" }
}

fn put_entry(html: &mut BytesMut, place: Place<'_>, entry: &Entry) {
    html.extend_from_slice(format!("<tr><td><a href=\"{}\">", reference(place, entry)).as_bytes());
    escape(&String::from_utf8_lossy(&entry.name), html);
    html.extend_from_slice(format!("{}</a>", slash(entry)).as_bytes());
    let size = match entry.kind {
        Kind::Folder => "<td>".to_owned(),
        Kind::File(size) => format!("<td title=\"{size} bytes\">{}", ByteSize::b(size).display().iec()),
    };
    let date = humantime::format_rfc3339_seconds(time(entry)).to_string();
    let date: String = date.replace('T', " ").trim_end_matches('Z').to_owned();
    html.extend_from_slice(format!("{size}<td>{date}\n").as_bytes());
}

/// When an entry was modified, within the years that a date can name.
fn time(entry: &Entry) -> SystemTime {
    let seconds = u64::try_from(entry.modified).unwrap_or(0).min(LAST_SECOND);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(path: &str, name: &[u8], kind: Kind) -> String {
        let list = vec![Entry { name: name.to_owned(), kind, modified: 784_111_777 }];
        let place = Place { path: path.as_bytes(), is_bare_root: path.is_empty() };
        let html = html(place, View::default(), &Entries { list, is_cut: false });
        String::from_utf8(html.to_vec()).unwrap()
    }

    #[test]
    fn an_entry_says_name_size_and_date() {
        let html = page("sub/deep", b"a b.iso", Kind::File(1_234_567));
        let row = "<tr><td><a href=\"a%20b.iso\">a b.iso</a><td title=\"1234567 bytes\">1.2 MiB<td>1994-11-06 08:49:37\n";
        assert!(html.contains(row), "{html}");
        let heading = "<h1><a href=\"../../\">/</a><a href=\"../\">sub/</a>deep/</h1>";
        assert!(html.contains(heading) && html.contains("<title>/sub/deep</title>"), "{html}");
        assert!(html.contains("<a href=\"../\">../</a>"), "{html}");
        assert!(page("", b"sub", Kind::Folder).contains("<a href=\"sub/\">sub/</a><td><td>"));
    }

    #[test]
    fn a_folder_called_files_is_reached() {
        assert!(page("", b"files", Kind::Folder).contains("<a href=\"files/files/\">files/</a>"));
        assert!(page("", b"files", Kind::File(0)).contains("<a href=\"files\">"));
        assert!(page("sub", b"files", Kind::Folder).contains("<a href=\"files/\">"));
    }

    #[test]
    fn a_folder_that_is_cut_says_so() {
        let place = Place { path: b"", is_bare_root: true };
        let of = |is_cut| html(place, View::default(), &Entries { list: Vec::new(), is_cut });
        let text = |html: Bytes| String::from_utf8(html.to_vec()).unwrap();
        assert!(text(of(true)).contains("10000 entries"));
        assert!(text(of(false)).contains("empty"));
    }

    #[test]
    fn json_has_the_fields_of_nginx_and_a_url() {
        let entry = |name: &[u8], kind, modified| Entry { name: name.to_owned(), kind, modified };
        let list = vec![entry(b"sub", Kind::Folder, -1), entry(b"a\"\xff", Kind::File(7), 784_111_777)];
        let place = Place { path: b"", is_bare_root: true };
        assert_eq!(
            json(place, &Entries { list, is_cut: false }),
            "[{\"name\":\"sub\",\"url\":\"sub/\",\"type\":\"directory\",\"mtime\":\"Thu, 01 Jan 1970 00:00:00 GMT\"},\
             {\"name\":\"a\\\"\u{fffd}\",\"url\":\"a%22%FF\",\"type\":\"file\",\"mtime\":\"Sun, 06 Nov 1994 08:49:37 GMT\",\"size\":7}]\n"
        );
    }

    /// How many tags, quotes and ampersands a page has.
    fn markup(html: &str) -> [usize; 4] {
        ["<", ">", "\"", "'"].map(|mark| html.matches(mark).count())
    }

    proptest! {
        #[test]
        fn no_name_adds_markup(name in "[^/\\x00-\\x1f\\x7f.][^/\\x00-\\x1f\\x7f]{0,30}", marks in "[<>&\"'{}]{0,9}") {
            let name = format!("n{marks}{name}");
            let plain = page("sub", b"plain", Kind::File(0));
            for (path, name, usual) in [("sub", &*name, plain.clone()), (&*name, "plain", plain)] {
                prop_assert_eq!(markup(&page(path, name.as_bytes(), Kind::File(0))), markup(&usual));
            }
        }

        #[test]
        fn every_link_leads_back_to_its_name(name: Vec<u8>, modified: i64, size: u64) {
            let html = page("sub", &name, Kind::File(size));
            let start = html.rfind("<a href=\"").unwrap() + 9;
            let link = &html[start..start + html[start..].find('"').unwrap()];
            let path = format!("/sub/{link}");
            if crate::file_server::path::is_served_name(&name) && !name.iter().any(|byte| matches!(byte, 0 | b'/')) {
                let found = crate::file_server::path::parse(&path).unwrap();
                prop_assert_eq!(&found.bytes[4..], &name[..]);
            }
            let entry = Entry { name, kind: Kind::File(size), modified };
            let list = Entries { list: vec![entry], is_cut: true };
            let place = Place { path: b"sub", is_bare_root: false };
            let json: serde_json::Value = serde_json::from_slice(&json(place, &list)).unwrap();
            prop_assert_eq!(json[0]["url"].as_str(), Some(link));
        }
    }
}
