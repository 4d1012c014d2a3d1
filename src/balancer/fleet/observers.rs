//! The observations of the other balancers, and their combination with the own ones. Pure.
//!
//! An observation has an age and no time. The time of a record follows from the uptime of its balancer: the record with the
//! shortest way shows the difference of the two clocks, and any record that took longer is as old as it took longer.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::record::{FleetRecord, Observation, Publisher};
use crate::balancer::health::{OwnView, SharedEvidence, State, Traffic};
use crate::balancer::policy::digest;

/// The largest number of balancers; the records of further ones are skipped.
pub(crate) const MOST_BALANCERS: usize = 512;

/// The largest number of observations that are kept for one backend, the newest ones.
const MOST_SIGHTINGS: usize = 16;

/// A balancer is alive for this time after its latest record.
pub(crate) const ALIVE: Duration = Duration::from_secs(3);

/// A balancer counts for this multiple of the probe interval after its latest record, but at least as long as it is alive.
const COUNTED_INTERVALS: u32 = 3;

/// A balancer is forgotten after this time.
const FORGOTTEN: Duration = Duration::from_mins(1);

/// The engine must work for this time before probes are shared. A slow engine would make every balancer change
/// between few and many probes otherwise.
const SETTLED: Duration = Duration::from_secs(5);

/// The number of live balancers besides this one from which on probes are shared.
const FEWEST_PEERS: usize = 2;

/// A balancer that is not assigned to a backend multiplies its pauses by this number at least.
const REST_FACTOR: f64 = 6.0;

/// The same for a backend in use. With the time limit of a probe, a balancer that loses the way to such a backend notices it
/// within 3 s.
const REST_FACTOR_IN_USE: f64 = 1.75;

/// The smallest number of backends from which on a balancer that sees fewer than half of them is set aside.
const FEWEST_SEEN: usize = 3;

/// The largest number of backends in a report whose observers disagree.
const MOST_DISAGREEMENTS: usize = 100;

/// Clocks drift by less than this fraction.
const DRIFT: i64 = 1000;

/// Whether a record was published while this balancer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It was published since the previous read.
    Live,
    /// It was stored before this balancer began to read, so its sender may be gone.
    Stored,
}

/// The own state of a backend.
#[derive(Debug, Clone, Copy)]
pub struct OwnSight {
    /// The digest of its address.
    pub backend: u64,
    /// Its state according to the own probes.
    pub state: State,
    /// Whether it was up and has given no answer at all since.
    pub is_silent: bool,
}

/// The news of one backend from another balancer, in times of this machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerNews {
    /// The digest of the address of the backend.
    pub backend: u64,
    /// The result of a probe and the time of its end.
    pub observation: Option<(Observation, Instant)>,
    /// Whether a balancer that is assigned to the backend sees it in another state than before. The others then probe it.
    pub is_change: bool,
    /// Redirects of the other balancer, and their bytes.
    pub redirects: (u32, u64),
    /// The time in which they happened.
    pub period: (Instant, Instant),
}

/// Another balancer.
#[derive(Debug, Clone)]
struct ObservedBalancer {
    publisher: Publisher,
    boot: u64,
    number: u64,
    /// The time of its start, in milliseconds from `origin`.
    started_at: i64,
    /// The time of its latest record.
    sent_at: i64,
    /// Whether a record was published since this balancer began to read.
    is_met: bool,
    is_set_aside: bool,
    list: u64,
    orders: u64,
}

/// An observation of one backend by one balancer.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    balancer: u64,
    state: State,
    at: i64,
    /// The time at which the next probe is overdue.
    until: i64,
    response_time: Option<Duration>,
}

/// The condition of the engine.
pub type EngineCondition = Result<(), String>;

/// The state of a fleet for the status.
#[derive(Debug, Clone, Default)]
pub struct FleetReport {
    /// The reason why the engine does not work.
    pub engine_failure: Option<String>,
    /// Whether another balancer uses the name of this one.
    pub has_namesake: bool,
    /// The part of the own probes in the decisions.
    pub own_view: OwnView,
    /// Whether the probes are shared.
    pub shares_probes: bool,
    /// A digest of the own list.
    pub list: u64,
    /// The other balancers, by name.
    pub balancers: Vec<BalancerReport>,
    /// The backends whose observers disagree.
    pub disagreements: Vec<Disagreement>,
}

/// Another balancer in a [`FleetReport`].
#[derive(Debug, Clone)]
pub struct BalancerReport {
    /// Its name, zone and version.
    pub publisher: Publisher,
    /// The time since its latest record when the report was made.
    pub age: Duration,
    /// A digest of its list.
    pub list: u64,
    /// A digest of the orders in force on it.
    pub orders: u64,
    /// Whether it counts.
    pub standing: Standing,
}

