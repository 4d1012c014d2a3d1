//! The load of each backend, as far as this balancer knows it: the policy state that outlives a routing table.
//!
//! The fields that a pick reads and writes lie in cells of 32 bytes, side by side in chunks that all tables share.
//! With 100 000 backends a pick spends most of its time waiting for memory, and this layout makes one backend cost one
//! cache line.

use std::array;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Timestamp;

/// Cells in a chunk.
pub(super) const CHUNK_LEN: usize = 1024;

/// A report cannot add more work than this, so that one absurd report does not exclude a backend for days.
const MAX_BACKLOG: Duration = Duration::from_hours(1);

/// The load of one backend. HTTP workers update it with each redirect, the ranking with each probe.
///
/// It combines the latest load report with the redirects sent since. Either alone misleads: a report is old after a few
/// redirects, and redirects do not show when a download ends.
#[derive(Debug)]
pub struct BackendLoad {
    cell: CellRef,
    identity: u32,
    /// The number of redirects that the latest report accounts for.
    reported_redirects: AtomicU64,
    /// Requests in flight according to the latest report, without the probe itself.
    in_flight: AtomicU64,
    /// The time of the latest successful probe, in nanoseconds as in [`Timestamp`].
    probed_at: AtomicU64,
    /// The number of redirects at that time.
    redirects_at_probe: AtomicU64,
}

impl BackendLoad {
    /// Takes over a cell that no other backend uses, and resets it.
    fn new(cell: CellRef, identity: u32) -> Self {
        cell.get().reset();
        Self {
            cell,
            identity,
            reported_redirects: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            probed_at: AtomicU64::new(0),
            redirects_at_probe: AtomicU64::new(0),
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

    /// Records a redirect that no pick chose.
    pub fn record_redirect(&self, now: Timestamp) {
        self.cell().add_request(now);
        self.cell().count_redirect();
    }

    /// An independent copy with a cell of `slab`.
    #[must_use]
    pub fn copy(&self, slab: &mut LoadSlab) -> Arc<Self> {
        let copy = slab.allocate(self.identity);
        copy.cell().copy_from(self.cell());
        for (to, from) in [
            (&copy.reported_redirects, &self.reported_redirects),
            (&copy.in_flight, &self.in_flight),
            (&copy.probed_at, &self.probed_at),
            (&copy.redirects_at_probe, &self.redirects_at_probe),
        ] {
            to.store(from.load(Relaxed), Relaxed);
        }
        copy
    }

    /// Continues the count of an earlier run.
    pub fn restore_redirects(&self, count: u64) {
        self.cell().redirects.store(count, Relaxed);
        self.reported_redirects.store(count, Relaxed);
        self.redirects_at_probe.store(count, Relaxed);
    }

    /// The number of redirects to this backend since it joined the list.
    #[must_use]
    pub fn redirects(&self) -> u64 {
        self.cell().redirects.load(Relaxed)
    }

    /// An estimate of the requests in flight: those of the latest report, plus the redirects that it cannot include.
    ///
    /// For a backend without reports it is the number of redirects since the latest probe.
    pub fn outstanding(&self) -> u64 {
        let unreported = self.redirects().saturating_sub(self.reported_redirects.load(Relaxed));
        self.in_flight.load(Relaxed).saturating_add(unreported)
    }

    /// Records a successful probe that took `took` and ended at `now`. `in_flight` is the number of requests in its
    /// load report, which includes the probe; `None` without a report.
    ///
    /// The report cannot include clients that were redirected during the probe, or so shortly before it that they had
    /// not reached the backend. Their number is estimated from the redirect rate since the previous probe, and added.
    pub fn record_probe(&self, in_flight: Option<u32>, took: Duration, now: Timestamp) {
        let redirects = self.redirects();
        let sent = redirects.saturating_sub(self.redirects_at_probe.swap(redirects, Relaxed)) as f64;
        let passed = now.0.saturating_sub(self.probed_at.swap(now.0, Relaxed)).max(1) as f64;
        let Some(in_flight) = in_flight else {
            self.in_flight.store(0, Relaxed);
            self.reported_redirects.store(redirects, Relaxed);
            return;
        };
        let on_the_way = 2.0 * took.as_nanos() as f64;
        let unseen = (sent * (on_the_way / passed).min(1.0)).round() as u64;
        let in_flight = u64::from(in_flight.saturating_sub(1));
        self.in_flight.store(in_flight, Relaxed);
        self.reported_redirects.store(redirects.saturating_sub(unseen), Relaxed);
        let backlog = in_flight.saturating_add(unseen) as f64 * f64::from(self.cell().increment());
        self.cell().set_backlog(backlog.min(MAX_BACKLOG.as_nanos() as f64) as u64, now);
    }
}

/// The cost of one request on one backend, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestCost {
    /// The time that the request takes on the idle server.
    pub(super) service_time: f32,
    /// The amount by which the request advances the virtual finish time: the service time divided by the weight.
    pub(super) increment: f32,
}

/// The fields that a pick reads and writes: half a cache line.
///
/// A cell keeps its address for the lifetime of its [`BackendLoad`], so all tables write to the same cell.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(super) struct LoadCell {
    /// The time at which the backend will have finished all known work (its virtual finish time).
    finish_time: AtomicU64,
    redirects: AtomicU64,
    /// The bits of an `f32`, as are the next two: [`RequestCost::increment`].
    increment: AtomicU32,
    /// The inverse of the increment, so that a pick multiplies instead of dividing.
    rate: AtomicU32,
    service_time: AtomicU32,
}

