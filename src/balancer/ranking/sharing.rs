//! The part of the ranking that shares observations with the other balancers of a fleet.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::table::BackendEntry;
use super::{ESTIMATE_PACE, TRANSITION_PACE};
use crate::balancer::fleet::observers::{FleetReport, Observers, OwnSight, PeerNews};
use crate::balancer::fleet::outbox::{Counts, Outbox};
use crate::balancer::fleet::record::Observation;
use crate::balancer::fleet::{FleetExchange, FleetIdentity, OwnNews};
use crate::balancer::health::{FailureKind, ProbeOutcome, State, Traffic};
use crate::balancer::policy::{self, MonotonicClock, ReportedLoad};
use crate::balancer::probe::NextProbe;
use crate::balancer::probe::schedule::ProbeBudget;

/// The state of the fleet, and the news for it.
pub(super) struct Sharing {
    observers: Observers,
    outbox: Outbox,
    /// The position of each backend among the entries, by the digest of its address.
    indexes: HashMap<u64, usize>,
    /// A digest of the list that does not depend on the order of its lines.
    list: u64,
    waiting: HashMap<u64, WaitingProbe>,
}

/// A probe whose time has not come.
struct WaitingProbe {
    sooner: oneshot::Sender<Duration>,
    /// Whether another balancer is assigned to the backend.
    is_postponed: bool,
}

impl Sharing {
    /// The state before the first record.
    pub(super) fn new(identity: &FleetIdentity, now: Instant) -> Self {
        let FleetIdentity { name, boot, probers } = identity;
        Self {
            observers: Observers::new(name, *boot, *probers, now),
            outbox: Outbox::new(now),
            indexes: HashMap::new(),
            list: 0,
            waiting: HashMap::new(),
        }
    }

    /// The number of backends that the budget of the probes must suffice for.
    pub(super) fn probed(&self) -> usize {
        (self.indexes.len() as f64 * self.observers.share()).ceil() as usize
    }

    /// Takes over another list, or other orders. The next record announces them, and does not wait for the end of its period.
    pub(super) fn list(&mut self, entries: &[BackendEntry]) {
        self.indexes = entries.iter().map(|entry| entry.address).zip(0..).collect();
        let lines = entries.iter().map(|entry| policy::digest(entry.backend.to_string().as_bytes()));
        self.list = lines.fold(0, u64::wrapping_add);
        self.waiting.retain(|backend, _| self.indexes.contains_key(backend));
        self.outbox.hurry();
    }

    /// Adds the result of an own probe to the news. Returns the time of the next one. `pause` is the one of a balancer that
    /// works alone.
    pub(super) fn observed(
        &mut self,
        entry: &BackendEntry,
        outcome: &ProbeOutcome,
        is_change: bool,
        pause: Duration,
        traffic: Traffic,
        now: Instant,
    ) -> NextProbe {
        let (backend, state) = (entry.address, entry.health.state());
        // The own state decides, so a doubtful one must be clear soon.
        let is_doubtful = state == State::Suspect || entry.health.is_recovering();
        let next = if is_doubtful { pause } else { self.observers.pause(backend, pause, traffic) };
        let report = match outcome {
            ProbeOutcome::Success { report, .. } => report.filter(|_| entry.estimate.has_usable_report()),
            // The probe was not sent, so it is no observation.
            ProbeOutcome::Failure(failure) if failure.kind == FailureKind::Prober => {
                return NextProbe::after(next);
            }
            ProbeOutcome::Failure(_) => None,
        };
        let observation = Observation {
            state,
            age: 0,
            pause: next.as_millis() as u32,
            response_time: entry.estimate.response_time().map(|time| time.as_micros() as u32),
            in_flight: report.map(|report| report.in_flight),
            unsent_bytes: report.and_then(|report| report.unsent_bytes),
        };
        self.outbox.observed(backend, observation, is_change, now);
        let (sooner, receiver) = oneshot::channel();
        self.waiting.insert(backend, WaitingProbe { sooner, is_postponed: next > pause });
        NextProbe { pause: next, sooner: Some(receiver) }
    }

