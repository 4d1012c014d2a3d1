use std::future::{pending, ready};

use actix::System;
use prometheus_client::metrics::counter::Counter;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;

use super::*;
use crate::balancer::backends::list;
use crate::balancer::health::{FailureKind, HealthCheckConfig, ProbeFailure, ProbeOutcome};
use crate::balancer::policy::{LoadSlab, PolicyName, digest};
use crate::balancer::ranking::table::BackendEntry;
use crate::supervision::{ActorKind, RestartPolicy, SupervisionMetrics, Supervisor};

const HEALTH_CHECK: HealthCheckConfig = HealthCheckConfig {
    fall: 1,
    rise: 1,
    interval: Duration::from_secs(2),
    backoff_max: Duration::from_secs(30),
    slow_start: Duration::ZERO,
};

/// A request for a size.
struct SizeRequest {
    backend: String,
    path: String,
    at: Instant,
}

/// A `SizeActor` in virtual time, whose backends answer as the path asks.
struct LookUps {
    sizes: Sizes,
    clock: MonotonicClock,
    supervisor: Supervisor,
    asked: mpsc::UnboundedReceiver<SizeRequest>,
}

/// A table of `count` backends that are up, and one more that is down.
fn table(count: usize, clock: &MonotonicClock) -> RoutingTable {
    let (now, mut slab) = (Instant::now(), LoadSlab::default());
    let lines: Vec<String> = (0..=count).map(|backend| format!("server{backend}:80")).collect();
    let backends = list::parse(lines.join("\n").as_bytes()).backends;
    let took = Duration::from_millis(1);
    let entry = |(index, backend)| {
        let mut entry = BackendEntry::new(backend, &mut slab, now);
        let outcome = if index < count {
            ProbeOutcome::Success { connect: took, first_byte: took, total: took, report: None }
        } else {
            ProbeOutcome::Failure(ProbeFailure { kind: FailureKind::Refused, detail: String::new() })
        };
        entry.observe(&outcome, &HEALTH_CHECK, clock, now);
        entry
    };
    let mut entries: Vec<_> = backends.into_iter().enumerate().map(entry).collect();
    let mut random = SmallRng::seed_from_u64(1);
    RoutingTable::build(0, &mut entries, PolicyName::Random, &HEALTH_CHECK, clock, now, &mut random)
}

/// The answer to a request for this path.
fn answer(path: &str) -> LocalBoxFuture<'static, Result<Option<FoundSize>, LookUpFailed>> {
    match path.split('/').nth(1) {
        Some("silent") => pending().boxed_local(),
        Some("slow") => tokio::time::sleep(Duration::from_secs(1))
            .map(|()| Ok(Some(FoundSize { bytes: 1000, tag: 0 })))
            .boxed_local(),
        Some("absent") => ready(Ok(None)).boxed_local(),
        Some("broken") => ready(Err(LookUpFailed)).boxed_local(),
        Some("fatal") => async { panic!("the answer makes the actor panic") }.boxed_local(),
        _ => ready(Ok(Some(FoundSize { bytes: 1000, tag: 0 }))).boxed_local(),
    }
}

impl LookUps {
    async fn play<F: Future>(backends: usize, story: impl FnOnce(Self) -> F) -> F::Output {
        let clock = MonotonicClock::new(Instant::now());
        let publisher = Arc::new(TablePublisher::new(table(backends, &clock), Counter::default()));
        let (sender, asked) = mpsc::unbounded_channel();
        let (sizes, mut plan) =
            Sizes::new(publisher, clock, Resolver::default(), Trust::default(), SizeMetrics::default());
        plan.connect = Box::new(move || {
            let sender = sender.clone();
            Box::new(move |backend: BackendId, path| {
                let asked =
                    SizeRequest { backend: backend.to_string(), path: path.to_owned(), at: Instant::now() };
                sender.send(asked).unwrap();
                answer(path)
            })
        });
        let supervisor = Supervisor::new(RestartPolicy::default(), SupervisionMetrics::default());
        let _ = supervisor.start(ActorKind::Size, "sizes", SizeActor::new(plan));
        tokio::time::sleep(Duration::from_millis(1)).await;
        story(Self { sizes, clock, supervisor, asked }).await
    }

    /// A client requests the path.
    fn request(&self, path: &str) -> Option<f32> {
        let now = self.clock.timestamp(Instant::now());
        self.sizes.expect(path.as_bytes(), digest(path.as_bytes()), None, now)
    }

    fn is_known(&self, path: &str) -> bool {
        matches!(self.sizes.known(path.as_bytes(), digest(path.as_bytes())), Some(ExpectedSize::Known(_)))
    }

    /// All requests for sizes so far.
    fn asked(&mut self) -> Vec<SizeRequest> {
        std::iter::from_fn(|| self.asked.try_recv().ok()).collect()
    }
}

/// Runs with a clock that advances to the next timer once all tasks wait.
fn in_virtual_time<F: Future>(future: F) -> F::Output {
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    system.block_on(future)
}

#[test]
fn a_path_is_looked_up_once_within_a_second_of_its_second_request() {
    in_virtual_time(LookUps::play(3, async |mut look_ups| {
        look_ups.request("/once");
        look_ups.request("/twice");
        tokio::time::sleep(Duration::from_secs(1)).await;
        look_ups.request("/twice");
        look_ups.request("/twice");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(look_ups.is_known("/twice") && !look_ups.is_known("/once"));
        tokio::time::sleep(Duration::from_mins(1)).await;
        look_ups.request("/twice");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let paths: Vec<_> = look_ups.asked().into_iter().map(|asked| asked.path).collect();
        assert_eq!(paths, ["/twice"]);
    }));
}

