//! Coarse deadlines of connections that wait for a request: one sweep for each worker instead of a timer for each
//! connection. Pure except for the wakers.

use std::task::Waker;
use std::time::Duration;

/// The longest and the shortest time between two sweeps.
const SWEEPS: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_secs(5);

/// The number of sweeps within the shortest limit. A connection is woken late by at most the time between two sweeps.
const SWEEPS_PER_LIMIT: u32 = 4;

/// The waiting connections of one worker.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// The time between two sweeps.
    period: Duration,
    /// The number of sweeps so far.
    now: u64,
    entries: Vec<Entry>,
    free: Vec<Slot>,
}

#[derive(Debug)]
struct Entry {
    waker: Option<Waker>,
    /// The sweep at which the connection is woken.
    due: u64,
}

/// The number of the entry of a connection.
pub(super) type Slot = u32;

/// The deadline of a connection without a deadline.
const NEVER: u64 = u64::MAX;

impl Deadlines {
    /// Without connections. `shortest` is the shortest limit that any connection will have.
    pub(super) fn new(shortest: Duration) -> Self {
        Self { period: period(shortest), now: 0, entries: Vec::new(), free: Vec::new() }
    }

    /// Changes the shortest limit. Deadlines that are set become earlier or later in proportion.
    pub(super) fn set_shortest(&mut self, shortest: Duration) {
        self.period = period(shortest);
    }

    /// The time between two sweeps.
    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// Adds a connection without a deadline; it stays until [`Deadlines::leave`].
    pub(super) fn enter(&mut self, waker: Waker) -> Slot {
        let entry = Entry { waker: Some(waker), due: NEVER };
        if let Some(slot) = self.free.pop() {
            if let Some(place) = self.entries.get_mut(slot as usize) {
                *place = entry;
            }
            return slot;
        }
        self.entries.push(entry);
        (self.entries.len() - 1) as Slot
    }

    pub(super) fn leave(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            *entry = Entry { waker: None, due: NEVER };
            self.free.push(slot);
        }
    }

    /// Sets the deadline of a connection to the first sweep after `limit` has passed.
    pub(super) fn set(&mut self, slot: Slot, limit: Duration) {
        let sweeps = limit.as_nanos().div_ceil(self.period.as_nanos()) as u64;
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            // The current period has begun already, so it does not count.
            entry.due = self.now.saturating_add(sweeps).saturating_add(1);
        }
    }

    /// Removes the deadline.
    pub(super) fn clear(&mut self, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.due = NEVER;
        }
    }

    /// Whether the deadline of a connection has passed.
    pub(super) fn is_over(&self, slot: Slot) -> bool {
        self.entries.get(slot as usize).is_some_and(|entry| entry.due <= self.now)
    }

    /// Performs one sweep: wakes the connections whose deadline has passed.
    pub(super) fn sweep(&mut self) {
        self.now += 1;
        for entry in self.entries.iter().filter(|entry| entry.due <= self.now) {
            entry.wake();
        }
    }

    /// Wakes every connection.
    pub(super) fn wake_all(&self) {
        self.entries.iter().for_each(Entry::wake);
    }
}

fn period(shortest: Duration) -> Duration {
    (shortest / SWEEPS_PER_LIMIT).clamp(*SWEEPS.start(), *SWEEPS.end())
}

impl Entry {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests;
