//! Measures a pick and the build of a policy, by policy and number of backends.
//!
//! The servers report different loads, and the request rate keeps about two thirds of them busy, so that picks meet idle
//! and busy backends as in production.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fingerpost::internals::policy::{
    self, Candidate, LoadSlab, PickRequest, Picks, PolicyName, ReportedLoad, Throughput, Timestamp, digest,
    identity,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The allocator of the fingerpost binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COUNTS: [u32; 3] = [10, 1_000, 100_000];

/// Requests per second that one backend can serve.
const RATE: f64 = 100.0;

fn candidates(count: u32) -> Vec<Candidate> {
    let mut random = SmallRng::seed_from_u64(u64::from(count));
    let mut slab = LoadSlab::default();
    (0..count)
        .map(|backend| {
            let seconds = random.random_range(5.0..50.0);
            let rate = RATE * random.random_range(0.5..2.0);
            let throughput = Throughput {
                requests: rate * seconds,
                bytes: rate * seconds * 1e6,
                busy_seconds: seconds,
                booked: 0.0,
            };
            Candidate {
                backend,
                weight: 1.0,
                response_time: Some(Duration::from_micros(random.random_range(200..20_000))),
                throughput: Some(throughput),
                reports: true,
                joins: false,
                address: digest(&backend.to_le_bytes()),
                load: slab.allocate(identity(&format!("server{backend}:80"))),
            }
        })
        .collect()
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for name in PolicyName::ALL {
        for count in COUNTS {
            let candidates = candidates(count);
            let mut random = SmallRng::seed_from_u64(1);
            let policy = policy::build(name, candidates.clone(), Timestamp(0), &mut random);
            for candidate in &candidates {
                let in_flight = random.random_range(1..4);
                let report = ReportedLoad { in_flight, unsent_bytes: Some(u64::from(in_flight) * 500_000) };
                candidate.load.record_probe(Some(report), Duration::from_millis(1), Timestamp(1));
            }
            let between = (1e9 / (0.66 * RATE * f64::from(count))) as u64;
            let mut now = 1_000_000_000;
            group.bench_function(BenchmarkId::new(name.as_str(), count), |bencher| {
                bencher.iter(|| {
                    now += between;
                    let mut picks = Picks::new(0);
                    let size = Some(1e4 * (1 + now % 200) as f32);
                    let request = PickRequest { path_hash: now, size, ..PickRequest::default() };
                    policy.pick(black_box(&request), Timestamp(now), &mut random, &mut picks);
                    picks.chosen()
                });
            });
        }
    }
    group.finish();
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.sample_size(20);
    for name in PolicyName::ALL {
        for count in COUNTS {
            let candidates = candidates(count);
            let mut random = SmallRng::seed_from_u64(1);
            group.bench_function(BenchmarkId::new(name.as_str(), count), |bencher| {
                bencher.iter_batched(
                    || candidates.clone(),
                    |candidates| policy::build(name, candidates, Timestamp(0), &mut random),
                    criterion::BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pick, build);
criterion_main!(benches);