#[test]
fn a_known_size_is_looked_up_again_after_a_day_and_used_until_then() {
    in_virtual_time(LookUps::play(1, async |mut look_ups| {
        look_ups.request("/a");
        // The hours before each request, and the number of look-ups that follow it.
        for (hours, expected) in [(0, 1), (12, 0), (11, 0), (2, 1), (12, 0), (13, 1)] {
            tokio::time::advance(Duration::from_hours(hours)).await;
            assert_eq!(look_ups.request("/a").is_some(), look_ups.is_known("/a"));
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(look_ups.asked().len(), expected, "after {hours} more hours");
            assert!(look_ups.is_known("/a"));
        }
    }));
}

#[test]
fn look_ups_are_limited_to_a_hundred_per_second_over_all_backends() {
    in_virtual_time(LookUps::play(50, async |mut look_ups| {
        for path in 0..800 {
            look_ups.request(&format!("/{path}"));
            look_ups.request(&format!("/{path}"));
        }
        tokio::time::sleep(Duration::from_secs(9)).await;
        let asked = look_ups.asked();
        assert_eq!(asked.len(), 800);
        let second = Duration::from_secs(1);
        for first in &asked {
            let count = asked.iter().filter(|other| other.at >= first.at && other.at < first.at + second);
            assert!(count.count() <= 100);
        }
        // All backends that are up take part, and the one that is down does not.
        let backends: HashSet<_> = asked.iter().map(|asked| &asked.backend).collect();
        assert_eq!(backends.len(), 50);
        assert!(!backends.contains(&"http://server50:80".to_owned()));
    }));
}

#[test]
fn a_backend_gets_one_look_up_at_a_time() {
    in_virtual_time(LookUps::play(2, async |mut look_ups| {
        for path in 0..20 {
            look_ups.request(&format!("/slow/{path}"));
            look_ups.request(&format!("/slow/{path}"));
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let asked = look_ups.asked();
        assert_eq!(asked.len(), 20);
        for backend in ["http://server0:80", "http://server1:80"] {
            let times: Vec<_> =
                asked.iter().filter(|asked| asked.backend == backend).map(|asked| asked.at).collect();
            assert!(times.len() >= 8, "{backend} got {} look-ups", times.len());
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1)), "{backend}");
        }
    }));
}

#[test]
fn a_look_up_without_a_result_is_repeated_after_ten_minutes_and_delays_no_other() {
    for path in ["/silent/a", "/absent/a", "/broken/a"] {
        in_virtual_time(LookUps::play(2, async |mut look_ups| {
            for path in [path, path, "/b", "/b"] {
                look_ups.request(path);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(look_ups.is_known("/b") && !look_ups.is_known(path));
            assert_eq!(look_ups.request(path), None);
            tokio::time::sleep(Duration::from_mins(5)).await;
            look_ups.request(path);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(look_ups.asked().len(), 2);
            tokio::time::sleep(Duration::from_mins(7)).await;
            look_ups.request(path);
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(look_ups.asked().len(), 1, "{path}");
        }));
    }
}

#[test]
fn silent_backends_are_asked_again_after_the_time_limit() {
    in_virtual_time(LookUps::play(1, async |mut look_ups| {
        for path in ["/silent/a", "/silent/a", "/b", "/b"] {
            look_ups.request(path);
        }
        tokio::time::sleep(TIMEOUT / 2).await;
        assert!(!look_ups.is_known("/b"));
        tokio::time::sleep(TIMEOUT).await;
        assert!(look_ups.is_known("/b"));
        assert_eq!(look_ups.asked().len(), 2);
    }));
}

#[test]
fn after_a_panic_the_waiting_paths_are_looked_up() {
    in_virtual_time(LookUps::play(1, async |mut look_ups| {
        for path in ["/fatal/a", "/fatal/a", "/b", "/b"] {
            look_ups.request(path);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(look_ups.is_known("/b"));
        look_ups.supervisor.inject_panic(ActorKind::Size);
        for path in ["/c", "/c"] {
            look_ups.request(path);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(look_ups.is_known("/c"));
        assert_eq!(look_ups.asked().len(), 3);
    }));
}

#[test]
fn paths_that_do_not_fit_into_the_queue_are_counted_and_offered_again() {
    in_virtual_time(LookUps::play(50, async |look_ups| {
        let paths: Vec<_> = (0..QUEUE + 100).map(|path| format!("/{path}")).collect();
        for path in paths.iter().chain(&paths) {
            look_ups.request(path);
        }
        assert_eq!(look_ups.sizes.metrics.dropped.get(), 100);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let is_unknown = |path: &&String| !look_ups.is_known(path);
        assert_eq!(paths.iter().filter(is_unknown).count(), 100);
        for path in &paths {
            look_ups.request(path);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(paths.iter().filter(is_unknown).count(), 0);
    }));
}

#[test]
fn a_path_that_is_too_long_is_not_looked_up() {
    in_virtual_time(LookUps::play(1, async |mut look_ups| {
        let path = "/x".repeat(LONGEST_PATH);
        look_ups.request(&path);
        look_ups.request(&path);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(look_ups.asked().is_empty());
    }));
}
