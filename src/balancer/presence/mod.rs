//! Which mirrors have which files: the knowledge that restricts each pick.
//!
//! A [`Generation`] is a catalogue with an [`index`] of the mirrors that lack its files. HTTP workers read it without a lock.
//! The `PresenceActor` follows the catalogue ([`source`]), asks mirrors to prove their generation ([`proofs`]), and checks
//! files that were just redirected ([`checks`]). Mirrors with `scan=` list their files ([`scan`]).

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::SystemTime;

use arc_swap::{ArcSwapOption, Guard};
use url::Url;

use crate::balancer::metrics::PresenceMetrics;

pub(crate) mod actor;
mod checks;
pub(crate) mod generation;
pub(crate) mod index;
mod proofs;
pub(crate) mod report;
mod requests;
pub(crate) mod scan;
pub(crate) mod snapshot;
pub(crate) mod source;
mod tree;

use checks::Exceptions;
use generation::{FileLocation, Generation};
use index::OLD;
use snapshot::{Knowledge, SeenScan};

/// The number of redirects that may wait for a check.
const QUEUE: usize = 1024;

/// A redirect whose file may be checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckOffer {
    /// The key of the path.
    key: u64,
    /// The number of the mirror.
    mirror: u32,
    cause: OfferCause,
}

/// The reason for an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferCause {
    /// A sample of the redirects.
    Sample,
    /// The client came back, or names the mirror in `Fingerpost-Avoid`.
    Failure,
}

/// Whether a mirror has a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HasFile {
    /// There is evidence.
    Yes,
    /// It gets no request for the file.
    No,
    /// It is assumed to have it.
    Unproven,
}

impl HasFile {
    /// A word for the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unproven => "unproven",
        }
    }
}

/// The knowledge as the request path and the API see it.
pub(crate) struct Presence {
    current: ArcSwapOption<Generation>,
    offers: SyncSender<CheckOffer>,
    exceptions: Exceptions,
    mirrors: papaya::HashMap<u32, MirrorProof>,
    scans: papaya::HashMap<u32, ScanState>,
    scan_requests: papaya::HashMap<u32, ScanTime>,
    metrics: PresenceMetrics,
}

/// The scans of a mirror.
#[derive(Debug, Clone)]
pub(crate) struct ScanState {
    /// The address of its listing.
    pub(crate) address: Arc<Url>,
    /// Whether one runs.
    pub(crate) is_running: bool,
    /// The latest good one.
    pub(crate) seen: Option<SeenScan>,
    /// The reason why the latest one failed.
    pub(crate) error: Option<String>,
    /// The time of the next one.
    pub(crate) due: SystemTime,
}

/// The time of a requested scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScanTime {
    /// As soon as the interval permits. Pauses after errors end.
    Soon,
    /// At once.
    Now,
}

/// The state of the proof of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MirrorProof {
    /// The oldest file content that it is proven to have, as an age; 0 includes all files.
    pub(crate) age: u8,
    pub(crate) state: ProofState,
}

/// The result of the latest proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProofState {
    /// The mirror is the origin.
    Origin,
    /// Its line has no `proof=`.
    NotAsked,
    /// No answer has arrived yet.
    Waiting,
    /// The content of the proof is the one of this generation.
    Proven { generation: u64, at: SystemTime },
    /// The content of the proof belongs to no known generation.
    OtherContent { at: SystemTime },
    /// The catalogue does not have the proof, so it cannot be compared.
    NoReference,
}

impl fmt::Display for ProofState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |at: &SystemTime| humantime::format_rfc3339_seconds(*at);
        match self {
            Self::Origin => formatter.write_str("it is the origin"),
            Self::NotAsked => {
                formatter.write_str("its line has no proof=, so it is assumed to have every file")
            }
            Self::Waiting => formatter.write_str("its proof has not arrived yet"),
            Self::Proven { generation, at } => {
                write!(formatter, "its proof is the one of generation {generation}, since {}", time(at))
            }
            Self::OtherContent { at } => {
                write!(formatter, "its proof belongs to no known generation, at {}", time(at))
            }
            Self::NoReference => formatter
                .write_str("its proof cannot be compared: the catalogue does not have the file of proof="),
        }
    }
}

