//! The load of each backend, as far as this balancer knows it: the policy state that outlives a routing table.
//!
//! The fields that a pick reads and writes lie in cells of 64 bytes, side by side in chunks that all tables share.
//! With 100 000 backends a pick spends most of its time waiting for memory, and this layout makes one backend cost one
//! cache line.

use std::array;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wide::f32x8;

use super::backlog::{Backlog, KNOTS, NewDownload};
use super::{DEFAULT_SIZE, Timestamp};

/// Cells in a chunk.
pub(super) const CHUNK_LEN: usize = 1024;

/// A report or a download cannot add more work than this in nanoseconds, one hour, so that one absurd report or size does not
/// exclude a backend for days.
const MAX_BACKLOG: u64 = Duration::from_hours(1).as_nanos() as u64;

/// The redirects in one record of another balancer cannot add more work than this in nanoseconds, one minute.
const MAX_OTHER_WORK: f32 = 6e10;

/// The load of one backend. HTTP workers update it with each redirect, the ranking with each probe.
///
/// It combines the latest load report with the redirects sent since. Either alone misleads: a report is old after a few
/// redirects, and redirects do not show when a download ends.
#[derive(Debug)]
pub struct BackendLoad {
    cell: CellRef,
    identity: u32,
    number: u32,
    /// The number of redirects that the latest report accounts for.
    reported_redirects: AtomicU64,
    /// Requests in flight according to the latest report, without the probe itself.
    in_flight: AtomicU64,
    /// The time of the latest successful probe, in nanoseconds as in [`Timestamp`].
    probed_at: AtomicU64,
    /// The number of redirects at that time.
    redirects_at_probe: AtomicU64,
    /// The booked bytes at that time.
    booked_at_probe: AtomicU64,
    /// The time until which a load report has the work of other balancers.
    reported_until: AtomicU64,
    /// The redirects of other balancers that no report contained when they became known.
    other_redirects: AtomicU64,
    /// The bytes of their downloads.
    other_bytes: AtomicU64,
}

