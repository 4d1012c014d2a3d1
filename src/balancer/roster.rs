//! The roster: which backends the list names now, and the `ProbeActor` of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, ArbiterHandle};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::balancer::admin::metrics::BalancerMetrics;
use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::policy::{self, Ledger};
use crate::balancer::probe::{ProbeActor, ProbePlan, ProbeResult, Stop};
use crate::balancer::ranking::table::Member;
use crate::balancer::ranking::{ListChanged, Members, RankingActor};
use crate::supervision::{ActorKind, Guardian, Leash, Outlet, Seat};

/// Starts and stops `ProbeActor`s as the list changes, and tells the ranking.
pub struct Roster {
    arbiter: ArbiterHandle,
    guardian: Guardian,
    plan: Arc<ProbePlan>,
    results: Outlet<ProbeResult>,
    ranking: Seat<RankingActor>,
    members: Members,
    metrics: Arc<BalancerMetrics>,
    listed: HashMap<BackendId, Listed>,
}

/// A backend of the list with its actor.
struct Listed {
    ledger: Arc<Ledger>,
    actor: Seat<ProbeActor>,
    leash: Leash,
}

impl Roster {
    /// A roster without backends, whose actors will live on `arbiter`.
    #[must_use]
    pub fn new(
        arbiter: ArbiterHandle,
        guardian: Guardian,
        plan: Arc<ProbePlan>,
        ranking: Seat<RankingActor>,
        members: Members,
        metrics: Arc<BalancerMetrics>,
    ) -> Self {
        let (seat, lost) = (ranking.clone(), metrics.results_lost.clone());
        let results: Outlet<ProbeResult> = Arc::new(move |result| {
            seat.try_send(result).inspect_err(|_| {
                lost.inc();
            })
        });
        Self { arbiter, guardian, plan, results, ranking, members, metrics, listed: HashMap::new() }
    }

    /// Makes `backends` the list. What is known of a backend that stays is kept, whatever its attributes are now.
    pub fn replace(&mut self, backends: &[Backend]) {
        self.plan.backends.store(backends.len(), Ordering::Relaxed);
        let interval = self.plan.budget.stretched(self.plan.thresholds.interval, backends.len());
        self.metrics.probe_interval.set(interval.as_secs_f64());

        let mut left = std::mem::take(&mut self.listed);
        let mut newcomers = Vec::new();
        let mut members = Vec::with_capacity(backends.len());
        for backend in backends {
            let ledger = left.get(backend.id()).map_or_else(
                || Arc::new(Ledger::new(policy::identity(backend.id().authority()))),
                |listed| Arc::clone(&listed.ledger),
            );
            let member = Member { backend: backend.clone(), ledger };
            match left.remove(backend.id()) {
                Some(listed) => drop(self.listed.insert(backend.id().clone(), listed)),
                None => newcomers.push(member.clone()),
            }
            members.push(member);
        }
        // The ranking should know a backend before its first result comes in. If it is not there to hear of it now,
        // it finds the list by itself a little later.
        self.members.store(Arc::new(members));
        let _ = self.ranking.try_send(ListChanged);
        for member in newcomers {
            self.start(member);
        }
        for Listed { actor, leash, .. } in left.into_values() {
            drop(leash);
            // One that is dead already needs no stop.
            let _ = actor.try_send(Stop);
        }
    }

    fn start(&mut self, member: Member) {
        let id = member.backend.id().clone();
        let actor = Seat::<ProbeActor>::default();
        let arbiter = self.arbiter.clone();
        let (plan, results) = (Arc::clone(&self.plan), Arc::clone(&self.results));
        let ledger = Arc::clone(&member.ledger);
        let leash = self.guardian.supervise(ActorKind::Probe, id.as_str().into(), &actor, move |lifeline| {
            let (member, plan, results) = (member.clone(), Arc::clone(&plan), Arc::clone(&results));
            ProbeActor::start_in_arbiter(&arbiter, move |_| {
                ProbeActor::new(&member, plan, results, SmallRng::from_rng(&mut rand::rng()), lifeline)
            })
        });
        self.listed.insert(id, Listed { ledger, actor, leash });
    }
}
