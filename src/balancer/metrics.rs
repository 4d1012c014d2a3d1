//! The metrics of the balancer. Each HTTP worker has its own counters of the request path; a scrape sums them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::balancer::health::{FailureKind, ProbeOutcome};
use crate::supervision::SupervisionMetrics;
use crate::telemetry::exposition;
use crate::telemetry::metric::registered;

/// A gauge in seconds.
pub(super) type SecondsGauge = Gauge<f64, AtomicU64>;

/// The statuses of the balancer, in the order of the counters of a worker.
const STATUSES: [u16; 8] = [301, 302, 307, 308, 400, 404, 501, 503];

/// The answers of one HTTP worker, by status. Each worker has its own counters, so the request path shares no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct AnswerCounters {
    answers: [AtomicU64; STATUSES.len()],
}

impl AnswerCounters {
    /// Counts an answer.
    pub(crate) fn answered(&self, status: u16) {
        let counter = STATUSES.iter().position(|known| *known == status).and_then(|at| self.answers.get(at));
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }
}

/// The metrics of the ranking.
#[derive(Debug, Clone, Default)]
pub(crate) struct RankingMetrics {
    probes: Family<OutcomeLabels, Counter>,
    /// The time that the latest probe result spent in the mailbox.
    pub mailbox_age: SecondsGauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl RankingMetrics {
    /// Counts a probe by its outcome.
    pub(crate) fn probed(&self, outcome: &ProbeOutcome) {
        let outcome = match outcome {
            ProbeOutcome::Success { .. } => "success",
            ProbeOutcome::Failure(failure) => failure.kind.label(),
        };
        self.probes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    fn register(registry: &mut Registry) -> Self {
        let probes: Family<OutcomeLabels, Counter> = registered(
            registry,
            "probes",
            "Probes that ended, by outcome: success, or the reason of the failure",
        );
        // All series exist from the start, so that the first failure of a kind is an increase.
        for outcome in FailureKind::LABELS.into_iter().chain(["success"]) {
            drop(probes.get_or_create(&OutcomeLabels { outcome }));
        }
        let help = "The time that the latest probe result waited for the ranking";
        Self { probes, mailbox_age: registered(registry, "ranking_mailbox_age_seconds", help) }
    }
}

/// Counters of invalid load reports.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReportMetrics {
    /// Reports that were ignored because they could not be parsed.
    pub unreadable: Counter,
    /// Values outside of their limits that were clamped.
    pub clamped: Counter,
}

impl ReportMetrics {
    fn register(registry: &mut Registry) -> Self {
        Self {
            unreadable: registered(
                registry,
                "load_reports_unreadable",
                "Load reports of servers that were ignored because they could not be parsed",
            ),
            clamped: registered(
                registry,
                "load_report_values_clamped",
                "Values in load reports that were outside of their limits and were clamped",
            ),
        }
    }
}

/// The metrics of the look-ups.
#[derive(Debug, Clone, Default)]
pub(crate) struct SizeMetrics {
    lookups: Family<OutcomeLabels, Counter>,
    /// Paths that did not fit into the queue.
    pub(crate) dropped: Counter,
}

impl SizeMetrics {
    /// Counts a look-up by its outcome: `learned`, `no_size` or `failed`.
    pub(crate) fn looked_up(&self, outcome: &'static str) {
        self.lookups.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    fn register(registry: &mut Registry) -> Self {
        let help = "Look-ups of file sizes that ended, by outcome";
        let lookups: Family<OutcomeLabels, Counter> = registered(registry, "size_lookups", help);
        for outcome in ["learned", "no_size", "failed"] {
            drop(lookups.get_or_create(&OutcomeLabels { outcome }));
        }
        let help = "Paths whose size was not looked up because the queue was full";
        Self { lookups, dropped: registered(registry, "size_lookups_dropped", help) }
    }
}

/// All metrics of a balancer.
#[derive(Debug)]
pub(crate) struct BalancerMetrics {
    pub(super) registry: Registry,
    /// The counters of all HTTP workers.
    pub(super) workers: Arc<ArcSwap<Vec<Arc<AnswerCounters>>>>,
    /// Restarts of actors.
    pub supervision: SupervisionMetrics,
    /// Probes.
    pub ranking: RankingMetrics,
    /// Load reports.
    pub reports: ReportMetrics,
    /// Look-ups of file sizes.
    pub sizes: SizeMetrics,
    /// Routing tables that did not fit into the mailbox of a worker.
    pub tables_lost: Counter,
    /// Probe results that were lost because the ranking panicked.
    pub results_lost: Counter,
    /// Writes of the state that failed.
    pub state_writes_failed: Counter,
    /// The interval between two probes of one backend, with the stretch by the budget.
    pub probe_interval: SecondsGauge,
}

impl Default for BalancerMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("fingerpost");
        let owner = &mut registry;
        Self {
            supervision: SupervisionMetrics::register(owner),
            ranking: RankingMetrics::register(owner),
            reports: ReportMetrics::register(owner),
            sizes: SizeMetrics::register(owner),
            state_writes_failed: registered(
                owner,
                "state_writes_failed",
                "Writes of the state that failed, so that a restart would use an older one",
            ),
            tables_lost: registered(
                owner,
                "tables_lost",
                "Routing tables that did not fit into the mailbox of a worker; the next table replaces each of them",
            ),
            results_lost: registered(
                owner,
                "probe_results_lost",
                "Probe results that were lost because the ranking panicked",
            ),
            probe_interval: registered(
                owner,
                "probe_interval_seconds",
                "The interval between two probes of one server, stretched if the probe budget requires it",
            ),
            workers: Arc::default(),
            registry,
        }
    }
}

impl BalancerMetrics {
    /// Adds the counter of refused lookups of names.
    pub(super) fn observe_lookups(&mut self, refused: Counter) {
        let help = "Lookups of names that were not started because too many were running";
        self.registry.register("lookups_refused", help, refused);
    }

    /// Counters for one HTTP worker. The counters of a worker that has ended are reused, so that no count is lost and the
    /// number of counters does not grow.
    #[must_use]
    pub(crate) fn worker(&self) -> Arc<AnswerCounters> {
        let known = self.workers.load().iter().find(|known| Arc::strong_count(known) == 1).map(Arc::clone);
        known.unwrap_or_else(|| {
            let counters = Arc::new(AnswerCounters::default());
            self.workers.rcu(|workers| {
                let mut workers = Vec::clone(workers);
                workers.push(Arc::clone(&counters));
                workers
            });
            counters
        })
    }

    /// The answers since the start, by status.
    pub(super) fn answers(&self) -> impl Iterator<Item = (u16, u64)> {
        totals(&self.workers.load()).into_iter()
    }

    /// All metrics as text.
    #[must_use]
    pub(crate) fn encode(&self) -> String {
        exposition::encode(&self.registry)
    }
}

/// The answers of these workers, by status.
pub(super) fn totals(workers: &[Arc<AnswerCounters>]) -> [(u16, u64); STATUSES.len()] {
    let mut totals = STATUSES.map(|status| (status, 0));
    for worker in workers {
        for ((_, total), counter) in totals.iter_mut().zip(&worker.answers) {
            *total += counter.load(Relaxed);
        }
    }
    totals
}
