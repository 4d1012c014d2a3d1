//! A cache of small files in memory, with a limit in bytes.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::found_file::{Content, FoundFile};

/// Upper estimate of the bytes that an entry needs in addition to its file: the path twice, headers, recorded heads,
/// the maps.
const OVERHEAD: u64 = 2048;

/// Files by path. If a new file does not fit, a clock hand evicts entries that were not requested since it passed
/// them last (second chance, Corbató 1968).
#[derive(Debug, Default)]
pub(super) struct Cache {
    limit: u64,
    bytes: u64,
    memfd_copies: usize,
    places: HashMap<Box<[u8]>, usize>,
    ring: Vec<Option<CacheEntry>>,
    free: Vec<usize>,
    hand: usize,
}

#[derive(Debug)]
struct CacheEntry {
    path: Box<[u8]>,
    found: FoundFile,
    checked: Instant,
    was_used: Cell<bool>,
}

impl CacheEntry {
    fn size(&self) -> u64 {
        size(&self.path, &self.found)
    }
}

fn size(path: &[u8], found: &FoundFile) -> u64 {
    let bytes = match &found.content {
        Content::Memory(_) | Content::MemfdCopy(_) => found.meta.identity.length,
        Content::File(_) => 0,
    };
    OVERHEAD + 2 * path.len() as u64 + bytes
}

impl Cache {
    /// An empty cache with a limit in bytes; with 0 it stores nothing.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The file at `path`, and the time since it was last compared with the disk.
    pub(super) fn get(&mut self, path: &[u8], now: Instant) -> Option<(FoundFile, Duration)> {
        let entry = self.entry(path)?;
        entry.was_used.set(true);
        Some((entry.found.clone(), now.saturating_duration_since(entry.checked)))
    }

    /// Records that the file on the disk is still in the cached state.
    pub(super) fn confirm(&mut self, path: &[u8], now: Instant) -> Option<FoundFile> {
        let entry = self.entry(path)?;
        entry.checked = now;
        Some(entry.found.clone())
    }

    /// The number of files that are stored as [`Content::MemfdCopy`].
    pub(super) fn memfd_copies(&self) -> usize {
        self.memfd_copies
    }

    /// Replaces the content of an entry by another representation of the same bytes.
    pub(super) fn keep_as(&mut self, path: &[u8], content: Content) {
        let is_copy = matches!(content, Content::MemfdCopy(_));
        if let Some(entry) = self.entry(path) {
            let was_copy = matches!(entry.found.content, Content::MemfdCopy(_));
            entry.found.content = content;
            self.memfd_copies = self.memfd_copies + usize::from(is_copy) - usize::from(was_copy);
        }
    }

    /// Stores a file in place of an older state of it, and evicts others until it fits. Returns the number of evicted
    /// files.
    pub(super) fn insert(&mut self, path: &[u8], found: FoundFile, now: Instant) -> u64 {
        self.remove(path);
        let size = size(path, &found);
        if size > self.limit {
            return 0;
        }
        let mut evicted = 0;
        while self.bytes + size > self.limit {
            evicted += u64::from(self.evict());
        }
        self.memfd_copies += usize::from(matches!(found.content, Content::MemfdCopy(_)));
        let entry = CacheEntry { path: path.into(), found, checked: now, was_used: Cell::new(false) };
        let place = self.free.pop().unwrap_or_else(|| {
            self.ring.push(None);
            self.ring.len() - 1
        });
        if let Some(slot) = self.ring.get_mut(place) {
            *slot = Some(entry);
            self.places.insert(path.into(), place);
            self.bytes += size;
        }
        evicted
    }

    /// Removes a file.
    pub(super) fn remove(&mut self, path: &[u8]) {
        if let Some(place) = self.places.remove(path) {
            self.clear(place);
        }
    }

    fn entry(&mut self, path: &[u8]) -> Option<&mut CacheEntry> {
        let place = *self.places.get(path)?;
        self.ring.get_mut(place)?.as_mut()
    }

    /// Advances the clock hand by one slot. Returns whether the slot is free now.
    fn evict(&mut self) -> bool {
        let place = self.hand;
        self.hand = if self.hand + 1 < self.ring.len() { self.hand + 1 } else { 0 };
        let Some(Some(entry)) = self.ring.get(place) else { return false };
        if entry.was_used.replace(false) {
            return false;
        }
        let path = entry.path.clone();
        self.places.remove(&path);
        self.clear(place);
        true
    }

    fn clear(&mut self, place: usize) {
        if let Some(entry) = self.ring.get_mut(place).and_then(Option::take) {
            self.bytes -= entry.size();
            self.memfd_copies -= usize::from(matches!(entry.found.content, Content::MemfdCopy(_)));
            self.free.push(place);
        }
    }
}