/// Whether the observations of another balancer count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They count.
    Counted,
    /// It sees far less than the others.
    SetAside,
    /// Its latest record is too old.
    Lost,
}

/// A backend whose observers disagree.
#[derive(Debug, Clone)]
pub struct Disagreement {
    /// Its position among the given backends.
    pub index: usize,
    /// The balancers that see it up.
    pub up: Vec<String>,
    /// The balancers that do not.
    pub failing: Vec<String>,
}

/// The other balancers of the fleet and their observations.
#[derive(Debug)]
pub struct Observers {
    name: Box<str>,
    own: u64,
    own_boot: u64,
    origin: Instant,
    /// The number of balancers that are assigned to a backend.
    probers: usize,
    balancers: HashMap<u64, ObservedBalancer>,
    sightings: HashMap<u64, Vec<Sighting>>,
    engine_works_since: Option<Instant>,
    engine_failure: Option<String>,
    namesake_at: Option<i64>,
    own_view: OwnView,
    /// The balancers among which the probes are divided, with this one; empty while they are not shared.
    members: Vec<u64>,
}

impl Observers {
    /// The fleet of the balancer `name` before its first record. `boot` is the number of this run.
    #[must_use]
    pub fn new(name: &str, boot: u64, probers: usize, now: Instant) -> Self {
        Self {
            name: name.into(),
            own: digest(name.as_bytes()),
            own_boot: boot,
            origin: now,
            probers: probers.max(1),
            balancers: HashMap::new(),
            sightings: HashMap::new(),
            engine_works_since: None,
            engine_failure: None,
            namesake_at: None,
            own_view: OwnView::Alone,
            members: Vec::new(),
        }
    }

    fn milliseconds(&self, time: Instant) -> i64 {
        time.saturating_duration_since(self.origin).as_millis() as i64
    }

    fn instant(&self, milliseconds: i64) -> Instant {
        self.origin + Duration::from_millis(milliseconds.max(0) as u64)
    }

    /// Takes over a record. Returns its news; they are empty for a record that is known already.
    pub fn apply(&mut self, record: &FleetRecord, delivery: Delivery, now: Instant) -> Vec<PeerNews> {
        let local = self.milliseconds(now);
        let id = digest(record.balancer.name.as_bytes());
        if id == self.own {
            if record.boot != self.own_boot && delivery == Delivery::Live {
                self.namesake_at = Some(local);
            }
            return Vec::new();
        }
        let uptime = record.uptime.cast_signed();
        let mut started_at = local - uptime;
        let mut is_met = delivery == Delivery::Live;
        let known = self.balancers.get(&id);
        match known {
            Some(known) if known.boot == record.boot && record.number <= known.number => return Vec::new(),
            // An engine that restarted with old data delivers records of an earlier run.
            Some(known) if known.boot != record.boot && known.is_met && !is_met => return Vec::new(),
            Some(known) if known.boot == record.boot => {
                let drifted = known.started_at + (local - known.sent_at).max(0) / DRIFT;
                started_at = started_at.min(drifted);
                is_met |= known.is_met;
            }
            None if self.balancers.len() >= MOST_BALANCERS => return Vec::new(),
            _ => {}
        }
        let sent_at = started_at + uptime;
        let is_set_aside = known.is_some_and(|known| known.is_set_aside);
        let (list, orders, number) = (record.list, record.orders, record.number);
        let (publisher, boot) = (record.balancer.clone(), record.boot);
        let balancer = ObservedBalancer {
            publisher,
            boot,
            number,
            started_at,
            sent_at,
            is_met,
            is_set_aside,
            list,
            orders,
        };
        self.balancers.insert(id, balancer);
        let period = (self.instant(sent_at - i64::from(record.period)), self.instant(sent_at));
        // Redirects of the distant past have ended, and those of a stored record may be in a load report already.
        let is_recent = delivery == Delivery::Live && local - sent_at <= ALIVE.as_millis() as i64;
        let mut all = Vec::with_capacity(record.backends.len());
        for news in &record.backends {
            let at = |observation: Observation| sent_at - i64::from(observation.age);
            let is_change = news.observation.is_some_and(|it| self.sight(news.backend, id, &it, at(it)));
            all.push(PeerNews {
                backend: news.backend,
                observation: news.observation.map(|it| (it, self.instant(at(it)))),
                is_change: is_change && is_recent && self.is_assigned(id, news.backend),
                redirects: if is_recent { (news.redirects, news.bytes) } else { (0, 0) },
                period,
            });
        }
        all
    }

