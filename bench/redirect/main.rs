//! Compares the cost of a redirect of fingerpost, nginx, `HAProxy`, Caddy and a minimal server, on one processor each.
//!
//! ```text
//! cargo bench --bench redirect -- [--rounds 5] [--seconds 5] [--connections 64] [--only NAME,NAME]
//!     [--workloads keep-alive,app,server-closes,client-closes,idle] [--baseline PROGRAM]
//! ```
//!
//! One server runs at a time, pinned to processor 0, and its clients on processor 1. The rounds are interleaved, so that noise of
//! the machine affects all servers, and the tables show medians. The cost is the processor time of the server, as counted by the
//! kernel, divided by the number of answers. The time that the server uses without requests, such as for probes, is measured
//! before and subtracted. Peers that are not installed are skipped and named (Debian packages nginx, haproxy, caddy; wrk is
//! needed).
//!
//! The minimal server ("floor") is a bare epoll loop that writes the same bytes as fingerpost. `--baseline` adds another build of
//! fingerpost, to compare two versions in one run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed bench may panic"
)]
#![allow(clippy::disallowed_types, reason = "a bench measures real time")]
#![allow(unreachable_pub, dead_code, reason = "each bench uses a part of the shared modules")]

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bench_support::connects::{self, Closing};
use bench_support::{LOAD_CORE, SERVER_CORE, balancer, median, process, wrk};
use clap::Parser as _;
use socket2::{Domain, Socket, Type};

#[path = "../support/mod.rs"]
mod bench_support;
mod contenders;

/// The time for which a server is watched without requests.
const IDLE_WINDOW: Duration = Duration::from_secs(2);

/// The requested path, as long as that of a download.
const TARGET: &str = "/pub/releases/image.iso?mirror=any";

/// A header that the fast path of fingerpost declines, so that the actix-web application answers.
const DECLINED_HEADER: &str = "Fingerpost-Avoid: 192.0.2.1:1";

/// Idle connections of one measurement.
const IDLE_CONNECTIONS: usize = 4000;

#[derive(clap::Parser)]
struct Options {
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// The first letters of contenders' names; all if it is empty.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Workload::KeepAlive])]
    workloads: Vec<Workload>,
    /// Another build of fingerpost.
    #[arg(long)]
    baseline: Option<String>,
}

/// The clients of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Workload {
    /// Connections stay open.
    KeepAlive,
    /// Connections stay open, and each request has a header that the fast path declines.
    App,
    /// A connection for each request, which asks the server to close.
    ServerCloses,
    /// A connection for each request, closed by the client.
    ClientCloses,
    /// Connections that stay open after one request; memory is measured.
    Idle,
}

impl Workload {
    fn title(self) -> &'static str {
        match self {
            Self::KeepAlive => "connections that stay open",
            Self::App => "connections that stay open, a header that the fast path declines",
            Self::ServerCloses => "a connection for each request, closed by the server",
            Self::ClientCloses => "a connection for each request, closed by the client",
            Self::Idle => "idle connections",
        }
    }
}

