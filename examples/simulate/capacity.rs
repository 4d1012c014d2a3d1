//! The cost of a fleet for one balancer, with the balancer's own code: the bytes of records, and the time to combine them.

use std::time::Duration;

use fingerpost::internals::health::State;
use fingerpost::internals::shared::{
    BackendNews, Delivery, FleetRecord, Observation, Observers, OwnSight, Publisher,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

/// The default of `probe_budget`: probes per second of one balancer.
const BUDGET: f64 = 2000.0;

/// The defaults of `probe_interval` in seconds and of `fleet_probers`.
const INTERVAL: f64 = 2.0;
const PROBERS: usize = 2;

/// The redirects per second of each balancer.
const REDIRECTS: usize = 1000;

/// Tables per second of a busy balancer.
const TABLES: u32 = 4;

/// The simulated time in seconds.
const SECONDS: u64 = 12;

/// Prints one row for each size of a fleet.
pub(crate) fn print(backends: usize) {
    println!("\n## Capacity: {backends} servers, {REDIRECTS} redirects per second and balancer\n");
    println!(
        "| balancers | probe interval | probes/s per balancer | probes/s per server | record | read per balancer | engine sends | decode and apply | combine |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for balancers in [1, 3, 30, 300] {
        row(balancers, backends);
    }
}

fn row(balancers: usize, backends: usize) {
    let start = Instant::now();
    let mut observers = Observers::new("own", 0, PROBERS, start);
    let mut random = SmallRng::seed_from_u64(1);
    let own: Vec<OwnSight> = (0..backends)
        .map(|backend| OwnSight { backend: spread(backend), state: State::Up, is_silent: false })
        .collect();
    let (mut bytes, mut applying, mut combining) = (0, Duration::ZERO, Duration::ZERO);
    let mut interval = INTERVAL;
    let mut probes = backends as f64 / interval;
    for second in 0..SECONDS {
        let now = start + Duration::from_secs(second);
        observers.refresh(&Ok(()), now);
        let probes_per_interval = backends as f64 * observers.share();
        interval = INTERVAL.max(probes_per_interval / BUDGET);
        probes = probes_per_interval / interval;
        for peer in 1..balancers {
            let record = record(peer, second, probes as usize, backends, &mut random).encode();
            bytes += record.len();
            let began = processor_time();
            let record = FleetRecord::decode(&record).expect("a record is valid");
            observers.apply(&record, Delivery::Live, now);
            applying += processor_time().saturating_sub(began);
        }
        let began = processor_time();
        for _ in 0..TABLES {
            observers.combine(&own, Duration::from_secs_f64(interval), now);
        }
        combining += processor_time().saturating_sub(began);
    }
    let others = (balancers - 1) as f64;
    let read = bytes as f64 / SECONDS as f64;
    let record = if others > 0.0 { read / others } else { 0.0 };
    let share = |time: Duration| 100.0 * time.as_secs_f64() / SECONDS as f64;
    println!(
        "| {balancers} | {interval:.1} s | {probes:.0} | {:.2} | {:.1} kB | {:.2} MB/s | {:.1} MB/s | {:.1} % | {:.1} % |",
        probes * balancers as f64 / backends as f64,
        record / 1e3,
        read / 1e6,
        read * balancers as f64 / 1e6,
        share(applying),
        share(combining),
    );
}

/// The processor time of this thread, which other programs do not affect.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel shows it");
    let nanoseconds = statistics.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("it is a number"))
}

/// A number in place of the digest of an address.
fn spread(backend: usize) -> u64 {
    (backend as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn record(peer: usize, second: u64, probes: usize, backends: usize, random: &mut SmallRng) -> FleetRecord {
    let observation = Observation {
        state: State::Up,
        age: 500,
        pause: 2000,
        response_time: Some(20_000),
        in_flight: Some(20),
        unsent_bytes: Some(100_000_000),
    };
    let mut any = || spread(random.random_range(0..backends));
    let observed = (0..probes).map(|_| BackendNews {
        backend: any(),
        observation: Some(observation),
        redirects: 0,
        bytes: 0,
    });
    let mut news: Vec<_> = observed.collect();
    let redirected = (0..REDIRECTS.min(backends)).map(|_| BackendNews {
        backend: any(),
        observation: None,
        redirects: 1,
        bytes: 10_000_000,
    });
    news.extend(redirected);
    news.truncate(5000);
    FleetRecord {
        balancer: Publisher {
            name: format!("balancer{peer}.example:8080"),
            zone: "eu".to_owned(),
            version: "0.1.0".to_owned(),
        },
        boot: 1,
        number: second + 1,
        uptime: second * 1000 + 1,
        period: 1000,
        list: 0,
        orders: 0,
        backends: news,
    }
}
