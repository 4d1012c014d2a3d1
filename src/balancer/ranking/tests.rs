use actix::{Addr, System};
use rand::SeedableRng;
use tokio::sync::mpsc;

use super::publication::Publish;
use super::*;
use crate::balancer::backends::list;
use crate::balancer::health::{Failure, FailureKind, ProbeOutcome};
use crate::supervision::{ActorKind, RestartPolicy, SupervisionMetrics, Supervisor};

/// A ranking with one worker, in virtual time.
struct Scene {
    publication: Arc<Publication>,
    supervisor: Supervisor,
    ranking: Addr<RankingActor>,
    worker: Addr<Worker>,
    published: mpsc::UnboundedReceiver<Arc<RoutingTable>>,
}

/// Stands for a `RedirectHandler`.
struct Worker(mpsc::UnboundedSender<Arc<RoutingTable>>);

impl Actor for Worker {
    type Context = Context<Self>;
}

impl Handler<Publish> for Worker {
    type Result = ();

    fn handle(&mut self, Publish(table): Publish, _: &mut Context<Self>) {
        let _ = self.0.send(table);
    }
}

fn worker(publication: &Publication) -> (Addr<Worker>, mpsc::UnboundedReceiver<Arc<RoutingTable>>) {
    let (sender, published) = mpsc::unbounded_channel();
    let worker = Worker(sender).start();
    publication.subscribe(&worker.downgrade().recipient());
    (worker, published)
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
        let listed = backends(list);
        let mut book = LoadSlab::default();
        let members: Vec<_> = listed.iter().cloned().map(|backend| Member::new(backend, &mut book)).collect();
        let (clock, mut random) = (MonotonicClock::new(now), SmallRng::seed_from_u64(1));
        let first = RoutingTable::first(&members, PolicyName::Ranked, &thresholds, &clock, now, &mut random);
        let counter = prometheus_client::metrics::counter::Counter::default();
        let publication = Arc::new(Publication::new(first, counter));
        let (worker, published) = worker(&publication);
        let plan = RankingPlan {
            publication: Arc::clone(&publication),
            policy: PolicyName::Ranked,
            thresholds,
            probe_budget: ProbeBudget { per_second: 2000 },
            clock,
            metrics: RankingMetrics::default(),
        };
        let supervisor = Supervisor::new(RestartPolicy::default(), SupervisionMetrics::default());
        let ranking = RankingActor::new(plan, listed, book, SmallRng::seed_from_u64(2));
        let ranking = supervisor.start(ActorKind::Ranking, "ranking", ranking);
        tokio::time::sleep(Duration::from_millis(1)).await;
        story(Self { publication, supervisor, ranking, worker, published }).await
    }

    /// Reports a probe and gives the pause before the next one.
    async fn probed(&self, backend: &str, outcome: ProbeOutcome) -> Duration {
        let backend = backends(backend)[0].id().clone();
        self.ranking.send(ProbeResult { backend, ended_at: Instant::now(), outcome }).await.unwrap()
    }

    fn list(&self, list: &str) {
        self.ranking.do_send(ListChanged(backends(list)));
    }

    fn states(&self) -> Vec<(String, State)> {
        let table = self.publication.latest();
        let state = |entry: &Entry| (entry.member.backend.id().authority().to_owned(), entry.health.state());
        table.entries.iter().map(state).collect()
    }
}

fn backends(list: &str) -> Arc<[Backend]> {
    list::parse(list.as_bytes()).backends.into()
}

fn success() -> ProbeOutcome {
    let took = Duration::from_millis(1);
    ProbeOutcome::Success { connect: took, first_byte: took, total: took, report: None }
}

fn failure() -> ProbeOutcome {
    ProbeOutcome::Failure(Failure { kind: FailureKind::Refused, detail: String::new() })
}

/// Runs on a clock that jumps to the next timer as soon as everything waits.
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
            scene.probed("a:1", if round % 2 == 0 { success() } else { failure() }).await;
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
        scene.probed("a:1", success()).await;
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
        scene.probed("a:1", success()).await;
        scene.probed("b:2", failure()).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        scene.list("c:3\nb:2 weight=9");
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(scene.states(), [("c:3".to_owned(), State::Unknown), ("b:2".to_owned(), State::Down)]);
        assert_eq!(scene.publication.latest().entries[1].member.backend.weight(), 9);
    }));
}

#[test]
fn a_restarted_ranking_keeps_its_entries_and_takes_the_list_that_was_sent_meanwhile() {
    in_virtual_time(Scene::play("a:1", async |scene| {
        scene.probed("a:1", success()).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        scene.supervisor.drill(ActorKind::Ranking);
        scene.list("a:1\nb:2");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(scene.states(), [("a:1".to_owned(), State::Up), ("b:2".to_owned(), State::Unknown)]);
        // The list in force survives a restart, too.
        scene.supervisor.drill(ActorKind::Ranking);
        scene.probed("b:2", success()).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(scene.states(), [("a:1".to_owned(), State::Up), ("b:2".to_owned(), State::Up)]);
    }));
}

#[test]
fn once_the_first_round_is_in_it_stays_in_after_changes_of_the_list_and_restarts() {
    in_virtual_time(Scene::play("a:1\nb:2", async |scene| {
        let soon = || tokio::time::sleep(Duration::from_secs(2));
        scene.probed("a:1", success()).await;
        soon().await;
        assert!(!scene.publication.is_first_round_in());
        scene.probed("b:2", failure()).await;
        soon().await;
        assert!(scene.publication.is_first_round_in());
        scene.list("a:1\nb:2\nc:3");
        soon().await;
        assert_eq!(scene.states()[2].1, State::Unknown);
        assert!(scene.publication.is_first_round_in());
        scene.supervisor.drill(ActorKind::Ranking);
        soon().await;
        assert!(scene.publication.is_first_round_in());
    }));
}

#[test]
fn the_answer_to_a_result_is_the_interval_or_the_shorter_one_of_a_backend_in_doubt() {
    in_virtual_time(Scene::play("a:1", async |scene| {
        let whole = Duration::from_millis(1800)..=Duration::from_millis(2200);
        let quarter = Duration::from_millis(450)..=Duration::from_millis(550);
        assert!(whole.contains(&scene.probed("a:1", success()).await));
        assert!(quarter.contains(&scene.probed("a:1", failure()).await));
        assert!(whole.contains(&scene.probed("a:1", success()).await));
        // A probe that was under way when its backend left the list.
        assert_eq!(scene.probed("b:2", success()).await, Duration::from_secs(2));
    }));
}

#[test]
fn a_worker_that_has_ended_receives_no_more_tables_and_is_forgotten() {
    in_virtual_time(Scene::play("a:1", async |mut scene| {
        let (other, mut received) = worker(&scene.publication);
        assert_eq!(scene.publication.workers(), 2);
        drop(scene.worker);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(scene.publication.workers(), 1);
        assert!(received.try_recv().is_ok());
        while scene.published.try_recv().is_ok() {}
        assert!(scene.published.is_closed());
        drop(other);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(scene.publication.workers(), 0);
    }));
}
