//! Decides when a changed list becomes active: not while a program is still writing the file.
//!
//! A program that truncates and then writes the file leaves an empty file and then an incomplete list for a short time. A
//! list therefore becomes active once two readings some time apart are equal: a short time for a list that looks
//! complete, a longer one for a list that may be incomplete. A file that keeps changing becomes active after
//! [`LONGEST_WAIT`].

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use tokio::time::Instant;

use super::{List, ListError};

/// The time for which a list that looks complete must stay unchanged.
const SHORT: Duration = Duration::from_millis(200);
/// The time for which a list that may be incomplete must stay unchanged.
const LONG: Duration = Duration::from_secs(1);
/// The longest delay of a change in a file that keeps changing.
const LONGEST_WAIT: Duration = Duration::from_millis(1300);

/// The result of one reading of the file.
#[derive(Debug)]
pub(super) enum Reading {
    /// The bytes of the active list.
    InForce,
    /// Another list.
    List { bytes: Vec<u8>, list: List },
    /// The file is not usable.
    Unusable(ListError),
}

/// The trigger of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// A reported change, or a timer.
    Noticed,
    /// SIGHUP: the list is complete.
    Requested,
}

/// The action after a reading.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing changes.
    Keep,
    /// Read again after this time at the latest.
    ReadAgain(Duration),
    /// The list becomes active.
    Accept(List),
    /// The file is not usable, for a reason that was not yet reported.
    Refuse(ListError),
    /// After a `Refuse`, the file is again equal to the active list.
    Restored,
}

/// Two readings with equal keys are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ReadingKey {
    Bytes(Vec<u8>),
    Error(Discriminant<ListError>),
}

/// Delays a change until the file is stable.
#[derive(Debug)]
pub(super) struct Debouncer {
    in_force: Vec<u8>,
    /// The number of backends of the active list.
    servers: usize,
    /// The reported reason why the file is not usable.
    refused: Option<Discriminant<ListError>>,
    pending: Option<PendingReading>,
}

#[derive(Debug)]
struct PendingReading {
    key: ReadingKey,
    /// The time of the first of the equal readings.
    since: Instant,
    /// The time of the first reading that differed from the active list.
    first_change: Instant,
}

impl Debouncer {
    pub(super) fn new(in_force: Vec<u8>, servers: usize) -> Self {
        Self { in_force, servers, refused: None, pending: None }
    }

    /// Whether these are the bytes of the active list.
    pub(super) fn is_in_force(&self, bytes: &[u8]) -> bool {
        self.in_force == bytes
    }

    pub(super) fn observe(&mut self, reading: Reading, now: Instant, trigger: Trigger) -> Decision {
        let key = match &reading {
            Reading::InForce => {
                self.pending = None;
                return if self.refused.take().is_some() { Decision::Restored } else { Decision::Keep };
            }
            Reading::List { bytes, .. } => ReadingKey::Bytes(bytes.clone()),
            Reading::Unusable(error) if self.refused == Some(discriminant(error)) => {
                self.pending = None;
                return Decision::Keep;
            }
            Reading::Unusable(error) => ReadingKey::Error(discriminant(error)),
        };
        let (since, first_change) = match &self.pending {
            Some(pending) if pending.key == key => (pending.since, pending.first_change),
            Some(pending) => (now, pending.first_change),
            None => (now, now),
        };
        let ready_at = (since + self.settling_time(&reading)).min(first_change + LONGEST_WAIT);
        if now < ready_at && trigger == Trigger::Noticed {
            self.pending = Some(PendingReading { key, since, first_change });
            return Decision::ReadAgain(ready_at - now);
        }
        self.pending = None;
        match reading {
            Reading::InForce => Decision::Keep,
            Reading::List { bytes, list } => {
                self.in_force = bytes;
                self.servers = list.backends.len();
                self.refused = None;
                Decision::Accept(list)
            }
            Reading::Unusable(error) => {
                self.refused = Some(discriminant(&error));
                Decision::Refuse(error)
            }
        }
    }

    fn settling_time(&self, reading: &Reading) -> Duration {
        match reading {
            Reading::List { bytes, list }
                if bytes.ends_with(b"\n")
                    && list.problems.is_empty()
                    && list.backends.len() >= self.servers =>
            {
                SHORT
            }
            _ => LONG,
        }
    }
}

#[cfg(test)]
mod tests;
