//! Tests of the plan with simulated servers and a simulated clock.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::client::checksum::{Algorithm, Checksum};
use crate::client::observed::Observed;

const TICK: Duration = Duration::from_millis(5);

/// A server: its rate, its latency, and the byte of each answer at which it closes the connection.
#[derive(Debug, Clone)]
struct SimulatedServer {
    rate: u64,
    latency: Duration,
    breaks_after: Option<u64>,
    /// Time at which the server is killed.
    dies_at: Option<Duration>,
    is_silent: bool,
}

impl SimulatedServer {
    fn new(rate: u64) -> Self {
        Self { rate, latency: Duration::from_millis(10), breaks_after: None, dies_at: None, is_silent: false }
    }
}

struct SimulatedRun {
    source: SourceId,
    range: ByteRange,
    asked: Instant,
    has_head: bool,
    sent: u64,
    credit: f64,
}

struct SimulationResult {
    took: Duration,
    status: PlanStatus,
    /// All bytes that servers sent.
    sent: u64,
    by_source: BTreeMap<usize, u64>,
    requests: usize,
}

/// A plan for a file of `size` bytes with `sources` sources.
fn plan(settings: PlanSettings, size: u64, sources: usize) -> DownloadPlan {
    let known =
        ContentIdentity { size: Some(size), etags: vec!["\"tag\"".to_owned()], ..ContentIdentity::default() };
    let mut plan = DownloadPlan::new(settings, known, None, BalancerPresence::Absent);
    for index in 0..sources {
        let url = format!("http://{index}/f").parse().unwrap();
        plan.add_source(RedirectChain::new(url, 0), "");
    }
    plan
}

/// The head of an answer with the bytes from `start` to the end of the file.
fn head(start: u64) -> AnswerFacts {
    AnswerFacts {
        url: "http://0/f".parse().unwrap(),
        start,
        extent: Extent::Whole,
        observed: Observed::default(),
        is_metalink: false,
        refuses_ranges: false,
    }
}

fn fail(plan: &mut DownloadPlan, run: RunId, failure: RunFailure, now: Instant) {
    plan.fail(run, Failure::new(failure, DownloadError::NoSource), 0.5, now);
}

/// Runs a download of `size` bytes until it ends, at most for `limit`. Every byte must be accepted exactly
/// once.
fn simulate(
    size: u64,
    servers: &[SimulatedServer],
    settings: PlanSettings,
    limit: Duration,
) -> SimulationResult {
    let start = Instant::now();
    let mut now = start;
    let mut plan = plan(settings, size, servers.len());
    let mut flows: BTreeMap<RunId, SimulatedRun> = BTreeMap::new();
    let mut accepted = RangeSet::new();
    let mut outcome = SimulationResult {
        took: limit,
        status: PlanStatus::Working,
        sent: 0,
        by_source: BTreeMap::new(),
        requests: 0,
    };
    while now.duration_since(start) < limit {
        for action in plan.decide(now) {
            match action {
                Action::Start { run, source, range } => {
                    // The same decision may end a run of this source.
                    let is_busy =
                        flows.iter().any(|(run, flow)| flow.source == source && plan.is_running(*run));
                    assert!(!is_busy, "two runs on one source");
                    outcome.requests += 1;
                    let flow =
                        SimulatedRun { source, range, asked: now, has_head: false, sent: 0, credit: 0.0 };
                    flows.insert(run, flow);
                }
                Action::QueryBalancer => panic!("there is no balancer"),
            }
        }
        flows.retain(|run, _| plan.is_running(*run));
        outcome.status = plan.status();
        if outcome.status != PlanStatus::Working {
            outcome.took = now.duration_since(start);
            break;
        }
        now += TICK;
        let runs: Vec<RunId> = flows.keys().copied().collect();
        for run in runs {
            let flow = flows.get_mut(&run).unwrap();
            let server = &servers[flow.source.0];
            if server.dies_at.is_some_and(|at| now.duration_since(start) >= at) {
                flows.remove(&run);
                fail(&mut plan, run, RunFailure::Passing { retry_after: None }, now);
                continue;
            }
            if server.is_silent || now.duration_since(flow.asked) < server.latency {
                continue;
            }
            if !flow.has_head {
                flow.has_head = true;
                plan.accept(run, &head(flow.range.start), now);
            }
            flow.credit += server.rate as f64 * TICK.as_secs_f64();
            let left = plan.runs[&run].end - flow.range.start - flow.sent;
            let until_break = server.breaks_after.map_or(u64::MAX, |at| at - flow.sent);
            let count = (flow.credit as u64).min(left).min(until_break);
            flow.credit -= count as f64;
            flow.sent += count;
            outcome.sent += count;
            *outcome.by_source.entry(flow.source.0).or_default() += count;
            for (_, fresh) in plan.received(run, count as usize, now).1 {
                assert!(accepted.within(fresh).is_empty(), "a byte was accepted twice");
                accepted.insert(fresh);
            }
            if !plan.is_running(run) {
                flows.remove(&run);
            } else if Some(flow.sent) == server.breaks_after {
                flows.remove(&run);
                fail(&mut plan, run, RunFailure::Passing { retry_after: None }, now);
            }
        }
    }
    if outcome.status == PlanStatus::Complete {
        assert_eq!(accepted, RangeSet::of(ByteRange::new(0, size)));
    }
    outcome
}

