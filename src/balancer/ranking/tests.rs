use actix::{Addr, System};
use rand::SeedableRng;
use tokio::sync::mpsc;

use super::publisher::TableUpdate;
use super::*;
use crate::balancer::backends::list;
use crate::balancer::health::{FailureKind, ProbeFailure, ProbeOutcome};
use crate::supervision::{ActorKind, RestartPolicy, SupervisionMetrics, Supervisor};

/// A ranking with one worker, in virtual time.
struct RankingScenario {
    publisher: Arc<TablePublisher>,
    supervisor: Supervisor,
    ranking: Addr<RankingActor>,
    worker: Addr<TestWorker>,
    tables: mpsc::UnboundedReceiver<Arc<RoutingTable>>,
}

/// Receives tables in place of a `RedirectHandler`.
struct TestWorker(mpsc::UnboundedSender<Arc<RoutingTable>>);

impl Actor for TestWorker {
    type Context = Context<Self>;
}

impl Handler<TableUpdate> for TestWorker {
    type Result = ();

    fn handle(&mut self, TableUpdate(table): TableUpdate, _: &mut Context<Self>) {
        let _ = self.0.send(table);
    }
}

fn worker(publisher: &TablePublisher) -> (Addr<TestWorker>, mpsc::UnboundedReceiver<Arc<RoutingTable>>) {
    let (sender, tables) = mpsc::unbounded_channel();
    let worker = TestWorker(sender).start();
    publisher.subscribe(&worker.downgrade().recipient());
    (worker, tables)
}

impl RankingScenario {
    async fn play<F: Future>(list: &str, story: impl FnOnce(Self) -> F) -> F::Output {
        let now = Instant::now();
        let health_check = HealthCheckConfig {
            fall: 3,
            rise: 2,
            interval: Duration::from_secs(2),
            backoff_max: Duration::from_secs(30),
            slow_start: Duration::from_secs(10),
        };
        let listed = backends(list);
        let mut slab = LoadSlab::default();
        let entry = |backend: &Backend| BackendEntry::new(backend.clone(), &mut slab, now);
        let mut entries: Vec<_> = listed.iter().map(entry).collect();
        let (clock, mut random) = (MonotonicClock::new(now), SmallRng::seed_from_u64(1));
        let first =
            RoutingTable::build(0, &mut entries, PolicyName::Ranked, &health_check, &clock, now, &mut random);
        let counter = prometheus_client::metrics::counter::Counter::default();
        let publisher = Arc::new(TablePublisher::new(first, counter));
        let (worker, tables) = worker(&publisher);
        let plan = RankingPlan {
            publisher: Arc::clone(&publisher),
            settings: RankingSettings {
                policy: PolicyName::Ranked,
                health_check,
                probe_budget: ProbeBudget { per_second: 2000 },
            },
            clock,
            metrics: RankingMetrics::default(),
            zone: None,
            fleet: None,
            geography: None,
            spill_factor: 4,
        };
        let supervisor = Supervisor::new(RestartPolicy::default(), SupervisionMetrics::default());
        let list = ListChanged { backends: listed, orders: Arc::default() };
        let ranking = RankingActor::new(plan, list, slab, SmallRng::seed_from_u64(2));
        let ranking = supervisor.start(ActorKind::Ranking, "ranking", ranking);
        tokio::time::sleep(Duration::from_millis(1)).await;
        story(Self { publisher, supervisor, ranking, worker, tables }).await
    }

    /// Sends a probe result and returns the delay of the next probe.
    async fn probed(&self, backend: &str, outcome: ProbeOutcome) -> Duration {
        let backend = backends(backend)[0].id().clone();
        self.ranking.send(ProbeResult { backend, ended_at: Instant::now(), outcome }).await.unwrap().pause
    }

    fn list(&self, list: &str) {
        self.ranking.do_send(ListChanged { backends: backends(list), orders: Arc::default() });
    }