    /// Keeps an observation. Returns whether the state differs from the previous one of the same balancer.
    fn sight(&mut self, backend: u64, balancer: u64, observation: &Observation, at: i64) -> bool {
        let Observation { state, pause, response_time, .. } = *observation;
        let interval = i64::from(pause).max(1000);
        let sighting = Sighting {
            balancer,
            state,
            at,
            until: at + i64::from(pause) + interval,
            response_time: response_time.map(|time| Duration::from_micros(time.into())),
        };
        let sightings = self.sightings.entry(backend).or_default();
        if let Some(own) = sightings.iter_mut().find(|it| it.balancer == balancer) {
            let before = std::mem::replace(own, sighting);
            return before.state != state;
        }
        sightings.push(sighting);
        if sightings.len() > MOST_SIGHTINGS {
            sightings.sort_unstable_by_key(|it| Reverse(it.at));
            sightings.truncate(MOST_SIGHTINGS);
        }
        true
    }

    /// Forgets old observations and divides the probes again. Returns whether the division has changed. Must be called
    /// several times a second.
    pub fn refresh(&mut self, engine: &EngineCondition, now: Instant) -> bool {
        let local = self.milliseconds(now);
        match engine {
            Ok(()) => {
                (self.engine_works_since, self.engine_failure) =
                    (self.engine_works_since.or(Some(now)), None);
            }
            Err(reason) => (self.engine_works_since, self.engine_failure) = (None, Some(reason.clone())),
        }
        self.balancers.retain(|_, balancer| local - balancer.sent_at <= FORGOTTEN.as_millis() as i64);
        let is_alive = |balancer: &ObservedBalancer| {
            balancer.is_met && !balancer.is_set_aside && local - balancer.sent_at <= ALIVE.as_millis() as i64
        };
        let alive = self.balancers.iter().filter(|(_, balancer)| is_alive(balancer)).map(|(id, _)| *id);
        let mut members: Vec<u64> = alive.collect();
        let is_settled = self.engine_works_since.is_some_and(|since| now.duration_since(since) >= SETTLED);
        if members.len() >= FEWEST_PEERS && is_settled && self.own_view != OwnView::SetAside {
            members.push(self.own);
            members.sort_unstable();
        } else {
            members.clear();
        }
        let has_changed = members != self.members;
        self.members = members;
        has_changed
    }

    /// Whether this balancer probes a backend at the full rate.
    #[must_use]
    pub fn is_own_turn(&self, backend: u64) -> bool {
        self.members.is_empty() || self.is_assigned(self.own, backend)
    }

    /// Whether `balancer` is one of those with the highest rendezvous hashes.
    fn is_assigned(&self, balancer: u64, backend: u64) -> bool {
        let score = |member: u64| {
            let mut bytes = [0; 16];
            let (first, second) = bytes.split_at_mut(8);
            first.copy_from_slice(&member.to_le_bytes());
            second.copy_from_slice(&backend.to_le_bytes());
            (digest(&bytes), member)
        };
        let own = score(balancer);
        self.members.is_empty()
            || self.members.iter().filter(|member| score(**member) > own).count() < self.probers
    }

    /// The pause before the next probe of a backend, given the one of a balancer that works alone.
    ///
    /// All balancers that are not assigned to a backend probe it together at most as often as one that is.
    #[must_use]
    pub fn pause(&self, backend: u64, pause: Duration, traffic: Traffic) -> Duration {
        match traffic {
            _ if self.is_own_turn(backend) => pause,
            Traffic::Active => pause.mul_f64(self.others().max(REST_FACTOR_IN_USE)),
            Traffic::Idle => pause.mul_f64(self.others().max(REST_FACTOR)),
        }
    }

    /// The number of balancers that are not assigned to a backend.
    fn others(&self) -> f64 {
        self.members.len().saturating_sub(self.probers) as f64
    }

