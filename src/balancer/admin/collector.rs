//! The metrics of a scrape that are read from the latest table and from the counters of the workers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;

use crate::balancer::health::State;
use crate::balancer::metrics::{AnswerCounters, BalancerMetrics, totals};
use crate::balancer::orders::store::Orders;
use crate::balancer::ranking::publisher::TablePublisher;
use crate::balancer::ranking::table::BackendEntry;
use crate::balancer::sources::{ReportedSources, SourcesReport};

/// Collects the figures of the latest table and of the workers.
pub(crate) struct TableCollector {
    publisher: Arc<TablePublisher>,
    orders: Arc<Orders>,
    sources: SourcesReport,
    log_lines_lost: Arc<AtomicU64>,
    /// The number of backends with separate series.
    most_backends: usize,
    workers: Arc<ArcSwap<Vec<Arc<AnswerCounters>>>>,
}

impl TableCollector {
    /// Adds the figures of the latest table to each scrape, with separate series for the first `most_backends` backends of
    /// the list.
    pub(crate) fn register(self, metrics: &mut BalancerMetrics, most_backends: usize) {
        let workers = Arc::clone(&metrics.workers);
        metrics.registry.register_collector(Box::new(Self { most_backends, workers, ..self }));
    }

    /// A collector that is not registered yet. `log_lines_lost` counts lines of the access log.
    pub(crate) fn new(
        publisher: Arc<TablePublisher>,
        orders: Arc<Orders>,
        sources: SourcesReport,
        log_lines_lost: Arc<AtomicU64>,
    ) -> Self {
        Self { publisher, orders, sources, log_lines_lost, most_backends: 0, workers: Arc::default() }
    }
}

impl fmt::Debug for TableCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TableCollector")
    }
}

const STATES: [State; 4] = [State::Unknown, State::Up, State::Suspect, State::Down];

/// Encodes the series of each of these backends.
fn encode_backends(entries: &[BackendEntry], encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let id = |entry: &BackendEntry| entry.backend.id().to_string();
    let counter = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor("redirects", "Clients sent to each server", None, counter)?;
    for entry in entries {
        let labels = [("backend", id(entry))];
        ConstCounter::new(entry.load.redirects()).encode(family.encode_family(&labels)?)?;
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
        ConstGauge::new(entry.load.outstanding()).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Encodes the series of the sources.
fn encode_sources(sources: &ReportedSources, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let sources = &sources.sources;
    let gauge = ConstGauge::new(0_u64).metric_type();
    let help = "Servers of each source";
    let mut family = encoder.encode_descriptor("source_backends", help, None, gauge)?;
    for source in sources {
        let labels = [("source", source.name.to_string())];
        ConstGauge::new(source.backends as u64).encode(family.encode_family(&labels)?)?;
    }
    let help = "Records of the last good answer of each source that were skipped because they are invalid or too many";
    let mut family = encoder.encode_descriptor("source_records_skipped", help, None, gauge)?;
    for source in sources {
        let labels = [("source", source.name.to_string())];
        ConstGauge::new(source.skipped as u64).encode(family.encode_family(&labels)?)?;
    }
    let help = "The time since the last good answer of each source in DNS, HTTP or an engine";
    let mut family = encoder.encode_descriptor("source_answer_age_seconds", help, None, gauge)?;
    for (source, age) in sources.iter().filter_map(|source| Some((source, source.age(Instant::now())?))) {
        let labels = [("source", source.name.to_string())];
        ConstGauge::new(age.as_secs_f64()).encode(family.encode_family(&labels)?)?;
    }
    let help = "Answers of each source that failed or were not usable";
    let counter = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor("source_failures", help, None, counter)?;
    for source in sources {
        let labels = [("source", source.name.to_string())];
        ConstCounter::new(source.failures).encode(family.encode_family(&labels)?)?;
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
        let sources = self.sources.latest();
        encode_sources(&sources, &mut encoder)?;

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
                "backends_ignored",
                "Servers of the sources that are ignored because there are too many",
                sources.ignored,
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