impl BackendLoad {
    /// Takes over a cell that no other backend uses, and resets it.
    fn new(cell: CellRef, identity: u32, number: u32) -> Self {
        cell.get().reset();
        Self {
            cell,
            identity,
            number,
            reported_redirects: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            probed_at: AtomicU64::new(0),
            redirects_at_probe: AtomicU64::new(0),
            booked_at_probe: AtomicU64::new(0),
            reported_until: AtomicU64::new(0),
            other_redirects: AtomicU64::new(0),
            other_bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn cell_ref(&self) -> &CellRef {
        &self.cell
    }

    pub(super) fn cell(&self) -> &LoadCell {
        self.cell.get()
    }

    /// The number that [`identity`](super::identity) gives the backend's authority.
    #[must_use]
    pub fn identity(&self) -> u32 {
        self.identity
    }

    /// A small number that no other backend of the list has.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Records a redirect that no pick chose, for a download of `size` bytes.
    pub fn record_redirect(&self, size: f32, now: Timestamp) {
        self.cell().book(size, now);
    }

    /// An independent copy of equal number, with a cell of `slab`.
    #[must_use]
    pub fn copy(&self, slab: &mut LoadSlab) -> Arc<Self> {
        let copy = slab.allocate_as(self.identity, Some(self.number));
        copy.cell().copy_from(self.cell());
        for (to, from) in [
            (&copy.reported_redirects, &self.reported_redirects),
            (&copy.in_flight, &self.in_flight),
            (&copy.probed_at, &self.probed_at),
            (&copy.redirects_at_probe, &self.redirects_at_probe),
            (&copy.booked_at_probe, &self.booked_at_probe),
            (&copy.reported_until, &self.reported_until),
            (&copy.other_redirects, &self.other_redirects),
            (&copy.other_bytes, &self.other_bytes),
        ] {
            to.store(from.load(Relaxed), Relaxed);
        }
        copy
    }

    /// The parts that survive a restart.
    pub(crate) fn remember(&self, now: Timestamp) -> RememberedLoad {
        let cell = self.cell();
        let work = cell.backlog(cell.finish_time(), now).unwrap_or_default().0;
        RememberedLoad { redirects: self.redirects(), work, cost: cell.cost() }
    }

    /// Continues the load of an earlier run, remembered `age` ago. The server has sent data since.
    pub(crate) fn restore(&self, remembered: &RememberedLoad, age: Duration, now: Timestamp) {
        let RememberedLoad { redirects: count, work, cost } = *remembered;
        if cost > 0.0 && work.iter().all(|work| (0.0..=f32::MAX).contains(work)) {
            let backlog = Backlog(work);
            let left = f32::max(backlog.total() - age.as_nanos() as f32 / cost, 0.0);
            set(&self.cell().cost, cost);
            self.cell().set_backlog(&backlog.after(left), now);
        }
        self.cell().redirects.store(count, Relaxed);
        self.reported_redirects.store(count, Relaxed);
        self.redirects_at_probe.store(count, Relaxed);
    }

    /// The bytes of all downloads that were redirected to this backend since it joined the list, also by other balancers.
    #[must_use]
    pub fn booked(&self) -> u64 {
        self.own_bytes().saturating_add(self.other_bytes.load(Relaxed))
    }

    /// The same without other balancers.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.cell().booked.load(Relaxed)
    }

    /// The number of redirects of this balancer to this backend since it joined the list.
    #[must_use]
    pub fn redirects(&self) -> u64 {
        self.cell().redirects.load(Relaxed)
    }

    /// The same with other balancers.
    fn all_redirects(&self) -> u64 {
        self.redirects().saturating_add(self.other_redirects.load(Relaxed))
    }

    /// The known work at `now`, and its effect on a new download of `size` bytes; `None` if no policy estimates it.
    #[must_use]
    pub fn booked_work(&self, size: f32, now: Timestamp) -> Option<BookedWork> {
        let cell = self.cell();
        let idle = cell.idle_cost();
        (idle > 0.0).then(|| {
            let left = cell.left(cell.finish_time(), now);
            let new = NewDownload::new(size);
            let [work, ..] =
                new.work_before(cell.work_at(&new).map(f32x8::splat), f32x8::splat(left)).to_array();
            let expected = work * cell.cost() + size * idle;
            BookedWork { bytes: left as u64, expected: Duration::from_nanos(expected as u64) }
        })
    }

    /// An estimate of the requests in flight: those of the latest report, plus the redirects that it cannot include.
    ///
    /// For a backend without reports it is the number of redirects since the latest probe.
    pub fn outstanding(&self) -> u64 {
        let unreported = self.all_redirects().saturating_sub(self.reported_redirects.load(Relaxed));
        self.in_flight.load(Relaxed).saturating_add(unreported)
    }

    /// Records a successful probe that took `took` and ended at `now`. `report` is its load report; `None` without one.
    pub fn record_probe(&self, report: Option<ReportedLoad>, took: Duration, now: Timestamp) {
        // A client reaches the backend about as long after its redirect as a probe takes.
        let contained_until = now.0.saturating_sub(2 * took.as_nanos() as u64);
        self.reconcile(report, Timestamp(contained_until), now);
    }

    /// Records a load report that another balancer received at the time `at`, unless a newer one is known.
    pub fn record_shared_report(&self, report: ReportedLoad, at: Timestamp, now: Timestamp) {
        if at.0 > self.reported_until.load(Relaxed) {
            self.reconcile(Some(report), at, now);
        }
    }

    /// Replaces the known work by that of a report, which contains the redirects until `contained_until`.
    ///
    /// The number of later ones is estimated from the redirect rate since the previous report, and added. Other redirects
    /// that the report does not include never reached the backend or ended: they are dropped.
    fn reconcile(&self, report: Option<ReportedLoad>, contained_until: Timestamp, now: Timestamp) {
        let (redirects, booked) = (self.all_redirects(), self.booked());
        let sent = redirects.saturating_sub(self.redirects_at_probe.swap(redirects, Relaxed)) as f64;
        let bytes = booked.saturating_sub(self.booked_at_probe.swap(booked, Relaxed)) as f64;
        let passed = now.0.saturating_sub(self.probed_at.swap(now.0, Relaxed)).max(1) as f64;
        self.reported_until.store(contained_until.0, Relaxed);
        let Some(report) = report else {
            self.in_flight.store(0, Relaxed);
            self.reported_redirects.store(redirects, Relaxed);
            return;
        };
        let on_the_way = (now.0.saturating_sub(contained_until.0) as f64 / passed).min(1.0);
        let unseen = (sent * on_the_way).round();
        let unseen_bytes = if sent > 0.0 { bytes / sent * unseen } else { 0.0 };
        let in_flight = u64::from(report.in_flight.saturating_sub(1));
        self.in_flight.store(in_flight, Relaxed);
        self.reported_redirects.store(redirects.saturating_sub(unseen as u64), Relaxed);
        let (cell, count) = (self.cell(), in_flight as f32);
        let backlog = cell.backlog(cell.finish_time(), now).unwrap_or_default();
        let mean = || backlog.mean().unwrap_or(if sent > 0.0 { (bytes / sent) as f32 } else { DEFAULT_SIZE });
        let unsent = report.unsent_bytes.map_or_else(|| count * mean(), |bytes| bytes as f32);
        cell.set_backlog(&backlog.reconciled(count + unseen as f32, unsent + unseen_bytes as f32), now);
    }

    /// Records `count` redirects of another balancer, for downloads of `bytes` bytes in all, from the first to the second
    /// time. The part that a load report contains already is left out. The rest is booked at the time at which it
    /// happened, so the backend has worked on it since.
    pub fn record_others(&self, count: u32, bytes: u64, (from, to): (Timestamp, Timestamp)) {
        let known_until = self.reported_until.load(Relaxed).clamp(from.0, to.0.max(from.0));
        let new = to.0.saturating_sub(known_until) as f32 / to.0.saturating_sub(from.0).max(1) as f32;
        let cell = self.cell();
        let most = MAX_OTHER_WORK / get(&cell.cost);
        let (count, bytes) = (count as f32 * new, (bytes as f32 * new).min(most));
        if count > 0.0 {
            cell.add_work(count, bytes / count, Timestamp(known_until.midpoint(to.0)));
            self.other_redirects.fetch_add(count.round() as u64, Relaxed);
            self.other_bytes.fetch_add(bytes as u64, Relaxed);
        }
    }
}

/// The load of a backend according to its report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedLoad {
    /// Unfinished requests, including the probe.
    pub in_flight: u32,
    /// Bytes of unfinished bodies; `None` if the server does not count them.
    pub unsent_bytes: Option<u64>,
}

