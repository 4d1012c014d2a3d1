//! The statistics for operators: as JSON from the admin listener, as text and CSV from `fingerpost stats`.

use std::collections::HashMap;
use std::fmt::Write as _;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::day::{DayStatistics, DownloadCount};

/// The names for which downloads are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grouping {
    #[default]
    File,
    Directory,
    Server,
    Day,
}

/// The content of `/api/v1/stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatisticsReport {
    /// The first day, such as `2026-12-24` (UTC).
    pub(crate) from: String,
    /// The last day.
    pub(crate) to: String,
    /// The meaning of the names in `rows`.
    pub(crate) by: Grouping,
    /// All downloads.
    #[serde(flatten)]
    pub(crate) all: DownloadCount,
    /// The counts, largest first; days in order.
    pub(crate) rows: Vec<StatisticsRow>,
}

/// The downloads of a file, directory, server or day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatisticsRow {
    /// Its name.
    pub(crate) name: String,
    /// The counts.
    #[serde(flatten)]
    pub(crate) count: DownloadCount,
}

impl StatisticsReport {
    /// The report of these days, which must not be empty, with at most `limit` rows.
    pub(super) fn of(days: &[(String, &DayStatistics)], by: Grouping, limit: usize) -> Self {
        let mut all = DownloadCount::default();
        let mut counts: HashMap<&str, DownloadCount> = HashMap::new();
        for (date, day) in days {
            all.add(day.all);
            let mut add = |name, count| counts.entry(name).or_default().add(count);
            let names = match by {
                Grouping::File => &day.files,
                Grouping::Directory => &day.directories,
                Grouping::Server => &day.servers,
                Grouping::Day => {
                    add(date, day.all);
                    continue;
                }
            };
            names.counts().for_each(|(name, count)| add(name, count));
        }
        let mut rows: Vec<(&str, DownloadCount)> = counts.into_iter().collect();
        if by == Grouping::Day {
            rows.sort_unstable_by_key(|(name, _)| *name);
        } else {
            rows.sort_unstable_by_key(|(name, count)| (u64::MAX - count.downloads, *name));
        }
        rows.truncate(limit);
        let date =
            |day: Option<&(String, &DayStatistics)>| day.map(|(date, _)| date.clone()).unwrap_or_default();
        let row = |(name, count): (&str, DownloadCount)| StatisticsRow { name: name.to_owned(), count };
        Self {
            from: date(days.first()),
            to: date(days.last()),
            by,
            all,
            rows: rows.into_iter().map(row).collect(),
        }
    }

    /// The report as a table.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let Self { from, to, all, rows, .. } = self;
        let size = |count: &DownloadCount| ByteSize::b(count.bytes).display().si().to_string();
        let mut text = format!("{from} to {to}: {} downloads, {}\n", all.downloads, size(all));
        for StatisticsRow { name, count } in rows {
            // The name may contain text of a client, which must not send control characters to the terminal.
            let _ = writeln!(text, "{:>12}  {:>10}  {}", count.downloads, size(count), name.escape_debug());
        }
        text
    }

    /// The rows as CSV (RFC 4180).
    #[must_use]
    pub(crate) fn csv(&self) -> String {
        let mut text = "name,downloads,bytes\r\n".to_owned();
        for StatisticsRow { name, count: DownloadCount { downloads, bytes } } in &self.rows {
            let _ = write!(text, "\"{}\",{downloads},{bytes}\r\n", name.replace('"', "\"\""));
        }
        text
    }
}

/// The most frequent files of a day, for the page.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TopFiles {
    /// All downloads of the day, or samples of them.
    pub(crate) all: u64,
    /// Whether the counts are those of samples.
    pub(crate) is_sampled: bool,
    /// The files, most frequent first.
    pub(crate) files: Vec<StatisticsRow>,
}

#[cfg(test)]
mod tests {
    use super::super::Download;
    use super::*;

    #[test]
    fn days_are_added() {
        let mut days = [DayStatistics::default(), DayStatistics::default()];
        let download = |path| Download { path, client: None, server: 1, bytes: 500, is_part: false };
        days[0].count(&download(b"/a/\"x\""), "http://one:80");
        days[1].count(&download(b"/a/\"x\""), "http://two:80");
        days[1].count(&download(b"/b/\x1by"), "http://two:80");
        let days = [("2026-01-01".to_owned(), &days[0]), ("2026-01-02".to_owned(), &days[1])];
        let names = |by, limit| {
            let rows = StatisticsReport::of(&days, by, limit).rows.into_iter();
            rows.map(|row| (row.name, row.count.downloads)).collect::<Vec<_>>()
        };
        assert_eq!(names(Grouping::File, 9), [("/a/\"x\"".to_owned(), 2), ("/b/\u{1b}y".to_owned(), 1)]);
        assert_eq!(names(Grouping::Directory, 1), [("/a".to_owned(), 2)]);
        assert_eq!(names(Grouping::Server, 1), [("http://two:80".to_owned(), 2)]);
        assert_eq!(names(Grouping::Day, 9), [("2026-01-01".to_owned(), 1), ("2026-01-02".to_owned(), 2)]);
        let report = StatisticsReport::of(&days, Grouping::File, 9);
        assert!(
            report.text().starts_with("2026-01-01 to 2026-01-02: 3 downloads, 1.5 kB\n"),
            "{}",
            report.text()
        );
        assert!(report.text().ends_with("  /b/\\u{1b}y\n"), "{}", report.text());
        assert!(
            report.csv().starts_with("name,downloads,bytes\r\n\"/a/\"\"x\"\"\",2,1000\r\n"),
            "{}",
            report.csv()
        );
    }
}
