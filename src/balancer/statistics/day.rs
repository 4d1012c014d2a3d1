//! The counts of one day in bounded memory. Pure.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Download;
use crate::balancer::catalogue::parent;
use crate::balancer::policy::digest;

/// The number of files, directories and servers that are counted at least. Twice as many fit.
const MOST_FILES: usize = 10_000;
const MOST_DIRECTORIES: usize = 2000;
const MOST_SERVERS: usize = 4096;

/// The time in which further parts of a file count as the same download, in seconds.
const SAME_DOWNLOAD: u64 = 600;

/// The number of remembered downloads, of which a second generation may exist.
const MOST_REMEMBERED: usize = 1 << 17;

/// Downloads and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DownloadCount {
    /// The number of downloads.
    pub(crate) downloads: u64,
    /// The sizes of their files.
    pub(crate) bytes: u64,
}

impl DownloadCount {
    /// Adds the counts of `other`.
    pub(crate) fn add(&mut self, other: Self) {
        self.downloads = self.downloads.saturating_add(other.downloads);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// The counts of one day (UTC).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DayStatistics {
    /// All downloads.
    pub(super) all: DownloadCount,
    pub(super) files: TopNames,
    pub(super) directories: TopNames,
    pub(super) servers: TopNames,
}

impl DayStatistics {
    /// Counts a download from the server with this address.
    pub(super) fn count(&mut self, download: &Download<'_>, server: &str) {
        let count = DownloadCount { downloads: 1, bytes: download.bytes };
        let path = String::from_utf8_lossy(download.path);
        let directory = String::from_utf8_lossy(parent(download.path));
        let directory = if directory.is_empty() { Cow::Borrowed("/") } else { directory };
        self.all.add(count);
        self.files.add(&path, count, MOST_FILES);
        self.directories.add(&directory, count, MOST_DIRECTORIES);
        self.servers.add(server, count, MOST_SERVERS);
    }
}

/// The counts of the most frequent names.
///
/// If there are too many names, those with the smallest counts are forgotten. A name that appears again starts at 0, but ranks
/// as if it had the count of the forgotten ones. So no count is too large, and a frequent name is never missed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopNames {
    names: HashMap<Box<str>, RankedCount>,
    /// The largest rank of a forgotten name.
    forgotten: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct RankedCount {
    #[serde(flatten)]
    count: DownloadCount,
    /// The largest number of downloads before the first counted one.
    missed: u64,
}

impl RankedCount {
    fn rank(&self) -> u64 {
        self.count.downloads.saturating_add(self.missed)
    }
}

impl TopNames {
    /// Counts downloads of a name. Keeps the names of at least `most` counts.
    fn add(&mut self, name: &str, count: DownloadCount, most: usize) {
        if let Some(known) = self.names.get_mut(name) {
            known.count.add(count);
            return;
        }
        if self.names.len() >= 2 * most {
            self.forget(most);
        }
        self.names.insert(name.into(), RankedCount { count, missed: self.forgotten });
    }

    /// Forgets all but the `most` highest ranks.
    fn forget(&mut self, most: usize) {
        let mut ranks: Vec<u64> = self.names.values().map(RankedCount::rank).collect();
        let Some(last) = ranks.len().checked_sub(most + 1) else { return };
        let (_, limit, above) = ranks.select_nth_unstable(last);
        let limit = *limit;
        let mut equal = most - above.iter().filter(|rank| **rank > limit).count();
        self.names.retain(|_, count| {
            let is_kept = count.rank() > limit || (count.rank() == limit && equal > 0);
            equal -= usize::from(is_kept && count.rank() == limit);
            is_kept
        });
        self.forgotten = limit;
    }

    /// The counts by name.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, DownloadCount)> {
        self.names.iter().map(|(name, ranked)| (&**name, ranked.count))
    }
}

/// The downloads of the last minutes, to recognise further parts of the same download.
#[derive(Debug, Default)]
pub(super) struct RecentDownloads {
    /// The seconds at which downloads were counted, by client and file.
    current: HashMap<u64, u64>,
    before: HashMap<u64, u64>,
    /// The second from which `current` is.
    since: u64,
}

