//! The load of each backend, as far as this balancer knows it: the policy state that outlives a routing table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wide::f32x8;

use super::backlog::{Backlog, KNOTS, NewDownload};
use super::load_cell::{LoadCell, set};
use super::load_slab::{CellRef, LoadSlab};
use super::{DEFAULT_SIZE, Timestamp};

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
    pub(super) fn new(cell: CellRef, identity: u32, number: u32) -> Self {
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
        let most = MAX_OTHER_WORK / cell.cost();
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

#[cfg(test)]
mod tests;
