//! The balancer's metrics. Counters of the request path are kept by each HTTP worker for itself and added up here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::balancer::health::{FailureKind, ProbeOutcome, State};
use crate::balancer::ranking::publication::Publication;
use crate::balancer::ranking::table::Entry;
use crate::supervision::SupervisionMetrics;
use crate::telemetry::exposition;

/// Seconds, in a gauge.
pub type SecondsGauge = Gauge<f64, AtomicU64>;

/// The statuses the balancer answers with, in the order in which a worker counts them.
const STATUSES: [u16; 8] = [301, 302, 307, 308, 400, 404, 501, 503];

/// What one HTTP worker has answered. Each worker writes its own, so no cache line is shared on the request path.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    answers: [AtomicU64; STATUSES.len()],
}

impl WorkerCounters {
    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        let counter = STATUSES.iter().position(|known| *known == status).and_then(|at| self.answers.get(at));
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }
}

/// The metrics of the ranking.
#[derive(Debug, Clone, Default)]
pub struct RankingMetrics {
    probes: Family<OutcomeLabels, Counter>,
    /// How long the latest probe result waited in the mailbox.
    pub mailbox_age: SecondsGauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl RankingMetrics {
    /// Counts the end of a probe.
    pub fn probed(&self, outcome: &ProbeOutcome) {
        let outcome = match outcome {
            ProbeOutcome::Success { .. } => "success",
            ProbeOutcome::Failure(failure) => failure.kind.label(),
        };
        self.probes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // All of them from the start, so that the first failure of a kind is an increase.
        for outcome in FailureKind::LABELS.into_iter().chain(["success"]) {
            drop(metrics.probes.get_or_create(&OutcomeLabels { outcome }));
        }
        let help = "Probes that ended, by outcome: success, or the reason of the failure";
        registry.register("probes", help, metrics.probes.clone());
        registry.register(
            "ranking_mailbox_age_seconds",
            "How long the latest probe result waited to be taken in",
            metrics.mailbox_age.clone(),
        );
        metrics
    }
}

/// What was wrong with load reports.
#[derive(Debug, Clone, Default)]
pub struct ReportMetrics {
    /// Reports that could not be read and were left out.
    pub unreadable: Counter,
    /// Values that could not be true and were moved to the nearest limit.
    pub clamped: Counter,
}

impl ReportMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "load_reports_unreadable",
            "Load reports of servers that could not be read and were left out",
            metrics.unreadable.clone(),
        );
        registry.register(
            "load_report_values_clamped",
            "Values in load reports that could not be true and were moved to the nearest limit",
            metrics.clamped.clone(),
        );
        metrics
    }
}

/// All metrics of a balancer.
#[derive(Debug)]
pub struct BalancerMetrics {
    registry: Registry,
    workers: Arc<ArcSwap<Vec<Arc<WorkerCounters>>>>,
    /// Restarts of actors.
    pub supervision: SupervisionMetrics,
    /// Probes.
    pub ranking: RankingMetrics,
    /// Load reports.
    pub reports: ReportMetrics,
    /// Routing tables that a worker could not take in time.
    pub tables_lost: Counter,
    /// Probe results over which the ranking panicked.
    pub results_lost: Counter,
    /// The time between two probes of one backend, stretched by the budget.
    pub probe_interval: SecondsGauge,
}

impl Default for BalancerMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("fingerpost");
        let supervision = SupervisionMetrics::register(&mut registry);
        let ranking = RankingMetrics::register(&mut registry);
        let reports = ReportMetrics::register(&mut registry);
        let (tables_lost, results_lost) = (Counter::default(), Counter::default());
        let probe_interval = SecondsGauge::default();
        registry.register(
            "tables_lost",
            "Routing tables that a worker's mailbox could not take; the next one heals it",
            tables_lost.clone(),
        );
        registry.register(
            "probe_results_lost",
            "Probe results over which the ranking panicked",
            results_lost.clone(),
        );
        registry.register(
            "probe_interval_seconds",
            "The time between two probes of one server, stretched where the budget asks for it",
            probe_interval.clone(),
        );
        Self {
            registry,
            workers: Arc::default(),
            supervision,
            ranking,
            reports,
            tables_lost,
            results_lost,
            probe_interval,
        }
    }
}

impl BalancerMetrics {
    /// Adds the figures of the latest table at each scrape, with series of their own for the first `most_backends` of the
    /// list.
    pub fn observe(&mut self, publication: Arc<Publication>, most_backends: usize) {
        let workers = Arc::clone(&self.workers);
        self.registry.register_collector(Box::new(TableCollector { publication, most_backends, workers }));
    }