    /// Takes over the records of other balancers. Returns the pace of the next table; `None` if they do not affect it.
    pub(super) fn exchange(
        &mut self,
        exchange: &FleetExchange,
        entries: &mut [BackendEntry],
        clock: &MonotonicClock,
        budget: ProbeBudget,
        now: Instant,
    ) -> Option<Duration> {
        let mut changed = Vec::new();
        let (mut has_news, mut has_change) = (false, false);
        for (record, delivery) in &exchange.records {
            for news in self.observers.apply(record, *delivery, now) {
                let entry = self.indexes.get(&news.backend).and_then(|&index| entries.get_mut(index));
                let Some(entry) = entry else { continue };
                has_news |= news.observation.is_some();
                has_change |= news.is_change;
                if news.is_change && differs(entry, &news) {
                    changed.push(news.backend);
                }
                book(entry, &news, clock, now);
            }
        }
        let is_divided_again = self.observers.refresh(&exchange.engine, now);
        if is_divided_again {
            let postponed = self.waiting.iter().filter(|(_, probe)| probe.is_postponed);
            changed
                .extend(postponed.map(|(backend, _)| *backend).filter(|it| self.observers.is_own_turn(*it)));
        }
        for backend in &changed {
            if let Some(probe) = self.waiting.remove(backend) {
                // The receiver is dropped while a probe runs.
                let _ = probe.sooner.send(budget.first_pause(backend, changed.len()));
            }
        }
        match has_news {
            _ if has_change || is_divided_again => Some(TRANSITION_PACE),
            true => Some(ESTIMATE_PACE),
            false => None,
        }
    }

    /// The own news if a record is due.
    pub(super) fn news(&mut self, entries: &[BackendEntry], now: Instant) -> Option<OwnNews> {
        if !self.outbox.is_due(now) {
            return None;
        }
        let counts = |entry: &BackendEntry| Counts {
            backend: entry.address,
            redirects: entry.load.redirects(),
            bytes: entry.load.own_bytes(),
        };
        let (period, backends) = self.outbox.take(entries.iter().map(counts).collect(), now);
        Some(OwnNews { period, list: self.list, backends })
    }

    /// Updates the evidence of each entry.
    pub(super) fn combine(
        &mut self,
        entries: &mut [BackendEntry],
        interval: Duration,
        now: Instant,
    ) -> FleetReport {
        let own = |entry: &BackendEntry| OwnSight {
            backend: entry.address,
            state: entry.health.state(),
            is_silent: entry.health.is_silent(),
        };
        let own: Vec<OwnSight> = entries.iter().map(own).collect();
        let (evidence, report) = self.observers.combine(&own, interval, now);
        for (entry, evidence) in entries.iter_mut().zip(evidence) {
            entry.shared = evidence;
        }
        FleetReport { list: self.list, ..report }
    }
}

/// Whether another balancer sees a state in which the own one must be verified.
fn differs(entry: &BackendEntry, news: &PeerNews) -> bool {
    let is_up = news.observation.is_some_and(|(observation, _)| observation.state == State::Up);
    is_up != (entry.health.state() == State::Up)
}

/// Adds the redirects of another balancer and its load report to the load of the backend.
fn book(entry: &BackendEntry, news: &PeerNews, clock: &MonotonicClock, now: Instant) {
    let load = &entry.load;
    if let Some((observation, at)) = news.observation
        && let Some(in_flight) = observation.in_flight
        && entry.estimate.has_usable_report()
    {
        let report = ReportedLoad { in_flight, unsent_bytes: observation.unsent_bytes };
        load.record_shared_report(report, clock.timestamp(at), clock.timestamp(now));
    }
    let (from, to) = news.period;
    load.record_others(news.redirects.0, news.redirects.1, (clock.timestamp(from), clock.timestamp(to)));
}
