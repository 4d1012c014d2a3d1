//! The metrics of a scrape that are read from the latest table and from the counters of the workers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;

use crate::balancer::fleet::observers::{FleetReport, Standing};
use crate::balancer::health::{OwnView, State};
use crate::balancer::metrics::{AnswerCounters, totals};
use crate::balancer::orders::store::Orders;
use crate::balancer::ranking::publisher::TablePublisher;
use crate::balancer::ranking::table::BackendEntry;
use crate::balancer::sources::{ReportedSource, SourcesReport};
use crate::telemetry::metric;

/// Collects the figures of the latest table and of the workers.
pub(crate) struct TableCollector {
    pub(in crate::balancer) publisher: Arc<TablePublisher>,
    pub(in crate::balancer) orders: Arc<Orders>,
    pub(in crate::balancer) sources: SourcesReport,
    /// Lines of the access log.
    pub(in crate::balancer) log_lines_lost: Arc<AtomicU64>,
    /// The number of backends with separate series, from the start of the list.
    pub(in crate::balancer) most_backends: usize,
    pub(in crate::balancer) workers: Arc<ArcSwap<Vec<Arc<AnswerCounters>>>>,
}

impl fmt::Debug for TableCollector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TableCollector")
    }
}

const STATES: [State; 4] = [State::Unknown, State::Up, State::Suspect, State::Down];

/// Encodes the series of each of these backends.
fn encode_backends(entries: &[BackendEntry], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let labels = |entry: &BackendEntry| [("backend", entry.backend.id().to_string())];
    let redirects = entries.iter().map(|entry| (labels(entry), ConstCounter::new(entry.load.redirects())));
    metric::family(encoder, "redirects", "Clients sent to each server", redirects)?;
    let states = entries.iter().flat_map(|entry| {
        STATES.map(|state| {
            let labels = [("backend", entry.backend.id().to_string()), ("state", state.to_string())];
            (labels, ConstGauge::new(u64::from(entry.health.state() == state)))
        })
    });
    let help = "1 for the state of each server, 0 for the other states";
    metric::family(encoder, "backend_state", help, states)?;
    let times = entries.iter().filter_map(|entry| {
        let time = entry.estimate.response_time()?;
        Some((labels(entry), ConstGauge::new(time.as_secs_f64())))
    });
    let help = "Estimated response time of a probe of each server, which determines its rank";
    metric::family(encoder, "backend_response_seconds", help, times)?;
    let in_flight = entries.iter().map(|entry| (labels(entry), ConstGauge::new(entry.load.outstanding())));
    let help = "Estimated requests in flight at each server: of its latest load report, and redirected since";
    metric::family(encoder, "backend_requests_in_flight", help, in_flight)
}

/// The gauges of a fleet: name, help and value.
fn fleet_gauges(fleet: &FleetReport) -> [(&'static str, &'static str, usize); 3] {
    let counted = fleet.balancers.iter().filter(|balancer| balancer.standing == Standing::Counted);
    [
        ("fleet_peers", "Other balancers whose observations count", counted.count()),
        (
            "fleet_disagreements",
            "Servers that some balancers see up and others do not; at most 100",
            fleet.disagreements.len(),
        ),
        (
            "fleet_set_aside",
            "1 if this balancer sees far less than the others, or is cut off from everything",
            usize::from(matches!(fleet.own_view, OwnView::SetAside | OwnView::CutOff)),
        ),
    ]
}

/// Encodes the series of each source.
fn encode_sources(sources: &[ReportedSource], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let labels = |source: &ReportedSource| [("source", source.name.to_string())];
    let gauge = |source, count: usize| (labels(source), ConstGauge::new(count as u64));
    let backends = sources.iter().map(|source| gauge(source, source.backends.len()));
    metric::family(encoder, "source_backends", "Servers of each source", backends)?;
    let skipped = sources.iter().map(|source| gauge(source, source.skipped));
    let help = "Records of the last good answer of each source that were skipped because they are invalid or too many";
    metric::family(encoder, "source_records_skipped", help, skipped)?;
    let now = Instant::now();
    let ages = sources
        .iter()
        .filter_map(|source| Some((labels(source), ConstGauge::new(source.age(now)?.as_secs_f64()))));
    let help = "The time since the last good answer of each source in DNS, HTTP or an engine";
    metric::family(encoder, "source_answer_age_seconds", help, ages)?;
    let failures = sources.iter().map(|source| (labels(source), ConstCounter::new(source.failures)));
    metric::family(
        encoder,
        "source_failures",
        "Answers of each source that failed or were not usable",
        failures,
    )
}

impl Collector for TableCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (table, encoder) = (self.publisher.latest(), &mut encoder);
        let answers =
            totals(&self.workers.load()).into_iter().filter(|(status, count)| *count > 0 || *status == 301);
        let answers =
            answers.map(|(status, count)| ([("status", status.to_string())], ConstCounter::new(count)));
        metric::family(encoder, "answers", "Answers given, by status", answers)?;
        let shown = table.entries.get(..self.most_backends).unwrap_or(&table.entries);
        encode_backends(shown, encoder)?;
        let sources = self.sources.latest();
        encode_sources(&sources.sources, encoder)?;
        let states = STATES.map(|state| {
            let count = table.entries.iter().filter(|entry| entry.health.state() == state).count();
            ([("state", state.to_string())], ConstGauge::new(count as u64))
        });
        metric::family(encoder, "backends", "Servers of the list, by state", states)?;
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
        ]
        .into_iter()
        .chain(table.fleet.iter().flat_map(|fleet| fleet_gauges(fleet)))
        {
            metric::gauge(encoder, name, help, count as u64)?;
        }
        let help = "Lines of the access log that were dropped because the disk was too slow or full";
        metric::counter(encoder, "access_log_lines_lost", help, self.log_lines_lost.load(Relaxed))?;
        let age = Instant::now().saturating_duration_since(table.built_at).as_secs_f64();
        metric::gauge(encoder, "table_age_seconds", "The age of the latest routing table", age)
    }
}