fn default_run(size: u64, servers: &[SimulatedServer]) -> SimulationResult {
    let outcome = simulate(size, servers, PlanSettings::default(), Duration::from_mins(10));
    assert_eq!(outcome.status, PlanStatus::Complete);
    outcome
}

const MEGA: u64 = 1_000_000;

#[test]
fn a_small_file_takes_one_request() {
    let outcome = default_run(MEGA, &[SimulatedServer::new(20 * MEGA), SimulatedServer::new(20 * MEGA)]);
    assert_eq!(outcome.requests, 1);
}

#[test]
fn a_fast_download_takes_one_request() {
    let outcome =
        default_run(64 << 20, &[SimulatedServer::new(500 * MEGA), SimulatedServer::new(500 * MEGA)]);
    assert_eq!(outcome.requests, 1);
}

#[test]
fn a_fast_and_a_slow_server_reach_nearly_the_sum_of_their_rates() {
    let ideal = f64::from(64 << 20) / 22e6;
    for order in [[20, 2], [2, 20]] {
        let servers = order.map(|rate| SimulatedServer::new(rate * MEGA));
        let outcome = default_run(64 << 20, &servers);
        assert!(outcome.took.as_secs_f64() < 1.12 * ideal, "{order:?}: {:?}", outcome.took);
        assert!(outcome.sent < (64 << 20) + (1 << 20), "{} sent", outcome.sent);
    }
}

#[test]
fn four_servers_are_nearly_four_times_as_fast() {
    let outcome = default_run(64 << 20, &[20, 20, 20, 20].map(|rate| SimulatedServer::new(rate * MEGA)));
    let ideal = f64::from(64 << 20) / 80e6;
    assert!(outcome.took.as_secs_f64() < 1.15 * ideal, "{:?}", outcome.took);
}

#[test]
fn a_server_that_is_killed_costs_little_time_and_few_bytes() {
    let size: u64 = 64 << 20;
    for victim in 0..3 {
        let mut servers = vec![SimulatedServer::new(20 * MEGA); 3];
        // A third of the time that all three servers would take.
        let dies_at = Duration::from_secs_f64(size as f64 / 60e6 / 3.0);
        servers[victim].dies_at = Some(dies_at);
        let outcome = default_run(size, &servers);
        let ideal = dies_at.as_secs_f64() + size as f64 * 2.0 / 3.0 / 40e6;
        assert!(outcome.took.as_secs_f64() < ideal + 0.5, "{victim}: {:?}, ideal {ideal}", outcome.took);
        assert!(outcome.sent < size + (1 << 20), "{victim}: {} sent", outcome.sent);
    }
}

#[test]
fn a_silent_first_server_costs_one_second() {
    let mut silent = SimulatedServer::new(MEGA);
    silent.is_silent = true;
    let outcome = default_run(MEGA, &[silent, SimulatedServer::new(100 * MEGA)]);
    assert!(outcome.took < Duration::from_millis(1200), "{:?}", outcome.took);
}

#[test]
fn a_crawling_server_is_helped_at_the_end() {
    // The slow server starts first, and would need 1000 s alone.
    let outcome = default_run(20 << 20, &[SimulatedServer::new(20_000), SimulatedServer::new(20 * MEGA)]);
    assert!(outcome.took < Duration::from_secs(3), "{:?}", outcome.took);
}

#[test]
fn an_untried_server_replaces_a_slow_one() {
    let mut servers = vec![SimulatedServer::new(MEGA); 4];
    servers[3].rate = 20_000;
    servers.push(SimulatedServer::new(20 * MEGA));
    let outcome = default_run(100 << 20, &servers);
    assert!(outcome.by_source.contains_key(&4), "the fifth was never tried");
}

