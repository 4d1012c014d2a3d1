//! Measures how long clients are still redirected to backends that were killed.
//!
//! ```text
//! cargo bench --bench failover -- [--rounds 5] [--rate 500] [--only 10,1000]
//! ```
//!
//! Ten processes serve the backends, each a tenth of them. While clients send requests at a fixed rate, one process is
//! killed, and with it a tenth of the backends. The balancer runs with its defaults on processor 0; clients and backends run
//! on processor 1.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed bench may panic"
)]
#![allow(clippy::disallowed_types, reason = "a bench measures real time")]
#![allow(unreachable_pub, dead_code, reason = "each bench uses a part of the shared modules")]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bench_support::balancer::{self, Balancer};
use bench_support::median;
use clap::Parser as _;

#[path = "../support/mod.rs"]
mod bench_support;

/// The number of processes that serve the backends.
const PROCESSES: usize = 10;

/// The time with requests before the kill, in which the probes reach their usual rate. Each round adds another part of a
/// probe interval, so that the kills have different distances from the next probe.
const BEFORE: Duration = Duration::from_secs(5);

/// The time with requests after the kill.
const AFTER: Duration = Duration::from_secs(6);

#[derive(clap::Parser)]
struct Options {
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Requests per second.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Numbers of backends.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1000])]
    only: Vec<usize>,
}

/// The effect of one kill on the clients.
struct Figures {
    /// The time from the kill to the last redirect to a killed backend.
    last_redirect: Duration,
    /// Redirects to a killed backend.
    misled: usize,
    /// Answers after the kill.
    answers: usize,
    /// Answers other than a redirect.
    errors: usize,
}

fn main() -> io::Result<()> {
    let Some(arguments) = bench_support::arguments()? else { return Ok(()) };
    let options = Options::parse_from(arguments);
    let folder = tempfile::tempdir()?;
    println!("{} requests/s, {} rounds\n", options.rate, options.rounds);
    println!(
        "| backends | killed at once | last redirect to one after s (median / most) | so misled (median) | other answers |"
    );
    println!("|---|---|---|---|---|");
    for backends in &options.only {
        let rounds: Vec<Figures> = (0..options.rounds)
            .map(|round| kill(*backends, round, &options, folder.path()))
            .collect::<io::Result<_>>()?;
        let seconds: Vec<f64> = rounds.iter().map(|figures| figures.last_redirect.as_secs_f64()).collect();
        let misled = median(rounds.iter().map(|figures| figures.misled as f64).collect());
        let answers: usize = rounds.iter().map(|figures| figures.answers).sum();
        println!(
            "| {backends} | {} | {:.2} / {:.2} | {misled} of {} | {} |",
            backends / PROCESSES,
            median(seconds.clone()),
            seconds.iter().copied().fold(0.0, f64::max),
            answers / rounds.len(),
            rounds.iter().map(|figures| figures.errors).sum::<usize>(),
        );
    }
    Ok(())
}

fn kill(backends: usize, round: u32, options: &Options, folder: &Path) -> io::Result<Figures> {
    let mut servers = (0..PROCESSES).map(|_| balancer::backend(folder)).collect::<io::Result<Vec<_>>>()?;
    let lines: Vec<String> =
        (0..backends).map(|number| balancer::authority(number, servers[number % PROCESSES].1)).collect();
    let list = folder.join("list.txt");
    fs::write(&list, lines.join("\n"))?;
    let balancer = Balancer::start(&list, &[])?;
    let mut client = Client::connect(balancer.port)?;
    let before = BEFORE + BEFORE.mul_f64(f64::from(round) / f64::from(options.rounds)) / 2;
    client.come(options.rate, before, |_, _| {})?;

    let (victim, victim_port) = servers.swap_remove(round as usize % PROCESSES);
    drop(victim);
    let dead = format!(":{victim_port}/");
    let mut figures = Figures { last_redirect: Duration::ZERO, misled: 0, answers: 0, errors: 0 };
    client.come(options.rate, AFTER, |since, answer| {
        figures.answers += 1;
        match answer {
            Some(location) if location.contains(&dead) => {
                figures.misled += 1;
                figures.last_redirect = since;
            }
            Some(_) => {}
            None => figures.errors += 1,
        }
    })?;
    Ok(figures)
}

/// Sends requests to the balancer on one connection, each for another file, so that the balancer treats none as a retry.
struct Client {
    stream: BufReader<TcpStream>,
    asked: u64,
}

impl Client {
    fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), asked: 0 })
    }

    /// Sends `rate` requests per second for the given time. `see` receives the time since the start and the `Location`;
    /// `None` for an answer other than a redirect.
    fn come(
        &mut self,
        rate: f64,
        duration: Duration,
        mut see: impl FnMut(Duration, Option<&str>),
    ) -> io::Result<()> {
        let start = Instant::now();
        for number in 0..(rate * duration.as_secs_f64()) as u64 {
            let due = Duration::from_secs_f64(number as f64 / rate);
            thread::sleep(due.saturating_sub(start.elapsed()));
            let location = self.ask()?;
            see(start.elapsed(), location.as_deref());
        }
        Ok(())
    }

    fn ask(&mut self) -> io::Result<Option<String>> {
        self.asked += 1;
        write!(self.stream.get_mut(), "GET /file{} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.asked)?;
        let (mut line, mut location, mut length) = (String::new(), None, 0);
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end().split_once(": ") {
                Some(("Location", value)) => location = Some(value.to_owned()),
                Some(("Content-Length", value)) => length = value.parse().map_err(io::Error::other)?,
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        io::copy(&mut self.stream.by_ref().take(length), &mut io::sink())?;
        Ok(location)
    }
}
