//! Selects the candidates for redirects: a pure function of the health of all backends.
//!
//! The candidates are the usable backends of the lowest tier that has at least one; else the suspect backends; else,
//! before the first answers, the unknown backends; else the selection is empty. A backend is usable if it is up and not
//! an outlier. An outlier is found by comparison with its own tier, because a preferred tier may be the slower one.
//!
//! Two rules limit the effect of missing probe answers. They apply only to silent backends (no answer at all), never to
//! backends that refused a connection or gave a wrong answer, and only if at least [`SMALL_FLEET`] backends are judged
//! together: the selected tier, or all backends if no backend of any tier is up. A tier that is silent as a whole
//! therefore never takes the clients of a tier that answers.
//! - More than 30 % became silent within 15 s or two intervals, whichever is longer: the probable cause is the network or
//!   the processor of the balancer, and the silent backends keep their whole weight.
//! - Fewer than half of the backends that answered within the last minute or eight intervals, whichever is longer, are
//!   up: all clients together would overload the others, so the silent backends keep half of their weight.
//!
//! If other balancers share their observations, these decide instead of both rules; see [`SharedEvidence`].
//!
//! [`SharedEvidence`]: crate::balancer::health::SharedEvidence

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::table::BackendEntry;
use crate::balancer::health::{HealthCheckConfig, OwnView, State};

/// The smallest number of backends to which the rules for silent backends apply. Among fewer, one or two failed backends
/// are already a large share.
pub(crate) const SMALL_FLEET: usize = 10;

/// The shortest time for which a silent backend stays a candidate while the prober is doubted.
const DOUBT_WINDOW: Duration = Duration::from_secs(15);

/// The same time in probe intervals. If several backends become silent at the same moment, the probes detect them
/// within one interval and the time limit of a probe, and must count them together.
const DOUBT_INTERVALS: u32 = 2;

/// In panic mode, a silent backend stays a candidate for this multiple of the time.
const PANIC_WINDOWS: u32 = 4;

/// The share of its weight that a silent backend keeps in panic mode.
const PANIC_WEIGHT: f64 = 0.5;

/// A backend is an outlier if its response time is more than this multiple of the median ...
const OUTLIER_FACTOR: u32 = 5;

/// ... and longer than this time. On a fast network, a multiple of the median is still short.
const OUTLIER_FLOOR: Duration = Duration::from_millis(100);

/// A backend that is up is an outlier if its share of failed probes is larger than this.
const OUTLIER_FAILURE_RATE: f32 = 0.3;

/// At most one backend in this number of backends of a tier is ejected as an outlier.
const OUTLIERS_ONE_IN: usize = 10;

/// Whether a backend is a candidate, and the reason if it is not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Eligibility {
    /// A candidate with this share of its weight.
    Chosen(f64),
    /// A lower tier gets all clients.
    SpareTier,
    /// The backend is up, but an outlier.
    Ejected(Outlier),
    /// Its health excludes it.
    Out,
    /// An order excludes it.
    Withdrawn,
}

/// The reason why a backend is an outlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlier {
    /// Its response time is a large multiple of the median of its tier.
    Slow,
    /// Too many of its probes fail.
    Flapping,
}

/// The rule behind a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The backends that are up are candidates.
    Normal,
    /// Too many backends became silent at once: the prober is doubted, and they stay candidates.
    ProberDoubted,
    /// Too few backends are up: the silent backends stay candidates with half of their weight.
    Panic,
    /// Other balancers see far more backends up: silent backends that they see stay candidates.
    SetAside,
    /// Neither a backend nor the engine of the fleet answers: silent backends stay candidates.
    CutOff,
    /// No backend answers this balancer: those that answer other balancers are candidates.
    SeenByOthers,
    /// No backend is up: the suspect backends are candidates.
    Suspects,
    /// No probe has ended: the unknown backends are candidates.
    Start,
    /// There is no candidate.
    Nothing,
}

/// The candidates.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The rule behind the selection.
    pub mode: Mode,
    /// The eligibility of each backend, in the order of the entries.
    pub eligibilities: Vec<Eligibility>,
}

/// Selects the candidates. Withdrawn backends affect no other backend.
#[must_use]
pub fn select(entries: &[BackendEntry], health_check: &HealthCheckConfig, now: Instant) -> Selection {
    let mut eligibilities: Vec<_> = entries
        .iter()
        .map(|entry| if is_in_service(entry) { Eligibility::Out } else { Eligibility::Withdrawn })
        .collect();
    let in_service = || entries.iter().filter(|entry| is_in_service(entry));
    let lowest_tier = |admission: AdmissionRule| {
        let admitted = in_service().filter(|entry| admission.share(entry, now).is_some());
        admitted.map(|entry| entry.tier).min()
    };
    // A backend that answers precedes every silent backend, even in a lower tier. If no backend answers, all backends are
    // judged together.
    let answering = lowest_tier(AdmissionRule::Usable(None));
    if let Some(tier) = answering {
        eject_outliers(entries, tier, &mut eligibilities);
    }
    let judged = in_service().filter(|entry| answering.is_none_or(|tier| entry.tier == tier));
    let confidence = ProbeConfidence::judge(judged, health_check, now);
    let admitted = [
        (confidence.mode, AdmissionRule::Usable(confidence.silence_forgiven)),
        (Mode::SeenByOthers, AdmissionRule::SeenByOthers),
        (Mode::Suspects, AdmissionRule::Only(State::Suspect)),
        (Mode::Start, AdmissionRule::Only(State::Unknown)),
    ]
    .into_iter()
    .find_map(|(mode, admission)| Some((mode, admission, answering.or_else(|| lowest_tier(admission))?)));
    let Some((mode, admission, tier)) = admitted else {
        return Selection { mode: Mode::Nothing, eligibilities };
    };
    for (entry, eligibility) in entries.iter().zip(&mut eligibilities) {
        if *eligibility != Eligibility::Out || entry.tier < tier {
            continue;
        }
        if let Some(share) = admission.share(entry, now) {
            *eligibility = if entry.tier == tier {
                Eligibility::Chosen(share * entry.health.slow_start_share(health_check, now))
            } else {
                Eligibility::SpareTier
            };
        }
    }
    Selection { mode, eligibilities }
}

