//! The servers that the clients of a network cannot use, although they are up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use crate::balancer::policy::Timestamp;
use crate::balancer::policy::digest::mix;

/// The time for which a failure is remembered, in [`UNIT`]s: an hour.
const LONGEST: u64 = 900;

/// The unit of time. The count of units wraps after three days.
const UNIT: u64 = Duration::from_secs(4).as_nanos() as u64;

/// Groups of networks, of a cache line each.
const GROUPS: usize = 1 << 13;

/// The failures of a group.
const FAILURES: usize = 8;

/// The evidence from which a server counts as failed: this many retries, if they are more than half of the redirects.
pub(super) const ENOUGH: u64 = 3;

/// The largest count of redirects or retries.
const MOST_COUNTED: u64 = 63;

/// Remembers failures for an hour, by network and server. The memory is fixed; a new failure replaces the oldest one of its
/// group. Of two failures that two workers record at once in one place, one is lost.
#[derive(Debug)]
pub(super) struct FailureMemory {
    groups: Box<[FailureGroup]>,
    /// Whether there has ever been a failure.
    is_used: AtomicBool,
    /// Failures that were replaced before their time.
    replaced: Counter,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct FailureGroup([AtomicU64; FAILURES]);

/// The failures of one network at one server. In a word, from the top: the tag of the network (12 bits), the time of the
/// latest failure (16), the redirects since the first failure (6), the failures (6), and the identity of the server (24).
#[derive(Debug, Clone, Copy)]
struct NetworkFailure {
    tag: u64,
    time: u64,
    redirects: u64,
    failures: u64,
    identity: u32,
}

impl NetworkFailure {
    fn of(word: u64) -> Self {
        Self {
            tag: word >> 52,
            time: (word >> 36) & 0xFFFF,
            redirects: (word >> 30) & MOST_COUNTED,
            failures: (word >> 24) & MOST_COUNTED,
            identity: (word & 0xFF_FFFF) as u32,
        }
    }

    fn word(mut self) -> u64 {
        if self.redirects.max(self.failures) > MOST_COUNTED {
            (self.redirects, self.failures) = (self.redirects / 2, self.failures / 2);
        }
        (self.tag << 52)
            | (self.time << 36)
            | (self.redirects << 30)
            | (self.failures << 24)
            | u64::from(self.identity & 0xFF_FFFF)
    }

    /// The time since the latest failure.
    fn age(self, now: u64) -> u64 {
        now.wrapping_sub(self.time) & 0xFFFF
    }

    fn is_enough(self) -> bool {
        self.failures >= ENOUGH && self.failures * 2 > self.redirects
    }
}

fn units(now: Timestamp) -> u64 {
    (now.0 / UNIT) & 0xFFFF
}

impl FailureMemory {
    pub(super) fn new(replaced: Counter) -> Self {
        let groups = (0..GROUPS).map(|_| FailureGroup::default()).collect();
        Self { groups, is_used: AtomicBool::new(false), replaced }
    }

    /// Whether a failure has ever been recorded.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.is_used.load(Relaxed)
    }

    /// The group of a network, and its tag in it, which is not 0.
    fn group(&self, network: u64) -> Option<(&FailureGroup, u64)> {
        let hash = mix(network);
        Some((self.groups.get(hash as usize % GROUPS)?, (hash >> 52).max(1)))
    }

    /// The servers that the network cannot use, each with the longest time since its latest failure.
    pub(super) fn of(&self, network: u64, now: Timestamp) -> impl Iterator<Item = (u32, Duration)> {
        let group = self.group(network);
        let now = units(now);
        group.into_iter().flat_map(move |(group, tag)| {
            let failures = group.0.iter().map(|word| NetworkFailure::of(word.load(Relaxed)));
            let of_network =
                failures.filter(move |it| it.tag == tag && it.age(now) < LONGEST && it.is_enough());
            of_network.map(move |it| (it.identity, Duration::from_nanos((it.age(now) + 1) * UNIT)))
        })
    }

    /// Records a failure with this weight.
    pub(super) fn record(&self, network: u64, identity: u32, weight: u64, now: Timestamp) {
        let Some((group, tag)) = self.group(network) else { return };
        self.is_used.store(true, Relaxed);
        let now = units(now);
        let is_current = |failure: &NetworkFailure| failure.tag != 0 && failure.age(now) < LONGEST;
        let known = |word: &&AtomicU64| {
            let failure = NetworkFailure::of(word.load(Relaxed));
            is_current(&failure) && failure.tag == tag && failure.identity == identity
        };
        if let Some(word) = group.0.iter().find(known) {
            let failure = NetworkFailure::of(word.load(Relaxed));
            let failures = failure.failures + weight;
            // Enough evidence at once outweighs the redirects before.
            let redirects = if weight >= ENOUGH { 0 } else { failure.redirects };
            word.store(NetworkFailure { failures, redirects, time: now, ..failure }.word(), Relaxed);
            return;
        }
        let age = |word: &&AtomicU64| {
            let failure = NetworkFailure::of(word.load(Relaxed));
            if is_current(&failure) { failure.age(now) } else { u64::MAX }
        };
        let Some(oldest) = group.0.iter().max_by_key(age) else { return };
        if age(&oldest) != u64::MAX {
            self.replaced.inc();
        }
        oldest.store(
            NetworkFailure { tag, time: now, redirects: 1, failures: weight, identity }.word(),
            Relaxed,
        );
    }

    /// Records a redirect of a client of the network to a server that may have failed before.
    pub(super) fn redirected(&self, network: u64, identity: u32) {
        let Some((group, tag)) = self.group(network) else { return };
        for word in &group.0 {
            let failure = NetworkFailure::of(word.load(Relaxed));
            if failure.tag == tag && failure.identity == identity {
                word.store(NetworkFailure { redirects: failure.redirects + 1, ..failure }.word(), Relaxed);
            }
        }
    }
}
