use actix::{Addr, System};
use rand::SeedableRng;
use tokio::sync::mpsc;

use super::*;
use crate::balancer::backends::list;
use crate::balancer::health::{Failure, FailureKind, ProbeOutcome};
use crate::balancer::policy::LoadSlab;
use crate::supervision::{ActorKind, Guardian, Leash, Patience, Seat, SupervisionMetrics};

/// A ranking with one subscriber, in virtual time.
struct Scene {
    plan: RankingPlan,
    guardian: Guardian,
    seat: Seat<RankingActor>,
    _leash: Leash,
    published: mpsc::UnboundedReceiver<Arc<RoutingTable>>,
}

impl Scene {
    async fn play<F: Future>(list: &str, story: impl FnOnce(Self) -> F) -> F::Output {
        let now = Instant::now();
        let thresholds = Thresholds {
            fall: 3,
            rise: 2,
            interval: Duration::from_secs(2),
            backoff_max: Duration::from_secs(30),
            slow_start: Duration::from_secs(10),
        };
        let members = members(list);
        let mut random = SmallRng::seed_from_u64(1);
        let first = RoutingTable::first(
            &members,
            PolicyName::Ranked,
            &thresholds,
            &MonotonicClock::new(now),
            now,
            &mut random,
        );
        let publication =
            Arc::new(Publication::new(first, prometheus_client::metrics::counter::Counter::default()));
        let (sender, published) = mpsc::unbounded_channel();
        publication.subscribe(
            &(Arc::new(move |publication::Publish(table)| {
                sender.send(table).unwrap();
                Ok(())
            }) as crate::supervision::Outlet<publication::Publish>),
        );
        let plan = RankingPlan {
            members: Arc::new(ArcSwap::from_pointee(members)),
            publication,
            policy: PolicyName::Ranked,
            thresholds,
            probe_budget: ProbeBudget { per_second: 2000 },
            clock: MonotonicClock::new(now),
            metrics: RankingMetrics::default(),
        };
        let (guardian, work) = Guardian::new(Patience::default(), SupervisionMetrics::default());
        actix::spawn(work);
        let seat = Seat::<RankingActor>::default();
        let own = plan.clone();
        let leash =
            guardian.supervise(ActorKind::Ranking, "ranking".into(), &seat, move |lifeline| -> Addr<_> {
                RankingActor::new(own.clone(), SmallRng::seed_from_u64(2), lifeline).start()
            });
        tokio::time::sleep(Duration::from_millis(1)).await;
        story(Self { plan, guardian, seat, _leash: leash, published }).await
    }

    fn probed(&self, backend: &str, outcome: ProbeOutcome) {
        let members = self.plan.members.load();
        let member = members.iter().find(|member| member.backend.id().authority() == backend).unwrap();
        let now = Instant::now();
        let result = ProbeResult { backend: member.backend.id().clone(), ended_at: now, outcome };
        self.seat.try_send(result).unwrap();
    }

    fn list(&self, list: &str) {
        self.plan.members.store(Arc::new(members(list)));
        self.seat.try_send(ListChanged).unwrap();
    }

    fn states(&self) -> Vec<(String, State)> {
        let table = self.plan.publication.latest();
        let state = |entry: &Entry| (entry.member.backend.id().authority().to_owned(), entry.health.state());
        table.entries.iter().map(state).collect()
    }
}

fn members(list: &str) -> Vec<Member> {
    let backends = list::parse(list.as_bytes()).backends;
    let mut book = LoadSlab::default();
    backends.into_iter().map(|backend| Member::new(backend, &mut book)).collect()
}

fn success() -> ProbeOutcome {
    let took = Duration::from_millis(1);
    ProbeOutcome::Success { connect: took, first_byte: took, total: took, report: None }
}

fn failure() -> ProbeOutcome {
    ProbeOutcome::Failure(Failure { kind: FailureKind::Refused, detail: String::new() })
}

fn in_virtual_time<F: Future>(future: F) -> F::Output {
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    system.block_on(future)
}

#[test]
fn however_many_results_come_tables_are_at_least_50_ms_apart() {
    in_virtual_time(Scene::play("a:1\nb:2", async |mut scene| {
        for round in 0..500 {
            scene.probed("a:1", if round % 2 == 0 { success() } else { failure() });
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut times = Vec::new();
        while let Ok(table) = scene.published.try_recv() {
            times.push(table.built_at);
        }
        // The first one follows the list, which may come right after the empty table of the start.
        let apart = times.windows(2).skip(1).map(|pair| pair[1] - pair[0]).min().unwrap();
        assert!(apart >= TRANSITION_PACE, "two tables {apart:?} apart");
        assert!((15..=22).contains(&times.len()), "{} tables in a second", times.len());
    }));
}

#[test]
fn a_change_of_state_is_published_within_60_ms() {
    in_virtual_time(Scene::play("a:1\nb:2", async |scene| {
        scene.probed("a:1", success());
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(scene.states(), [("a:1".to_owned(), State::Up), ("b:2".to_owned(), State::Unknown)]);
    }));
}

#[test]
fn without_any_result_a_table_is_made_each_second() {
    in_virtual_time(Scene::play("a:1", async |mut scene| {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut tables = 0;
        while scene.published.try_recv().is_ok() {
            tables += 1;
        }
        assert!((9..=11).contains(&tables), "{tables} tables in 10 s");
    }));
}

#[test]
fn a_backend_that_stays_in_the_list_keeps_its_health_whatever_its_attributes() {
    in_virtual_time(Scene::play("a:1\nb:2", async |scene| {
        scene.probed("a:1", success());
        scene.probed("b:2", failure());
        tokio::time::sleep(Duration::from_millis(60)).await;
        scene.list("c:3\nb:2 weight=9");
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(scene.states(), [("c:3".to_owned(), State::Unknown), ("b:2".to_owned(), State::Down)]);
        assert_eq!(scene.plan.publication.latest().entries[1].member.backend.weight(), 9);
    }));
}

#[test]
fn a_ranking_that_died_comes_back_with_all_it_knew_and_finds_the_list_it_missed() {
    in_virtual_time(Scene::play("a:1", async |scene| {
        scene.probed("a:1", success());
        tokio::time::sleep(Duration::from_millis(60)).await;
        scene.guardian.drill(ActorKind::Ranking);
        tokio::time::sleep(Duration::from_millis(1)).await;
        scene.plan.members.store(Arc::new(members("a:1\nb:2")));
        assert!(scene.seat.try_send(ListChanged).is_err());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(scene.states(), [("a:1".to_owned(), State::Up), ("b:2".to_owned(), State::Unknown)]);
    }));
}

#[test]
fn once_the_first_round_is_in_it_stays_in_whatever_the_list_and_the_ranking_go_through() {
    in_virtual_time(Scene::play("a:1\nb:2", async |scene| {
        let soon = || tokio::time::sleep(Duration::from_secs(2));
        scene.probed("a:1", success());
        soon().await;
        assert!(!scene.plan.publication.is_first_round_in());
        scene.probed("b:2", failure());
        soon().await;
        assert!(scene.plan.publication.is_first_round_in());
        scene.list("a:1\nb:2\nc:3");
        soon().await;
        assert_eq!(scene.states()[2].1, State::Unknown);
        assert!(scene.plan.publication.is_first_round_in());
        scene.guardian.drill(ActorKind::Ranking);
        soon().await;
        assert!(scene.plan.publication.is_first_round_in());
    }));
}
