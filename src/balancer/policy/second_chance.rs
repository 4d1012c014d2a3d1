//! A client that returns for the same file was probably failed by the server it was sent to, unless it had asked with
//! HEAD: then it asks for the file now.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Tick;
use super::digest::mix;

/// Remembers for about a minute which backend each client was sent to for which file.
///
/// Fixed memory: one atomic word per slot, where a newer client overwrites an older one, so that at worst a second
/// chance is missed. A word holds, from the top, the slot's key (19 bits), whether the request was a HEAD (1), the number of
/// returns (2), the time in quarters of a second (18), and the backend (24), by its
/// place in the routing table. An edit of the list can move the places: then one client is treated as a new one, or as that
/// of another backend.
///
/// Who asks again at once, or comes back more than three times in a minute, is not failing: it is a download in
/// parallel parts, or a crowd behind one address. It is then left to the policy.
#[derive(Debug)]
pub struct SecondChance {
    slots: Box<[AtomicU64]>,
}

/// Half a megabyte: at 1 000 redirects a second a client is overwritten after a minute on average.
const SLOTS: usize = 1 << 16;

/// Sooner than this, in quarters of a second, it is no retry.
const SOONEST: u64 = 4;

/// Later than this, in quarters of a second, it is a new download.
const LATEST: u64 = 240;

const KEY_SHIFT: u32 = 45;
const HEAD_SHIFT: u32 = 44;
const RETURNS_SHIFT: u32 = 42;
const TIME_SHIFT: u32 = 24;
const TIME_MASK: u64 = (1 << 18) - 1;
const PLACE_MASK: u64 = (1 << 24) - 1;

/// More returns than this within a minute each are a crowd.
const CROWD: u64 = 3;

/// A client's visit: what [`SecondChance::visit`] found, to be closed with the backend that was chosen.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    slot: usize,
    key: u64,
    is_head: bool,
    returns: u64,
    time: u64,
    /// The backend that the client was sent to before, by its place in the routing table, if this looks like a retry.
    pub avoid: Option<u32>,
    /// The backend that the client was sent to with HEAD, if this is the GET that follows.
    pub same: Option<u32>,
}

impl Default for SecondChance {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl SecondChance {
    /// Looks up the client. `key` is a hash of its address and of the path it asks for; `is_head` is for the method HEAD.
    #[must_use]
    pub fn visit(&self, key: u64, is_head: bool, now: Tick) -> Visit {
        let key = mix(key);
        let slot = (key as usize) % SLOTS;
        // 0 is the mark of an empty slot.
        let key = (key >> KEY_SHIFT).max(1);
        let time = (now.0 / QUARTER) & TIME_MASK;
        let mut visit = Visit { slot, key, is_head, returns: 0, time, avoid: None, same: None };
        let word = self.slots.get(slot).map_or(0, |slot| slot.load(Relaxed));
        if word >> KEY_SHIFT != key {
            return visit;
        }
        let returns = (word >> RETURNS_SHIFT) & CROWD;
        let passed = time.wrapping_sub(word >> TIME_SHIFT) & TIME_MASK;
        let was_head = (word >> HEAD_SHIFT) & 1 != 0;
        if was_head && !is_head && passed <= LATEST {
            visit.returns = returns;
            visit.same = Some((word & PLACE_MASK) as u32);
        } else if passed < SOONEST {
            visit.returns = CROWD;
        } else if passed <= LATEST {
            visit.returns = (returns + 1).min(CROWD);
            visit.avoid = (returns < CROWD).then_some((word & PLACE_MASK) as u32);
        }
        visit
    }

    /// Notes which backend the client was sent to.
    pub fn sent(&self, visit: &Visit, place: u32) {
        if let Some(slot) = self.slots.get(visit.slot) {
            let word = (visit.key << KEY_SHIFT)
                | (u64::from(visit.is_head) << HEAD_SHIFT)
                | (visit.returns << RETURNS_SHIFT)
                | (visit.time << TIME_SHIFT)
                | (u64::from(place) & PLACE_MASK);
            slot.store(word, Relaxed);
        }
    }
}

const QUARTER: u64 = Duration::from_millis(250).as_nanos() as u64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The backend avoided on each visit at these milliseconds, each visit being sent to a backend of its own.
    fn check(visits: &[u64], avoided: &[Option<u32>]) {
        let memory = SecondChance::default();
        let found: Vec<Option<u32>> = (1..)
            .zip(visits)
            .map(|(place, milliseconds)| {
                let visit =
                    memory.visit(7, false, Tick(Duration::from_millis(*milliseconds).as_nanos() as u64));
                memory.sent(&visit, place);
                visit.avoid
            })
            .collect();
        assert_eq!(found, avoided, "{visits:?}");
    }

    #[test]
    fn a_retry_goes_elsewhere() {
        check(&[0, 1_000], &[None, Some(1)]);
        check(&[0, 60_000], &[None, Some(1)]);
        check(&[0, 5_000, 10_000], &[None, Some(1), Some(2)]);
    }

    #[test]
    fn a_new_download_is_no_retry() {
        check(&[0, 61_000], &[None, None]);
    }

    #[test]
    fn parallel_parts_and_crowds_are_left_alone() {
        check(&[0, 100, 200, 5_000], &[None, None, None, None]);
        check(&[0, 2_000, 4_000, 6_000, 8_000], &[None, Some(1), Some(2), Some(3), None]);
    }

    #[test]
    fn a_get_after_a_head_goes_to_the_same_backend() {
        let memory = SecondChance::default();
        let visit = |is_head, seconds| {
            let visit = memory.visit(7, is_head, Tick(Duration::from_secs(seconds).as_nanos() as u64));
            memory.sent(&visit, seconds as u32);
            (visit.same, visit.avoid)
        };
        assert_eq!(visit(true, 0), (None, None));
        assert_eq!(visit(false, 0), (Some(0), None));
        // This GET is a return to the one before, as this HEAD is.
        assert_eq!(visit(false, 2), (None, Some(0)));
        assert_eq!(visit(true, 4), (None, Some(2)));
        assert_eq!(visit(false, 5), (Some(4), None));
        assert_eq!(visit(true, 100), (None, None));
        assert_eq!(visit(false, 161), (None, None));
    }

    #[test]
    fn another_key_is_another_client() {
        let memory = SecondChance::default();
        let visit = memory.visit(1, false, Tick(0));
        memory.sent(&visit, 9);
        let later = Tick(Duration::from_secs(2).as_nanos() as u64);
        assert_eq!(memory.visit(2, false, later).avoid, None);
        assert_eq!(memory.visit(1, false, later).avoid, Some(9));
    }
}
