//! Virtual finish times of backends that send no load reports.
//!
//! No report corrects such a finish time: it grows with each redirect by an assumed cost. If the real cost is lower, it
//! runs ahead of the finish times of reporting backends without limit. Only the differences within the group mean
//! something: they show which of its backends received fewer clients.

use crate::balancer::policy::{Candidate, Timestamp};

/// Moves the finish times of backends without reports into the range of the backends that they compete with.
///
/// All candidates answer their probes, so the group as a whole is assumed to finish no later than the earliest of the
/// backends with reports. A backend that joins the group starts at the group's earliest finish time, so redirects from
/// before it left neither favour nor penalize it.
pub(super) fn align(candidates: &[Candidate], now: Timestamp) {
    let earliest = |reports: bool| {
        let group = candidates.iter().filter(|candidate| !candidate.joins && candidate.reports == reports);
        group.map(|candidate| candidate.load.cell().finish_time()).min()
    };
    let limit = earliest(true).unwrap_or_default().max(now);
    let group = earliest(false);
    let excess = group.unwrap_or_default().0.saturating_sub(limit.0);
    for candidate in candidates.iter().filter(|candidate| !candidate.reports) {
        let cell = candidate.load.cell();
        match group {
            Some(earliest) if candidate.joins => cell.set_finish_time(Timestamp(earliest.0 - excess)),
            None => cell.set_finish_time(cell.finish_time().min(limit)),
            Some(_) if excess > 0 => cell.bring_forward(excess),
            Some(_) => {}
        }
    }
}
