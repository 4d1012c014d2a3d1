//! The parts of a balancer that ask backends for their files: sizes, and the files of mirrors.

use std::sync::Arc;

use super::metrics::{BalancerMetrics, PresenceMetrics};
use super::policy::MonotonicClock;
use super::presence::Presence;
use super::presence::actor::{PresenceActor, PresencePlan};
use super::presence::source::OpenCatalogue;
use super::ranking::publisher::TablePublisher;
use super::settings::BalancerSettings;
use super::sizes::{SizeActor, SizePlan, Sizes};
use super::state_folder::StateFolder;
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

/// Starts the actors that ask backends for their files.
pub(super) fn start_lookups(
    supervisor: &Supervisor,
    sizes: Option<SizePlan>,
    presence: Option<PresencePlan>,
) {
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
        metrics: metrics.presence.clone(),
    };
    (presence, plan)
}
