//! Which backends are chosen from: a pure function of the health of all of them.
//!
//! In this order: the usable backends of the lowest tier that has any; else those under suspicion; else, before the
//! first answers, those of which nothing is known; else none. A backend is usable when it is up and no outlier, which
//! is one by comparison with those of its tier: a preferred tier may well be the slower one.
//!
//! Two rules guard against believing the probes too readily. Both speak only of backends that fell silent, never of
//! those that refused a connection or gave a wrong answer, and only where [`SMALL_FLEET`] or more are judged together:
//! the tier that is chosen from, or, where no backend of any tier is up, all of them. So a tier that fell silent as a
//! whole never keeps its clients from one that answers.
//! - More than 30 % fell silent within 15 s, or two intervals where those are longer: the prober's own network or processor is the likelier cause,
//!   and all of them stay in with their whole weight.
//! - Fewer than half of those that answered until a minute ago, or eight intervals, are up: sending everything to the few would bring
//!   them down too, so the silent ones get half of their weight.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::{Health, State, Thresholds};

/// Among fewer, one or two backends are a large share, and their silence is believed at once.
pub const SMALL_FLEET: usize = 10;

/// How long after it fell silent a backend stays in while the prober is doubted, at least.
const DOUBT_WINDOW: Duration = Duration::from_secs(15);

/// The same in intervals between probes: what fell silent at the same moment is noticed within one interval and the
/// time of a probe, and must be seen together then.
const DOUBT_INTERVALS: u32 = 2;

/// In a panic a backend counts as last known good for so many times as long.
const PANIC_WINDOWS: u32 = 4;

/// The weight of a silent backend in a panic.
const PANIC_WEIGHT: f64 = 0.5;

/// A response time this many times the median makes an outlier ...
const OUTLIER_FACTOR: u32 = 5;

/// ... unless it is shorter than this: on a fast network a multiple of next to nothing is still nothing.
const OUTLIER_FLOOR: Duration = Duration::from_millis(100);

/// This share of failed probes makes an outlier of a backend that is up: it comes and goes.
const OUTLIER_FAILURE_RATE: f32 = 0.3;

/// At most one backend in so many of a tier is put aside as an outlier.
const OUTLIERS_ONE_IN: usize = 10;

/// What the selection needs to know of a backend.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its health.
    pub health: &'a Health,
    /// Its tier in the list; the lowest that has a usable backend takes all clients.
    pub tier: u32,
    /// Its response time, if it has answered.
    pub response_time: Option<Duration>,
}

/// Whether and why a backend is chosen from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Eligibility {
    /// Clients are sent there with this share of its weight.
    Chosen(f64),
    /// A lower tier takes all clients.
    SpareTier,
    /// It is up, but an outlier.
    Ejected(Outlier),
    /// Its health keeps it out.
    Out,
}

/// What makes an outlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlier {
    /// Its response time is many times the median of its tier.
    Slow,
    /// Too many of its probes fail.
    Flapping,
}

/// Which rule made the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Backends that are up are chosen from.
    Normal,
    /// Too many fell silent at once: the prober is doubted and they stay in.
    ProberDoubted,
    /// Too few are left: the silent ones get half of their weight.
    Panic,
    /// None is up: those under suspicion are chosen from.
    Suspects,
    /// Nothing is known yet: all of which nothing is known are chosen from.
    Start,
    /// There is no backend to send clients to.
    Nothing,
}

/// Which backends are chosen from.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Which rule made it.
    pub mode: Mode,
    /// One eligibility for each member, in their order.
    pub eligibilities: Vec<Eligibility>,
}

