//! Compares policies with real processes on loopback: file servers with a limited rate, the balancer, and clients that
//! arrive on schedule, whether or not earlier ones have finished.
//!
//! ```text
//! cargo bench --bench selection -- [--seconds 15] [--load 0.7] [--only POLICY,POLICY] [--mix 'one at a tenth'] [--other PROGRAM]
//! ```
//!
//! Each pass runs one policy on one mix of servers, with the same arrivals and sizes: downloads from 10 kB to 20 MB
//! on servers of about 1 MB/s. The balancer probes every second. The time of a download lasts from the request for the
//! redirect to the last byte, and is divided by the time that the download takes on an idle server of average speed. The second
//! column of each policy contains only files below the median size.
//!
//! With `--other PROGRAM`, a pass with the balancer of another build precedes each pass, on file servers of this build, and the
//! last columns are the ratios of both p99: the share of this build.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed bench may panic"
)]
#![allow(clippy::disallowed_types, reason = "a bench measures real time")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;
use fleet::Fleet;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

mod download;
mod fleet;

const SERVERS: usize = 10;

/// The rate of an average server in bytes per second.
const RATE: f64 = 1e6;

/// The number of files. Their sizes are quantiles of a bounded Pareto distribution.
const FILES: usize = 64;

/// The smallest and the largest size in bytes.
const SMALLEST: f64 = 10e3;
const LARGEST: f64 = 20e6;

/// The shape of the distribution.
const SHAPE: f64 = 1.2;

/// Downloads that start earlier are not measured.
const WARM_UP: Duration = Duration::from_secs(5);

/// The relative speed of each server.
type Speed = fn(usize) -> f64;

const MIXES: [(&str, Speed); 4] = [
    ("equal", |_| 1.0),
    ("one at a tenth of the speed", |server| if server == 0 { 0.1 } else { 1.0 }),
    ("one at ten times the speed", |server| if server == 0 { 10.0 } else { 1.0 }),
    ("half at a quarter of the speed", |server| if server % 2 == 0 { 0.25 } else { 1.0 }),
];

#[derive(clap::Parser)]
struct Options {
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// The share of the total capacity that the clients request.
    #[arg(long, default_value_t = 0.7)]
    load: f64,
    /// The policies to compare.
    #[arg(long, value_delimiter = ',', default_value = "round-robin,ranked,two-choices,adaptive")]
    only: Vec<String>,
    /// Another build of fingerpost, whose balancer is compared with the one of this build.
    #[arg(long)]
    other: Option<PathBuf>,
    /// A prefix of the names of the mixes to run; an empty one selects all.
    #[arg(long, default_value = "")]
    mix: String,
}

fn main() -> io::Result<()> {
    let options = Options::parse_from(std::env::args().filter(|argument| argument != "--bench"));
    let root = tempfile::tempdir()?;
    write_files(root.path())?;
    println!(
        "load {}, {} s per pass, p50 / p99 of the time divided by the ideal time, failed downloads\n",
        options.load, options.seconds
    );
    let columns = if options.other.is_some() {
        "other {} | small files | {} | small files | ratio | small files"
    } else {
        "{} | small files"
    };
    let names: Vec<String> = options.only.iter().map(|policy| columns.replace("{}", policy)).collect();
    let head = format!("| servers | {} |", names.join(" | "));
    println!("{head}\n|{}", "---|".repeat(head.matches(" | ").count() + 1));
    for (name, speed) in MIXES.into_iter().filter(|(name, _)| name.starts_with(&options.mix)) {
        let speeds: Vec<f64> = (0..SERVERS).map(speed).collect();
        let mean = speeds.iter().sum::<f64>() / SERVERS as f64;
        let rates: Vec<u64> = speeds.iter().map(|speed| (RATE * speed / mean) as u64).collect();
        let jobs = jobs(&options);
        let mut cells = Vec::new();
        for policy in &options.only {
            eprintln!("{name}, {policy}");
            let pass = |program: &Path| -> io::Result<_> {
                let fleet = Fleet::start(program, root.path(), &rates, policy)?;
                let times = download::all(fleet.balancer(), &jobs, WARM_UP);
                let measured: Vec<_> =
                    jobs.iter().filter(|(at, _)| *at >= WARM_UP).map(|(_, file)| *file).zip(times).collect();
                let small: Vec<_> = measured.iter().filter(|(file, _)| *file < FILES / 2).copied().collect();
                Ok([Figures::of(&measured), Figures::of(&small)])
            };
            let other = options.other.as_deref().map(pass).transpose()?;
            let own = pass(Path::new(fleet::PROGRAM))?;
            cells.extend(other.iter().flatten().map(Figures::to_string));
            cells.extend(own.iter().map(Figures::to_string));
            let ratios = other.iter().flatten().zip(&own).map(|(other, own)| own.p99 / other.p99);
            cells.extend(ratios.map(|ratio| format!("{ratio:.2}")));
        }
        println!("| {SERVERS}, {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

fn write_files(root: &Path) -> io::Result<()> {
    for file in 0..FILES {
        fs::write(root.join(format!("{file}.bin")), vec![b'x'; size_of_file(file) as usize])?;
    }
    Ok(())
}

/// The size in bytes of the file of this rank.
fn size_of_file(file: usize) -> f64 {
    // The largest file has the largest size.
    let quantile = file as f64 / (FILES - 1) as f64;
    let tail = (SMALLEST / LARGEST).powf(SHAPE);
    SMALLEST * (1.0 - quantile * (1.0 - tail)).powf(-1.0 / SHAPE)
}

/// The start time and the file of each download; the same in every pass.
fn jobs(options: &Options) -> Vec<(Duration, usize)> {
    let mut random = SmallRng::seed_from_u64(1);
    let mean_size = (0..FILES).map(size_of_file).sum::<f64>() / FILES as f64;
    let per_second = options.load * SERVERS as f64 * RATE / mean_size;
    let end = WARM_UP.as_secs_f64() + options.seconds as f64;
    let mut at = 0.0;
    let mut jobs = Vec::new();
    while at < end {
        at += -(1.0 - random.random::<f64>()).ln() / per_second;
        jobs.push((Duration::from_secs_f64(at), random.random_range(0..FILES)));
    }
    jobs
}

struct Figures {
    p50: f64,
    p99: f64,
    failed: usize,
}

impl Figures {
    /// The figures of downloads of these files with these times.
    fn of(results: &[(usize, Option<Duration>)]) -> Self {
        let failed = results.iter().filter(|(_, time)| time.is_none()).count();
        let slowdown = |(file, time): &(usize, Option<Duration>)| {
            Some(time.as_ref()?.as_secs_f64() / (size_of_file(*file) / RATE))
        };
        let mut times: Vec<f64> = results.iter().filter_map(slowdown).collect();
        times.sort_by(f64::total_cmp);
        let quantile = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Self { p50: quantile(0.5), p99: quantile(0.99), failed }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:.1} / **{:.1}**, {}", self.p50, self.p99, self.failed)
    }
}
