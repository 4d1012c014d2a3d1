//! Where the ledgers have what a pick reads and writes: side by side, since with many backends what a pick costs is
//! waiting for memory.

use std::array;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use super::{Ledger, Tick};

/// Lines on a page.
pub(in crate::balancer::policy) const PAGE: usize = 1024;

/// Half a cache line for each backend. A line stays where it is as long as its [`Ledger`] lives, so that all tables
/// write to the same one.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(in crate::balancer::policy) struct Line {
    /// The tick at which the work known of will be done, if nothing more is sent (a virtual finish time).
    drained_at: AtomicU64,
    redirects: AtomicU64,
    /// What a [`Cost`] says, as the bits of its numbers.
    delay: AtomicU32,
    pace: AtomicU32,
    service: AtomicU32,
}

/// What one request costs one backend.
#[derive(Debug, Clone, Copy)]
pub(in crate::balancer::policy) struct Cost {
    /// Nanoseconds by which it delays the virtual finish time: `service` by weight.
    pub(in crate::balancer::policy) delay: f32,
    /// Nanoseconds that it takes on the idle server, with prudence.
    pub(in crate::balancer::policy) service: f32,
}

impl Line {
    /// Makes it the line of a backend that was sent nothing.
    pub(super) fn begin(&self) {
        self.redirects.store(0, Relaxed);
        self.drained_at.store(0, Relaxed);
        self.set_cost(Cost { delay: 0.0, service: 0.0 });
    }

    pub(in crate::balancer::policy) fn redirects(&self) -> u64 {
        self.redirects.load(Relaxed)
    }

    /// Notes that one more client was sent there.
    #[inline]
    pub(in crate::balancer::policy) fn redirected(&self) {
        self.redirects.fetch_add(1, Relaxed);
    }

    #[inline]
    pub(in crate::balancer::policy) fn drained_at(&self) -> Tick {
        Tick(self.drained_at.load(Relaxed))
    }

    /// See [`Cost::delay`].
    #[inline]
    pub(in crate::balancer::policy) fn delay(&self) -> f32 {
        f32::from_bits(self.delay.load(Relaxed))
    }

    /// The inverse of the delay.
    #[inline]
    pub(in crate::balancer::policy) fn pace(&self) -> f32 {
        f32::from_bits(self.pace.load(Relaxed))
    }

    /// See [`Cost::service`].
    #[inline]
    pub(in crate::balancer::policy) fn service(&self) -> f32 {
        f32::from_bits(self.service.load(Relaxed))
    }

    pub(in crate::balancer::policy) fn set_cost(&self, cost: Cost) {
        self.delay.store(cost.delay.to_bits(), Relaxed);
        self.pace.store(cost.delay.recip().to_bits(), Relaxed);
        self.service.store(cost.service.to_bits(), Relaxed);
    }

    /// Sets the work known of, in nanoseconds.
    pub(super) fn drain(&self, work: u64, now: Tick) {
        if work == 0 {
            self.drained_at.fetch_min(now.0, Relaxed);
        } else {
            self.drained_at.store(now.0.saturating_add(work), Relaxed);
        }
    }

    pub(in crate::balancer::policy) fn set_drained_at(&self, tick: Tick) {
        self.drained_at.store(tick.0, Relaxed);
    }

    /// Takes so many nanoseconds of the work known of away, which must be no more than there are.
    pub(in crate::balancer::policy) fn bring_forward(&self, nanoseconds: u64) {
        self.drained_at.fetch_sub(nanoseconds, Relaxed);
    }

    /// Puts one more request behind the work known of.
    #[inline]
    pub(in crate::balancer::policy) fn postpone(&self, now: Tick) {
        let delay = self.delay() as u64;
        let mut current = self.drained_at.load(Relaxed);
        // Each failed exchange means that another worker made one. After a few the exact start matters less than the
        // time lost.
        for _ in 0..3 {
            let later = current.max(now.0).saturating_add(delay);
            match self.drained_at.compare_exchange_weak(current, later, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(actual) => current = actual,
            }
        }
        self.drained_at.fetch_add(delay, Relaxed);
    }
}

/// Lines of backends that came into the list together, or took the place of others.
pub(in crate::balancer::policy) struct Page([Line; PAGE]);

impl Page {
    fn new() -> Self {
        Self(array::from_fn(|_| Line::default()))
    }

    /// The line at a place, modulo the length of the page.
    #[inline]
    pub(in crate::balancer::policy) fn line(&self, place: usize) -> &Line {
        let [first, ..] = &self.0;
        self.0.get(place % PAGE).unwrap_or(first)
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Page")
    }
}

/// Where a line is.
#[derive(Debug, Clone)]
pub(in crate::balancer::policy) struct Place {
    pub(in crate::balancer::policy) page: Arc<Page>,
    pub(in crate::balancer::policy) index: usize,
}

impl Place {
    #[inline]
    pub(in crate::balancer::policy) fn line(&self) -> &Line {
        self.page.line(self.index)
    }
}

/// Opens ledgers. One for all backends of a process, so that few pages hold them.
#[derive(Debug, Default)]
pub struct Book {
    taken: Vec<(Place, Weak<Ledger>)>,
    free: Vec<Place>,
}

impl Book {
    /// The ledger of a backend that was sent nothing; `identity` is [`identity`](super::super::identity) of its
    /// authority.
    pub fn open(&mut self, identity: u32) -> Arc<Ledger> {
        if self.free.is_empty() {
            self.take_back();
        }
        let place = self.free.pop().unwrap_or_else(|| self.add_page());
        let ledger = Arc::new(Ledger::new(place.clone(), identity));
        self.taken.push((place, Arc::downgrade(&ledger)));
        ledger
    }

    /// Takes back the lines of ledgers that are gone.
    fn take_back(&mut self) {
        let gone = self.taken.extract_if(.., |(_, ledger)| ledger.strong_count() == 0);
        self.free = gone.map(|(place, _)| place).collect();
    }

    fn add_page(&mut self) -> Place {
        let page = Arc::new(Page::new());
        let place = |index| Place { page: Arc::clone(&page), index };
        self.free.extend((1..PAGE).rev().map(place));
        place(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn lines(ledgers: &[Arc<Ledger>]) -> HashSet<(*const Page, usize)> {
        ledgers.iter().map(|ledger| (Arc::as_ptr(&ledger.place().page), ledger.place().index)).collect()
    }

    #[test]
    fn each_ledger_has_a_line_of_its_own() {
        let mut book = Book::default();
        let ledgers: Vec<_> = (0..3 * PAGE as u32).map(|identity| book.open(identity)).collect();
        assert_eq!(lines(&ledgers).len(), ledgers.len());
        assert!((0..).zip(&ledgers).all(|(identity, ledger)| ledger.identity() == identity));
    }

    #[test]
    fn a_line_is_used_again_once_its_ledger_is_gone_and_begins_anew() {
        let mut book = Book::default();
        let mut ledgers: Vec<_> = (0..PAGE as u32).map(|identity| book.open(identity)).collect();
        let kept = Arc::clone(&ledgers[7]);
        for ledger in &ledgers {
            ledger.line().redirected();
        }
        let before = lines(&ledgers);
        ledgers.clear();
        ledgers.extend((1..PAGE as u32).map(|identity| book.open(identity)));
        assert!(ledgers.iter().all(|ledger| ledger.redirects() == 0));
        assert_eq!(kept.redirects(), 1);
        ledgers.push(kept);
        assert_eq!(lines(&ledgers), before);
    }
}
