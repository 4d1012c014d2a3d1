//! The fields of a load that a pick reads and writes, in 64 bytes.
//!
//! With 100 000 backends a pick spends most of its time waiting for memory, and this layout makes one backend cost one
//! cache line.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Timestamp;
use super::backlog::{Backlog, KNOTS, NewDownload};

/// A report or a download cannot add more work than this in nanoseconds, one hour, so that one absurd report or size does not
/// exclude a backend for days.
pub(super) const MAX_BACKLOG: u64 = Duration::from_hours(1).as_nanos() as u64;

/// The time that one byte takes on one backend, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByteCost {
    /// If the server is idle.
    pub(super) idle: f32,
    /// As the virtual finish time counts it: divided by the weight.
    pub(super) weighted: f32,
    /// Whether the sizes of the unfinished downloads are known, so that a small download does not wait for the end of a large
    /// one. Without reports, only the sum of the work is compared.
    pub(super) by_size: bool,
}

/// The fields that a pick reads and writes.
///
/// A cell keeps its address for the lifetime of its [`BackendLoad`], so all tables write to the same cell.
///
/// Two workers that book on one backend at the same time may lose the shape and the bytes of one download, but neither the
/// redirect nor the work: the finish time is exact. The next report corrects the shape.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct LoadCell {
    /// The time at which the backend will have finished all known work (its virtual finish time).
    finish_time: AtomicU64,
    pub(super) redirects: AtomicU64,
    pub(super) booked: AtomicU64,
    /// The bits of an `f32`, as are all that follow: [`ByteCost::weighted`].
    pub(super) cost: AtomicU32,
    /// [`ByteCost::idle`].
    idle_cost: AtomicU32,
    /// The [`Backlog`] at the last change. The work left at any time follows from `finish_time`. Infinite if the sizes are
    /// not known.
    work: [AtomicU32; KNOTS],
}

fn get(field: &AtomicU32) -> f32 {
    f32::from_bits(field.load(Relaxed))
}

pub(super) fn set(field: &AtomicU32, value: f32) {
    field.store(value.to_bits(), Relaxed);
}

impl LoadCell {
    pub(super) fn reset(&self) {
        self.redirects.store(0, Relaxed);
        self.booked.store(0, Relaxed);
        self.finish_time.store(0, Relaxed);
        self.store(&Backlog::default());
        set(&self.cost, 1.0);
        set(&self.idle_cost, 0.0);
    }

    pub(super) fn copy_from(&self, other: &Self) {
        for (to, from) in [
            (&self.finish_time, &other.finish_time),
            (&self.redirects, &other.redirects),
            (&self.booked, &other.booked),
        ] {
            to.store(from.load(Relaxed), Relaxed);
        }
        for (to, from) in [(&self.cost, &other.cost), (&self.idle_cost, &other.idle_cost)] {
            to.store(from.load(Relaxed), Relaxed);
        }
        self.store(&other.load());
    }

    #[inline]
    pub(super) fn count_redirect(&self) {
        self.redirects.fetch_add(1, Relaxed);
    }

    #[inline]
    pub(super) fn finish_time(&self) -> Timestamp {
        Timestamp(self.finish_time.load(Relaxed))
    }

    #[inline]
    pub(super) fn cost(&self) -> f32 {
        get(&self.cost)
    }

    #[inline]
    pub(super) fn idle_cost(&self) -> f32 {
        get(&self.idle_cost)
    }

    /// Changes the cost of a byte. The bytes of the known work stay the same.
    pub(super) fn set_cost(&self, cost: ByteCost, now: Timestamp) {
        let before = get(&self.cost);
        set(&self.cost, cost.weighted);
        set(&self.idle_cost, cost.idle);
        if !cost.by_size {
            self.store(&Backlog::UNKNOWN);
        }
        if let Some(left) = self.finish_time().0.checked_sub(now.0) {
            let scaled = left as f32 * (cost.weighted / before);
            let change = (scaled as u64).min(MAX_BACKLOG).wrapping_sub(left);
            self.finish_time.fetch_add(change, Relaxed);
        }
    }

    /// The backlog at its last change.
    #[inline]
    fn load(&self) -> Backlog {
        let mut backlog = Backlog::default();
        for (work, field) in backlog.0.iter_mut().zip(&self.work) {
            *work = get(field);
        }
        backlog
    }

