//! The files of a catalogue that a scan has found. Only paths of the catalogue are stored, so a listing of any length, depth or
//! form needs the memory of one bit for each path of the catalogue.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::listing::{ListedEntry, ListedSize};
use crate::balancer::catalogue::{self, CatalogueEntry};
use crate::balancer::presence::checks::MOST_EXCEPTIONS;
use crate::balancer::presence::generation::Generation;

/// The files that a scan has found, among those of the catalogue at its start.
#[derive(Debug)]
pub(in crate::balancer::presence) struct FoundFiles {
    generation: Arc<Generation>,
    /// A bit for each path of the catalogue, by rank: a listed file of a possible size, or a listed folder.
    listed: Vec<u64>,
    /// The number of these files.
    files: usize,
    /// The sizes of listed files of another size, by key.
    other_sizes: HashMap<u64, u64>,
    /// The keys of folders that are links.
    links: HashSet<u64>,
}

/// The result of a scan for one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::balancer::presence) enum Finding {
    /// It is listed with a possible size.
    Listed,
    /// It is listed with another size.
    OtherSize(u64),
    /// It is not listed.
    Unlisted,
    /// The catalogue of the scan does not have it, or has another content of it.
    Newer,
}

impl FoundFiles {
    pub(super) fn new(generation: Arc<Generation>) -> Self {
        let words = generation.index.paths().div_ceil(64);
        let (other_sizes, links) = (HashMap::new(), HashSet::new());
        Self { generation, listed: vec![0; words], files: 0, other_sizes, links }
    }

    /// The catalogue at the start of the scan.
    pub(in crate::balancer::presence) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The number of files that are listed with a possible size.
    pub(in crate::balancer::presence) fn files(&self) -> usize {
        self.files
    }

    /// Adds a listed path, which starts with a slash. Returns whether it is a folder of the catalogue that was not listed before.
    pub(super) fn add(&mut self, path: &[u8], entry: ListedEntry) -> bool {
        let key = catalogue::key(path);
        let Some(rank) = self.generation.index.find(key).map(|found| found.rank) else { return false };
        let Some(known) = self.generation.catalogue.entry(rank).filter(|known| known.path == path) else {
            return false;
        };
        let size = match entry {
            // Some indexes write the names of folders without a slash.
            ListedEntry::Folder | ListedEntry::File(_) if known.is_folder => return self.mark(rank),
            ListedEntry::Folder => return false,
            ListedEntry::Link if known.is_folder => {
                self.links.insert(key);
                return false;
            }
            ListedEntry::Link => ListedSize::UNKNOWN,
            ListedEntry::File(size) => size,
        };
        if known.content.size.is_none_or(|known| size.may_be(known)) {
            self.files += usize::from(self.mark(rank));
        } else if self.other_sizes.len() < MOST_EXCEPTIONS {
            self.other_sizes.insert(key, size.about());
        }
        false
    }

    /// Sets the bit of a rank; `false` if it was set.
    fn mark(&mut self, rank: u32) -> bool {
        let Some(word) = self.listed.get_mut(rank as usize / 64) else { return false };
        let bit = 1 << (rank % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn is_listed(&self, rank: u32) -> bool {
        self.listed.get(rank as usize / 64).is_some_and(|word| word >> (rank % 64) & 1 != 0)
    }

    /// Adds the files below folders that are links, because the listing does not show them: a server serves them with the content
    /// of the target.
    pub(super) fn finish(mut self) -> Self {
        let generation = Arc::clone(&self.generation);
        for rank in 0..if self.links.is_empty() { 0 } else { generation.index.paths() as u32 } {
            let Some(entry) = generation.catalogue.entry(rank).filter(|entry| !entry.is_folder) else {
                continue;
            };
            let mut folder = catalogue::parent(entry.path);
            while !folder.is_empty() && !self.links.contains(&catalogue::key(folder)) {
                folder = catalogue::parent(folder);
            }
            if !folder.is_empty() {
                self.files += usize::from(self.mark(rank));
            }
        }
        self
    }

    /// The result for a file of the catalogue, which may be newer than the scan.
    pub(in crate::balancer::presence) fn finding(&self, key: u64, file: &CatalogueEntry<'_>) -> Finding {
        let rank = self.generation.index.find(key).map(|found| found.rank);
        let same = |known: &CatalogueEntry<'_>| {
            known.path == file.path && !known.is_folder && known.content.may_equal(&file.content)
        };
        let known = rank.filter(|rank| self.generation.catalogue.entry(*rank).as_ref().is_some_and(same));
        match (known, self.other_sizes.get(&key)) {
            (None, _) => Finding::Newer,
            (Some(rank), _) if self.is_listed(rank) => Finding::Listed,
            (Some(_), Some(size)) => Finding::OtherSize(*size),
            (Some(_), None) => Finding::Unlisted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::balancer::catalogue;

    #[test]
    fn only_files_of_the_catalogue_with_a_fitting_size_are_found() {
        let generation = |list: &str| {
            let catalogue = Arc::new(catalogue::parse(list.as_bytes()).unwrap());
            Generation::next(None, catalogue, [0; 32], 1, &[], SystemTime::UNIX_EPOCH).unwrap()
        };
        let list = r#"[{"path":"a","size":10},{"path":"b","size":10},{"path":"dir/c"},{"path":"link/x/d"},{"path":"e"}]"#;
        let mut found = FoundFiles::new(Arc::new(generation(list)));
        let file = |size| ListedEntry::File(ListedSize::exact(size));
        for (path, entry, is_new_folder) in [
            ("/a", file(10), false),
            ("/a", file(10), false),
            ("/b", file(11), false),
            ("/dir", file(0), true),
            ("/dir", ListedEntry::Folder, false),
            ("/other", ListedEntry::Folder, false),
            ("/dir/../a", file(10), false),
            ("/dir/c", file(5), false),
            ("/link", ListedEntry::Link, false),
            ("/e", ListedEntry::Folder, false),
        ] {
            assert_eq!(found.add(path.as_bytes(), entry), is_new_folder, "{path}");
        }
        assert_eq!(found.files(), 2);
        let found = found.finish();
        assert_eq!(found.files(), 3);
        let later = generation(&list.replace("\"e\"", "\"e\",\"size\":3},{\"path\":\"new\""));
        let finding = |path: &str| {
            found.finding(catalogue::key(path.as_bytes()), &later.catalogue.find(path.as_bytes()).unwrap())
        };
        assert_eq!(
            ["/a", "/b", "/dir/c", "/link/x/d", "/e", "/new"].map(finding),
            [
                Finding::Listed,
                Finding::OtherSize(11),
                Finding::Listed,
                Finding::Listed,
                Finding::Unlisted,
                Finding::Newer
            ]
        );
    }
}
