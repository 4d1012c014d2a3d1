//! The results of a cell, and their form in a table.

use std::ops::Range;
use std::thread;

use crate::dispatch::Contender;
use crate::scenario::Scenario;
use crate::world;

/// The download times of one contender in one cell over all runs, in service times of an average server.
#[derive(Clone, Copy, Default)]
struct Figures {
    p50: f64,
    p99: f64,
    p999: f64,
    most_in_flight: usize,
}

/// One cell.
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    figures: Vec<(Contender, Figures)>,
}

impl Row {
    /// Plays the cell with these contenders; the same seeds give each the same downloads.
    pub(crate) fn play(scenario: &Scenario, contenders: &[Contender], seeds: Range<u64>) -> Self {
        let processors = thread::available_parallelism().map_or(1, Into::into);
        let mut figures: Vec<_> =
            contenders.iter().map(|contender| (*contender, Figures::default())).collect();
        let share = figures.len().div_ceil(processors);
        thread::scope(|scope| {
            for part in figures.chunks_mut(share) {
                scope.spawn(|| {
                    for (contender, figures) in part {
                        *figures = Figures::of(scenario, *contender, seeds.clone());
                    }
                });
            }
        });
        Self { scenario: *scenario, figures }
    }

    fn figures(&self, contender: Contender) -> Figures {
        let found = self.figures.iter().find(|(other, _)| *other == contender);
        found.map(|(_, figures)| *figures).unwrap_or_default()
    }

    pub(crate) fn p99(&self, contender: Contender) -> f64 {
        self.figures(contender).p99
    }

    pub(crate) fn print(&self, labels: &[String], decimals: usize) {
        let short = |time| short(time, decimals);
        let cell = |(contender, figures): &(Contender, Figures)| {
            let Figures { p50, p99, p999, most_in_flight } = *figures;
            if *contender == DETAILED {
                format!("**{}** ({} / {} / {most_in_flight})", short(p99), short(p50), short(p999))
            } else {
                short(p99)
            }
        };
        let cells: Vec<String> = self.figures.iter().map(cell).collect();
        println!("| {} | {} |", labels.join(" | "), cells.join(" | "));
    }
}

/// The contender with all figures in its cells.
const DETAILED: Contender = Contender::Ours(fingerpost::internals::policy::PolicyName::Adaptive);

pub(crate) fn print_head(labels: &[&str], contenders: &[Contender]) {
    let name = |contender: &Contender| {
        let more = if *contender == DETAILED { " (p50 / p99.9 / most in flight)" } else { "" };
        format!("{}{more}", contender.label())
    };
    let names: Vec<String> = contenders.iter().map(name).collect();
    println!("| {} | {} |", labels.join(" | "), names.join(" | "));
    println!("|{}", "---|".repeat(labels.len() + contenders.len()));
}

impl Figures {
    fn of(scenario: &Scenario, contender: Contender, seeds: Range<u64>) -> Self {
        // It looks at every download of every server.
        if contender == Contender::SizeOracle && scenario.servers > 1000 {
            return Self::default();
        }
        let outcomes: Vec<_> = seeds.map(|seed| world::play(scenario, contender, seed)).collect();
        let most_in_flight = outcomes.iter().map(|outcome| outcome.most_in_flight).max().unwrap_or(0);
        let mut times: Vec<f64> = outcomes.into_iter().flat_map(|outcome| outcome.times).collect();
        times.sort_unstable_by(f64::total_cmp);
        let quantile = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Self { p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999), most_in_flight }
    }
}

/// With one decimal at most three digits, because more are not certain. A time over 200 means that the queue grows without bound.
fn short(time: f64, decimals: usize) -> String {
    match time {
        time if time <= 0.0 => "-".to_owned(),
        time if time >= 200.0 => "> 200".to_owned(),
        time if time >= 100.0 => format!("{time:.0}"),
        time => format!("{time:.decimals$}"),
    }
}
