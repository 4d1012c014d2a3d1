//! The routing table: what every HTTP worker chooses from.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::balancer::backends::Backend;
use crate::balancer::health::fleet::{self, Eligibility, Mode};
use crate::balancer::health::{Health, ProbeOutcome, State, Thresholds, Transition};
use crate::balancer::policy::{self, BackendLoad, Candidate, LoadSlab, MonotonicClock, Policy, PolicyName};
use crate::balancer::ranking::estimate::{Continuity, Estimate};

/// A backend of the list, and the record of what it was sent, which lives as long as the backend stays in the list.
#[derive(Debug, Clone)]
pub struct Member {
    /// The line of the list.
    pub backend: Backend,
    /// What it was sent.
    pub ledger: Arc<BackendLoad>,
    /// A digest of its whole address, as [`policy::Candidate`] has it.
    pub address: u64,
}

impl Member {
    /// A backend that was sent nothing yet, with a ledger of this book.
    #[must_use]
    pub fn new(backend: Backend, book: &mut LoadSlab) -> Self {
        let ledger = book.allocate(policy::identity(backend.id().authority()));
        let address = policy::digest(backend.id().as_str().as_bytes());
        Self { backend, ledger, address }
    }
}

/// All that is known of one backend.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who it is.
    pub member: Member,
    /// How it is.
    pub health: Health,
    /// What is measured of it.
    pub estimate: Estimate,
    /// The latest successful probe, in its parts.
    pub latest: Option<Timings>,
    /// Whether it is chosen from, as of the latest table.
    pub eligibility: Eligibility,
    /// Whether its load reports were believed, as of the latest table.
    pub was_heard: bool,
}

/// The parts of one probe, each from its start.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// Until the connection stood.
    pub connect: Duration,
    /// Until the answer's head was there.
    pub first_byte: Duration,
    /// Until the last byte was there.
    pub total: Duration,
}

impl Entry {
    /// A backend of which nothing is known.
    #[must_use]
    pub fn new(member: Member, now: Instant) -> Self {
        Self {
            member,
            health: Health::new(now),
            estimate: Estimate::default(),
            latest: None,
            eligibility: Eligibility::Out,
            was_heard: false,
        }
    }

    /// Takes in the outcome of one probe; `Some` when the state changed.
    pub fn observe(
        &mut self,
        outcome: &ProbeOutcome,
        thresholds: &Thresholds,
        clock: &MonotonicClock,
        now: Instant,
    ) -> Option<Transition> {
        let transition = self.health.observe(outcome, thresholds, now);
        if let ProbeOutcome::Success { connect, first_byte, total, .. } = outcome {
            self.latest = Some(Timings { connect: *connect, first_byte: *first_byte, total: *total });
        }
        if self.estimate.observe(outcome, &self.member.ledger, clock, now) == Continuity::Restarted {
            self.health.restarted(now);
        }
        transition
    }
}

/// Immutable, whole and idempotent: a worker that misses one is healed by the next.
#[derive(Debug)]
pub struct RoutingTable {
    /// Grows with each table.
    pub generation: u64,
    /// When it was made.
    pub built_at: Instant,
    /// Which rule chose the candidates.
    pub mode: Mode,
    /// All backends of the list, in its order; a policy names them by their place here.
    pub entries: Vec<Entry>,
    /// Chooses among the candidates.
    pub policy: Box<dyn Policy>,
}

impl RoutingTable {
    /// The table before the first probe: nothing is known of any member.
    #[must_use]
    pub fn first(
        members: &[Member],
        name: PolicyName,
        thresholds: &Thresholds,
        clock: &MonotonicClock,
        now: Instant,
        random: &mut dyn Rng,
    ) -> Self {
        let mut entries: Vec<Entry> = members.iter().map(|member| Entry::new(member.clone(), now)).collect();
        Self::build(0, &mut entries, name, thresholds, clock, now, random)
    }

    /// The table that follows from what is known now. It notes the eligibility of each entry in `entries` too.
    #[must_use]
    pub fn build(
        generation: u64,
        entries: &mut [Entry],
        name: PolicyName,
        thresholds: &Thresholds,
        clock: &MonotonicClock,
        now: Instant,
        random: &mut dyn Rng,
    ) -> Self {
        let members: Vec<fleet::Member<'_>> = entries
            .iter()
            .map(|entry| fleet::Member {
                health: &entry.health,
                tier: entry.member.backend.tier().into(),
                response_time: entry.estimate.response_time(),
            })
            .collect();
        let selection = fleet::select(&members, thresholds, now);
        let mut candidates = Vec::new();
        for ((place, entry), eligibility) in (0..).zip(entries.iter_mut()).zip(selection.eligibilities) {
            let before = std::mem::replace(&mut entry.eligibility, eligibility);
            let was_heard = std::mem::replace(&mut entry.was_heard, entry.estimate.is_heard());
            // One that is heard no more stands with those that never were: what it said last would hold for ever.
            let joins = !matches!(before, Eligibility::Chosen(_)) || (was_heard && !entry.was_heard);
            candidates.extend(candidate(place, entry, joins));
        }
        Self {
            generation,
            built_at: now,
            mode: selection.mode,
            entries: entries.to_vec(),
            policy: policy::build(name, candidates, clock.timestamp(now), random),
        }
    }

    /// Whether every backend has been probed at least once.
    #[must_use]
    pub fn are_all_probed(&self) -> bool {
        self.entries.iter().all(|entry| entry.health.state() != State::Unknown)
    }
}

/// The entry, if it is chosen from.
fn candidate(place: u32, entry: &Entry, joins: bool) -> Option<Candidate> {
    let Eligibility::Chosen(share) = entry.eligibility else { return None };
    Some(Candidate {
        backend: place,
        weight: f64::from(entry.member.backend.weight()) * share,
        response_time: entry.estimate.response_time(),
        throughput: entry.estimate.throughput(),
        reports: entry.was_heard,
        joins,
        address: entry.member.address,
        load: Arc::clone(&entry.member.ledger),
    })
}
