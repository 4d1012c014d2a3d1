//! Backends without load reports. Nothing sets their virtual finish times right: they count the redirects alone, at a
//! pace that is believed, and where more are sent than that they run away from those of others. What such a time tells is who of the
//! silent ones was sent less.

use crate::balancer::policy::{Candidate, Tick};

/// Brings the virtual finish times of silent backends into the range of those they are compared with.
///
/// All answer their probes, so as a group they are no further behind than the best of those that report; who joins them
/// stands where the best of them does, neither ahead by all that they were sent before nor behind.
pub(super) fn level(candidates: &[Candidate], now: Tick) {
    let soonest = |reports: bool| {
        let group = candidates.iter().filter(|candidate| !candidate.joins && candidate.reports == reports);
        group.map(|candidate| candidate.ledger.line().drained_at()).min()
    };
    let reached = soonest(true).unwrap_or_default().max(now);
    let silent = soonest(false);
    let excess = silent.unwrap_or_default().0.saturating_sub(reached.0);
    for candidate in candidates.iter().filter(|candidate| !candidate.reports) {
        let line = candidate.ledger.line();
        match silent {
            Some(soonest) if candidate.joins => line.set_drained_at(Tick(soonest.0 - excess)),
            None => line.set_drained_at(line.drained_at().min(reached)),
            Some(_) if excess > 0 => line.bring_forward(excess),
            Some(_) => {}
        }
    }
}
