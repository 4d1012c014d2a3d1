//! Compares policies without sockets: a discrete-event simulation of servers, probes and balancers that runs
//! the balancer's own code. Prints tables in Markdown and draws plots; docs/selection.md shows the plots, docs/selection-tables.md the tables.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed simulation may panic"
)]

mod capacity;
mod dispatch;
mod model;
mod order;
mod plot;
mod prequal;
mod results;
mod scenario;
mod server;
mod world;

use std::path::PathBuf;

use clap::Parser;
use dispatch::{CONTENDERS, Contender, IDEAS, SHARING_CONTENDERS, SIZE_CONTENDERS};
use fingerpost::internals::policy::PolicyName;
use results::Row;
use scenario::{Knowledge, Mix, Probes, Scenario, Sizes};

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
    /// The number of the first run. Other numbers give other arrivals and sizes.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// The number of decimals of each figure.
    #[arg(long, default_value_t = 1)]
    decimals: usize,
    /// The folder of the plots.
    #[arg(long, default_value = "docs/plots")]
    plots: PathBuf,
    /// Plays only contenders with these names, and draws no plots.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Plays only cells whose description contains this.
    #[arg(long, default_value = "")]
    cell: String,
    /// Prints the cost of fleets with this number of servers instead of the comparison.
    #[arg(long)]
    capacity: Option<usize>,
}

/// Prints tables.
struct Printer {
    arguments: Arguments,
}

impl Printer {
    fn contenders(&self, contenders: &[Contender]) -> Vec<Contender> {
        let only = &self.arguments.only;
        let is_wanted =
            |contender: &&Contender| only.is_empty() || only.iter().any(|name| name == contender.label());
        contenders.iter().filter(is_wanted).copied().collect()
    }

    /// Prints a table with one row for each cell.
    fn table(
        &self,
        title: &str,
        labels: &[&str],
        contenders: &[Contender],
        cells: Vec<(Vec<String>, Scenario)>,
    ) -> Vec<Row> {
        let contenders = self.contenders(contenders);
        println!("\n## {title}\n");
        results::print_head(labels, &contenders);
        let is_wanted = |(labels, _): &(Vec<String>, Scenario)| {
            format!("{title}, {}", labels.join(", ")).contains(&self.arguments.cell)
        };
        let play = |(labels, scenario): (Vec<String>, Scenario)| {
            let Arguments { seeds, first_seed, decimals, .. } = self.arguments;
            let seeds = if scenario.servers > 1000 { 1 } else { seeds };
            let row = Row::play(&scenario, &contenders, first_seed..first_seed + seeds);
            row.print(&labels, decimals);
            row
        };
        cells.into_iter().filter(is_wanted).map(play).collect()
    }
}

fn main() {
    let printer = Printer { arguments: Arguments::parse() };
    let arguments = &printer.arguments;
    if let Some(servers) = arguments.capacity {
        return capacity::print(servers);
    }
    let is_whole = arguments.only.is_empty() && arguments.cell.is_empty();
    let mut grid = Vec::new();
    for (servers, mix) in MIXES {
        let rows = printer.table(
            &mix.title(servers),
            &["load", "probe interval"],
            &CONTENDERS,
            cells(servers, mix, Sizes::Exponential),
        );
        if is_whole {
            std::fs::create_dir_all(&arguments.plots).expect("cannot create the folder of the plots");
            plot::by_load(&arguments.plots, mix, servers, &rows).expect("cannot draw the plot");
        }
        grid.extend(rows);
    }
    if is_whole {
        plot::by_staleness(&arguments.plots, &grid).expect("cannot draw the plot");
    }
    printer.table(
        "Other shapes, load 0.7, probes every 5 service times",
        &["variation", "servers"],
        &CONTENDERS,
        variations(),
    );
    for (servers, mix) in MIXES {
        for shape in [1.5, 1.1] {
            let sizes = Sizes::Pareto(shape);
            printer.table(
                &format!("{}, sizes {}", mix.title(servers), sizes.label()),
                &["load", "probe interval"],
                &SIZE_CONTENDERS,
                cells(servers, mix, sizes),
            );
        }
    }
    printer.table(
        "Balancers that share their observations, load 0.7",
        &["servers", "probe interval", "sizes", "balancers"],
        &SHARING_CONTENDERS,
        sharing(),
    );
    printer.table(
        "The contribution of each idea",
        &["servers", "load", "probe interval", "sizes"],
        &IDEAS,
        ideas(),
    );
    if is_whole {
        summary(&grid);
    }
}

