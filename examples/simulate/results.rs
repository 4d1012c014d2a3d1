//! The results of a cell, and their form in a table.

use std::thread;

use crate::dispatch::{CONTENDERS, Contender};
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

/// One cell, all contenders.
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    figures: [Figures; CONTENDERS.len()],
}

impl Row {
    /// Plays the cell with every contender; the same seeds give each the same arrivals and sizes.
    pub(crate) fn play(scenario: &Scenario, seeds: u64) -> Self {
        let processors = thread::available_parallelism().map_or(1, Into::into);
        let mut figures = [Figures::default(); CONTENDERS.len()];
        let mut todo: Vec<_> = figures.iter_mut().zip(CONTENDERS).collect();
        thread::scope(|scope| {
            let share = todo.len().div_ceil(processors);
            for part in todo.chunks_mut(share) {
                scope.spawn(|| {
                    for (figures, contender) in part {
                        **figures = Figures::of(scenario, *contender, seeds);
                    }
                });
            }
        });
        Self { scenario: *scenario, figures }
    }

    fn figures(&self, contender: Contender) -> Figures {
        let place = CONTENDERS.iter().position(|other| *other == contender);
        self.figures[place.expect("it is one of the contenders")]
    }

    pub(crate) fn p99(&self, contender: Contender) -> f64 {
        self.figures(contender).p99
    }

    pub(crate) fn print(&self, labels: &[String]) {
        let cell = |contender: Contender| {
            let Figures { p50, p99, p999, most_in_flight } = self.figures(contender);
            if contender == DETAILED {
                format!("**{}** ({} / {} / {most_in_flight})", short(p99), short(p50), short(p999))
            } else {
                short(p99)
            }
        };
        println!("| {} | {} |", labels.join(" | "), CONTENDERS.map(cell).join(" | "));
    }
}

/// The contender with all figures in its cells.
const DETAILED: Contender = Contender::Ours(fingerpost::internals::policy::PolicyName::Adaptive);

pub(crate) fn print_head(labels: &[&str]) {
    let name = |contender: Contender| {
        let more = if contender == DETAILED { " (p50 / p99.9 / most in flight)" } else { "" };
        format!("{}{more}", contender.label())
    };
    println!("| {} | {} |", labels.join(" | "), CONTENDERS.map(name).join(" | "));
    println!("|{}", "---|".repeat(labels.len() + CONTENDERS.len()));
}

impl Figures {
    fn of(scenario: &Scenario, contender: Contender, seeds: u64) -> Self {
        let outcomes: Vec<_> = (0..seeds).map(|seed| world::play(scenario, contender, seed)).collect();
        let most_in_flight = outcomes.iter().map(|outcome| outcome.most_in_flight).max().unwrap_or(0);
        let mut times: Vec<f64> = outcomes.into_iter().flat_map(|outcome| outcome.times).collect();
        times.sort_unstable_by(f64::total_cmp);
        let quantile = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        Self { p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999), most_in_flight }
    }
}

/// At most three digits, because more are not certain. A time over 200 means that the queue grows without bound.
fn short(time: f64) -> String {
    match time {
        time if time >= 200.0 => "> 200".to_owned(),
        time if time >= 100.0 => format!("{time:.0}"),
        time => format!("{time:.1}"),
    }
}
