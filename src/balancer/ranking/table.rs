//! The routing table: what every HTTP worker chooses from.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::balancer::backends::Backend;
use crate::balancer::health::fleet::{self, Eligibility, Mode};
use crate::balancer::health::{Health, ProbeOutcome, State, Thresholds, Traffic, Transition};
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
    /// What it has of what clients may need.
    pub has: Needs,
}

/// What a backend must have for a client to reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs(u8);

impl Needs {
    const HTTPS: u8 = 1;
    const IPV4: u8 = 2;

    /// Those of a client that uses https (browsers refuse a download that leads from there to http), and of one that
    /// uses IPv4 (it may have nothing else).
    #[must_use]
    pub fn new(https: bool, ipv4: bool) -> Self {
        Self((u8::from(https) * Self::HTTPS) | (u8::from(ipv4) * Self::IPV4))
    }

    /// Those that this backend meets. A name may have addresses of both families.
    fn met_by(backend: &Backend) -> Self {
        Self::new(backend.id().is_https(), !backend.id().authority().starts_with('['))
    }

    fn are_met_by(self, has: Self) -> bool {
        self.0 & !has.0 == 0
    }
}

impl Member {
    /// A backend that was sent nothing yet, with a ledger of this book.
    #[must_use]
    pub fn new(backend: Backend, book: &mut LoadSlab) -> Self {
        let ledger = book.allocate(policy::identity(backend.id().authority()));
        let address = policy::digest(backend.id().as_str().as_bytes());
        let has = Needs::met_by(&backend);
        Self { backend, ledger, address, has }
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
    /// The redirects to it at its latest probe.
    redirects: u64,
    /// When that number was last seen to grow.
    used_at: Option<Instant>,
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
            redirects: member.ledger.redirects(),
            used_at: None,
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

    /// Whether clients are sent there, as seen at its probes; to be called once for each.
    pub fn traffic(&mut self, interval: Duration, now: Instant) -> Traffic {
        let redirects = self.member.ledger.redirects();
        if redirects != self.redirects {
            (self.redirects, self.used_at) = (redirects, Some(now));
        }
        let unused = self.used_at.map(|used_at| now.saturating_duration_since(used_at));
        Traffic::after(unused, interval)
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
    /// For each combination of needs.
    restricted: [Restricted; 4],
}

/// How a backend is chosen for clients with certain needs.
#[derive(Debug)]
enum Restricted {
    /// Every candidate meets them.
    Same,
    /// Among the usable backends that meet them.
    Part(Box<dyn Policy>),
    /// No usable backend meets them.
    Unmet,
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
        let mut candidates: Vec<Candidate> = Vec::new();
        for ((place, entry), eligibility) in (0..).zip(entries.iter_mut()).zip(selection.eligibilities) {
            let before = std::mem::replace(&mut entry.eligibility, eligibility);
            let was_heard = std::mem::replace(&mut entry.was_heard, entry.estimate.is_heard());
            // One that is heard no more stands with those that never were: what it said last would hold for ever.
            let joins = !matches!(before, Eligibility::Chosen(_)) || (was_heard && !entry.was_heard);
            candidates.extend(candidate(place, entry, joins));
        }
        let needs = [0, 1, 2, 3].map(Needs);
        let meeting =
            needs.map(|needs| entries.iter().filter(|entry| needs.are_met_by(entry.member.has)).count());
        let is_mixed = meeting.iter().any(|count| (1..entries.len()).contains(count));
        let all = if is_mixed { candidates.clone() } else { Vec::new() };
        // This one first: it prepares the ledgers.
        let policy = policy::build(name, candidates, clock.timestamp(now), random);
        let restricted = needs.map(|needs| match meeting.get(usize::from(needs.0)) {
            Some(0) => Restricted::Unmet,
            Some(count) if *count < entries.len() => restrict(needs, entries, &all, |part| match part {
                Part::Of(candidates) => policy::build_part(name, candidates, random),
                Part::Beside(candidates) => policy::build(name, candidates, clock.timestamp(now), random),
            }),
            _ => Restricted::Same,
        });
        let (entries, mode) = (entries.to_vec(), selection.mode);
        Self { generation, built_at: now, mode, entries, policy, restricted }
    }

    /// Chooses among the backends that meet `needs`, or among all candidates if no usable backend does.
    #[must_use]
    pub fn policy_for(&self, needs: Needs) -> &dyn Policy {
        // If no backend meets both, one that cannot be reached is worse than one of another scheme.
        for needs in [needs.0, needs.0 & Needs::IPV4, needs.0 & Needs::HTTPS] {
            match self.restricted.get(usize::from(needs)) {
                Some(Restricted::Part(policy)) => return &**policy,
                Some(Restricted::Unmet) => {}
                Some(Restricted::Same) | None => break,
            }
        }
        &*self.policy
    }

    /// Whether every backend has been probed at least once.
    #[must_use]
    pub fn are_all_probed(&self) -> bool {
        self.entries.iter().all(|entry| entry.health.state() != State::Unknown)
    }
}

/// Candidates for clients with certain needs.
enum Part {
    /// Some of the candidates for other clients.
    Of(Vec<Candidate>),
    /// Usable backends that other clients are not sent to.
    Beside(Vec<Candidate>),
}

/// The backends for clients with these needs: the candidates that meet them, else the lowest spare tier with backends that
/// do, else those that are put aside.
fn restrict(
    needs: Needs,
    entries: &[Entry],
    candidates: &[Candidate],
    build: impl FnOnce(Part) -> Box<dyn Policy>,
) -> Restricted {
    let meets = |candidate: &&Candidate| {
        let entry = entries.get(candidate.backend as usize);
        entry.is_some_and(|entry| needs.are_met_by(entry.member.has))
    };
    let part: Vec<Candidate> = candidates.iter().filter(meets).cloned().collect();
    if !part.is_empty() {
        let is_whole = part.len() == candidates.len();
        return if is_whole { Restricted::Same } else { Restricted::Part(build(Part::Of(part))) };
    }
    let usable = || (0..).zip(entries).filter(|(_, entry)| needs.are_met_by(entry.member.has));
    let spare = || usable().filter(|(_, entry)| entry.eligibility == Eligibility::SpareTier);
    let tier = spare().map(|(_, entry)| entry.member.backend.tier()).min();
    let of_tier = spare().filter(|(_, entry)| Some(entry.member.backend.tier()) == tier);
    let mut beside: Vec<Candidate> =
        of_tier.map(|(place, entry)| candidate_with(place, entry, 1.0, false)).collect();
    if beside.is_empty() {
        let aside = usable().filter(|(_, entry)| matches!(entry.eligibility, Eligibility::Ejected(_)));
        beside.extend(aside.map(|(place, entry)| candidate_with(place, entry, 1.0, false)));
    }
    if beside.is_empty() { Restricted::Unmet } else { Restricted::Part(build(Part::Beside(beside))) }
}

/// The entry, if it is chosen from.
fn candidate(place: u32, entry: &Entry, joins: bool) -> Option<Candidate> {
    let Eligibility::Chosen(share) = entry.eligibility else { return None };
    Some(candidate_with(place, entry, share, joins))
}

fn candidate_with(place: u32, entry: &Entry, share: f64, joins: bool) -> Candidate {
    Candidate {
        backend: place,
        weight: f64::from(entry.member.backend.weight()) * share,
        response_time: entry.estimate.response_time(),
        throughput: entry.estimate.throughput(),
        reports: entry.was_heard,
        joins,
        address: entry.member.address,
        load: Arc::clone(&entry.member.ledger),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::balancer::backends::list;
    use crate::balancer::health::{Failure, FailureKind};
    use crate::balancer::policy::{PickRequest, Picks};

    const THRESHOLDS: Thresholds = Thresholds {
        fall: 3,
        rise: 2,
        interval: Duration::from_secs(2),
        backoff_max: Duration::from_secs(30),
        slow_start: Duration::ZERO,
    };

    /// The backends that clients with these needs are sent to, those whose line has `down` being out.
    fn chosen(name: PolicyName, lines: &[&str], https: bool, ipv4: bool) -> Vec<String> {
        let now = Instant::now();
        let (clock, mut random, mut book) =
            (MonotonicClock::new(now), SmallRng::seed_from_u64(1), LoadSlab::default());
        let text = lines.join("\n").replace(" down", "");
        let backends = list::parse(text.as_bytes()).backends;
        let mut entries: Vec<Entry> =
            backends.into_iter().map(|backend| Entry::new(Member::new(backend, &mut book), now)).collect();
        for (entry, line) in entries.iter_mut().zip(lines) {
            let took = Duration::from_millis(1);
            let outcome = if line.ends_with(" down") {
                ProbeOutcome::Failure(Failure { kind: FailureKind::Refused, detail: String::new() })
            } else {
                ProbeOutcome::Success { connect: took, first_byte: took, total: took, report: None }
            };
            entry.observe(&outcome, &THRESHOLDS, &clock, now);
        }
        let table = RoutingTable::build(1, &mut entries, name, &THRESHOLDS, &clock, now, &mut random);
        let mut found = std::collections::BTreeSet::new();
        for path_hash in 0..200 {
            let mut picks = Picks::new(3);
            let request = PickRequest { path_hash: path_hash << 55, ..PickRequest::default() };
            table.policy_for(Needs::new(https, ipv4)).pick(
                &request,
                clock.timestamp(now),
                &mut random,
                &mut picks,
            );
            let chosen = table.entries.get(picks.chosen().unwrap() as usize).unwrap();
            found.insert(chosen.member.backend.id().to_string());
        }
        found.into_iter().collect()
    }

    #[track_caller]
    fn check(lines: &[&str], (https, ipv4): (bool, bool), expected: &[&str]) {
        for name in PolicyName::ALL {
            assert_eq!(chosen(name, lines, https, ipv4), expected, "{name} {lines:?}");
        }
    }

    #[test]
    fn clients_of_https_are_sent_to_http_only_if_no_server_of_https_is_usable() {
        let lines = ["http://a:1", "https://b:1", "http://c:1", "https://d:1"];
        check(&lines, (true, true), &["https://b:1", "https://d:1"]);
        check(&lines, (false, false), &["http://a:1", "http://c:1", "https://b:1", "https://d:1"]);
        check(&["http://a:1", "https://b:1 tier=7", "https://c:1 tier=8"], (true, false), &["https://b:1"]);
        check(&["http://a:1", "https://b:1 tier=7"], (false, true), &["http://a:1"]);
        check(&["http://a:1", "https://b:1 down"], (true, false), &["http://a:1"]);
        check(&["http://a:1"], (true, true), &["http://a:1"]);
    }

    #[test]
    fn clients_of_ipv4_are_sent_to_an_ipv6_address_only_if_nothing_else_is_usable() {
        check(
            &["http://[::1]:1", "http://b:1", "http://127.0.0.1:1"],
            (false, true),
            &["http://127.0.0.1:1", "http://b:1"],
        );
        check(&["http://[::1]:1", "http://b:1 down"], (false, true), &["http://[::1]:1"]);
        check(&["https://[::1]:1", "http://b:1"], (true, true), &["http://b:1"]);
        check(&["https://[::1]:1", "http://[::2]:1"], (true, true), &["https://[::1]:1"]);
        check(&["http://[::1]:1", "https://[::2]:1"], (true, true), &["https://[::2]:1"]);
    }
}
