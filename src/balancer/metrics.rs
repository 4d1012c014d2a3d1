//! The metrics of the balancer. Each HTTP worker has its own counters of the request path; a scrape sums them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::balancer::health::{FailureKind, ProbeOutcome};
use crate::supervision::SupervisionMetrics;
use crate::telemetry::exposition;
use crate::telemetry::metric::{OutcomeLabels, Outcomes, metrics, registered};

/// A gauge in seconds.
pub(super) type SecondsGauge = Gauge<f64, AtomicU64>;

/// The statuses of the balancer, in the order of the counters of a worker.
const STATUSES: [u16; 9] = [200, 301, 302, 307, 308, 400, 404, 501, 503];

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

metrics! {
    /// The metrics of the ranking and its probes.
    pub(crate) struct RankingMetrics {
        probes: Outcomes = "probes", "Probes that ended, by outcome: success, or the reason of the failure",
            FailureKind::LABELS.into_iter().chain(["success"]);
        pub(crate) mailbox_age: SecondsGauge = "ranking_mailbox_age_seconds",
            "The time that the latest probe result waited for the ranking";
        pub(crate) tables_lost: Counter = "tables_lost",
            "Routing tables that did not fit into the mailbox of a worker; the next table replaces each of them";
        pub(crate) results_lost: Counter = "probe_results_lost",
            "Probe results that were lost because the ranking panicked";
        pub(crate) probe_interval: SecondsGauge = "probe_interval_seconds",
            "The interval between two probes of one server, stretched if the probe budget requires it";
    }
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
}

metrics! {
    /// Counters of invalid load reports.
    pub(crate) struct ReportMetrics {
        pub(crate) unreadable: Counter = "load_reports_unreadable",
            "Load reports of servers that were ignored because they could not be parsed";
        pub(crate) clamped: Counter = "load_report_values_clamped",
            "Values in load reports that were outside of their limits and were clamped";
    }
}

metrics! {
    /// The metrics of the look-ups.
    pub(crate) struct SizeMetrics {
        lookups: Outcomes = "size_lookups", "Look-ups of file sizes that ended, by outcome",
            ["learned", "no_size", "failed"];
        pub(crate) dropped: Counter = "size_lookups_dropped",
            "Paths whose size was not looked up because the queue was full";
    }
}

impl SizeMetrics {
    /// Counts a look-up by its outcome: `learned`, `no_size` or `failed`.
    pub(crate) fn looked_up(&self, outcome: &'static str) {
        self.lookups.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

metrics! {
    /// The metrics of the catalogue and of the files of mirrors.
    pub(crate) struct PresenceMetrics {
        files: Gauge = "catalogue_files", "Files of the catalogue";
        generation: Gauge = "catalogue_generation", "The number of the catalogue";
        made_at: SecondsGauge = "catalogue_read_timestamp_seconds",
            "The time at which the catalogue was read, in seconds from 1970";
        pub(crate) catalogue_errors: Counter = "catalogue_errors",
            "Lists that could not be used as the catalogue";
        proofs: Outcomes = "proofs", "Requests for proofs of mirrors, by outcome", ["received", "failed"];
        checks: Outcomes = "file_checks", "Checks of files at mirrors, by outcome", ["has", "lacks", "failed"];
        pub(crate) dropped: Counter = "file_checks_dropped",
            "Redirects whose file was not checked because the queue was full";
        pub(crate) missing_redirects: Counter = "missing_redirects",
            "Redirects to a mirror that turned out to lack the file, among those that were checked";
        exceptions: Gauge = "lacking_files",
            "Files that mirrors lack, or that wait for a check, summed over all mirrors";
        pub(crate) exceptions_dropped: Counter = "lacking_files_dropped",
            "Missing files that stay in use because there are too many";
    }
}

impl PresenceMetrics {
    /// Shows the catalogue in force.
    pub(crate) fn catalogue(&self, files: usize, generation: u64, made_at: SystemTime) {
        self.files.set(i64::try_from(files).unwrap_or(i64::MAX));
        self.generation.set(generation.cast_signed());
        self.made_at.set(made_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }

    /// Shows the number of files that mirrors lack.
    pub(crate) fn lacking(&self, files: usize) {
        self.exceptions.set(i64::try_from(files).unwrap_or(i64::MAX));
    }

    /// Counts a proof by its outcome: `received` or `failed`.
    pub(crate) fn proven(&self, outcome: &'static str) {
        self.proofs.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts a check of a file by its outcome: `has`, `lacks` or `failed`.
    pub(crate) fn checked(&self, outcome: &'static str) {
        self.checks.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

metrics! {
    /// The metrics of the exchange with a fleet.
    pub(crate) struct FleetMetrics {
        pub(crate) connected: Gauge = "fleet_engine_up",
            "1 if the engine of the fleet carried out the latest exchange, 0 while this balancer works alone";
        pub(crate) exchanges_failed: Counter = "fleet_exchanges_failed",
            "Exchanges with the engine of the fleet that failed";
        pub(crate) records_received: Counter = "fleet_records",
            "Records of the fleet that were read, with those of this balancer";
        pub(crate) records_invalid: Counter = "fleet_records_invalid",
            "Records and orders in the engine that were skipped because they are invalid or of another version";
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
    /// Ranking and probes.
    pub ranking: RankingMetrics,
    /// Load reports.
    pub reports: ReportMetrics,
    /// Look-ups of file sizes.
    pub sizes: SizeMetrics,
    /// The catalogue. Registered if there is one.
    pub presence: PresenceMetrics,
    /// Writes of the state that failed.
    pub state_writes_failed: Counter,
}

impl Default for BalancerMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("fingerpost");
        let owner = &mut registry;
        let help = "Writes of the state that failed, so that a restart would use an older one";
        Self {
            supervision: SupervisionMetrics::register(owner),
            ranking: RankingMetrics::register(owner),
            reports: ReportMetrics::register(owner),
            sizes: SizeMetrics::register(owner),
            state_writes_failed: registered(owner, "state_writes_failed", help),
            workers: Arc::default(),
            presence: PresenceMetrics::default(),
            registry,
        }
    }
}

impl BalancerMetrics {
    /// Counters for one HTTP worker. The counters of a worker that has ended are reused, so that no count is lost and the
    /// number of counters does not grow.
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
