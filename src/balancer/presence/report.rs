//! The mirrors and their files for operators: as JSON from the admin listener, as text from `fingerpost mirrors`.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Presence, ProofState, ScanState};
use crate::balancer::ranking::table::{BackendEntry, RoutingTable};

/// The content of `/api/v1/mirrors`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MirrorsReport {
    /// The number of the catalogue, which grows with each change; 0 before the first one.
    pub generation: u64,
    /// The number of its files.
    pub files: u64,
    /// The time since it was read, in seconds.
    pub catalogue_age_seconds: f64,
    /// The mirrors, in the order of the list.
    pub mirrors: Vec<MirrorStatus>,
}

/// A mirror and its files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MirrorStatus {
    /// Scheme, host, port and base path.
    pub mirror: String,
    /// `unknown`, `up`, `suspect` or `down`.
    pub state: String,
    /// The files of the catalogue for which it may get clients.
    pub files: u64,
    /// The other files of the catalogue.
    pub lacking_files: u64,
    /// The part of the catalogue for which it may get clients, in percent.
    pub coverage_percent: f64,
    /// The state of its proof, as text.
    pub proof: String,
    /// The catalogue that it has proven.
    pub proven_generation: Option<u64>,
    /// The time since it was known to have proven it, in seconds.
    pub proof_age_seconds: Option<f64>,
    /// Its scans; `None` without `scan=`.
    pub scan: Option<ScanStatus>,
}

/// The scans of a mirror.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScanStatus {
    /// The address of the listing.
    pub address: String,
    /// `running` or `waiting`.
    pub state: String,
    /// The start of the latest good scan (RFC 3339).
    pub scanned_at: Option<String>,
    /// The time since then, in seconds.
    pub age_seconds: Option<f64>,
    /// The number of the catalogue at that time.
    pub generation: Option<u64>,
    /// The number of its files that the scan found.
    pub files: Option<u64>,
    /// The time until the next scan, in seconds.
    pub next_in_seconds: f64,
    /// The reason why the latest scan was not used.
    pub error: Option<String>,
}

fn seconds(from: SystemTime, to: SystemTime) -> f64 {
    to.duration_since(from).unwrap_or_default().as_secs_f64()
}

impl ScanStatus {
    fn of(scan: ScanState, now: SystemTime) -> Self {
        Self {
            address: scan.address.to_string(),
            state: if scan.is_running { "running" } else { "waiting" }.to_owned(),
            scanned_at: scan.seen.map(|seen| humantime::format_rfc3339_seconds(seen.at).to_string()),
            age_seconds: scan.seen.map(|seen| seconds(seen.at, now)),
            generation: scan.seen.map(|seen| seen.generation),
            files: scan.seen.map(|seen| seen.files),
            next_in_seconds: seconds(now, scan.due),
            error: scan.error,
        }
    }
}

impl MirrorsReport {
    /// The mirrors of a table. Takes 0.1 s for a catalogue of a few million files.
    #[must_use]
    pub(crate) fn of(table: &RoutingTable, presence: &Presence, now: SystemTime) -> Self {
        let generation = presence.current.load_full();
        let numbers: Vec<u32> = table.entries.iter().map(|entry| entry.load.number()).collect();
        let files = generation.as_ref().map_or(0, |generation| generation.catalogue.files());
        let covered = generation.as_ref().map(|generation| generation.coverage(&numbers));
        let covered = covered.unwrap_or_else(|| vec![0; numbers.len()]);
        let (proofs, scans) = (presence.mirrors.pin(), presence.scans.pin());
        let status = |((entry, number), covered): ((&BackendEntry, &u32), usize)| {
            let proof = proofs.get(number).map(|proof| &proof.state);
            let proven = proof.and_then(|state| match state {
                ProofState::Proven { generation, at } => Some((*generation, seconds(*at, now))),
                _ => None,
            });
            MirrorStatus {
                mirror: entry.backend.id().to_string(),
                state: entry.health.state().to_string(),
                files: covered as u64,
                lacking_files: files.saturating_sub(covered) as u64,
                coverage_percent: covered as f64 * 100.0 / files.max(1) as f64,
                proof: proof.map_or("it is new in the list".to_owned(), ToString::to_string),
                proven_generation: proven.map(|(generation, _)| generation),
                proof_age_seconds: proven.map(|(_, age)| age),
                scan: scans.get(number).map(|scan| ScanStatus::of(scan.clone(), now)),
            }
        };
        Self {
            generation: generation.as_ref().map_or(0, |generation| generation.number),
            files: files as u64,
            catalogue_age_seconds: generation.map_or(0.0, |generation| seconds(generation.made_at, now)),
            mirrors: table.entries.iter().zip(&numbers).zip(covered).map(status).collect(),
        }
    }

    /// The report as a table.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let Self { generation, files, catalogue_age_seconds, .. } = self;
        let age = age(*catalogue_age_seconds);
        let mut text = format!("catalogue: generation {generation}, {files} files, read {age} ago\n");
        let width = self.mirrors.iter().map(|mirror| mirror.mirror.len()).max().unwrap_or(0).max(6);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:width$}  {:7}  {:>8}  {:>9}  {:24}  SCAN",
            "MIRROR", "STATE", "COVERAGE", "LACKING", "PROOF"
        );
        for mirror in &self.mirrors {
            let MirrorStatus { mirror: address, state, lacking_files, coverage_percent, .. } = mirror;
            let proof = match (mirror.proven_generation, mirror.proof_age_seconds) {
                (Some(proven), Some(seconds)) => format!("generation {proven}, {} ago", self::age(seconds)),
                _ if mirror.proof.contains("no proof=") => "-".to_owned(),
                _ => mirror.proof.clone(),
            };
            let scan = mirror.scan.as_ref().map_or("-".to_owned(), ScanStatus::text);
            let _ = writeln!(
                text,
                "{address:width$}  {state:7}  {coverage_percent:>6.1} %  {lacking_files:>9}  {:24}  {}",
                proof.escape_debug().to_string(),
                scan.escape_debug()
            );
        }
        text
    }
}

impl ScanStatus {
    fn text(&self) -> String {
        let mut text = match (self.state.as_str(), self.age_seconds) {
            ("running", _) => "running".to_owned(),
            (_, Some(seconds)) => format!("{} ago", age(seconds)),
            (_, None) => "none yet".to_owned(),
        };
        if self.state == "waiting" {
            let _ = write!(text, ", next in {}", age(self.next_in_seconds));
        }
        if let Some(error) = &self.error {
            let _ = write!(text, "; the latest was not used: {error}");
        }
        text
    }
}

/// A time in its largest unit.
fn age(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        seconds => format!("{:.0} d", seconds / 86_400.0),
    }
}
