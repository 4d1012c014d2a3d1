//! The metrics of the balancer. Each HTTP worker has its own counters of the request path; a scrape sums them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

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

/// The metrics of the catalogue and of the files of mirrors.
#[derive(Debug, Clone, Default)]
pub(crate) struct PresenceMetrics {
    files: Gauge,
    generation: Gauge,
    made_at: SecondsGauge,
    proofs: Family<OutcomeLabels, Counter>,
    checks: Family<OutcomeLabels, Counter>,
    /// Lists that could not be used.
    pub(crate) catalogue_errors: Counter,
    exceptions: Gauge,
    /// Missing files for which there was no room.
    pub(crate) exceptions_dropped: Counter,
    /// Redirects to a mirror that turned out to lack the file.
    pub(crate) missing_redirects: Counter,
    /// Redirects that were not checked because the queue was full.
    pub(crate) dropped: Counter,
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

    /// Adds the metrics, if there is a catalogue.
    fn register(&self, registry: &mut Registry) {
        for outcome in ["received", "failed"] {
            drop(self.proofs.get_or_create(&OutcomeLabels { outcome }));
        }
        for outcome in ["has", "lacks", "failed"] {
            drop(self.checks.get_or_create(&OutcomeLabels { outcome }));
        }
        registry.register("catalogue_files", "Files of the catalogue", self.files.clone());
        registry.register("catalogue_generation", "The number of the catalogue", self.generation.clone());
        let help = "The time at which the catalogue was read, in seconds from 1970";
        registry.register("catalogue_read_timestamp_seconds", help, self.made_at.clone());
        let help = "Lists that could not be used as the catalogue";
        registry.register("catalogue_errors", help, self.catalogue_errors.clone());
        registry.register("proofs", "Requests for proofs of mirrors, by outcome", self.proofs.clone());
        let help = "Checks of files at mirrors, by outcome";
        registry.register("file_checks", help, self.checks.clone());
        let help = "Redirects whose file was not checked because the queue was full";
        registry.register("file_checks_dropped", help, self.dropped.clone());
        let help = "Redirects to a mirror that turned out to lack the file, among those that were checked";
        registry.register("missing_redirects", help, self.missing_redirects.clone());
        let help = "Files that mirrors lack, or that wait for a check, summed over all mirrors";
        registry.register("lacking_files", help, self.exceptions.clone());
        let help = "Missing files that stay in use because there are too many";
        registry.register("lacking_files_dropped", help, self.exceptions_dropped.clone());
    }
}

/// The metrics of the places of addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct GeographyMetrics {
    /// Changed files that could not be used.
    pub(crate) errors: Counter,
    built_at: Family<FileLabels, SecondsGauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileLabels {
    file: String,
}

impl GeographyMetrics {
    /// Shows the time at which a database was made.
    pub(crate) fn built(&self, file: &Path, at: SystemTime) {
        let labels = FileLabels { file: file.display().to_string() };
        let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.built_at.get_or_create(&labels).set(seconds);
    }
}

/// The metrics of the exchange with a fleet.
#[derive(Debug, Clone, Default)]
pub(crate) struct FleetMetrics {
    /// 1 if the latest exchange with the engine succeeded.
    pub(crate) connected: Gauge,
    /// Exchanges that failed.
    pub(crate) exchanges_failed: Counter,
    /// Records that were read, with the own ones.
    pub(crate) records_received: Counter,
    /// Records and orders in the engine that were skipped.
    pub(crate) records_invalid: Counter,
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
    /// The catalogue. Registered by [`BalancerMetrics::show_presence`].
    pub presence: PresenceMetrics,
    /// Routing tables that did not fit into the mailbox of a worker.
    pub tables_lost: Counter,
    /// Probe results that were lost because the ranking panicked.
    pub results_lost: Counter,
    /// Failures of clients at backends that were forgotten before their time.
    pub failures_replaced: Counter,
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
            failures_replaced: registered(
                owner,
                "client_failures_replaced",
                "Failures of clients at servers that were forgotten before their time, because the memory was full",
            ),
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
            presence: PresenceMetrics::default(),
            registry,
        }
    }
}

impl BalancerMetrics {
    /// Adds the metrics of a fleet.
    pub(super) fn join_fleet(&mut self) -> FleetMetrics {
        let metrics = FleetMetrics::default();
        let registry = &mut self.registry;
        let help =
            "1 if the engine of the fleet carried out the latest exchange, 0 while this balancer works alone";
        registry.register("fleet_engine_up", help, metrics.connected.clone());
        let help = "Exchanges with the engine of the fleet that failed";
        registry.register("fleet_exchanges_failed", help, metrics.exchanges_failed.clone());
        let help = "Records of the fleet that were read, with those of this balancer";
        registry.register("fleet_records", help, metrics.records_received.clone());
        let help = "Records and orders in the engine that were skipped because they are invalid or of another version";
        registry.register("fleet_records_invalid", help, metrics.records_invalid.clone());
        metrics
    }

    /// Adds the counter of refused lookups of names.
    pub(super) fn observe_lookups(&mut self, refused: Counter) {
        let help = "Lookups of names that were not started because too many were running";
        self.registry.register("lookups_refused", help, refused);
    }

    /// Adds the metrics of the catalogue.
    pub(super) fn show_presence(&mut self) {
        self.presence.register(&mut self.registry);
    }

    /// Adds the metrics of the places of addresses.
    pub(super) fn show_geography(&mut self) -> GeographyMetrics {
        let metrics = GeographyMetrics::default();
        let help = "Changed databases and tables of networks that could not be used";
        self.registry.register("geo_errors", help, metrics.errors.clone());
        let help = "The time at which a database was made, in seconds from 1970";
        self.registry.register("geo_build_timestamp_seconds", help, metrics.built_at.clone());
        metrics
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
