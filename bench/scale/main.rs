//! What it takes to watch many backends: processor, memory, and the time until all of them are known.
//!
//! ```text
//! cargo bench --bench scale -- [--backends 10,1000,10000] [--interval 5s] [--seconds 20]
//! ```
//!
//! All backends are addresses of 127.0.0.0/8 behind one listener that answers every probe with the same bytes, on
//! processor 1. The balancer has processor 0. Nobody asks it for a redirect meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed bench may panic"
)]
#![allow(clippy::disallowed_types, reason = "a bench measures real time")]
#![allow(unreachable_pub, dead_code, reason = "the benches share modules, and each takes what it needs")]

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bench_support::{LOAD_CORE, SERVER_CORE, canned, process};

#[path = "../support/mod.rs"]
mod bench_support;

/// What a backend answers to a probe.
const PROBE_ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

struct Options {
    backends: Vec<usize>,
    interval: String,
    seconds: u64,
}

/// What one balancer took.
struct Figures {
    first_picture: Duration,
    cpu_percent: f64,
    resident_bytes: u64,
    /// Backends that are up at the end.
    up: usize,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "serve-canned") {
        return canned::serve(&fs::read(&arguments[1])?);
    }
    let options = Options::parse(arguments.into_iter());
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
    let answer = folder.join("answer");
    fs::write(&answer, PROBE_ANSWER)?;
    let (_servers, servers_port) = process::canned_server(LOAD_CORE, &answer)?;
    let list = folder.join(format!("list-{backends}.txt"));
    fs::write(&list, process::loopback_list(backends, servers_port))?;
    let admin = process::free_port()?;
    let (balancer, _) = process::Process::start_ready(
        SERVER_CORE,
        env!("CARGO_BIN_EXE_fingerpost"),
        &[
            "balancer",
            "--host",
            "127.0.0.1",
            "--log-level",
            "error",
            "--probe-interval",
            &options.interval,
            "--admin",
            &format!("127.0.0.1:{admin}"),
            "--servers",
            list.to_str().expect("a path in UTF-8"),
        ],
        "Will wait for client connections at port ",
    )?;
    let start = Instant::now();
    process::first_answer(admin, "/readyz")?;
    let first_picture = start.elapsed();
    let cpu_percent = balancer.cpu_share_over(Duration::from_secs(options.seconds)) * 100.0;
    let metrics = process::first_answer(admin, "/metrics")?;
    let metrics = String::from_utf8_lossy(&metrics);
    let up = metrics.lines().find_map(|line| line.strip_prefix("fingerpost_backends{state=\"up\"} "));
    Ok(Figures {
        first_picture,
        cpu_percent,
        resident_bytes: balancer.resident_bytes(),
        up: up.and_then(|count| count.parse().ok()).expect("a metric of backends that are up"),
    })
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Self { backends: vec![10, 1000, 10_000], interval: "5s".to_owned(), seconds: 20 };
        while let Some(name) = arguments.next() {
            let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
            match name.as_str() {
                "--backends" => {
                    let numbers =
                        value.split(',').map(|number| number.parse().expect("a number of backends"));
                    options.backends = numbers.collect();
                }
                "--interval" => options.interval = value,
                "--seconds" => options.seconds = value.parse().expect("a number of seconds"),
                _ => panic!("{name} is none of --backends --interval --seconds"),
            }
        }
        options
    }
}