fn main() -> io::Result<()> {
    let Some(arguments) = bench_support::arguments()? else { return Ok(()) };
    let options = Options::parse_from(arguments);
    if !process::is_installed("wrk") {
        eprintln!("skipped: wrk is not installed (Debian package wrk)");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut contenders = contenders::all(options.baseline.as_deref());
    contenders.retain(|contender| {
        options.only.is_empty() || options.only.iter().any(|start| contender.name.starts_with(start.as_str()))
    });
    for workload in &options.workloads {
        // Resident memory would grow in steps of 2 MiB. Started programs inherit this setting.
        rustix::thread::disable_transparent_huge_pages(*workload == Workload::Idle)?;
        let mut runs: Vec<Vec<Run>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 1..=options.rounds {
            eprintln!("{}: round {round} of {}", workload.title(), options.rounds);
            for (contender, runs) in contenders.iter().zip(&mut runs) {
                // Only the measured server runs: probes of another one would take their share of the processor.
                let running = contender.start(folder.path())?;
                runs.push(match workload {
                    Workload::Idle => hold_idle_connections(&running)?,
                    workload => measure(&options, *workload, &running)?,
                });
            }
        }
        print_table(&options, *workload, &contenders, &runs);
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// Processor microseconds of the server for each answer, beyond the time that it takes without requests; or resident KiB
    /// for each idle connection.
    cost: f64,
    /// The share of a processor that the server takes without requests, such as for probes.
    idle_percent: f64,
    per_second: f64,
    p99_milliseconds: f64,
    errors: f64,
}

fn measure(options: &Options, workload: Workload, running: &contenders::Running) -> io::Result<Run> {
    let idle_share = running.process.cpu_share_over(IDLE_WINDOW);
    let (before, start) = (running.process.cpu_seconds(), Instant::now());
    let (connections, seconds, port) = (options.connections, options.seconds, running.port);
    let (answers, mut run) = match workload {
        Workload::ServerCloses | Workload::ClientCloses => {
            let closing = match workload {
                Workload::ServerCloses => Closing::Server,
                _ => Closing::Client,
            };
            let load = connects::measure(LOAD_CORE, connections, seconds, closing, port, TARGET)?;
            let per_second = load.answers / f64::from(seconds);
            (load.answers, Run { per_second, errors: load.errors, ..Run::default() })
        }
        _ => {
            let header = (workload == Workload::App).then_some(DECLINED_HEADER);
            let load = wrk::run(LOAD_CORE, connections, seconds, port, TARGET, header)?;
            let wrk::Load { per_second, p99_milliseconds, errors, answers } = load;
            (answers, Run { per_second, p99_milliseconds, errors, ..Run::default() })
        }
    };
    let idle_seconds = idle_share * start.elapsed().as_secs_f64();
    run.cost = (running.process.cpu_seconds() - before - idle_seconds) * 1e6 / answers.max(1.0);
    run.idle_percent = idle_share * 100.0;
    Ok(run)
}

/// Resident memory for each of some connections that had one answer and wait.
fn hold_idle_connections(running: &contenders::Running) -> io::Result<Run> {
    // Memory that the first requests of a server need once is not counted.
    for _ in 0..100 {
        process::first_answer(running.port, TARGET)?;
    }
    let before = running.process.resident_bytes();
    let mut streams = Vec::new();
    for number in 0..IDLE_CONNECTIONS {
        // A server may limit the connections of one address.
        let source = Ipv4Addr::new(127, 0, 2, (number / 200) as u8 + 1);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, running.port)).into())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {TARGET} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer)? > 0, "an answer");
        streams.push(stream);
    }
    let grown = running.process.resident_bytes().saturating_sub(before);
    Ok(Run { cost: grown as f64 / 1024.0 / IDLE_CONNECTIONS as f64, ..Run::default() })
}

fn print_table(
    options: &Options,
    workload: Workload,
    contenders: &[contenders::Contender],
    runs: &[Vec<Run>],
) {
    let cost = if workload == Workload::Idle { "KiB each" } else { "CPU us per answer" };
    println!(
        "\n{}: {} rounds of {} s, {} at once, medians\n",
        workload.title(),
        options.rounds,
        options.seconds,
        if workload == Workload::Idle { IDLE_CONNECTIONS as u32 } else { options.connections },
    );
    println!(
        "| server | {cost} | to the floor | to nginx | to HAProxy | CPU % idle | answers/s | p99 ms | errors |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let of = |runs: &[Run], figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    // A ratio is the median of the ratios within one round: its runs are next to each other in time.
    let ratio = |own: &[Run], name: &str| {
        let peer = contenders.iter().zip(runs).find(|(contender, _)| contender.name == name)?.1;
        let ratios = own.iter().zip(peer).map(|(own, peer)| own.cost / peer.cost);
        Some(format!("{:.2}", median(ratios.collect())))
    };
    for (contender, runs) in contenders.iter().zip(runs) {
        let [floor, nginx, haproxy] = [contenders::FLOOR, contenders::PEERS[0], contenders::PEERS[1]]
            .map(|name| ratio(runs, name).unwrap_or_else(|| "-".to_owned()));
        println!(
            "| {} | {:.2} | {floor} | {nginx} | {haproxy} | {:.1} | {:.0} | {:.2} | {} |",
            contender.name,
            of(runs, |run| run.cost),
            of(runs, |run| run.idle_percent),
            of(runs, |run| run.per_second),
            of(runs, |run| run.p99_milliseconds),
            runs.iter().map(|run| run.errors).sum::<f64>(),
        );
    }
}
