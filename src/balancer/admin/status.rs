//! The table of backends as an operator sees it: as JSON from the admin listener, as text from `fingerpost status`.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::balancer::health::fleet::Standing;
use crate::balancer::ranking::table::{Entry, RoutingTable};

/// What `/api/v1/backends` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Which rule chose the backends that are redirected to, in words.
    pub mode: String,
    /// How many tables have been made.
    pub generation: u64,
    /// How old the table is, in seconds.
    pub table_age_seconds: f64,
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
    /// Why it is in this state, in words.
    pub reason: String,
    /// When it entered the state (RFC 3339).
    pub since: String,
    /// Whether clients are sent there, and if not, why.
    pub traffic: String,
    /// Of all redirects to the backends of this list, the share that went there, 0 to 1.
    pub share: f64,
    /// Redirects to it since the balancer started.
    pub redirects: u64,
    /// The estimate that ranks it, in milliseconds.
    pub response_ms: Option<f64>,
    /// The latest good probe: until the connection stood, in milliseconds.
    pub connect_ms: Option<f64>,
    /// The latest good probe: until the answer's head was there, in milliseconds.
    pub first_byte_ms: Option<f64>,
    /// The latest good probe: until the last byte was there, in milliseconds.
    pub total_ms: Option<f64>,
    /// Its weight in the list.
    pub weight: u32,
    /// Its tier in the list.
    pub tier: u8,
    /// Its zone in the list.
    pub zone: Option<String>,
}

impl StatusReport {
    /// What the table says, as of now.
    #[must_use]
    pub fn of(table: &RoutingTable) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let all: u64 = table.entries.iter().map(|entry| entry.member.ledger.redirects()).sum();
        Self {
            mode: table.mode.to_string(),
            generation: table.generation,
            table_age_seconds: now.saturating_duration_since(table.built_at).as_secs_f64(),
            backends: table.entries.iter().map(|entry| BackendStatus::of(entry, all, now, wall)).collect(),
        }
    }
}

impl BackendStatus {
    fn of(entry: &Entry, all_redirects: u64, now: Instant, wall: SystemTime) -> Self {
        let Entry { member, health, estimate, latest, standing, .. } = entry;
        let redirects = member.ledger.redirects();
        let since = wall.checked_sub(now.saturating_duration_since(health.since())).unwrap_or(wall);
        Self {
            address: member.backend.id().to_string(),
            state: health.state().to_string(),
            reason: health.reason().to_string(),
            since: humantime::format_rfc3339_seconds(since).to_string(),
            traffic: match standing {
                Standing::Chosen(share) if *share < 1.0 => {
                    format!("yes, {:.0} % of its weight", share * 100.0)
                }
                Standing::Chosen(_) => "yes".to_owned(),
                Standing::SpareTier => "no, a lower tier is usable".to_owned(),
                Standing::Ejected(outlier) => format!("no, {outlier}"),
                Standing::Out => "no".to_owned(),
            },
            share: if all_redirects == 0 { 0.0 } else { redirects as f64 / all_redirects as f64 },
            redirects,
            response_ms: estimate.response_time().map(milliseconds),
            connect_ms: latest.map(|timings| milliseconds(timings.connect)),
            first_byte_ms: latest.map(|timings| milliseconds(timings.first_byte)),
            total_ms: latest.map(|timings| milliseconds(timings.total)),
            weight: member.backend.weight(),
            tier: member.backend.tier(),
            zone: member.backend.zone().map(str::to_owned),
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are the finest a probe means anything.
    duration.as_micros() as f64 / 1000.0
}

impl fmt::Display for StatusReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.backends.iter().map(|backend| backend.address.len()).max().unwrap_or(0).max(7);
        writeln!(formatter, "servers: {}, selection: {}", self.backends.len(), self.mode)?;
        writeln!(
            formatter,
            "{:width$}  {:7}  {:20}  {:>9}  {:>6}  {:>10}  WHY",
            "SERVER", "STATE", "SINCE", "RESPONSE", "SHARE", "REDIRECTS",
        )?;
        for backend in &self.backends {
            let response = backend.response_ms.map_or("-".to_owned(), |time| format!("{time:.2} ms"));
            let share = format!("{:.1} %", backend.share * 100.0);
            write!(
                formatter,
                "{:width$}  {:7}  {:20}  {:>9}  {:>6}  {:>10}  {}",
                backend.address,
                backend.state,
                backend.since,
                response,
                share,
                backend.redirects,
                // Part of it may be a server's own words, which must not steer a terminal.
                backend.reason.escape_debug(),
            )?;
            match backend.traffic.as_str() {
                "yes" | "no" => writeln!(formatter)?,
                traffic => writeln!(formatter, "; traffic: {traffic}")?,
            }
        }
        Ok(())
    }
}