    /// Counters for one HTTP worker. Those of a worker that has ended are used again, so that nothing they counted is
    /// lost and their number stays that of the workers.
    #[must_use]
    pub fn worker(&self) -> Arc<WorkerCounters> {
        let known = self.workers.load().iter().find(|known| Arc::strong_count(known) == 1).map(Arc::clone);
        known.unwrap_or_else(|| {
            let counters = Arc::new(WorkerCounters::default());
            self.workers.rcu(|workers| {
                let mut workers = Vec::clone(workers);
                workers.push(Arc::clone(&counters));
                workers
            });
            counters
        })
    }

    /// All metrics as text.
    #[must_use]
    pub fn encode(&self) -> String {
        exposition::encode(&self.registry)
    }
}

/// Reads the figures of the latest table and of the workers.
struct TableCollector {
    publication: Arc<Publication>,
    /// Backends of the list with series of their own.
    most_backends: usize,
    workers: Arc<ArcSwap<Vec<Arc<WorkerCounters>>>>,
}

impl fmt::Debug for TableCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TableCollector")
    }
}

const STATES: [State; 4] = [State::Unknown, State::Up, State::Suspect, State::Down];

/// The series of each of these backends.
fn encode_backends(entries: &[Entry], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let id = |entry: &Entry| entry.member.backend.id().to_string();
    let counter = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor("redirects", "Clients sent to each server", None, counter)?;
    for entry in entries {
        let labels = [("backend", id(entry))];
        ConstCounter::new(entry.member.ledger.redirects()).encode(family.encode_family(&labels)?)?;
    }

    let gauge = ConstGauge::new(0_u64).metric_type();
    let help = "1 for the state of each server, 0 for the other states";
    let mut family = encoder.encode_descriptor("backend_state", help, None, gauge)?;
    for entry in entries {
        for state in STATES {
            let labels = [("backend", id(entry)), ("state", state.to_string())];
            let value = u64::from(entry.health.state() == state);
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
    }

    let help = "Time that each server takes to answer a probe, the estimate that ranks it";
    let mut family = encoder.encode_descriptor("backend_response_seconds", help, None, gauge)?;
    for entry in entries {
        if let Some(time) = entry.estimate.response_time() {
            let labels = [("backend", id(entry))];
            ConstGauge::new(time.as_secs_f64()).encode(family.encode_family(&labels)?)?;
        }
    }

    let help = "Requests probably in flight at each server: of its latest load report, and sent since";
    let mut family = encoder.encode_descriptor("backend_requests_in_flight", help, None, gauge)?;
    for entry in entries {
        let labels = [("backend", id(entry))];
        ConstGauge::new(entry.member.ledger.outstanding()).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for TableCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let table = self.publication.latest();

        let counter = ConstCounter::new(0_u64);
        let mut family =
            encoder.encode_descriptor("answers", "Answers given, by status", None, counter.metric_type())?;
        let workers = self.workers.load();
        for (at, status) in STATUSES.iter().enumerate() {
            let count: u64 = workers
                .iter()
                .filter_map(|worker| worker.answers.get(at))
                .map(|counter| counter.load(Relaxed))
                .sum();
            if count > 0 || *status == 301 {
                ConstCounter::new(count).encode(family.encode_family(&[("status", status.to_string())])?)?;
            }
        }

        let shown = table.entries.get(..self.most_backends).unwrap_or(&table.entries);
        encode_backends(shown, &mut encoder)?;

        let gauge = ConstGauge::new(0_u64);
        let mut family = encoder.encode_descriptor(
            "backends",
            "Servers of the list, by state",
            None,
            gauge.metric_type(),
        )?;
        for state in STATES {
            let count = table.entries.iter().filter(|entry| entry.health.state() == state).count();
            ConstGauge::new(count as u64).encode(family.encode_family(&[("state", state.to_string())])?)?;
        }

        let estimates = || table.entries.iter().map(|entry| &entry.estimate);
        for (name, help, count) in [
            (
                "load_reports_stuck",
                "Servers whose load reports do not change though clients are sent, and are left out",
                estimates().filter(|estimate| estimate.is_stuck()).count(),
            ),
            (
                "load_reports_shared",
                "Addresses at which several servers seem to take turns, and whose load reports are left out",
                estimates().filter(|estimate| estimate.is_shared()).count(),
            ),
        ] {
            let count = ConstGauge::new(count as u64);
            count.encode(encoder.encode_descriptor(name, help, None, count.metric_type())?)?;
        }

        let age = Instant::now().saturating_duration_since(table.built_at).as_secs_f64();
        let age = ConstGauge::new(age);
        let described = encoder.encode_descriptor(
            "table_age_seconds",
            "The age of the latest routing table",
            None,
            age.metric_type(),
        )?;
        age.encode(described)
    }
}
