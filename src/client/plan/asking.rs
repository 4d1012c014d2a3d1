//! Whether and when the balancer is asked for other sources.

use std::time::Duration;

use tokio::time::Instant;

use super::{Action, Balancer, Plan, source};

/// Askings in a row that named nobody new, after which a balancer has nobody else.
const BARREN_ASKINGS: u32 = 2;

/// How asking the balancer went so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asking {
    pub(super) under_way: bool,
    /// Askings in a row after which nothing arrived.
    pub(super) fruitless: u32,
    /// Askings in a row that named nobody new.
    pub(super) barren: u32,
    pub(super) not_before: Option<Instant>,
    /// A run is silent and nobody is there to take its place.
    pub(super) wanted: bool,
}

impl Plan {
    /// The balancer named so many sources that were added before this; the next asking need not wait for long.
    pub fn named(&mut self, new_sources: usize, jitter: f64, now: Instant) {
        if new_sources == 0 {
            self.asking.barren = self.asking.barren.saturating_add(1);
            if self.is_deserted() && self.asking.barren >= BARREN_ASKINGS {
                self.balancer = Balancer::Absent;
            }
            self.asked(None, jitter, now);
        } else {
            self.asking.barren = 0;
            self.asked(Some(Duration::ZERO), jitter, now);
        }
    }

    /// The balancer was asked and named nobody. `retry_after` is what it asked us to wait.
    pub fn asked(&mut self, retry_after: Option<Duration>, jitter: f64, now: Instant) {
        self.asking.under_way = false;
        self.asking.wanted = false;
        self.asking.fruitless = self.asking.fruitless.saturating_add(1);
        let rest =
            retry_after.unwrap_or_else(|| source::backoff(&self.settings, self.asking.fruitless, jitter));
        match now.checked_add(rest) {
            Some(at) => self.asking.not_before = Some(at),
            None => self.balancer = Balancer::Absent,
        }
    }

    /// Waiting for the balancer is what the user wants, however often it has nobody.
    pub fn keep_asking(&mut self) {
        self.asking.fruitless = 0;
    }

    /// The address leads straight to a server: there is nobody to ask for others.
    pub fn is_without_balancer(&mut self) {
        self.balancer = Balancer::Absent;
    }

    /// Whether there is nobody to ask for other sources.
    #[must_use]
    pub fn has_no_balancer(&self) -> bool {
        self.balancer == Balancer::Absent
    }

    /// Whether the balancer may be asked, now or after a rest.
    pub(super) fn may_ask(&self) -> bool {
        self.balancer == Balancer::Present && self.asking.fruitless < self.settings.max_failures.max(1)
    }

    pub(super) fn ask_if_needed(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let nobody_works = self.runs.is_empty() && !(self.size.is_some() && self.missing.is_empty());
        let is_time = self.asking.not_before.is_none_or(|at| at <= now);
        if (nobody_works || self.asking.wanted) && self.may_ask() && is_time && !self.asking.under_way {
            self.asking.under_way = true;
            actions.push(Action::Ask);
        }
    }
}