    fn states(&self) -> Vec<(String, State)> {
        let table = self.publisher.latest();
        let state = |entry: &BackendEntry| (entry.backend.id().authority().to_owned(), entry.health.state());
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
    ProbeOutcome::Failure(ProbeFailure { kind: FailureKind::Refused, detail: String::new() })
}

/// Runs with a clock that advances to the next timer once all tasks wait.
fn in_virtual_time<F: Future>(future: F) -> F::Output {
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    system.block_on(future)
}

#[test]
fn tables_are_at_least_50_ms_apart_under_any_number_of_results() {
    in_virtual_time(RankingScenario::play("a:1\nb:2", async |mut scenario| {
        for round in 0..500 {
            scenario.probed("a:1", if round % 2 == 0 { success() } else { failure() }).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut times = Vec::new();
        while let Ok(table) = scenario.tables.try_recv() {
            times.push(table.built_at);
        }
        // The first table follows the list, which may arrive right after the empty table of the start.
        let apart = times.windows(2).skip(1).map(|pair| pair[1] - pair[0]).min().unwrap();
        assert!(apart >= TRANSITION_PACE, "two tables {apart:?} apart");
        assert!((15..=22).contains(&times.len()), "{} tables in a second", times.len());
    }));
}

#[test]
fn a_change_of_state_is_published_within_60_ms() {
    in_virtual_time(RankingScenario::play("a:1\nb:2", async |scenario| {
        scenario.probed("a:1", success()).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(scenario.states(), [("a:1".to_owned(), State::Up), ("b:2".to_owned(), State::Unknown)]);
    }));
}

#[test]
fn without_results_a_table_is_made_each_second() {
    in_virtual_time(RankingScenario::play("a:1", async |mut scenario| {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut tables = 0;
        while scenario.tables.try_recv().is_ok() {
            tables += 1;
        }
        assert!((9..=11).contains(&tables), "{tables} tables in 10 s");
    }));
}

#[test]
fn a_backend_keeps_its_health_and_its_booked_work_when_its_attributes_change() {
    in_virtual_time(RankingScenario::play("a:1\nb:2", async |scenario| {
        scenario.probed("a:1", success()).await;
        scenario.probed("b:2", failure()).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        let load = Arc::clone(&scenario.publisher.latest().entries[1].load);
        scenario.list("c:3\nb:2 weight=9");
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(scenario.states(), [("c:3".to_owned(), State::Unknown), ("b:2".to_owned(), State::Down)]);
        let entry = &scenario.publisher.latest().entries[1];
        assert_eq!(entry.backend.weight(), 9);
        assert!(Arc::ptr_eq(&entry.load, &load), "the booked work is lost");
    }));
}

#[test]
fn a_restarted_ranking_keeps_its_entries_and_applies_a_list_sent_during_the_restart() {
    in_virtual_time(RankingScenario::play("a:1", async |scenario| {
        scenario.probed("a:1", success()).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        scenario.supervisor.inject_panic(ActorKind::Ranking);
        scenario.list("a:1\nb:2");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(scenario.states(), [("a:1".to_owned(), State::Up), ("b:2".to_owned(), State::Unknown)]);
        // The active list survives a restart, too.
        scenario.supervisor.inject_panic(ActorKind::Ranking);
        scenario.probed("b:2", success()).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(scenario.states(), [("a:1".to_owned(), State::Up), ("b:2".to_owned(), State::Up)]);
    }));
}

#[test]
fn the_first_round_stays_complete_after_changes_of_the_list_and_restarts() {
    in_virtual_time(RankingScenario::play("a:1\nb:2", async |scenario| {
        let soon = || tokio::time::sleep(Duration::from_secs(2));
        scenario.probed("a:1", success()).await;
        soon().await;
        assert!(!scenario.publisher.is_first_round_complete());
        scenario.probed("b:2", failure()).await;
        soon().await;
        assert!(scenario.publisher.is_first_round_complete());
        scenario.list("a:1\nb:2\nc:3");
        soon().await;
        assert_eq!(scenario.states()[2].1, State::Unknown);
        assert!(scenario.publisher.is_first_round_complete());
        scenario.supervisor.inject_panic(ActorKind::Ranking);
        soon().await;
        assert!(scenario.publisher.is_first_round_complete());
    }));
}

#[test]
fn the_reply_to_a_result_is_the_interval_or_the_shorter_one_of_a_suspect_backend() {
    in_virtual_time(RankingScenario::play("a:1", async |scenario| {
        let whole = Duration::from_millis(1800)..=Duration::from_millis(2200);
        let quarter = Duration::from_millis(450)..=Duration::from_millis(550);
        assert!(whole.contains(&scenario.probed("a:1", success()).await));
        assert!(quarter.contains(&scenario.probed("a:1", failure()).await));
        assert!(whole.contains(&scenario.probed("a:1", success()).await));
        // A probe of a backend that is not in the list.
        assert_eq!(scenario.probed("b:2", success()).await, Duration::from_secs(2));
    }));
}

#[test]
fn a_worker_that_has_ended_is_unsubscribed() {
    in_virtual_time(RankingScenario::play("a:1", async |mut scenario| {
        let (other, mut received) = worker(&scenario.publisher);
        assert_eq!(scenario.publisher.workers(), 2);
        drop(scenario.worker);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(scenario.publisher.workers(), 1);
        assert!(received.try_recv().is_ok());
        while scenario.tables.try_recv().is_ok() {}
        assert!(scenario.tables.is_closed());
        drop(other);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(scenario.publisher.workers(), 0);
    }));
}