impl RecentDownloads {
    /// Whether the request is a further part of a download that was counted in the last ten minutes. Remembers it otherwise.
    /// `second` must not decrease.
    pub(super) fn is_repeated(&mut self, download: &Download<'_>, second: u64) -> bool {
        let Some(client) = download.client else { return false };
        let client = match client {
            IpAddr::V4(address) => digest(&address.octets()),
            IpAddr::V6(address) => digest(&address.octets()),
        };
        let key = client.rotate_left(1) ^ digest(download.path);
        if self.current.len() >= MOST_REMEMBERED || second - self.since >= SAME_DOWNLOAD {
            self.before = std::mem::take(&mut self.current);
            self.since = second;
        }
        let is_recent = |counted: &u64| second - counted < SAME_DOWNLOAD;
        if download.is_part && self.before.get(&key).is_some_and(is_recent) {
            return true;
        }
        match self.current.entry(key) {
            Entry::Occupied(known) if download.is_part && is_recent(known.get()) => return true,
            Entry::Occupied(mut known) => drop(known.insert(second)),
            Entry::Vacant(new) => drop(new.insert(second)),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(path: &[u8], client: u8) -> Download<'_> {
        let client = Some(IpAddr::from([192, 0, 2, client]));
        Download { path, client, server: 1, bytes: 10, is_part: true }
    }

    #[test]
    fn the_parts_of_a_download_are_counted_once_in_ten_minutes() {
        let mut recent = RecentDownloads::default();
        let whole = Download { is_part: false, ..part(b"/a", 1) };
        assert!(!recent.is_repeated(&whole, 1000));
        assert!(recent.is_repeated(&part(b"/a", 1), 1000));
        assert!(recent.is_repeated(&part(b"/a", 1), 1599));
        assert!(!recent.is_repeated(&whole, 1599), "a whole file is another download");
        for other in [part(b"/b", 1), part(b"/a", 2)] {
            assert!(!recent.is_repeated(&other, 1599));
        }
        assert!(recent.is_repeated(&part(b"/a", 1), 2198));
        assert!(!recent.is_repeated(&part(b"/a", 1), 2199));
        let unknown = Download { client: None, ..part(b"/a", 1) };
        assert!(!recent.is_repeated(&unknown, 2200) && !recent.is_repeated(&unknown, 2200));
        let names: Vec<String> = (0..3 * MOST_REMEMBERED).map(|number| number.to_string()).collect();
        for name in &names {
            recent.is_repeated(&part(name.as_bytes(), 1), 3000);
        }
        assert!(recent.current.len() + recent.before.len() <= 2 * MOST_REMEMBERED);
    }

    #[test]
    fn a_day_has_files_directories_and_servers() {
        let mut day = DayStatistics::default();
        day.count(&part(b"/a/x", 1), "http://one:80");
        day.count(&part(b"/a/y", 1), "http://two:80");
        day.count(&part(b"/\xff", 1), "http://two:80");
        let count = |downloads, bytes| DownloadCount { downloads, bytes };
        assert_eq!(day.all, count(3, 30));
        let sorted = |names: &TopNames| {
            let mut counts: Vec<_> = names.counts().map(|(name, count)| (name.to_owned(), count)).collect();
            counts.sort_by(|one, other| one.0.cmp(&other.0));
            counts
        };
        assert_eq!(
            sorted(&day.directories),
            [("/".to_owned(), count(1, 10)), ("/a".to_owned(), count(2, 20))]
        );
        assert_eq!(sorted(&day.files)[2], ("/\u{fffd}".to_owned(), count(1, 10)));
        assert_eq!(sorted(&day.servers)[1], ("http://two:80".to_owned(), count(2, 20)));
        let json = serde_json::to_vec(&day).unwrap();
        assert_eq!(serde_json::from_slice::<DayStatistics>(&json).unwrap(), day);
    }

    proptest::proptest! {
        #[test]
        fn no_count_is_too_large_and_no_frequent_name_is_missed(
            names in proptest::collection::vec(0_u32..400, 0..3000),
            frequent in 0_u32..400,
        ) {
            let (mut top, mut exact) = (TopNames::default(), HashMap::<String, u64>::new());
            for (number, name) in (0_u32..).zip(names) {
                let name = if number % 4 == 0 { frequent } else { name }.to_string();
                top.add(&name, DownloadCount { downloads: 1, bytes: 2 }, 20);
                *exact.entry(name).or_default() += 1;
                proptest::prop_assert!(top.names.len() <= 40);
            }
            for (name, RankedCount { count, missed }) in &top.names {
                let exact = exact[&**name];
                proptest::prop_assert!(count.downloads <= exact && exact <= count.downloads + missed);
                proptest::prop_assert_eq!(count.bytes, count.downloads * 2);
            }
            for (name, exact) in exact {
                proptest::prop_assert!(exact <= top.forgotten || top.names.contains_key(&*name), "{}", name);
            }
        }
    }
}
