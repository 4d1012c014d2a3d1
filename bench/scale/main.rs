//! Measures the cost of probing many backends: processor, memory, and the time until all of them are known.
//!
//! ```text
//! cargo bench --bench scale -- [--backends 10,1000,10000] [--interval 5s] [--seconds 20]
//! ```
//!
//! All backends are addresses of 127.0.0.0/8 behind one listener that answers every probe with the same bytes, on
//! processor 1. The balancer runs on processor 0, without requests for redirects.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed bench may panic"
)]
#![allow(clippy::disallowed_types, reason = "a bench measures real time")]
#![allow(unreachable_pub, dead_code, reason = "each bench uses a part of the shared modules")]

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bench_support::balancer::{self, Balancer};
use bench_support::process;
use clap::Parser as _;

#[path = "../support/mod.rs"]
mod bench_support;

#[derive(clap::Parser)]
struct Options {
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1000, 10_000])]
    backends: Vec<usize>,
    #[arg(long, default_value = "5s")]
    interval: String,
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

/// The cost of one balancer.
struct Figures {
    first_picture: Duration,
    cpu_percent: f64,
    resident_bytes: u64,
    /// Backends that are up at the end.
    up: usize,
}

fn main() -> io::Result<()> {
    let Some(arguments) = bench_support::arguments()? else { return Ok(()) };
    let options = Options::parse_from(arguments);
    let folder = tempfile::tempdir()?;
    println!("probes every {}, watched for {} s\n", options.interval, options.seconds);
    println!("| backends | all known after s | CPU % of a processor | resident MB | up |");
    println!("|---|---|---|---|---|");
    for backends in &options.backends {
        let figures = watch(*backends, &options, folder.path())?;
        println!(
            "| {backends} | {:.1} | {:.1} | {:.0} | {} |",
            figures.first_picture.as_secs_f64(),
            figures.cpu_percent,
            figures.resident_bytes as f64 / 1e6,
            figures.up,
        );
    }
    Ok(())
}

fn watch(backends: usize, options: &Options, folder: &Path) -> io::Result<Figures> {
    let (_servers, servers_port) = balancer::backend(folder)?;
    let list = folder.join(format!("list-{backends}.txt"));
    fs::write(&list, balancer::list(backends, servers_port))?;
    let balancer = Balancer::launch(&list, &["--probe-interval", &options.interval])?;
    let start = Instant::now();
    process::first_answer(balancer.admin, "/readyz")?;
    let first_picture = start.elapsed();
    let cpu_percent = balancer.process.cpu_share_over(Duration::from_secs(options.seconds)) * 100.0;
    let metrics = process::first_answer(balancer.admin, "/metrics")?;
    let metrics = String::from_utf8_lossy(&metrics);
    let up = metrics.lines().find_map(|line| line.strip_prefix("fingerpost_backends{state=\"up\"} "));
    Ok(Figures {
        first_picture,
        cpu_percent,
        resident_bytes: balancer.process.resident_bytes(),
        up: up.and_then(|count| count.parse().ok()).expect("a metric of backends that are up"),
    })
}