#[test]
fn retries_are_limited() {
    let mut broken = SimulatedServer::new(MEGA);
    broken.breaks_after = Some(0);
    let outcome = simulate(MEGA, &[broken], PlanSettings::default(), Duration::from_mins(10));
    assert_eq!(outcome.status, PlanStatus::Stuck);
    assert!(outcome.took < Duration::from_mins(1));
}

#[test]
fn the_loser_of_a_race_is_asked_at_once_after_the_winner_fails() {
    let settings = PlanSettings::default();
    let start = Instant::now();
    let later = start + settings.head_after;
    let mut plan = plan(settings, MEGA, 2);
    let (loser, winner) = (SourceId(0), SourceId(1));
    let begun = |actions: Vec<Action>, by: SourceId| {
        actions.into_iter().find_map(|action| match action {
            Action::Start { run, source, .. } if source == by => Some(run),
            _ => None,
        })
    };
    let silent = begun(plan.decide(start), loser).unwrap();
    let run = begun(plan.decide(later), winner).unwrap();
    plan.accept(run, &head(0), later);
    plan.received(run, 1000, later);
    plan.decide(later);
    assert!(!plan.is_running(silent));
    fail(&mut plan, run, RunFailure::Final, later);
    assert!(begun(plan.decide(later), loser).is_some());
}

#[test]
fn a_run_with_paused_timeouts_is_neither_hedged_nor_dropped() {
    let settings = PlanSettings::default();
    let start = Instant::now();
    let mut plan = plan(settings.clone(), MEGA, 2);
    let actions = plan.decide(start);
    let [Action::Start { run, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    plan.accept(*run, &head(0), start);
    plan.received(*run, 1000, start);
    plan.pause_timeouts(*run);
    let later = start + 10 * settings.drop_after;
    assert_eq!(plan.decide(later), []);
    // After the timeouts resume, silence counts from that moment.
    plan.resume_timeouts(*run, later);
    assert_eq!(plan.decide(later), []);
    let hedged = plan.decide(later + settings.hedge_after);
    assert!(matches!(hedged.as_slice(), [Action::Start { range, .. }] if range.start == 1000), "{hedged:?}");
}

#[test]
fn a_piece_is_verified_again_after_a_part_of_it_was_discarded() {
    let hash = Checksum::new(Algorithm::Sha256, &[0; 32]).unwrap();
    let pieces = Pieces { length: 10, size: 20, digests: [hash, hash].into() };
    let (first, all) = (ByteRange::new(0, 10), ByteRange::new(0, 20));
    let to_verify = |map: &ByteMap, range| {
        let follow_up = map.follow_up(&[range], Some(&pieces));
        follow_up.pieces.iter().map(|(piece, _)| piece.start).collect::<Vec<_>>()
    };
    let mut map = ByteMap::new(Some(20), RangeSet::new());
    map.receive(all, SourceId(0));
    assert_eq!(to_verify(&map, all), [0, 10]);
    map.on_written(&[all], &[first]);
    assert_eq!(to_verify(&map, all), [10]);
    map.forget(ByteRange::new(3, 5));
    assert_eq!(map.missing(), &RangeSet::of(ByteRange::new(3, 5)));
    assert_eq!((map.count_from(SourceId(0)), map.written().len()), (18, 18));
    assert_eq!(to_verify(&map, ByteRange::new(3, 5)), [0]);
}

fn any_server() -> impl Strategy<Value = SimulatedServer> {
    (1_u64..40, 0_u64..200, prop::option::weighted(0.3, 20_000_u64..4_000_000), prop::bool::weighted(0.1))
        .prop_map(|(rate, latency, breaks_after, is_silent)| SimulatedServer {
            rate: rate * 500_000,
            latency: Duration::from_millis(latency),
            breaks_after,
            dies_at: None,
            is_silent,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// With one honest server among any others, the download completes, and each byte is accepted once.
    #[test]
    fn one_honest_server_is_enough(
        mut servers in prop::collection::vec(any_server(), 0..5),
        place in 0_usize..5,
        size in 1_u64..30_000_000,
    ) {
        servers.insert(place.min(servers.len()), SimulatedServer::new(2_000_000));
        let outcome = simulate(size, &servers, PlanSettings::default(), Duration::from_mins(5));
        prop_assert_eq!(outcome.status, PlanStatus::Complete);
        prop_assert!(outcome.sent <= 2 * size + 8_000_000, "{} sent for {}", outcome.sent, size);
    }
}
