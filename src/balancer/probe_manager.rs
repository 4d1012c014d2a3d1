//! Runs one `ProbeActor` for each backend of the active list.

use std::collections::HashMap;
use std::sync::Arc;

use actix::Addr;

use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::metrics::SecondsGauge;
use crate::balancer::orders::OrderBook;
use crate::balancer::probe::schedule::ProbeBudget;
use crate::balancer::probe::{ProbeActor, ProbePlan, ProbePlanChanged, ProbeSettings};
use crate::balancer::ranking::{ListChanged, RankingActor, RankingSettings};
use crate::supervision::{ActorKind, Supervisor};

/// Starts and ends `ProbeActor`s when the list changes, and sends the list to the ranking. Must run on the arbiter of
/// the actors.
pub(super) struct ProbeManager {
    /// The settings and resources of all probes.
    pub(super) plan: Arc<ProbePlan>,
    /// The limit of probes per second over all backends.
    pub(super) budget: ProbeBudget,
    /// Receives the results and the list.
    pub(super) ranking: Addr<RankingActor>,
    /// Restarts the actors.
    pub(super) supervisor: Supervisor,
    /// The metric of the interval between two probes of one backend.
    pub(super) interval: SecondsGauge,
    /// The actors with their lines of the list. An actor runs until its address is dropped.
    pub(super) probes: HashMap<BackendId, (Backend, Addr<ProbeActor>)>,
}

impl ProbeManager {
    /// Activates the list `backends` and the orders for it. Returns once both are in the routing table.
    pub(super) async fn replace(&mut self, backends: &Arc<[Backend]>, orders: &Arc<OrderBook>) {
        let interval = self.budget.stretched(self.plan.settings().interval, backends.len());
        self.interval.set(interval.as_secs_f64());
        let list = ListChanged { backends: Arc::clone(backends), orders: Arc::clone(orders) };
        // `send` waits while the mailbox is full: a list must not be lost. If the ranking panics on it, the restarted actor
        // uses it.
        let _ = self.ranking.send(list).await;
        let mut previous = std::mem::take(&mut self.probes);
        for backend in backends.iter().filter(|backend| !orders.is_disabled(backend.id())) {
            let known = previous.remove(backend.id());
            let known = known.filter(|(known, _)| known.expectation() == backend.expectation());
            let probe = known.map_or_else(|| self.start(backend, backends.len()), |(_, probe)| probe);
            self.probes.insert(backend.id().clone(), (backend.clone(), probe));
        }
        // Drops the addresses of removed and disabled backends, which ends their actors.
    }

    /// Replaces the settings of ranking and probes. Returns once they are in the routing table.
    pub(super) async fn change(&mut self, ranking: RankingSettings, probes: ProbeSettings) {
        self.budget = ranking.probe_budget;
        let backends = self.probes.len();
        self.interval.set(self.budget.stretched(probes.interval, backends).as_secs_f64());
        // As with a list, a restarted actor uses the settings on which it panicked.
        let _ = self.ranking.send(ranking).await;
        if probes == *self.plan.settings() {
            return;
        }
        self.plan = Arc::new(self.plan.with(probes));
        let mut unreached = Vec::new();
        for (id, (backend, probe)) in &self.probes {
            let (plan, pause) = (Arc::clone(&self.plan), self.budget.first_pause(id, backends));
            if probe.try_send(ProbePlanChanged { plan, pause }).is_err() {
                unreached.push(backend.clone());
            }
        }
        // The mailbox is full because the actor waits for its restart.
        for backend in unreached {
            let probe = self.start(&backend, backends);
            self.probes.insert(backend.id().clone(), (backend, probe));
        }
    }

    fn start(&self, backend: &Backend, backends: usize) -> Addr<ProbeActor> {
        let first_pause = self.budget.first_pause(backend.id(), backends);
        let actor =
            ProbeActor::new(backend, Arc::clone(&self.plan), self.ranking.clone().into(), first_pause);
        self.supervisor.start(ActorKind::Probe, backend.id().as_str(), actor)
    }
}