/// Selects the backends that are chosen from.
#[must_use]
pub fn select(members: &[Member<'_>], thresholds: &Thresholds, now: Instant) -> Selection {
    let mut eligibilities = vec![Eligibility::Out; members.len()];
    let lowest_tier = |admission: Admission| {
        let admitted = members.iter().filter(|member| admission.share(member.health, now).is_some());
        admitted.map(|member| member.tier).min()
    };
    // A backend that answers goes before every silent one, whatever the tiers. Where none does, all are judged together.
    let answering = lowest_tier(Admission::Usable(None));
    if let Some(tier) = answering {
        eject_outliers(members, tier, &mut eligibilities);
    }
    let judged = members.iter().filter(|member| answering.is_none_or(|tier| member.tier == tier));
    let trust = Trust::judge(judged.map(|member| member.health), thresholds, now);
    let admitted = [
        (trust.mode, Admission::Usable(trust.silence_forgiven)),
        (Mode::Suspects, Admission::Only(State::Suspect)),
        (Mode::Start, Admission::Only(State::Unknown)),
    ]
    .into_iter()
    .find_map(|(mode, admission)| Some((mode, admission, answering.or_else(|| lowest_tier(admission))?)));
    let Some((mode, admission, tier)) = admitted else {
        return Selection { mode: Mode::Nothing, eligibilities };
    };
    for (member, eligibility) in members.iter().zip(&mut eligibilities) {
        if *eligibility != Eligibility::Out || member.tier < tier {
            continue;
        }
        if let Some(share) = admission.share(member.health, now) {
            *eligibility = if member.tier == tier {
                Eligibility::Chosen(share * member.health.warmth(thresholds, now))
            } else {
                Eligibility::SpareTier
            };
        }
    }
    Selection { mode, eligibilities }
}

/// Whom a rule lets in.
#[derive(Clone, Copy)]
enum Admission {
    /// Backends that are up, and silent ones as far as they are forgiven.
    Usable(Option<Forgiveness>),
    /// Backends in this state.
    Only(State),
}

#[derive(Clone, Copy)]
struct Forgiveness {
    /// How long ago the silence may have begun.
    window: Duration,
    /// The share of its weight that a silent backend keeps.
    share: f64,
}

impl Admission {
    /// The share of its weight with which a backend is let in.
    fn share(self, health: &Health, now: Instant) -> Option<f64> {
        match self {
            Self::Usable(_) if health.state == State::Up => Some(1.0),
            Self::Usable(Some(forgiveness)) if health.fell_silent(forgiveness.window, now) => {
                Some(forgiveness.share)
            }
            Self::Usable(_) => None,
            Self::Only(state) => (health.state == state).then_some(1.0),
        }
    }
}

/// How far the probes are believed.
struct Trust {
    mode: Mode,
    silence_forgiven: Option<Forgiveness>,
}

impl Trust {
    fn judge<'a>(healths: impl Iterator<Item = &'a Health>, thresholds: &Thresholds, now: Instant) -> Self {
        let doubt_window = DOUBT_WINDOW.max(thresholds.interval.saturating_mul(DOUBT_INTERVALS));
        let panic_window = doubt_window.saturating_mul(PANIC_WINDOWS);
        let (mut up, mut doubted, mut lost) = (0, 0, 0);
        for health in healths {
            up += usize::from(health.state == State::Up);
            doubted += usize::from(health.fell_silent(doubt_window, now));
            lost += usize::from(health.fell_silent(panic_window, now));
        }
        if up + lost < SMALL_FLEET {
            Self { mode: Mode::Normal, silence_forgiven: None }
        } else if doubted * 10 > (up + doubted) * 3 {
            let forgiveness = Forgiveness { window: doubt_window, share: 1.0 };
            Self { mode: Mode::ProberDoubted, silence_forgiven: Some(forgiveness) }
        } else if up < lost {
            let forgiveness = Forgiveness { window: panic_window, share: PANIC_WEIGHT };
            Self { mode: Mode::Panic, silence_forgiven: Some(forgiveness) }
        } else {
            Self { mode: Mode::Normal, silence_forgiven: None }
        }
    }
}

/// Puts the worst outliers of a tier aside, within the limit.
fn eject_outliers(members: &[Member<'_>], tier: u32, eligibilities: &mut [Eligibility]) {
    let up = || {
        let numbered = members.iter().enumerate();
        numbered.filter(|(_, member)| member.tier == tier && member.health.state == State::Up)
    };
    // Of those that are up, so that the last ones never go.
    let most = up().count() / OUTLIERS_ONE_IN;
    if most == 0 {
        return;
    }
    let mut times: Vec<Duration> = up().filter_map(|(_, member)| member.response_time).collect();
    let middle = times.len() / 2;
    let limit = if times.is_empty() {
        Duration::MAX
    } else {
        let median = *times.select_nth_unstable(middle).1;
        median.saturating_mul(OUTLIER_FACTOR).max(OUTLIER_FLOOR)
    };
    let mut outliers: Vec<(f64, usize, Outlier)> = up()
        .filter_map(|(index, member)| {
            if member.health.failure_rate > OUTLIER_FAILURE_RATE {
                // Worse than any slowness: a slow backend at least answers.
                return Some((f64::INFINITY, index, Outlier::Flapping));
            }
            let time = member.response_time.filter(|time| *time > limit)?;
            Some((time.as_secs_f64(), index, Outlier::Slow))
        })
        .collect();
    outliers.sort_unstable_by(|left, right| right.0.total_cmp(&left.0));
    for (_, index, outlier) in outliers.into_iter().take(most) {
        if let Some(eligibility) = eligibilities.get_mut(index) {
            *eligibility = Eligibility::Ejected(outlier);
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Normal => "normal",
            Self::ProberDoubted => "too many servers fell silent at once; this balancer's own network is doubted, and they stay in",
            Self::Panic => "fewer than half of the servers are up; the silent ones stay in with half of their weight",
            Self::Suspects => "no server is sure to be up; those whose last probe failed are used",
            Self::Start => "no server has been probed yet; all are used",
            Self::Nothing => "no server is usable",
        })
    }
}

impl fmt::Display for Outlier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Slow => "put aside: its response time is more than five times the median of its tier",
            Self::Flapping => "put aside: too many of its probes fail",
        })
    }
}
