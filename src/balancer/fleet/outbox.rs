//! The news of this balancer that wait for the next record. Pure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::record::{BackendNews, MOST_BACKENDS, Observation};

/// The time between two records.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// The figures of one backend for a record.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// The digest of its address.
    pub backend: u64,
    /// The own redirects to it since the start.
    pub redirects: u64,
    /// The bytes of their downloads.
    pub bytes: u64,
}

/// The news since the previous record.
#[derive(Debug)]
pub struct Outbox {
    /// The latest observation of each backend, with the time of the probe.
    observations: HashMap<u64, (Observation, Instant)>,
    /// The counts in the previous record.
    published: HashMap<u64, Counts>,
    published_at: Instant,
    is_urgent: bool,
    /// The backend with which the next record begins, so that each gets its turn if they do not fit into one.
    first: usize,
}

impl Outbox {
    /// An outbox without news.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            observations: HashMap::new(),
            published: HashMap::new(),
            published_at: now,
            is_urgent: false,
            first: 0,
        }
    }

    /// Adds an observation. A change of the state does not wait for the end of the period.
    pub fn observed(&mut self, backend: u64, observation: Observation, is_change: bool, now: Instant) {
        self.observations.insert(backend, (observation, now));
        self.is_urgent |= is_change;
    }

    /// Makes a record due at once.
    pub fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// Whether a record is due.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.is_urgent || now.saturating_duration_since(self.published_at) >= PERIOD
    }

    /// Takes the news for a record, and the time since the previous one. `counts` has every backend of the list.
    pub fn take(&mut self, mut counts: Vec<Counts>, now: Instant) -> (Duration, Vec<BackendNews>) {
        let mut all = Vec::new();
        self.first = self.first.checked_rem(counts.len()).unwrap_or(0);
        counts.rotate_left(self.first);
        let mut is_full = false;
        let mut published = HashMap::with_capacity(self.published.len());
        let mut observations = std::mem::take(&mut self.observations);
        for current in counts {
            let before = self.published.get(&current.backend).copied().unwrap_or(current);
            let observation = observations.remove(&current.backend);
            let redirects = current.redirects.saturating_sub(before.redirects);
            let bytes = current.bytes.saturating_sub(before.bytes);
            if observation.is_none() && redirects == 0 || is_full {
                // They wait for the next record.
                self.observations.extend(observation.map(|it| (current.backend, it)));
                published.insert(current.backend, before);
                continue;
            }
            published.insert(current.backend, current);
            let observation = observation.map(|(observation, at)| {
                let age = now.saturating_duration_since(at).as_millis() as u32;
                Observation { age, ..observation }
            });
            let redirects = u32::try_from(redirects).unwrap_or(u32::MAX);
            all.push(BackendNews { backend: current.backend, observation, redirects, bytes });
            is_full = all.len() == MOST_BACKENDS;
            self.first += usize::from(!is_full);
        }
        self.published = published;
        let period = now.saturating_duration_since(std::mem::replace(&mut self.published_at, now));
        self.is_urgent = false;
        (period, all)
    }
}
