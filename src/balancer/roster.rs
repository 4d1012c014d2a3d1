//! The roster: which backends the list names now, and the `ProbeActor` of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::{Actor, ArbiterHandle};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::balancer::admin::metrics::BalancerMetrics;
use crate::balancer::backends::{Backend, BackendId};
use crate::balancer::policy::LoadSlab;
use crate::balancer::probe::{ProbeActor, ProbePlan, ProbeResult, Tenure};
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
    book: LoadSlab,
    metrics: Arc<BalancerMetrics>,
    listed: HashMap<BackendId, Listed>,
}

/// What keeps the actor of a listed backend at work: first it must not be recreated, then it may end.
struct Listed {
    _leash: Leash,
    _tenure: Tenure,
}

impl Roster {
    /// A roster without actors, which will live on `arbiter`; `members` is where the list in force stands, with
    /// the book of their ledgers.
    #[must_use]
    pub fn new(
        arbiter: ArbiterHandle,
        guardian: Guardian,
        plan: Arc<ProbePlan>,
        ranking: Seat<RankingActor>,
        (members, book): (Members, LoadSlab),
        metrics: Arc<BalancerMetrics>,
    ) -> Self {
        let (seat, lost) = (ranking.clone(), metrics.results_lost.clone());
        let results: Outlet<ProbeResult> = Arc::new(move |result| {
            seat.try_send(result).inspect_err(|_| {
                lost.inc();
            })
        });
        Self { arbiter, guardian, plan, results, ranking, members, book, metrics, listed: HashMap::new() }
    }

    /// Makes `backends` the list. What is known of a backend that stays is kept, whatever its attributes are now.
    pub fn replace(&mut self, backends: &[Backend]) {
        self.plan.backends.store(backends.len(), Ordering::Relaxed);
        let interval = self.plan.budget.stretched(self.plan.thresholds.interval, backends.len());
        self.metrics.probe_interval.set(interval.as_secs_f64());

        let current = self.members.load();
        let known: HashMap<&BackendId, &Member> =
            current.iter().map(|member| (member.backend.id(), member)).collect();
        let members: Vec<Member> = backends
            .iter()
            .map(|backend| match known.get(backend.id()) {
                Some(member) => Member { backend: backend.clone(), ..Member::clone(member) },
                None => Member::new(backend.clone(), &mut self.book),
            })
            .collect();
        let members = Arc::new(members);
        // The ranking should know a backend before its first result comes in. If it is not there to hear of it now,
        // it finds the list by itself a little later.
        self.members.store(Arc::clone(&members));
        let _ = self.ranking.try_send(ListChanged);
        // Those that stay in `left` are no longer listed: dropping them ends their actors.
        let mut left = std::mem::take(&mut self.listed);
        for member in members.iter() {
            match left.remove(member.backend.id()) {
                Some(listed) => drop(self.listed.insert(member.backend.id().clone(), listed)),
                None => self.start(member.clone()),
            }
        }
    }

    fn start(&mut self, member: Member) {
        let id = member.backend.id().clone();
        let actor = Seat::<ProbeActor>::default();
        let arbiter = self.arbiter.clone();
        let (plan, results) = (Arc::clone(&self.plan), Arc::clone(&self.results));
        let tenure = Tenure::default();
        let watched = tenure.watch();
        let leash = self.guardian.supervise(ActorKind::Probe, id.as_str().into(), &actor, move |lifeline| {
            let (member, plan, results) = (member.clone(), Arc::clone(&plan), Arc::clone(&results));
            let (tenure, random) = (watched.clone(), SmallRng::from_rng(&mut rand::rng()));
            ProbeActor::start_in_arbiter(&arbiter, move |_| {
                ProbeActor::new(&member, tenure, plan, results, random, lifeline)
            })
        });
        self.listed.insert(id, Listed { _tenure: tenure, _leash: leash });
    }
}