fn is_in_service(entry: &BackendEntry) -> bool {
    entry.withdrawal().is_none()
}

/// The backends that a rule admits.
#[derive(Clone, Copy)]
enum AdmissionRule {
    /// Backends that are up, and silent backends under the conditions of a [`Forgiveness`].
    Usable(Option<Forgiveness>),
    /// Backends that are up for at least one other balancer.
    SeenByOthers,
    /// Backends in this state.
    Only(State),
}

/// Backends that became silent a short time ago keep a share of the traffic, because the fault may be that of the balancer.
#[derive(Clone, Copy)]
struct Forgiveness {
    /// The longest silence of such a backend.
    window: Duration,
    /// The share of its weight that a silent backend keeps.
    share: f64,
}

impl AdmissionRule {
    /// The share of its weight with which a backend is admitted; `None` if it is not admitted.
    fn share(self, entry: &BackendEntry, now: Instant) -> Option<f64> {
        let BackendEntry { health, shared, .. } = entry;
        match self {
            Self::Usable(forgiveness) => shared.share(health.state(), health.is_silent()).or_else(|| {
                let forgiveness = forgiveness.filter(|it| health.fell_silent(it.window, now))?;
                Some(forgiveness.share)
            }),
            Self::SeenByOthers => (shared.up > 0).then_some(1.0),
            Self::Only(state) => (shared.state(health.state()) == state).then_some(1.0),
        }
    }
}

/// The confidence in the probes, derived from the number of silent backends.
struct ProbeConfidence {
    mode: Mode,
    silence_forgiven: Option<Forgiveness>,
}

impl ProbeConfidence {
    fn judge<'a>(
        entries: impl Iterator<Item = &'a BackendEntry>,
        health_check: &HealthCheckConfig,
        now: Instant,
    ) -> Self {
        let doubt_window = DOUBT_WINDOW.max(health_check.interval.saturating_mul(DOUBT_INTERVALS));
        let panic_window = doubt_window.saturating_mul(PANIC_WINDOWS);
        let (mut up, mut doubted, mut lost) = (0, 0, 0);
        let mut own_view = OwnView::Alone;
        for BackendEntry { health, shared, .. } in entries {
            own_view = shared.own_view;
            up += usize::from(health.state() == State::Up);
            doubted += usize::from(health.fell_silent(doubt_window, now));
            lost += usize::from(health.fell_silent(panic_window, now));
        }
        let mode = match own_view {
            OwnView::SetAside => Mode::SetAside,
            OwnView::CutOff => Mode::CutOff,
            OwnView::Alone | OwnView::Trusted => Mode::Normal,
        };
        if own_view != OwnView::Alone || up + lost < SMALL_FLEET {
            Self { mode, silence_forgiven: None }
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

/// Ejects the worst outliers of a tier, within the limit.
fn eject_outliers(entries: &[BackendEntry], tier: u32, eligibilities: &mut [Eligibility]) {
    let is_up = |entry: &BackendEntry| {
        is_in_service(entry) && entry.tier == tier && entry.health.state() == State::Up
    };
    let up = || entries.iter().enumerate().filter(|(_, entry)| is_up(entry));
    // The limit depends on the backends that are up, so the last ones are never ejected.
    let most = up().count() / OUTLIERS_ONE_IN;
    if most == 0 {
        return;
    }
    let mut times: Vec<Duration> = up().filter_map(|(_, entry)| entry.response_time()).collect();
    let middle = times.len() / 2;
    let limit = if times.is_empty() {
        Duration::MAX
    } else {
        let median = *times.select_nth_unstable(middle).1;
        median.saturating_mul(OUTLIER_FACTOR).max(OUTLIER_FLOOR)
    };
    let mut outliers: Vec<(f64, usize, Outlier)> = up()
        .filter_map(|(index, entry)| {
            if entry.health.failure_rate() > OUTLIER_FAILURE_RATE {
                // A flapping backend is worse than any slow backend, which at least answers.
                return Some((f64::INFINITY, index, Outlier::Flapping));
            }
            let time = entry.response_time().filter(|time| *time > limit)?;
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
            Self::ProberDoubted => "too many servers became silent at once, probably a fault of this balancer's network; they are still used",
            Self::Panic => "fewer than half of the servers are up; silent servers are still used with half of their weight",
            Self::SetAside => "the other balancers see far more servers up, probably a fault of this balancer's network; silent servers that they see are still used",
            Self::CutOff => "neither a server nor the engine of the fleet answers, probably a fault of this balancer's network; the servers that it had are still used",
            Self::SeenByOthers => "no server answers this balancer; servers that answer other balancers are used",
            Self::Suspects => "no server is up; servers whose last probe failed are used",
            Self::Start => "no server has been probed yet; all servers are used",
            Self::Nothing => "no server is usable",
        })
    }
}

impl fmt::Display for Outlier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Slow => "ejected: its response time is more than five times the median of its tier",
            Self::Flapping => "ejected: too many of its probes fail",
        })
    }
}