    /// The probes of this balancer as a share of those of a balancer that works alone, if all backends are in use.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.members.is_empty() {
            return 1.0;
        }
        let rest = self.others() / self.members.len() as f64;
        1.0 - rest + rest / self.others().max(REST_FACTOR_IN_USE)
    }

    /// Combines the observations with the own state of each backend. Returns the evidence in the order of `own`, and a
    /// report. `interval` is the time between two probes.
    pub fn combine(
        &mut self,
        own: &[OwnSight],
        interval: Duration,
        now: Instant,
    ) -> (Vec<SharedEvidence>, FleetReport) {
        let local = self.milliseconds(now);
        let counted = ALIVE.max(interval.saturating_mul(COUNTED_INTERVALS)).as_millis() as i64;
        let is_counted = |balancer: &ObservedBalancer| balancer.is_met && local - balancer.sent_at <= counted;
        for sightings in self.sightings.values_mut() {
            sightings.retain(|it| it.until >= local);
        }
        self.sightings.retain(|_, sightings| !sightings.is_empty());
        let (balancers, sightings) = (&self.balancers, &self.sightings);
        let seen = |backend: u64| {
            let all = sightings.get(&backend).map(Vec::as_slice).unwrap_or_default().iter();
            all.filter_map(|it| Some((it, balancers.get(&it.balancer).filter(|it| is_counted(it))?)))
        };
        let aside = self.set_aside(own, seen);
        let is_aside = |balancer: u64| aside.contains(&balancer);
        // A balancer without current observations is no reason to trust the own ones less.
        let has_peers =
            own.iter().flat_map(|own| seen(own.backend)).any(|(sighting, _)| !is_aside(sighting.balancer));
        let own_view = match has_peers {
            // The observations that are left end one after another.
            _ if self.is_cut_off(own) => OwnView::CutOff,
            true if is_aside(self.own) => OwnView::SetAside,
            true => OwnView::Trusted,
            false => OwnView::Alone,
        };
        let mut disagreements = Vec::new();
        let evidence = |(index, own): (usize, &OwnSight)| {
            let mut evidence = SharedEvidence { own_view, ..SharedEvidence::default() };
            for (sighting, _) in seen(own.backend).filter(|(it, _)| !is_aside(it.balancer)) {
                match sighting.state {
                    State::Up => evidence.up += 1,
                    State::Suspect => evidence.suspect += 1,
                    State::Down => evidence.down += 1,
                    State::Unknown => {}
                }
                evidence.response_time = evidence.response_time.or(sighting.response_time);
            }
            let is_mixed = evidence.seen_by(own.state).is_some_and(|(up, all)| (1..all).contains(&up));
            if is_mixed && disagreements.len() < MOST_DISAGREEMENTS {
                let is_own = |is_up: bool| own.state != State::Unknown && (own.state == State::Up) == is_up;
                let names = |is_up: bool| {
                    let others = seen(own.backend).filter(|(it, _)| (it.state == State::Up) == is_up);
                    let others = others.map(|(_, balancer)| balancer.publisher.name.clone());
                    is_own(is_up).then(|| self.name.to_string()).into_iter().chain(others).collect()
                };
                disagreements.push(Disagreement { index, up: names(true), failing: names(false) });
            }
            evidence
        };
        let evidence = own.iter().enumerate().map(evidence).collect();
        let mut reports: Vec<BalancerReport> = balancers
            .iter()
            .map(|(id, balancer)| BalancerReport {
                publisher: balancer.publisher.clone(),
                age: Duration::from_millis((local - balancer.sent_at).max(0) as u64),
                list: balancer.list,
                orders: balancer.orders,
                standing: match is_counted(balancer) {
                    true if is_aside(*id) => Standing::SetAside,
                    true => Standing::Counted,
                    false => Standing::Lost,
                },
            })
            .collect();
        reports.sort_unstable_by(|left, right| left.publisher.name.cmp(&right.publisher.name));
        let report = FleetReport {
            engine_failure: self.engine_failure.clone(),
            has_namesake: self.namesake_at.is_some_and(|at| local - at <= FORGOTTEN.as_millis() as i64),
            own_view,
            shares_probes: !self.members.is_empty(),
            list: 0,
            balancers: reports,
            disagreements,
        };
        self.own_view = own_view;
        for (id, balancer) in &mut self.balancers {
            balancer.is_set_aside = aside.contains(id);
        }
        (evidence, report)
    }

    /// The balancers that see up fewer than half of the backends that most of the others see up, possibly with this one.
    fn set_aside<'a, I: Iterator<Item = (&'a Sighting, &'a ObservedBalancer)>>(
        &self,
        own: &[OwnSight],
        seen: impl Fn(u64) -> I,
    ) -> Vec<u64> {
        // For each balancer the backends that it sees, of those that most of the others see.
        let mut counts: HashMap<u64, (usize, usize)> = HashMap::new();
        let mut states: Vec<(u64, State)> = Vec::new();
        for own in own {
            states.clear();
            states.push((self.own, own.state));
            states.extend(seen(own.backend).map(|(it, _)| (it.balancer, it.state)));
            states.retain(|(_, state)| *state != State::Unknown);
            let all_up = states.iter().filter(|(_, state)| *state == State::Up).count();
            for (balancer, state) in &states {
                let is_up = usize::from(*state == State::Up);
                let (others, others_up) = (states.len() - 1, all_up - is_up);
                if others_up * 2 > others {
                    let (seen, expected) = counts.entry(*balancer).or_default();
                    (*seen, *expected) = (*seen + is_up, *expected + 1);
                }
            }
        }
        let is_blind = |(seen, expected): (usize, usize)| expected >= FEWEST_SEEN && seen * 2 < expected;
        counts.into_iter().filter(|(_, counts)| is_blind(*counts)).map(|(balancer, _)| balancer).collect()
    }

    /// Whether neither the engine nor a backend answers.
    fn is_cut_off(&self, own: &[OwnSight]) -> bool {
        self.engine_works_since.is_none()
            && own.iter().all(|own| own.state != State::Up)
            && own.iter().any(|own| own.is_silent)
    }
}
