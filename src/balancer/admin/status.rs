//! The table of backends for operators: as JSON from the admin listener, as text from `fingerpost status`.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::balancer::orders::StandingOrder;
use crate::balancer::orders::store::Orders;
use crate::balancer::policy::{DEFAULT_SIZE, MonotonicClock};
use crate::balancer::ranking::selection::Eligibility;
use crate::balancer::ranking::table::{BackendEntry, RoutingTable};
use crate::balancer::sources::{ReportedSource, SourcesReport};
use crate::settings::reload::ReloadReport;

/// The content of `/api/v1/backends`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The rule that selected the candidates, as text.
    pub mode: String,
    /// The number of the routing table.
    pub generation: u64,
    /// The age of the routing table in seconds.
    pub table_age_seconds: f64,
    /// Faults of the balancer itself that an operator must know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The last reload of the configuration; `None` before the first one.
    #[serde(default)]
    pub last_reload: Option<ReloadReport>,
    /// The sources of the backends, in the order of their precedence.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
    /// The backends, in the order of the list.
    pub backends: Vec<BackendStatus>,
}

/// One source of backends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The source as the operator wrote it, without secrets.
    pub name: String,
    /// The number of its backends.
    pub backends: u64,
    /// The time since its last good answer in seconds. `None` before the first one, and for a file.
    pub answer_age_seconds: Option<f64>,
    /// The number of answers that failed or were not usable.
    pub failures: u64,
    /// The number of records of the last good answer that were skipped because they are invalid or too many.
    pub skipped: u64,
    /// The reason why the latest answer is not usable.
    pub error: Option<String>,
}

impl SourceStatus {
    fn of(source: &ReportedSource, now: Instant) -> Self {
        Self {
            name: source.name.to_string(),
            backends: source.backends.len() as u64,
            answer_age_seconds: source.age(now).map(|age| age.as_secs_f64()),
            failures: source.failures,
            skipped: source.skipped as u64,
            error: source.error.clone(),
        }
    }
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Scheme, host, port and base path.
    pub address: String,
    /// `unknown`, `up`, `suspect` or `down`.
    pub state: String,
    /// The reason of the state, as text.
    pub reason: String,
    /// The time at which it entered the state (RFC 3339).
    pub since: String,
    /// Whether it gets clients, and the reason if not.
    pub traffic: String,
    /// Its share of all redirects to the backends of this list, 0 to 1.
    pub share: f64,
    /// Redirects to it since the balancer started.
    pub redirects: u64,
    /// The bytes of its downloads that are not sent yet, as the policy expects them; only under `adaptive`.
    pub booked_bytes: Option<u64>,
    /// The time in seconds that a new download of 1 MB is expected to take; only under `adaptive`.
    pub expected_seconds: Option<f64>,
    /// The use of its load reports: `none`, `used`, or the reason why they are ignored.
    pub load_report: String,
    /// The estimated response time, which determines its rank, in milliseconds.
    pub response_ms: Option<f64>,
    /// The latest successful probe: the time until the connection was established, in milliseconds.
    pub connect_ms: Option<f64>,
    /// The latest successful probe: the time until the head of the answer arrived, in milliseconds.
    pub first_byte_ms: Option<f64>,
    /// The latest successful probe: the time until the last byte arrived, in milliseconds.
    pub total_ms: Option<f64>,
    /// The requests in flight according to its latest load report, without the probe itself.
    #[serde(default)]
    pub in_flight: Option<u64>,
    /// The estimated time until the last download of a drained server ends, in seconds: its downloads in flight at the
    /// rate of its load reports. `None` if it is not drained, or the rate is not known.
    #[serde(default)]
    pub drained_in_seconds: Option<f64>,
    /// The orders of operators, which override the list.
    #[serde(default)]
    pub orders: Vec<StandingOrder>,
    /// The balancers of the fleet that see it up; `None` if no other balancer observes it.
    #[serde(default)]
    pub seen_by: Option<SeenBy>,
    /// Whether its orders are in force on all balancers of the fleet, such as `applied on 3 of 3`.
    #[serde(default)]
    pub orders_applied: Option<String>,
    /// Its weight in the list.
    pub weight: u32,
    /// Its tier in the list.
    pub tier: u8,
    /// Its zone in the list.
    pub zone: Option<String>,
    /// The names of its sources.
    #[serde(default)]
    pub sources: Vec<String>,
}

/// The number of balancers that see a backend up, of those that observe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenBy {
    /// Those that see it up.
    pub up: u16,
    /// All that observe it.
    pub of: u16,
}