/// All loads and probe intervals.
fn cells(servers: usize, mix: Mix, sizes: Sizes) -> Vec<(Vec<String>, Scenario)> {
    let loads = LOADS.into_iter().flat_map(|load| INTERVALS.map(|interval| (load, interval)));
    let cell = |(load, interval): (f64, f64)| {
        let scenario = Scenario { sizes, ..Scenario::new(servers, mix, load, interval) };
        (vec![load.to_string(), interval.to_string()], scenario)
    };
    loads.map(cell).collect()
}

fn variations() -> Vec<(Vec<String>, Scenario)> {
    let mut all = Vec::new();
    let mut add = |variation: &str, scenario: Scenario| {
        let mix = format!("{} {}", scenario.servers, scenario.mix.label());
        all.push((vec![variation.to_owned(), mix], scenario));
    };
    for (servers, mix) in [(10, Mix::OneSlow), (100, Mix::HalfSlow)] {
        let plain = Scenario::new(servers, mix, 0.7, 5.0);
        let pareto = Scenario { sizes: Sizes::Pareto(1.5), ..plain };
        add("sizes bounded Pareto", pareto);
        add("all probes at once", Scenario { probes: Probes::Synchronous, ..plain });
        add("4 balancers", Scenario { balancers: 4, ..plain });
        add("8 balancers", Scenario { balancers: 8, ..plain });
        add("clients take a fifth of a server at most", Scenario { slow_clients: 5.0, ..plain });
        add("servers that report nothing", Scenario { reports: false, ..plain });
        for (label, plain) in [("", plain), (", Pareto", pareto)] {
            add(
                &format!("20 % of the sizes unknown{label}"),
                Scenario { knowledge: Knowledge::Most, ..plain },
            );
            add(&format!("no size known{label}"), Scenario { knowledge: Knowledge::Nothing, ..plain });
            add(
                &format!("sizes in classes of 2x{label}"),
                Scenario { knowledge: Knowledge::Classes, ..plain },
            );
        }
    }
    add("many servers, one run", Scenario::new(10_000, Mix::HalfSlow, 0.7, 5.0));
    all
}

/// Numbers of balancers with and without sharing.
fn sharing() -> Vec<(Vec<String>, Scenario)> {
    let mut all = Vec::new();
    for (servers, mix, interval, sizes) in [
        (10, Mix::OneSlow, 5.0, Sizes::Exponential),
        (10, Mix::OneSlow, 5.0, Sizes::Pareto(1.5)),
        (100, Mix::HalfSlow, 5.0, Sizes::Exponential),
        (100, Mix::HalfSlow, 0.5, Sizes::Exponential),
    ] {
        for (balancers, is_shared) in
            [(1, false), (3, true), (10, true), (30, true), (3, false), (10, false), (30, false)]
        {
            let scenario =
                Scenario { sizes, balancers, is_shared, ..Scenario::new(servers, mix, 0.7, interval) };
            let servers = format!("{servers} {}", mix.label());
            let label = if is_shared { format!("{balancers}, shared") } else { balancers.to_string() };
            all.push((vec![servers, interval.to_string(), sizes.label(), label], scenario));
        }
    }
    all
}

/// Cells that show the contribution of each idea.
fn ideas() -> Vec<(Vec<String>, Scenario)> {
    let mut all = Vec::new();
    for sizes in [Sizes::Exponential, Sizes::Pareto(1.5)] {
        for (servers, mix, load, interval) in [
            (10, Mix::OneSlow, 0.7, 5.0),
            (10, Mix::OneSlow, 0.7, 50.0),
            (100, Mix::HalfSlow, 0.7, 50.0),
            (10, Mix::Equal, 0.9, 50.0),
        ] {
            let scenario = Scenario { sizes, ..Scenario::new(servers, mix, load, interval) };
            let servers = format!("{servers} {}", mix.label());
            all.push((vec![servers, load.to_string(), interval.to_string(), sizes.label()], scenario));
        }
    }
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
