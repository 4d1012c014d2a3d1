//! The servers of the simulation: processor sharing, like downloads that divide a network link equally.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::order::Ordered;

/// One server. Every job gets an equal share of the capacity, limited by the speed of its client.
pub(crate) struct Server {
    /// Work per second.
    pub(crate) capacity: f64,
    /// The largest work per second of one client.
    client_limit: f64,
    /// The work that a job would have received if it had been present from the start.
    attained: f64,
    at: f64,
    /// The sum over all jobs of `attained` at their ends.
    targets: f64,
    /// For each job the value of `attained` at its end, and its arrival time.
    jobs: BinaryHeap<Reverse<(Ordered, Ordered)>>,
    pub(crate) busy_seconds: f64,
    pub(crate) work_done: f64,
    pub(crate) completed: u64,
    pub(crate) most_in_flight: usize,
    /// Increases with each change, which invalidates events that were scheduled before.
    pub(crate) version: u64,
}

impl Server {
    pub(crate) fn new(capacity: f64, client_limit: f64) -> Self {
        Self {
            capacity,
            client_limit,
            attained: 0.0,
            at: 0.0,
            targets: 0.0,
            jobs: BinaryHeap::new(),
            busy_seconds: 0.0,
            work_done: 0.0,
            completed: 0,
            most_in_flight: 0,
            version: 0,
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.jobs.len()
    }

    /// The work that is left.
    pub(crate) fn unsent(&self) -> f64 {
        (self.targets - self.attained * self.jobs.len() as f64).max(0.0)
    }

    /// The work that is done before a new job of this size ends, if no other arrives.
    pub(crate) fn work_before(&self, now: f64, size: f64) -> f64 {
        let attained =
            self.attained + if self.jobs.is_empty() { 0.0 } else { (now - self.at) * self.rate_of_one() };
        let rest =
            |Reverse((target, _)): &Reverse<(Ordered, Ordered)>| (target.0 - attained).clamp(0.0, size);
        size + self.jobs.iter().map(rest).sum::<f64>()
    }

    fn rate_of_one(&self) -> f64 {
        (self.capacity / self.jobs.len() as f64).min(self.client_limit)
    }

    pub(crate) fn advance(&mut self, now: f64) {
        if !self.jobs.is_empty() {
            let passed = now - self.at;
            let rate = self.rate_of_one();
            self.attained += passed * rate;
            self.work_done += passed * rate * self.jobs.len() as f64;
            self.busy_seconds += passed;
        }
        self.at = now;
    }

    pub(crate) fn accept(&mut self, now: f64, size: f64) {
        self.advance(now);
        let target = self.attained + size;
        self.jobs.push(Reverse((Ordered(target), Ordered(now))));
        self.targets += target;
        self.most_in_flight = self.most_in_flight.max(self.jobs.len());
        self.version += 1;
    }

    /// Ends the job that finishes first and returns its arrival time.
    pub(crate) fn finish(&mut self, now: f64) -> Option<f64> {
        self.advance(now);
        let Reverse((target, arrival)) = self.jobs.pop()?;
        self.targets -= target.0;
        self.completed += 1;
        self.version += 1;
        Some(arrival.0)
    }

    /// The time at which the next job finishes, unless another arrives before.
    pub(crate) fn next_finish(&self) -> Option<f64> {
        let Reverse((target, _)) = self.jobs.peek()?;
        Some(self.at + ((target.0 - self.attained) / self.rate_of_one()).max(0.0))
    }
}
