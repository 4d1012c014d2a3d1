//! The roster: a `ProbeActor` for each backend of the list in force.

use std::collections::HashMap;
use std::sync::Arc;

use actix::Addr;

use crate::balancer::admin::metrics::SecondsGauge;
use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::probe::schedule::ProbeBudget;
use crate::balancer::probe::{ProbeActor, ProbePlan};
use crate::balancer::ranking::{ListChanged, RankingActor};
use crate::supervision::{ActorKind, Supervisor};

/// Starts and ends `ProbeActor`s as the list changes, and sends the list to the ranking. It belongs on the arbiter of
/// its actors.
pub(super) struct Roster {
    /// What all probes share.
    pub(super) plan: Arc<ProbePlan>,
    /// The probes a second of all backends.
    pub(super) budget: ProbeBudget,
    /// Takes the results and the list.
    pub(super) ranking: Addr<RankingActor>,
    /// Restarts the actors.
    pub(super) supervisor: Supervisor,
    /// Shows the interval between two probes of one backend.
    pub(super) interval: SecondsGauge,
    /// The actors, each with its line of the list. An actor runs until its address is dropped.
    pub(super) probes: HashMap<BackendId, (Backend, Addr<ProbeActor>)>,
}

impl Roster {
    /// Makes `backends` the list.
    pub(super) fn replace(&mut self, backends: &Arc<[Backend]>) {
        let interval = self.budget.stretched(self.plan.interval, backends.len());
        self.interval.set(interval.as_secs_f64());
        // A mailbox takes this message even if it is full: a list must not be lost.
        self.ranking.do_send(ListChanged(Arc::clone(backends)));
        let mut left = std::mem::take(&mut self.probes);
        for backend in backends.iter() {
            let known = left.remove(backend.id());
            let known = known.filter(|(known, _)| known.expectation() == backend.expectation());
            let probe = known.map_or_else(|| self.start(backend, backends.len()), |(_, probe)| probe);
            self.probes.insert(backend.id().clone(), (backend.clone(), probe));
        }
        // Dropping an address ends its actor: that of a backend which has left the list.
    }

    fn start(&self, backend: &Backend, backends: usize) -> Addr<ProbeActor> {
        let first_pause = self.budget.first_pause(backend.id(), backends);
        let actor = ProbeActor::new(backend, Arc::clone(&self.plan), self.ranking.clone(), first_pause);
        self.supervisor.start(ActorKind::Probe, backend.id().as_str(), actor)
    }
}
