//! The table of backends for operators: as JSON from the admin listener, as text from `fingerpost status`.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::balancer::orders::StandingOrder;
use crate::balancer::orders::store::Orders;
use crate::balancer::policy::MonotonicClock;
use crate::balancer::ranking::selection::Eligibility;
use crate::balancer::ranking::table::{BackendEntry, RoutingTable};
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
    /// The backends, in the order of the list.
    pub backends: Vec<BackendStatus>,
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
    /// Its weight in the list.
    pub weight: u32,
    /// Its tier in the list.
    pub tier: u8,
    /// Its zone in the list.
    pub zone: Option<String>,
}

impl StatusReport {
    /// The report of a table at the current time.
    #[must_use]
    pub(crate) fn of(
        table: &RoutingTable,
        orders: &Orders,
        clock: &MonotonicClock,
        last_reload: Option<ReloadReport>,
    ) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let all: u64 = table.entries.iter().map(|entry| entry.load.redirects()).sum();
        Self {
            mode: table.mode.to_string(),
            generation: table.generation,
            table_age_seconds: now.saturating_duration_since(table.built_at).as_secs_f64(),
            warnings: orders
                .loss()
                .map(|file| loss_warning(&file))
                .into_iter()
                .chain(last_reload.as_ref().and_then(ReloadReport::warning))
                .collect(),
            last_reload,
            backends: table
                .entries
                .iter()
                .map(|entry| BackendStatus::of(entry, all, clock, now, wall))
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
        let work = entry.load.booked_work(clock.timestamp(now));
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
            weight: backend.weight(),
            tier: backend.tier(),
            zone: backend.zone().map(str::to_owned),
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
            let why = Why(backend);
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
struct Why<'a>(&'a BackendStatus);

impl fmt::Display for Why<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The reason may contain text of a server, which must not send control characters to the terminal.
        write!(formatter, "{}", self.0.reason.escape_debug())?;
        match self.0.traffic.as_str() {
            "yes" | "no" => {}
            traffic => write!(formatter, "; traffic: {traffic}")?,
        }
        for order in &self.0.orders {
            write!(formatter, "; order: {}", order.to_string().escape_debug())?;
        }
        match self.0.drained_in_seconds {
            Some(seconds) => write!(formatter, "; its last download ends in about {seconds:.0} s"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
