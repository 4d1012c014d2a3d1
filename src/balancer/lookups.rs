//! The parts of a balancer for files and places: the sizes of files, the files of mirrors, the statistics of downloads, and the
//! places of addresses.

use std::sync::Arc;

use actix::Addr;

use super::locator::Locator;
use super::metrics::{BalancerMetrics, PresenceMetrics, StatisticsMetrics};
use super::policy::MonotonicClock;
use super::presence::Presence;
use super::presence::actor::{PresenceActor, PresencePlan};
use super::presence::source::OpenCatalogue;
use super::ranking::RankingActor;
use super::ranking::publisher::TablePublisher;
use super::settings::BalancerSettings;
use super::sizes::{SizeActor, SizePlan, Sizes};
use super::state_folder::StateFolder;
use super::statistics::Statistics;
use super::statistics::actor::{StatisticsActor, StatisticsPlan};
use crate::http::client::Resolver;
use crate::supervision::{ActorKind, Supervisor};

/// The sizes of files, and the plan of the actor that looks them up; `None` if the settings exclude look-ups.
pub(super) fn sizes(
    settings: &BalancerSettings,
    publisher: &Arc<TablePublisher>,
    clock: MonotonicClock,
    resolver: &Resolver,
    metrics: &BalancerMetrics,
) -> Option<(Sizes, SizePlan)> {
    let (publisher, trust) = (Arc::clone(publisher), settings.trust.clone());
    let new = || Sizes::new(publisher, clock, resolver.clone(), trust, metrics.sizes.clone());
    settings.size_lookups.then(new)
}

/// The statistics of downloads, and the plan of the actor that counts them.
pub(super) fn statistics(
    settings: &BalancerSettings,
    publisher: &Arc<TablePublisher>,
    state: Option<Arc<StateFolder>>,
    metrics: &mut BalancerMetrics,
) -> (Arc<Statistics>, StatisticsPlan) {
    let days = settings.statistics_days;
    let own = if days > 0 {
        StatisticsMetrics::register(&mut metrics.registry)
    } else {
        StatisticsMetrics::default()
    };
    let failures = metrics.state_writes_failed.clone();
    StatisticsPlan::new(days, Arc::clone(publisher), state, own, failures)
}

/// Starts the actors that ask backends for their files, the one that counts downloads, and the task that follows the places of
/// addresses.
pub(super) fn start_lookups(
    supervisor: &Supervisor,
    sizes: Option<SizePlan>,
    presence: Option<PresencePlan>,
    statistics: StatisticsPlan,
    locator: Option<Locator>,
    ranking: &Addr<RankingActor>,
) {
    let _ = supervisor.start(ActorKind::Statistics, "statistics", StatisticsActor::new(statistics));
    if let Some(locator) = locator {
        locator.start(supervisor, ranking.clone().recipient());
    }
    if let Some(plan) = sizes {
        let _ = supervisor.start(ActorKind::Size, "sizes", SizeActor::new(plan));
    }
    if let Some(plan) = presence {
        let _ = supervisor.start(ActorKind::Presence, "presence", PresenceActor::new(plan));
    }
}

/// The knowledge about the files of mirrors, and the plan of the actor that maintains it.
pub(super) fn presence(
    catalogue: OpenCatalogue,
    settings: &BalancerSettings,
    publisher: &Arc<TablePublisher>,
    resolver: &Resolver,
    state: Option<Arc<StateFolder>>,
    metrics: &mut BalancerMetrics,
) -> (Arc<Presence>, PresencePlan) {
    metrics.presence = PresenceMetrics::register(&mut metrics.registry);
    let table = publisher.latest();
    let numbers = table.entries.iter();
    let numbers = numbers.map(|entry| (entry.backend.id().as_str(), entry.load.number())).collect();
    let source = catalogue.source.clone();
    let version = catalogue.list.as_ref().map(|(_, version)| *version);
    let start = catalogue.begin(&numbers).unwrap_or_else(|error| {
        tracing::error!(%error, "the catalogue does not fit");
        None
    });
    let (presence, offers) = Presence::new(start.as_ref(), metrics.presence.clone());
    let presence = Arc::new(presence);
    let plan = PresencePlan {
        presence: Arc::clone(&presence),
        offers,
        source,
        version,
        start,
        state,
        state_writes_failed: metrics.state_writes_failed.clone(),
        publisher: Arc::clone(publisher),
        resolver: resolver.clone(),
        trust: settings.trust.clone(),
        proof_interval: settings.proof_interval,
        scan_interval: settings.scan_interval,
        metrics_backends: settings.metrics_backends,
        metrics: metrics.presence.clone(),
    };
    (presence, plan)
}
