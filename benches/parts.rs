//! Measures the parts around a pick: server list, routing table, load report, and `Location`.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use fingerpost::internals::geography::{GeoDatabase, Geography, NetworkTable};
use fingerpost::internals::health::{HealthCheckConfig, ProbeOutcome};
use fingerpost::internals::load_report::{self, LoadReport};
use fingerpost::internals::location::Target;
use fingerpost::internals::policy::{LoadSlab, MonotonicClock, PolicyName, Timestamp, digest};
use fingerpost::internals::sizes::{FoundSize, SizeTable};
use fingerpost::internals::table::{BackendEntry, RoutingTable};
use fingerpost::internals::{Backend, list};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

/// The allocator of the fingerpost binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COUNTS: [usize; 3] = [10, 1_000, 100_000];

const HEALTH_CHECK: HealthCheckConfig = HealthCheckConfig {
    fall: 3,
    rise: 2,
    interval: Duration::from_secs(2),
    backoff_max: Duration::from_secs(30),
    slow_start: Duration::from_secs(10),
};

fn lines(count: usize) -> String {
    let lines: Vec<String> = (0..count).map(|line| format!("mirror{line}.example:8080 weight=2")).collect();
    lines.join("\n")
}

fn parse_list(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse list");
    for count in COUNTS {
        let text = lines(count);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| list::parse(black_box(text.as_bytes())));
        });
    }
    group.finish();
}

/// Backends with two successful probes that carried reports.
fn entries(count: usize) -> Vec<BackendEntry> {
    let start = Instant::now();
    let clock = MonotonicClock::new(start);
    let mut slab = LoadSlab::default();
    let entry = |(seconds, backend): (u64, Backend)| {
        let mut entry = BackendEntry::new(backend, &mut slab, start);
        for probe in 1..3 {
            let time = Duration::from_micros(300 + seconds % 1000);
            let done = probe * (50 + seconds % 50);
            let report = LoadReport {
                in_flight: 3,
                completed: Some(done),
                sent_bytes: Some(done * 1_000_000),
                busy: Some(Duration::from_secs(probe)),
                ..LoadReport::default()
            };
            let outcome =
                ProbeOutcome::Success { connect: time, first_byte: time, total: time, report: Some(report) };
            entry.observe(&outcome, &HEALTH_CHECK, &clock, start + Duration::from_secs(2 * probe));
        }
        entry
    };
    (0..).zip(list::parse(lines(count).as_bytes()).backends).map(entry).collect()
}

fn build_table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build table");
    group.sample_size(20);
    for count in [10, 1_000, 10_000] {
        let entries = entries(count);
        let mut random = SmallRng::seed_from_u64(1);
        let now = Instant::now() + Duration::from_secs(10);
        let clock = MonotonicClock::new(now);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter_batched(
                || entries.clone(),
                |mut entries| {
                    RoutingTable::build(
                        1,
                        &mut entries,
                        PolicyName::Adaptive,
                        &HEALTH_CHECK,
                        &clock,
                        now,
                        &mut random,
                    )
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn parse_report(criterion: &mut Criterion) {
    let report = LoadReport {
        in_flight: 17,
        unsent_bytes: Some(123_456_789),
        completed: Some(98_765),
        busy: Some(Duration::from_millis(123_456)),
        sent_bytes: Some(9_876_543_210),
        boot: Some(1 << 50),
    };
    let text = report.to_string();
    criterion.bench_function("parse load report", |bencher| {
        bencher.iter(|| load_report::parse(black_box(text.as_bytes())));
    });
}

fn location(criterion: &mut Criterion) {
    let backend = list::parse(b"mirror.example:8080").backends.remove(0);
    let target = b"/pub/releases/image.iso?mirror=any";
    criterion.bench_function("location", |bencher| {
        bencher.iter(|| Target::parse(black_box(target)).map(|target| target.location(backend.id())));
    });
}

/// Looks up known paths in a table of a million: one path again and again, and one after the other.
fn look_up_size(criterion: &mut Criterion) {
    let table = SizeTable::default();
    let path = |number: u64| format!("/pub/releases/{number}/image.iso");
    let hash = |number: u64| digest(path(number).as_bytes());
    let hashes: Vec<u64> = (0..1_000_000).map(hash).collect();
    for (number, hash) in (0..).zip(&hashes) {
        table.learn(path(number).as_bytes(), *hash, FoundSize { bytes: 1_000_000, tag: 0 }, Timestamp(1));
    }
    let mut group = criterion.benchmark_group("look up size");
    // The table forgets a few of the paths, but not the last one.
    for (name, asked) in [("hot", hashes.get(999_999..).unwrap_or_default()), ("of a million", &hashes)] {
        let mut next = asked.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let hash = next.next().copied().unwrap_or_default();
                table.look_up(black_box(b"/pub/releases/1/image.iso"), hash, None, Timestamp(2))
            });
        });
    }
    group.finish();
}

/// Looks up an address in `MaxMind`'s test databases of cities and of AS, and in a table of networks.
fn look_up_place(criterion: &mut Criterion) {
    let database = |name: &str| {
        let path = format!("{}/tests/data/geo/{name}.mmdb", env!("CARGO_MANIFEST_DIR"));
        let content = std::fs::read(path).unwrap_or_default();
        GeoDatabase::parse(content).ok().map(Arc::new)
    };
    let lines: Vec<_> =
        (0..10_000).map(|net| format!("10.{}.{}.0/24 country=DE\n", net / 256, net % 256)).collect();
    let table = NetworkTable::parse(lines.concat().as_bytes()).unwrap_or_default();
    let mut group = criterion.benchmark_group("look up place");
    for (name, databases) in
        [("city", &["GeoLite2-City-Test"][..]), ("city and AS", &["GeoLite2-City-Test", "GeoLite2-ASN-Test"])]
    {
        let databases = databases.iter().filter_map(|name| database(name)).collect();
        let geography = Geography { databases, ..Geography::default() };
        let address = IpAddr::from([89, 160, 20, 128]);
        group.bench_function(name, |bencher| bencher.iter(|| geography.of_databases(black_box(address))));
    }
    let address = IpAddr::from([10, 20, 30, 40]);
    group.bench_function("table of 10000", |bencher| {
        bencher.iter(|| table.find(black_box(address)).map(|(_, place)| *place));
    });
    group.finish();
}

criterion_group!(benches, parse_list, build_table, parse_report, location, look_up_size, look_up_place);
criterion_main!(benches);