/// The parts of a [`BackendLoad`] that survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RememberedLoad {
    /// The number of redirects.
    pub(crate) redirects: u64,
    /// The [`Backlog`]; zeros if the sizes are not known.
    #[serde(default)]
    work: [f32; KNOTS],
    /// The cost of a byte in nanoseconds; 0 if it is not known.
    #[serde(default)]
    cost: f32,
}

/// The unfinished downloads of a backend, as the policy expects them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookedWork {
    /// The bytes that are not sent yet.
    pub bytes: u64,
    /// The time that the new download would take.
    pub expected: Duration,
}

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
    redirects: AtomicU64,
    booked: AtomicU64,
    /// The bits of an `f32`, as are all that follow: [`ByteCost::weighted`].
    cost: AtomicU32,
    /// [`ByteCost::idle`].
    idle_cost: AtomicU32,
    /// The [`Backlog`] at the last change. The work left at any time follows from `finish_time`. Infinite if the sizes are
    /// not known.
    work: [AtomicU32; KNOTS],
}

fn get(field: &AtomicU32) -> f32 {
    f32::from_bits(field.load(Relaxed))
}

fn set(field: &AtomicU32, value: f32) {
    field.store(value.to_bits(), Relaxed);
}

impl LoadCell {
    fn reset(&self) {
        self.redirects.store(0, Relaxed);
        self.booked.store(0, Relaxed);
        self.finish_time.store(0, Relaxed);
        self.store(&Backlog::default());
        set(&self.cost, 1.0);
        set(&self.idle_cost, 0.0);
    }

