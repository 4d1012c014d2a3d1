//! Compares policies without sockets: a discrete-event simulation of servers, probes and balancers that runs
//! the balancer's own code. Prints tables in Markdown and draws plots; docs/selection.md shows the plots, docs/selection-tables.md the tables.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed simulation may panic"
)]

mod dispatch;
mod order;
mod plot;
mod prequal;
mod results;
mod scenario;
mod server;
mod world;

use std::path::PathBuf;

use clap::Parser;
use dispatch::Contender;
use fingerpost::internals::policy::PolicyName;
use results::Row;
use scenario::{Mix, Probes, Scenario, Sizes};

const LOADS: [f64; 4] = [0.5, 0.7, 0.9, 0.95];
const INTERVALS: [f64; 3] = [0.5, 5.0, 50.0];
const MIXES: [(usize, Mix); 4] =
    [(10, Mix::Equal), (10, Mix::OneSlow), (10, Mix::OneFast), (100, Mix::HalfSlow)];

/// Compares policies by simulation.
#[derive(Parser)]
struct Arguments {
    /// The number of runs of each cell. Each run has its own arrivals and sizes, the same for every policy.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// The folder of the plots.
    #[arg(long, default_value = "docs/plots")]
    plots: PathBuf,
}

fn main() {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.plots).expect("cannot create the folder of the plots");
    let mut grid = Vec::new();
    for (servers, mix) in MIXES {
        println!("\n### {}\n", mix.title(servers));
        results::print_head(&["load", "probe interval"]);
        let start = grid.len();
        for load in LOADS {
            for interval in INTERVALS {
                let scenario = Scenario::new(servers, mix, load, interval);
                let row = Row::play(&scenario, arguments.seeds);
                row.print(&[format!("{load}"), format!("{interval}")]);
                grid.push(row);
            }
        }
        plot::by_load(&arguments.plots, mix, servers, &grid[start..]).expect("cannot draw the plot");
    }
    plot::by_staleness(&arguments.plots, &grid).expect("cannot draw the plot");
    println!("\n### Other shapes, load 0.7, probes every 5 service times\n");
    results::print_head(&["variation", "servers"]);
    for (variation, scenario, seeds) in variations(arguments.seeds) {
        let mix = format!("{} {}", scenario.servers, scenario.mix.label());
        Row::play(&scenario, seeds).print(&[variation.to_owned(), mix]);
    }
    summary(&grid);
}

fn variations(seeds: u64) -> Vec<(&'static str, Scenario, u64)> {
    let mut all = Vec::new();
    for (servers, mix) in [(10, Mix::OneSlow), (100, Mix::HalfSlow)] {
        let plain = Scenario::new(servers, mix, 0.7, 5.0);
        all.extend([
            ("sizes bounded Pareto", Scenario { sizes: Sizes::Pareto, ..plain }, seeds),
            ("all probes at once", Scenario { probes: Probes::Synchronous, ..plain }, seeds),
            ("4 balancers", Scenario { balancers: 4, ..plain }, seeds),
            ("8 balancers", Scenario { balancers: 8, ..plain }, seeds),
            ("clients take a fifth of a server at most", Scenario { slow_clients: 5.0, ..plain }, seeds),
            ("servers that report nothing", Scenario { reports: false, ..plain }, seeds),
        ]);
    }
    all.push(("many servers, one run", Scenario::new(10_000, Mix::HalfSlow, 0.7, 5.0), 1));
    all
}

/// Prints the cells in which adaptive is worst, compared with three other contenders.
fn summary(grid: &[Row]) {
    let adaptive = |row: &Row| row.p99(Contender::Ours(PolicyName::Adaptive));
    let simple = |row: &Row| {
        row.p99(Contender::Ours(PolicyName::RoundRobin)).min(row.p99(Contender::Ours(PolicyName::Ranked)))
    };
    println!("\n### Where adaptive is worst\n");
    let worst = |title: &str, against: &dyn Fn(&Row) -> f64| {
        let ratio = |row: &Row| adaptive(row) / against(row);
        let row = grid.iter().max_by(|left, right| ratio(left).total_cmp(&ratio(right))).unwrap();
        println!("- {title}: {:.2} times, {}", ratio(row), row.scenario.describe());
    };
    worst("against the better of round robin and ranked", &simple);
    worst("against the oracle", &|row| row.p99(Contender::Oracle));
    worst("against Prequal", &|row| row.p99(Contender::Prequal));
}
