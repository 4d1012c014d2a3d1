//! Sends a client that requests the same file again to another backend, and a GET to the backend of the HEAD before it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::Timestamp;
use super::digest::mix;

mod failures;

use failures::FailureMemory;

/// Remembers for about a minute which backend each client was redirected to for which file.
///
/// A client that requests the file again after 1 to 60 s probably failed at that backend. A client that repeats the
/// request within a second, or more than three times in a row, did not fail: it downloads parts in parallel, or many
/// clients share one address. The policy then chooses freely.
///
/// The memory is fixed. A newer client overwrites an older one in the same slot, so the worst outcome is a retry that is
/// not recognized, or, if two workers write the same slot at once, one that avoids another backend.
///
/// If most clients of a network come back from a backend, or one reports its failure, the network avoids it for an hour.
#[derive(Debug)]
pub(crate) struct RetryAvoidance {
    slots: Box<[Slot]>,
    failures: FailureMemory,
}

/// The evidence for a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureEvidence {
    /// The client requests the same file again.
    Retry,
    /// The client reports it.
    Report,
}

/// The latest redirect of one client.
#[derive(Debug, Default)]
struct Slot {
    /// From the top: the key (19 bits), whether the request was a HEAD (1), the number of retries (2), the time in quarters
    /// of a second (18), and the backend's index in the routing table (24).
    word: AtomicU64,
    /// The identity of the backend, because a change of the list moves the indices.
    identity: AtomicU32,
}

/// One megabyte. At 1 000 redirects per second, a client is overwritten after a minute on average.
const SLOTS: usize = 1 << 16;

const QUARTER_SECOND: u64 = Duration::from_millis(250).as_nanos() as u64;

/// The shortest pause before a retry, in quarters of a second.
const MIN_PAUSE: u64 = 4;

/// The longest pause before a retry, in quarters of a second. A later request is a new download.
const MAX_PAUSE: u64 = 240;

/// The number of retries after which the client counts as several clients. The largest number that the word can hold.
const MAX_RETRIES: u64 = 3;

const KEY_SHIFT: u32 = 45;
const HEAD_SHIFT: u32 = 44;
const RETRIES_SHIFT: u32 = 42;
const TIME_SHIFT: u32 = 24;
const TIME_MASK: u64 = (1 << 18) - 1;
const INDEX_MASK: u64 = (1 << 24) - 1;

/// The result of [`RetryAvoidance::look_up`], to be passed to [`RetryAvoidance::record`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryLookup {
    slot: usize,
    key: u64,
    is_head: bool,
    retries: u64,
    time: u64,
    /// The backend that the client probably failed at; `None` if this is not a retry.
    pub avoid: Option<Visited>,
    /// The backend of the HEAD before this GET; `None` without such a HEAD.
    pub same: Option<Visited>,
}

/// A backend that a client was redirected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visited {
    /// The [`identity`](super::identity) of its authority.
    pub identity: u32,
    /// Its index in the routing table at that time.
    pub index: u32,
}

impl RetryAvoidance {
    /// An empty memory. `replaced` counts failures of networks that were forgotten before their time.
    #[must_use]
    pub(crate) fn new(replaced: Counter) -> Self {
        Self { slots: (0..SLOTS).map(|_| Slot::default()).collect(), failures: FailureMemory::new(replaced) }
    }

    /// Whether a failure of a network has ever been recorded.
    #[inline]
    pub(crate) fn has_failures(&self) -> bool {
        self.failures.is_used()
    }

    /// The identities of the backends that the clients of a network cannot use, each with the longest time since the latest
    /// failure. `network` is a hash of the network.
    pub(crate) fn failures(&self, network: u64, now: Timestamp) -> impl Iterator<Item = (u32, Duration)> {
        self.failures.of(network, now)
    }

    /// Records that a client of the network failed at a backend.
    pub(crate) fn record_failure(
        &self,
        network: u64,
        identity: u32,
        evidence: FailureEvidence,
        now: Timestamp,
    ) {
        let weight = if evidence == FailureEvidence::Report { failures::ENOUGH } else { 1 };
        self.failures.record(network, identity, weight, now);
    }

    /// Records that a client of the network is redirected to a backend.
    pub(crate) fn record_redirect(&self, network: u64, identity: u32) {
        self.failures.redirected(network, identity);
    }

    /// Looks up a client. `key` is a hash of its address and of the requested path; `is_head` means the method HEAD.
    pub(crate) fn look_up(&self, key: u64, is_head: bool, now: Timestamp) -> RetryLookup {
        let key = mix(key);
        let slot = (key as usize) % SLOTS;
        // An empty slot has key 0.
        let key = (key >> KEY_SHIFT).max(1);
        let time = (now.0 / QUARTER_SECOND) & TIME_MASK;
        let mut lookup = RetryLookup { slot, key, is_head, retries: 0, time, avoid: None, same: None };
        let Some(memory) = self.slots.get(slot) else { return lookup };
        let word = memory.word.load(Relaxed);
        if word >> KEY_SHIFT != key {
            return lookup;
        }
        let retries = (word >> RETRIES_SHIFT) & MAX_RETRIES;
        let pause = time.wrapping_sub(word >> TIME_SHIFT) & TIME_MASK;
        let visited = Visited { identity: memory.identity.load(Relaxed), index: (word & INDEX_MASK) as u32 };
        let was_head = (word >> HEAD_SHIFT) & 1 != 0;
        if was_head && !is_head && pause <= MAX_PAUSE {
            lookup.retries = retries;
            lookup.same = Some(visited);
        } else if pause < MIN_PAUSE {
            lookup.retries = MAX_RETRIES;
        } else if pause <= MAX_PAUSE {
            lookup.retries = (retries + 1).min(MAX_RETRIES);
            lookup.avoid = (retries < MAX_RETRIES).then_some(visited);
        }
        lookup
    }

    /// Records the backend that the client is redirected to.
    pub(crate) fn record(&self, lookup: &RetryLookup, visited: Visited) {
        if let Some(slot) = self.slots.get(lookup.slot) {
            let word = (lookup.key << KEY_SHIFT)
                | (u64::from(lookup.is_head) << HEAD_SHIFT)
                | (lookup.retries << RETRIES_SHIFT)
                | (lookup.time << TIME_SHIFT)
                | (u64::from(visited.index) & INDEX_MASK);
            slot.word.store(word, Relaxed);
            slot.identity.store(visited.identity, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