impl StatusReport {
    /// The report of a table at the current time.
    pub(crate) fn of(
        table: &RoutingTable,
        orders: &Orders,
        sources: &SourcesReport,
        clock: &MonotonicClock,
        last_reload: Option<ReloadReport>,
    ) -> Self {
        let sources = sources.latest();
        let (now, wall) = (Instant::now(), SystemTime::now());
        let fleet = table.fleet.as_deref();
        let applied = fleet.map(|fleet| super::fleet::applied(fleet, &orders.book()));
        let lost = orders.loss().map(|file| loss_warning(&file));
        let all: u64 = table.entries.iter().map(|entry| entry.load.redirects()).sum();
        Self {
            mode: table.mode.to_string(),
            generation: table.generation,
            table_age_seconds: now.saturating_duration_since(table.built_at).as_secs_f64(),
            warnings: lost
                .into_iter()
                .chain(last_reload.as_ref().and_then(ReloadReport::warning))
                .chain(fleet.into_iter().flat_map(super::fleet::warnings))
                .collect(),
            last_reload,
            sources: sources.sources.iter().map(|source| SourceStatus::of(source, now)).collect(),
            backends: table
                .entries
                .iter()
                .map(|entry| BackendStatus {
                    orders_applied: applied.clone().filter(|_| entry.orders.is_some()),
                    sources: sources.of(entry.backend.id()).map(str::to_owned).collect(),
                    ..BackendStatus::of(entry, all, clock, now, wall)
                })
                .collect(),
        }
    }
}

impl BackendStatus {
    fn of(
        entry: &BackendEntry,
        all_redirects: u64,
        clock: &MonotonicClock,
        now: Instant,
        wall: SystemTime,
    ) -> Self {
        let work = entry.load.booked_work(DEFAULT_SIZE, clock.timestamp(now));
        let BackendEntry { backend, load, health, estimate, latest, eligibility, .. } = entry;
        let redirects = load.redirects();
        let in_flight = estimate.has_usable_report().then(|| load.outstanding());
        let throughput = estimate.throughput().filter(|seen| seen.requests > 0.0);
        let drained_in = in_flight
            .zip(throughput)
            .map(|(in_flight, seen)| in_flight as f64 * seen.busy_seconds / seen.requests);
        let since = wall.checked_sub(now.saturating_duration_since(health.since())).unwrap_or(wall);
        Self {
            address: backend.id().to_string(),
            state: health.state().to_string(),
            reason: health.reason().to_string(),
            since: humantime::format_rfc3339_seconds(since).to_string(),
            traffic: match eligibility {
                Eligibility::Chosen(share) if *share < 1.0 => {
                    format!("yes, {:.0} % of its weight", share * 100.0)
                }
                Eligibility::Chosen(_) => "yes".to_owned(),
                Eligibility::SpareTier => "no, a lower tier is used".to_owned(),
                Eligibility::Ejected(outlier) => format!("no, {outlier}"),
                Eligibility::Out => "no".to_owned(),
                Eligibility::Withdrawn => "no, by order".to_owned(),
            },
            share: if all_redirects == 0 { 0.0 } else { redirects as f64 / all_redirects as f64 },
            redirects,
            booked_bytes: work.map(|work| work.bytes),
            expected_seconds: work.map(|work| work.expected.as_secs_f64()),
            load_report: match estimate {
                _ if !estimate.reports() => "none",
                _ if estimate.is_stuck() => "ignored: it stays the same although clients are sent",
                _ if estimate.is_shared() => "ignored: several servers seem to share this address",
                _ => "used",
            }
            .to_owned(),
            response_ms: estimate.response_time().map(milliseconds),
            connect_ms: latest.map(|timings| milliseconds(timings.connect)),
            first_byte_ms: latest.map(|timings| milliseconds(timings.first_byte)),
            total_ms: latest.map(|timings| milliseconds(timings.total)),
            in_flight,
            drained_in_seconds: drained_in.filter(|_| entry.withdrawal().is_some()),
            orders: entry.orders.as_deref().map(<[_]>::to_vec).unwrap_or_default(),
            seen_by: entry.shared.seen_by(health.state()).map(|(up, of)| SeenBy { up, of }),
            orders_applied: None,
            weight: backend.weight(),
            tier: backend.tier(),
            zone: backend.zone().map(str::to_owned),
            sources: Vec::new(),
        }
    }
}

fn loss_warning(file: &Path) -> String {
    format!(
        "orders of operators were lost, so drained servers may get clients: {} has the reason; give the orders again and \
         remove the file",
        file.display()
    )
}

