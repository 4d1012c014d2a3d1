//! Compares `fingerpost get` with curl, wget, wget2 and aria2.
//!
//! ```text
//! cargo bench --bench get -- [--rounds 5] [--only NAME,NAME] [--folder DIR] [--program FILE]
//! ```
//!
//! Each round of a scenario runs every client once, so that noise of the machine affects all of them. The table shows
//! medians, and `WRONG` if a client ended with exit code 0 and wrong bytes. Mirrors are scripted servers in this process, each
//! with its own address 127.0.0.N, because clients limit connections by address. `fingerpost server` serves the large file and
//! the small files. A client that takes longer than 20 s is ended. Processor time is the client's, as counted by the kernel.
//! `--program` measures another build of fingerpost. Clients that are not installed are skipped and named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed bench may panic"
)]
#![allow(clippy::disallowed_types, reason = "a bench measures real time")]
#![allow(unreachable_pub, dead_code, reason = "each bench uses a part of the shared modules")]

use std::path::PathBuf;

use clap::Parser as _;

mod clients;
#[path = "../../tests/it/support/misbehaving/mod.rs"]
mod misbehaving;
mod scenarios;

use clients::{Client, Measured};
use scenarios::Scenario;

#[derive(clap::Parser)]
struct Options {
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Names of scenarios; an empty list selects all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The folder of the downloads.
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    folder: PathBuf,
    /// Another build of fingerpost.
    #[arg(long)]
    program: Option<String>,
}

fn main() {
    let options = Options::parse_from(std::env::args().filter(|argument| argument != "--bench"));
    if let Some(program) = &options.program {
        clients::PROGRAM.set(std::path::absolute(program).unwrap().display().to_string()).unwrap();
    }
    let clients: Vec<Client> = Client::all().into_iter().filter(|client| client.is_installed()).collect();
    for scenario in Scenario::all() {
        if options.only.is_empty() || options.only.iter().any(|name| name == scenario.name) {
            run(&scenario, &clients, &options);
        }
    }
    scenarios::clean_up();
}

fn run(scenario: &Scenario, clients: &[Client], options: &Options) {
    println!("\n### {}\n\n{}\n", scenario.name, scenario.description);
    println!("| client | seconds | processor seconds | fetched | outcome |\n|---|---|---|---|---|");
    // The file system may still be freeing the blocks of deleted files. Its work must not count as that of the next client.
    let mut kept = Vec::new();
    let mut results: Vec<Vec<Measured>> = clients.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for (client, results) in clients.iter().zip(&mut results) {
            let folder = tempfile::tempdir_in(&options.folder).unwrap();
            results.push((scenario.run)(*client, folder.path()));
            if scenario.name == "small" {
                kept.push(folder);
            }
        }
    }
    for (client, results) in clients.iter().zip(results) {
        let median = |figure: fn(&Measured) -> f64| {
            let mut figures: Vec<f64> = results.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let mut outcomes: Vec<String> = results.iter().map(|result| result.outcome.clone()).collect();
        outcomes.sort();
        outcomes.dedup();
        println!(
            "| {} | {:.2} | {:.2} | {:.1} MiB | {} |",
            client.name(),
            median(|result| result.seconds),
            median(|result| result.processor_seconds),
            median(|result| result.fetched as f64 / f64::from(1 << 20)),
            outcomes.join(", "),
        );
    }
}
