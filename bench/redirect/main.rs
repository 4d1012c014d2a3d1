//! What a redirect costs: fingerpost beside nginx, `HAProxy`, Caddy and the floor, one processor each.
//!
//! ```text
//! cargo bench --bench redirect -- [--rounds 5] [--seconds 5] [--connections 64] [--only NAME,NAME]
//! ```
//!
//! One server runs at a time, pinned to processor 0, and is asked for one path by `wrk` on processor 1, over connections that stay
//! open. The rounds are interleaved, so that noise of the machine meets all alike, and the table shows medians. The
//! cost is the server's processor time as the kernel accounts for it, divided by the answers; what the server takes
//! when nobody asks, as for its probes, is measured before and subtracted. Peers that are not
//! installed are left out and named (Debian packages nginx, haproxy, caddy; wrk is needed).
//!
//! The floor is a bare epoll loop that writes the very bytes that fingerpost answers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed bench may panic"
)]
#![allow(clippy::disallowed_types, reason = "a bench measures real time")]
#![allow(unreachable_pub, dead_code, reason = "the benches share modules, and each takes what it needs")]

use std::io;
use std::time::{Duration, Instant};

use bench_support::{LOAD_CORE, SERVER_CORE, balancer, median, process, wrk};
use clap::Parser as _;

#[path = "../support/mod.rs"]
mod bench_support;
mod contenders;

/// How long a server is watched before it is asked.
const IDLE_WINDOW: Duration = Duration::from_secs(2);

/// The path that is asked for; long enough to be a download's.
const TARGET: &str = "/pub/releases/image.iso?mirror=any";

#[derive(clap::Parser)]
struct Options {
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// What the names of contenders start with; all where it is empty.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

fn main() -> io::Result<()> {
    let Some(arguments) = bench_support::arguments()? else { return Ok(()) };
    let options = Options::parse_from(arguments);
    if !process::is_installed("wrk") {
        eprintln!("skipped: wrk is not installed (Debian package wrk)");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut contenders = contenders::all();
    contenders.retain(|contender| {
        options.only.is_empty() || options.only.iter().any(|start| contender.name.starts_with(start.as_str()))
    });
    let mut runs: Vec<Vec<Run>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for (contender, runs) in contenders.iter().zip(&mut runs) {
            // Only the one that is measured runs: probes of another would take their share of the processor.
            let running = contender.start(folder.path())?;
            let idle_share = running.process.cpu_share_over(IDLE_WINDOW);
            let (before, start) = (running.process.cpu_seconds(), Instant::now());
            let load = wrk::run(LOAD_CORE, options.connections, options.seconds, running.port, TARGET)?;
            let idle_seconds = idle_share * start.elapsed().as_secs_f64();
            let cpu_seconds = running.process.cpu_seconds() - before - idle_seconds;
            runs.push(Run {
                load,
                cpu_microseconds: cpu_seconds * 1e6 / load.answers.max(1.0),
                idle_percent: idle_share * 100.0,
            });
        }
    }
    print_table(&options, &contenders, &runs);
    Ok(())
}

struct Run {
    load: wrk::Load,
    /// Processor time of the server for each answer, beyond what it takes when nobody asks.
    cpu_microseconds: f64,
    /// What it takes when nobody asks, such as for probes.
    idle_percent: f64,
}

fn print_table(options: &Options, contenders: &[contenders::Contender], runs: &[Vec<Run>]) {
    println!(
        "{} rounds of {} s, {} connections that stay open, medians\n",
        options.rounds, options.seconds, options.connections
    );
    println!("| server | CPU us per answer | against the floor | CPU % idle | answers/s | p99 ms | errors |");
    println!("|---|---|---|---|---|---|---|");
    let of = |runs: &[Run], figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let floor = contenders
        .iter()
        .zip(runs)
        .find(|(contender, _)| contender.name == contenders::FLOOR)
        .map(|(_, runs)| of(runs, |run| run.cpu_microseconds));
    for (contender, runs) in contenders.iter().zip(runs) {
        let cpu = of(runs, |run| run.cpu_microseconds);
        println!(
            "| {} | {cpu:.2} | {} | {:.1} | {:.0} | {:.2} | {} |",
            contender.name,
            floor.map_or_else(|| "-".to_owned(), |floor| format!("{:.2}", cpu / floor)),
            of(runs, |run| run.idle_percent),
            of(runs, |run| run.load.per_second),
            of(runs, |run| run.load.p99_milliseconds),
            runs.iter().map(|run| run.load.errors).sum::<f64>(),
        );
    }
}