fn milliseconds(duration: Duration) -> f64 {
    // A probe is not more precise than a microsecond.
    duration.as_micros() as f64 / 1000.0
}

/// The sort key of a state: faults are at the top.
pub(crate) fn severity(state: &str) -> u8 {
    match state {
        "down" => 0,
        "suspect" => 1,
        "up" => 3,
        _ => 2,
    }
}

/// The smallest width of the column with the reasons, in characters.
const LEAST_REASON: usize = 20;

impl StatusReport {
    /// The report as text: a table, or several lines for each server if the terminal is too narrow for a table.
    #[must_use]
    pub fn text(&self, columns: Option<usize>) -> String {
        let width = self.backends.iter().map(|backend| backend.address.len()).max().unwrap_or(0).max(7);
        let mut text = String::new();
        for warning in &self.warnings {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "WARNING: {}", warning.escape_debug());
        }
        if let Some(reload) = self.last_reload.as_ref().filter(|reload| reload.applied) {
            let changed =
                if reload.changed.is_empty() { "no change".to_owned() } else { reload.changed.join(", ") };
            let _ = writeln!(text, "configuration: read again at {}, {changed}", reload.at);
        }
        let _ = writeln!(text, "servers: {}, selection: {}", self.backends.len(), self.mode);
        if self.sources.len() > 1 || self.sources.iter().any(|source| source.answer_age_seconds.is_some()) {
            for source in &self.sources {
                let _ = writeln!(text, "source: {}", SourceLine(source));
            }
        }
        let heading = format!(
            "{:width$}  {:7}  {:20}  {:>10}  {:>7}  {:>10}  WHY\n",
            "SERVER", "STATE", "SINCE", "RESPONSE", "SHARE", "REDIRECTS",
        );
        let is_narrow = columns.is_some_and(|columns| columns < heading.len() + LEAST_REASON);
        if !is_narrow {
            text.push_str(&heading);
        }
        for backend in &self.backends {
            let BackendStatus { address, state, since, redirects, .. } = backend;
            let response = backend.response_ms.map_or("-".to_owned(), |time| format!("{time:.2} ms"));
            let share = format!("{:.1} %", backend.share * 100.0);
            let why = Why(backend, self.sources.len() > 1);
            // Writing to a string cannot fail.
            let _ = if is_narrow {
                let response = if response == "-" { "no response" } else { &response };
                writeln!(
                    text,
                    "{address}\n  {state} since {since}\n  {response}, {redirects} redirects ({share})\n  {why}"
                )
            } else {
                writeln!(
                    text,
                    "{address:width$}  {state:7}  {since:20}  {response:>10}  {share:>7}  {redirects:>10}  {why}"
                )
            };
        }
        text
    }
}

/// Displays the reason of a state, and the reason why a backend gets no clients.
/// With `true`, its sources follow.
struct Why<'a>(&'a BackendStatus, bool);

/// Displays a source with the age of its answer and its fault.
struct SourceLine<'a>(&'a SourceStatus);

impl fmt::Display for SourceLine<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SourceStatus { name, backends, answer_age_seconds, skipped, error, .. } = self.0;
        write!(formatter, "{}, servers: {backends}", name.escape_debug())?;
        if let Some(age) = answer_age_seconds {
            write!(formatter, ", answered {age:.0} s ago")?;
        }
        if *skipped > 0 {
            write!(formatter, ", skipped records: {skipped}")?;
        }
        // The reason may contain text of the source, which must not send control characters to the terminal.
        error.as_ref().map_or(Ok(()), |error| write!(formatter, "; {}", error.escape_debug()))
    }
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The reason may contain text of a server, which must not send control characters to the terminal.
        write!(formatter, "{}", self.0.reason.escape_debug())?;
        match self.0.traffic.as_str() {
            "yes" | "no" => {}
            traffic => write!(formatter, "; traffic: {traffic}")?,
        }
        if let Some(SeenBy { up, of }) = self.0.seen_by.filter(|seen| (1..seen.of).contains(&seen.up)) {
            write!(formatter, "; seen by {up} of {of}")?;
        }
        for order in &self.0.orders {
            write!(formatter, "; order: {}", order.to_string().escape_debug())?;
        }
        if let Some(applied) = &self.0.orders_applied {
            write!(formatter, " ({})", applied.escape_debug())?;
        }
        if let Some(seconds) = self.0.drained_in_seconds {
            write!(formatter, "; its last download ends in about {seconds:.0} s")?;
        }
        if self.1 { write!(formatter, "; from {}", self.0.sources.join(", ").escape_debug()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
