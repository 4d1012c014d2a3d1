//! Compares the files of the certificates with those in use, and reports certificates that end soon.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::{Certificate, CertificatePair, Certificates, PairContent};
use crate::telemetry::chain;

/// A certificate that ends soon is reported again at this interval.
const EXPIRY_REMINDER: Duration = Duration::from_hours(24);

/// The reason for a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadTrigger {
    Timer,
    /// An operator: the files are complete.
    Requested,
}

/// Compares the files with the certificates in use.
pub(super) struct CertificateFollower {
    certificates: Arc<Certificates>,
    states: HashMap<CertificatePair, PairState>,
}

/// A text that differs from the one in use, or the error of the reading.
type PairReading = Result<PairContent, String>;

#[derive(Default)]
struct PairState {
    /// The last reading, if it has not taken effect.
    pending: Option<PairReading>,
    /// The reading that was reported as unusable.
    refused: Option<PairReading>,
    reminded: Option<SystemTime>,
}

impl CertificateFollower {
    pub(super) fn new(certificates: Arc<Certificates>) -> Self {
        Self { certificates, states: HashMap::new() }
    }

    pub(super) fn look(&mut self, trigger: ReloadTrigger) {
        let before = self.certificates.in_use.load_full();
        let mut in_use = Vec::clone(&before);
        let mut is_changed = false;
        self.states.retain(|pair, _| before.iter().any(|own| own.pair == *pair));
        for own in &mut in_use {
            let pair = &own.pair.clone();
            let state = self.states.entry(pair.clone()).or_default();
            let reading = pair.read().map_err(|error| chain(&error));
            if !state.is_due(&reading, own, trigger) {
                continue;
            }
            let loaded = reading
                .clone()
                .and_then(|content| pair.certificate_of(content).map_err(|error| chain(&error)));
            match loaded {
                Ok(certificate) => {
                    tracing::info!(certificate = %pair, names = ?certificate.names, "certificate changed");
                    *own = Arc::new(certificate);
                    *state = PairState::default();
                    is_changed = true;
                    self.certificates.reloads.fetch_add(1, Ordering::Relaxed);
                }
                Err(reason) => {
                    tracing::warn!(certificate = %pair, reason, "the last good certificate stays in use");
                    state.refused = Some(reading);
                    self.certificates.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if is_changed {
            // If a reload replaced the pairs meanwhile, nothing is stored; the next look reads the files of the new pairs.
            self.certificates.in_use.compare_and_swap(&before, Arc::new(in_use));
        }
    }

    /// Warns of certificates that end soon.
    pub(super) fn remind(&mut self, now: SystemTime) {
        for own in self.certificates.in_use.load().iter() {
            let Some(end) = own.expiry_notice(now) else { continue };
            let state = self.states.entry(own.pair.clone()).or_default();
            let is_recent =
                |reminded| now.duration_since(reminded).is_ok_and(|since| since < EXPIRY_REMINDER);
            if !state.reminded.is_some_and(is_recent) {
                state.reminded = Some(now);
                let end = httpdate::fmt_http_date(end);
                tracing::warn!(certificate = %own.pair, end, "renew this certificate: it ends soon, or has ended");
            }
        }
    }
}

impl PairState {
    /// Whether a reading is to take effect, or to be reported as unusable.
    fn is_due(&mut self, reading: &PairReading, in_use: &Certificate, trigger: ReloadTrigger) -> bool {
        if reading.as_ref() == Ok(&in_use.content) {
            *self = Self { reminded: self.reminded, ..Self::default() };
            return false;
        }
        let is_stable = trigger == ReloadTrigger::Requested || self.pending.as_ref() == Some(reading);
        self.pending = Some(reading.clone());
        is_stable && self.refused.as_ref() != Some(reading)
    }
}
