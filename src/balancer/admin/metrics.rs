//! The metrics of the balancer. Each HTTP worker has its own counters of the request path; a scrape sums them.

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
use crate::balancer::orders::store::Orders;
use crate::balancer::ranking::publisher::TablePublisher;
use crate::balancer::ranking::table::BackendEntry;
use crate::supervision::SupervisionMetrics;
use crate::telemetry::exposition;

/// A gauge in seconds.
pub type SecondsGauge = Gauge<f64, AtomicU64>;

/// The statuses of the balancer, in the order of the counters of a worker.
const STATUSES: [u16; 8] = [301, 302, 307, 308, 400, 404, 501, 503];

/// The answers of one HTTP worker, by status. Each worker has its own counters, so the request path shares no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct AnswerCounters {
    answers: [AtomicU64; STATUSES.len()],
}

impl AnswerCounters {
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
    /// The time that the latest probe result spent in the mailbox.
    pub mailbox_age: SecondsGauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

impl RankingMetrics {
    /// Counts a probe by its outcome.
    pub fn probed(&self, outcome: &ProbeOutcome) {
        let outcome = match outcome {
            ProbeOutcome::Success { .. } => "success",
            ProbeOutcome::Failure(failure) => failure.kind.label(),
        };
        self.probes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // All series exist from the start, so that the first failure of a kind is an increase.
        for outcome in FailureKind::LABELS.into_iter().chain(["success"]) {
            drop(metrics.probes.get_or_create(&OutcomeLabels { outcome }));
        }
        let help = "Probes that ended, by outcome: success, or the reason of the failure";
        registry.register("probes", help, metrics.probes.clone());
        registry.register(
            "ranking_mailbox_age_seconds",
            "The time that the latest probe result waited for the ranking",
            metrics.mailbox_age.clone(),
        );
        metrics
    }
}

/// Counters of invalid load reports.
#[derive(Debug, Clone, Default)]
pub struct ReportMetrics {
    /// Reports that were ignored because they could not be parsed.
    pub unreadable: Counter,
    /// Values outside of their limits that were clamped.
    pub clamped: Counter,
}

impl ReportMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "load_reports_unreadable",
            "Load reports of servers that were ignored because they could not be parsed",
            metrics.unreadable.clone(),
        );
        registry.register(
            "load_report_values_clamped",
            "Values in load reports that were outside of their limits and were clamped",
            metrics.clamped.clone(),
        );
        metrics
    }
}

/// All metrics of a balancer.
#[derive(Debug)]
pub struct BalancerMetrics {
    registry: Registry,
    workers: Arc<ArcSwap<Vec<Arc<AnswerCounters>>>>,
    /// Restarts of actors.
    pub supervision: SupervisionMetrics,
    /// Probes.
    pub ranking: RankingMetrics,
    /// Load reports.
    pub reports: ReportMetrics,
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
        let supervision = SupervisionMetrics::register(&mut registry);
        let ranking = RankingMetrics::register(&mut registry);
        let reports = ReportMetrics::register(&mut registry);
        let (tables_lost, results_lost) = (Counter::default(), Counter::default());
        let state_writes_failed = Counter::default();
        registry.register(
            "state_writes_failed",
            "Writes of the state that failed, so that a restart would use an older one",
            state_writes_failed.clone(),
        );
        let probe_interval = SecondsGauge::default();
        registry.register(
            "tables_lost",
            "Routing tables that did not fit into the mailbox of a worker; the next table replaces each of them",
            tables_lost.clone(),
        );
        registry.register(
            "probe_results_lost",
            "Probe results that were lost because the ranking panicked",
            results_lost.clone(),
        );
        registry.register(
            "probe_interval_seconds",
            "The interval between two probes of one server, stretched if the probe budget requires it",
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
            state_writes_failed,
            probe_interval,
        }
    }
}

