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
mod tests;