    fn copy_from(&self, other: &Self) {
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
    fn left(&self, finish: Timestamp, now: Timestamp) -> f32 {
        let ahead = finish.0.wrapping_sub(now.0).cast_signed();
        f32::max(ahead as f32, 0.0) / get(&self.cost)
    }

    /// The backlog at `now`, if the finish time is `finish`; `None` if the sizes are unknown.
    #[inline]
    fn backlog(&self, finish: Timestamp, now: Timestamp) -> Option<Backlog> {
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
    fn set_backlog(&self, backlog: &Backlog, now: Timestamp) {
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
    fn add_work(&self, count: f32, size: f32, now: Timestamp) {
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

/// Cells of backends, in the order in which the slab assigned them.
pub(super) struct SlabChunk([LoadCell; CHUNK_LEN]);

impl SlabChunk {
    /// The cell at `index` modulo [`CHUNK_LEN`].
    #[inline]
    pub(super) fn cell(&self, index: usize) -> &LoadCell {
        let [first, ..] = &self.0;
        self.0.get(index % CHUNK_LEN).unwrap_or(first)
    }
}

impl fmt::Debug for SlabChunk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SlabChunk")
    }
}

/// The location of a cell.
#[derive(Debug, Clone)]
pub(super) struct CellRef {
    pub(super) chunk: Arc<SlabChunk>,
    pub(super) index: usize,
    /// The number of the cell in its slab.
    number: u32,
}

impl CellRef {
    #[inline]
    pub(super) fn get(&self) -> &LoadCell {
        self.chunk.cell(self.index)
    }
}

/// Allocates load records. One process uses one slab, so that the cells of all backends fill few chunks.
#[derive(Debug, Default)]
pub struct LoadSlab {
    used: Vec<(CellRef, Weak<BackendLoad>)>,
    free: Vec<CellRef>,
    /// The number of cells.
    cells: u32,
}

impl LoadSlab {
    /// A record without load. `identity` is the [`identity`](super::identity) of the backend's authority.
    ///
    /// The slab reuses a cell after the last [`Arc`] of its record is gone.
    pub fn allocate(&mut self, identity: u32) -> Arc<BackendLoad> {
        self.allocate_as(identity, None)
    }

    /// The same with this number instead of the one of the cell.
    fn allocate_as(&mut self, identity: u32, number: Option<u32>) -> Arc<BackendLoad> {
        if self.free.is_empty() {
            self.reclaim();
        }
        let cell = self.free.pop().unwrap_or_else(|| self.add_chunk());
        let load = Arc::new(BackendLoad::new(cell.clone(), identity, number.unwrap_or(cell.number)));
        self.used.push((cell, Arc::downgrade(&load)));
        load
    }

    fn reclaim(&mut self) {
        let unused = self.used.extract_if(.., |(_, load)| load.strong_count() == 0);
        self.free = unused.map(|(cell, _)| cell).collect();
    }

    /// Adds a chunk and returns its first cell.
    fn add_chunk(&mut self) -> CellRef {
        let chunk = Arc::new(SlabChunk(array::from_fn(|_| LoadCell::default())));
        let first = self.cells;
        self.cells += CHUNK_LEN as u32;
        let cell = |index| CellRef { chunk: Arc::clone(&chunk), index, number: first + index as u32 };
        self.free.extend((1..CHUNK_LEN).rev().map(cell));
        cell(0)
    }
}

#[cfg(test)]
mod tests;