impl Presence {
    /// The knowledge at the start, and the queue of offers.
    #[must_use]
    pub(crate) fn new(start: Option<&Knowledge>, metrics: PresenceMetrics) -> (Self, Receiver<CheckOffer>) {
        let (offers, receiver) = sync_channel(QUEUE);
        let exceptions: Exceptions =
            start.iter().flat_map(|start| start.exceptions.iter().copied()).collect();
        let current = ArcSwapOption::new(start.map(|start| Arc::clone(&start.generation)));
        let (mirrors, scans) = (papaya::HashMap::new(), papaya::HashMap::new());
        let scan_requests = papaya::HashMap::new();
        (Self { current, offers, exceptions, mirrors, scans, scan_requests, metrics }, receiver)
    }

    /// The latest generation; `None` before the first catalogue.
    #[must_use]
    pub(crate) fn current(&self) -> Guard<Option<Arc<Generation>>> {
        self.current.load()
    }

    /// Offers a redirect for a check. A full queue drops it.
    pub(crate) fn offer(&self, key: u64, mirror: u32, cause: OfferCause) {
        // The actor polls the queue, so an offer wakes no thread.
        if self.offers.try_send(CheckOffer { key, mirror, cause }).is_err() {
            self.metrics.dropped.inc();
        }
    }

    /// Requests a scan. Returns whether one runs already; `None` for a mirror without `scan=`.
    pub(crate) fn request_scan(&self, mirror: u32, time: ScanTime) -> Option<bool> {
        let is_running = self.scans.pin().get(&mirror)?.is_running;
        if !is_running {
            self.scan_requests.pin().insert(mirror, time);
        }
        Some(is_running)
    }

    /// Whether a mirror has a file, and the reason.
    #[must_use]
    pub(crate) fn explain(&self, file: &FileLocation<'_>, mirror: u32) -> (HasFile, String) {
        if let Some(lack) = self.exceptions.pin().get(&(file.key, mirror)) {
            return (HasFile::No, lack.to_string());
        }
        let proof = self.mirrors.pin().get(&mirror).cloned();
        let Some(MirrorProof { age, state }) = proof else {
            return (HasFile::Unproven, "it is new in the list".to_owned());
        };
        let seen = self.scans.pin().get(&mirror).and_then(|scan| scan.seen);
        let time = |seen: &SeenScan| humantime::format_rfc3339_seconds(seen.at);
        if file.holders.contains(mirror) {
            return match (state, seen) {
                (state @ (ProofState::Origin | ProofState::Proven { .. }), _) => {
                    (HasFile::Yes, state.to_string())
                }
                (_, Some(seen)) => (HasFile::Yes, format!("the scan of {} listed it", time(&seen))),
                (state, None) => (HasFile::Unproven, state.to_string()),
            };
        }
        if let Some(seen) = seen.filter(|_| file.holders.lacking.contains(mirror)) {
            let current = self.current().as_ref().map_or(0, |current| current.number);
            let is_newer = file.age < OLD && current.saturating_sub(file.age.into()) > seen.generation;
            let reason = if is_newer {
                format!("the file is newer than the scan of {}", time(&seen))
            } else {
                format!("the scan of {} did not list it", time(&seen))
            };
            return (HasFile::No, reason);
        }
        let reason = match state {
            ProofState::Proven { generation, .. } if age > file.age => {
                format!(
                    "the file is newer than generation {generation}, the latest that the server has proven"
                )
            }
            ProofState::Waiting | ProofState::NoReference => format!("the file is new, and {state}"),
            state => state.to_string(),
        };
        (HasFile::No, reason)
    }
}