impl BalancerMetrics {
    /// Adds the figures of the latest table to each scrape, with separate series for the first `most_backends` backends of
    /// the list.
    pub fn observe(
        &mut self,
        publisher: Arc<TablePublisher>,
        orders: Arc<Orders>,
        log_lines_lost: Arc<AtomicU64>,
        most_backends: usize,
    ) {
        let workers = Arc::clone(&self.workers);
        self.registry.register_collector(Box::new(TableCollector {
            publisher,
            orders,
            log_lines_lost,
            most_backends,
            workers,
        }));
    }

    /// Counters for one HTTP worker. The counters of a worker that has ended are reused, so that no count is lost and the
    /// number of counters does not grow.
    #[must_use]
    pub fn worker(&self) -> Arc<AnswerCounters> {
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
    pub fn encode(&self) -> String {
        exposition::encode(&self.registry)
    }
}

/// The answers of all workers, by status.
fn totals(workers: &[Arc<AnswerCounters>]) -> [(u16, u64); STATUSES.len()] {
    let mut totals = STATUSES.map(|status| (status, 0));
    for worker in workers {
        for ((_, total), counter) in totals.iter_mut().zip(&worker.answers) {
            *total += counter.load(Relaxed);
        }
    }
    totals
}

/// Collects the figures of the latest table and of the workers.
struct TableCollector {
    publisher: Arc<TablePublisher>,
    orders: Arc<Orders>,
    log_lines_lost: Arc<AtomicU64>,
    /// The number of backends with separate series.
    most_backends: usize,
    workers: Arc<ArcSwap<Vec<Arc<AnswerCounters>>>>,
}

impl fmt::Debug for TableCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TableCollector")
    }
}

const STATES: [State; 4] = [State::Unknown, State::Up, State::Suspect, State::Down];

/// Encodes the series of each of these backends.
fn encode_backends(entries: &[BackendEntry], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let id = |entry: &BackendEntry| entry.member.backend.id().to_string();
    let counter = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor("redirects", "Clients sent to each server", None, counter)?;
    for entry in entries {
        let labels = [("backend", id(entry))];
        ConstCounter::new(entry.member.load.redirects()).encode(family.encode_family(&labels)?)?;
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

    let help = "Estimated response time of a probe of each server, which determines its rank";
    let mut family = encoder.encode_descriptor("backend_response_seconds", help, None, gauge)?;
    for entry in entries {
        if let Some(time) = entry.estimate.response_time() {
            let labels = [("backend", id(entry))];
            ConstGauge::new(time.as_secs_f64()).encode(family.encode_family(&labels)?)?;
        }
    }

    let help = "Estimated requests in flight at each server: of its latest load report, and redirected since";
    let mut family = encoder.encode_descriptor("backend_requests_in_flight", help, None, gauge)?;
    for entry in entries {
        let labels = [("backend", id(entry))];
        ConstGauge::new(entry.member.load.outstanding()).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for TableCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let table = self.publisher.latest();

        let counter = ConstCounter::new(0_u64);
        let mut family =
            encoder.encode_descriptor("answers", "Answers given, by status", None, counter.metric_type())?;
        for (status, count) in totals(&self.workers.load()) {
            if count > 0 || status == 301 {
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
                "Servers whose load reports are ignored because they do not change although clients are sent",
                estimates().filter(|estimate| estimate.is_stuck()).count(),
            ),
            (
                "load_reports_shared",
                "Addresses whose load reports are ignored because several servers seem to share them",
                estimates().filter(|estimate| estimate.is_shared()).count(),
            ),
            (
                "orders",
                "Servers for which orders of operators override the list",
                table.entries.iter().filter(|entry| entry.orders.is_some()).count(),
            ),
            (
                "orders_lost",
                "1 if stored orders may have been lost, so that drained servers get clients; fingerpost status names the file to examine",
                usize::from(self.orders.loss().is_some()),
            ),
        ] {
            let count = ConstGauge::new(count as u64);
            count.encode(encoder.encode_descriptor(name, help, None, count.metric_type())?)?;
        }

        let lost = ConstCounter::new(self.log_lines_lost.load(Relaxed));
        lost.encode(encoder.encode_descriptor(
            "access_log_lines_lost",
            "Lines of the access log that were dropped because the disk was too slow or full",
            None,
            lost.metric_type(),
        )?)?;

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
