//! Downloads: `fingerpost get` beside curl, wget, wget2 and aria2.
//!
//! ```text
//! cargo bench --bench get -- [--rounds 5] [--only NAME,NAME] [--folder DIR] [--program FILE]
//! ```
//!
//! Every scenario runs its clients in turn, round after round, so that noise of the machine meets all alike; the
//! table shows medians, and says `WRONG` where a client ended with 0 and other bytes. Mirrors are scripted servers in
//! this process, each on a 127.0.0.N of its own, since clients count connections by address; the large file and the small ones
//! come from `fingerpost server`. A client that is not done after 20 s is ended. Processor time is that of the
//! client, as the kernel accounts for it. `--program` measures another build of fingerpost. Clients that are not installed are left out and named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed bench may panic"
)]
#![allow(clippy::disallowed_types, reason = "a bench measures real time")]
#![allow(unreachable_pub, dead_code, reason = "the benches share modules, and each takes what it needs")]

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
    /// Names of scenarios; all where it is empty.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the downloads go.
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
    // A file system that has to step around what was just deleted would be measured with the client.
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