    fn store(&self, backlog: &Backlog) {
        for (field, work) in self.work.iter().zip(backlog.0) {
            set(field, work);
        }
    }

    /// The bytes left of the known work, if the finish time is `finish`.
    #[inline]
    pub(super) fn left(&self, finish: Timestamp, now: Timestamp) -> f32 {
        let ahead = finish.0.wrapping_sub(now.0).cast_signed();
        f32::max(ahead as f32, 0.0) / get(&self.cost)
    }

    /// The backlog at `now`, if the finish time is `finish`; `None` if the sizes are unknown.
    #[inline]
    pub(super) fn backlog(&self, finish: Timestamp, now: Timestamp) -> Option<Backlog> {
        let [.., total] = &self.work;
        if get(total).is_infinite() {
            None
        } else if finish <= now {
            // Unless nearly all backends are busy, the chosen one is idle, and the rest of the calculation is saved.
            Some(Backlog::default())
        } else {
            Some(self.load().after(self.left(finish, now)))
        }
    }

    /// Three values of the known work at its last change: at the two knots of the new download, and the total.
    #[inline]
    pub(super) fn work_at(&self, new: &NewDownload) -> [f32; 3] {
        let [low, high] = new.knots;
        [low, high, KNOTS - 1].map(|knot| self.work.get(knot % KNOTS).map_or(0.0, get))
    }

    /// Replaces the known work. An idle backend keeps an earlier finish time, which shows for how long it has been idle.
    pub(super) fn set_backlog(&self, backlog: &Backlog, now: Timestamp) {
        self.store(backlog);
        let nanoseconds = ((backlog.total() * get(&self.cost)) as u64).min(MAX_BACKLOG);
        if nanoseconds == 0 {
            self.finish_time.fetch_min(now.0, Relaxed);
        } else {
            self.finish_time.store(now.0.saturating_add(nanoseconds), Relaxed);
        }
    }

    pub(super) fn set_finish_time(&self, time: Timestamp) {
        self.finish_time.store(time.0, Relaxed);
    }

    /// Moves the finish time to an earlier moment. The caller ensures that it does not become negative.
    pub(super) fn bring_forward(&self, nanoseconds: u64) {
        self.finish_time.fetch_sub(nanoseconds, Relaxed);
    }

    /// Counts a redirect, and adds its download to the known work.
    #[inline]
    pub(super) fn book(&self, size: f32, now: Timestamp) {
        // A processor delays all later reads until these two updates are done, so the slow part follows them.
        self.count_redirect();
        let finish = self.postpone_finish(size, now);
        // Load and store are separate: if two workers book at the same time, one download may not be counted here.
        self.booked.store(self.booked.load(Relaxed).wrapping_add((size as i64).cast_unsigned()), Relaxed);
        if let Some(backlog) = self.backlog(finish, now) {
            self.store(&backlog.with(size));
        }
    }

    /// Adds `count` downloads of `size` bytes each to the known work.
    pub(super) fn add_work(&self, count: f32, size: f32, now: Timestamp) {
        let finish = self.postpone_finish(count * size, now);
        if let Some(backlog) = self.backlog(finish, now) {
            self.store(&backlog.with_several(count, size));
        }
    }

    /// Adds the time for a download to the finish time, and returns the finish time before.
    #[inline]
    fn postpone_finish(&self, size: f32, now: Timestamp) -> Timestamp {
        let nanoseconds = f32::min(size * get(&self.cost), MAX_BACKLOG as f32) as i64;
        let nanoseconds = nanoseconds.cast_unsigned();
        let mut current = self.finish_time.load(Relaxed);
        // An exchange fails only if another worker succeeded. After three failures, losing the idle time since
        // `finish_time` costs less than trying again.
        for _ in 0..3 {
            let later = current.max(now.0).saturating_add(nanoseconds);
            match self.finish_time.compare_exchange_weak(current, later, Relaxed, Relaxed) {
                Ok(_) => return Timestamp(current),
                Err(actual) => current = actual,
            }
        }
        Timestamp(self.finish_time.fetch_add(nanoseconds, Relaxed))
    }
}