impl LoadCell {
    fn reset(&self) {
        self.redirects.store(0, Relaxed);
        self.finish_time.store(0, Relaxed);
        self.set_cost(RequestCost { service_time: 0.0, increment: 0.0 });
    }

    fn copy_from(&self, other: &Self) {
        for (to, from) in [(&self.finish_time, &other.finish_time), (&self.redirects, &other.redirects)] {
            to.store(from.load(Relaxed), Relaxed);
        }
        for (to, from) in [
            (&self.increment, &other.increment),
            (&self.rate, &other.rate),
            (&self.service_time, &other.service_time),
        ] {
            to.store(from.load(Relaxed), Relaxed);
        }
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
    pub(super) fn increment(&self) -> f32 {
        f32::from_bits(self.increment.load(Relaxed))
    }

    /// Requests per nanosecond: the inverse of the increment.
    #[inline]
    pub(super) fn rate(&self) -> f32 {
        f32::from_bits(self.rate.load(Relaxed))
    }

    #[inline]
    pub(super) fn service_time(&self) -> f32 {
        f32::from_bits(self.service_time.load(Relaxed))
    }

    pub(super) fn set_cost(&self, cost: RequestCost) {
        self.increment.store(cost.increment.to_bits(), Relaxed);
        self.rate.store(cost.increment.recip().to_bits(), Relaxed);
        self.service_time.store(cost.service_time.to_bits(), Relaxed);
    }

    /// Replaces the known work, in nanoseconds. An idle backend keeps an earlier finish time, which shows for how long
    /// it has been idle.
    fn set_backlog(&self, nanoseconds: u64, now: Timestamp) {
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

    /// Adds one request to the known work.
    #[inline]
    pub(super) fn add_request(&self, now: Timestamp) {
        let increment = self.increment() as u64;
        let mut current = self.finish_time.load(Relaxed);
        // An exchange fails only if another worker succeeded. After three failures, losing the idle time since
        // `finish_time` costs less than trying again.
        for _ in 0..3 {
            let later = current.max(now.0).saturating_add(increment);
            match self.finish_time.compare_exchange_weak(current, later, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(actual) => current = actual,
            }
        }
        self.finish_time.fetch_add(increment, Relaxed);
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
}

impl LoadSlab {
    /// A record without load. `identity` is the [`identity`](super::identity) of the backend's authority.
    ///
    /// The slab reuses a cell after the last [`Arc`] of its record is gone.
    pub fn allocate(&mut self, identity: u32) -> Arc<BackendLoad> {
        if self.free.is_empty() {
            self.reclaim();
        }
        let cell = self.free.pop().unwrap_or_else(|| self.add_chunk());
        let load = Arc::new(BackendLoad::new(cell.clone(), identity));
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
        let cell = |index| CellRef { chunk: Arc::clone(&chunk), index };
        self.free.extend((1..CHUNK_LEN).rev().map(cell));
        cell(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    fn cells(loads: &[Arc<BackendLoad>]) -> HashSet<*const LoadCell> {
        loads.iter().map(|load| std::ptr::from_ref(load.cell())).collect()
    }

    fn allocate(slab: &mut LoadSlab, count: usize) -> Vec<Arc<BackendLoad>> {
        (0..count as u32).map(|identity| slab.allocate(identity)).collect()
    }

    #[test]
    fn each_backend_has_its_own_cell() {
        let loads = allocate(&mut LoadSlab::default(), 3 * CHUNK_LEN);
        assert_eq!(cells(&loads).len(), loads.len());
        assert!((0..).zip(&loads).all(|(identity, load)| load.identity() == identity));
    }

    #[test]
    fn the_slab_reuses_and_resets_cells_of_dropped_backends_only() {
        let mut slab = LoadSlab::default();
        let mut loads = allocate(&mut slab, CHUNK_LEN);
        let kept = Arc::clone(&loads[7]);
        for load in &loads {
            load.cell().count_redirect();
        }
        let before = cells(&loads);
        loads.clear();
        loads.extend(allocate(&mut slab, CHUNK_LEN - 1));
        assert!(loads.iter().all(|load| load.redirects() == 0));
        assert_eq!(kept.redirects(), 1);
        loads.push(kept);
        assert_eq!(cells(&loads), before);
    }

    #[test]
    fn concurrent_workers_lose_no_redirect_and_no_work() {
        let load = LoadSlab::default().allocate(0);
        load.cell().set_cost(RequestCost { service_time: 10.0, increment: 10.0 });
        load.cell().add_request(Timestamp(1_000));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50_000 {
                        load.cell().count_redirect();
                        load.cell().add_request(Timestamp(1_000));
                    }
                });
            }
        });
        assert_eq!(load.redirects(), 200_000);
        assert_eq!(load.cell().finish_time(), Timestamp(1_000 + 200_001 * 10));
    }
}
