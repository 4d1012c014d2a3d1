//! The messages to listeners: the whole page, or its changes, as server-sent events.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::balancer::admin::page::{CELLS, PagePart, PageView};

impl PageView {
    pub(super) fn has_the_rows_of(&self, other: &Self) -> bool {
        self.rows.len() == other.rows.len()
            && self.rows.iter().zip(&other.rows).all(|(own, other)| own.key == other.key)
    }
}

/// The content of the event `snapshot`.
#[derive(Serialize)]
struct PageSnapshot<'a> {
    rows: Vec<(&'a str, &'a [String; CELLS])>,
    parts: BTreeMap<&'a str, &'a str>,
}

/// The content of the event `changes`.
#[derive(Serialize)]
struct Changes<'a> {
    /// Row, cell, HTML.
    cells: Vec<(usize, usize, &'a str)>,
    parts: BTreeMap<&'a str, &'a str>,
    /// Text for a screen reader.
    #[serde(skip_serializing_if = "str::is_empty")]
    announcement: &'a str,
}

/// The message with the whole page.
pub(super) fn snapshot(view: &PageView) -> Bytes {
    let rows = view.rows.iter().map(|row| (row.key.as_str(), &row.cells)).collect();
    message("snapshot", &PageSnapshot { rows, parts: view.parts.iter().map(named).collect() })
}

/// The message with the changes of a page. It is sent without changes, too: it shows that the balancer runs.
pub(super) fn between(before: &PageView, now: &PageView, announcement: &str) -> Bytes {
    let cells = (0..).zip(before.rows.iter().zip(&now.rows)).flat_map(|(row, (before, now))| {
        let cells = (0..).zip(before.cells.iter().zip(&now.cells));
        cells
            .filter(|(_, (before, now))| before != now)
            .map(move |(cell, (_, now))| (row, cell, now.as_str()))
    });
    let parts = before.parts.iter().zip(&now.parts).filter(|(before, now)| before != now);
    let changes =
        Changes { cells: cells.collect(), parts: parts.map(|(_, now)| named(now)).collect(), announcement };
    message("changes", &changes)
}

fn named((name, html): &PagePart) -> (&str, &str) {
    (name, html)
}

/// A server-sent event. JSON has no line break outside of its strings, and escapes those inside.
fn message(name: &str, content: &impl Serialize) -> Bytes {
    // The content is text and numbers, so serialization cannot fail.
    let json = serde_json::to_string(content).unwrap_or_default();
    format!("event: {name}\ndata: {json}\n\n").into()
}
