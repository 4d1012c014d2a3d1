//! Decides whether and when the balancer is asked for other sources.

use std::time::Duration;

use tokio::time::Instant;

use super::{Action, Balancer, Plan, source};

/// Queries in a row without a new source, after which the balancer is assumed to have no others.
const BARREN_ASKINGS: u32 = 2;

/// State of the queries to the balancer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asking {
    pub(super) under_way: bool,
    /// Queries in a row since the last received byte.
    pub(super) fruitless: u32,
    /// Queries in a row without a new source.
    pub(super) barren: u32,
    pub(super) not_before: Option<Instant>,
    /// A run is stalled and no idle source can replace it.
    pub(super) wanted: bool,
}

impl Plan {
    /// Handles an answer of the balancer with `new_sources` sources, which were added before this call. If
    /// there are any, the next query may follow at once.
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

    /// Handles the end of a query without new sources. `retry_after` is the delay that the balancer asked
    /// for.
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

    /// Resets the count of fruitless queries: the user asked to wait for the balancer without a limit.
    pub fn keep_asking(&mut self) {
        self.asking.fruitless = 0;
    }

    /// Notes that the address is that of a server, so that no balancer can name others.
    pub fn is_without_balancer(&mut self) {
        self.balancer = Balancer::Absent;
    }

    /// Whether no balancer can name other sources.
    #[must_use]
    pub fn has_no_balancer(&self) -> bool {
        self.balancer == Balancer::Absent
    }

    /// Whether the balancer may be asked, now or after a back-off.
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
