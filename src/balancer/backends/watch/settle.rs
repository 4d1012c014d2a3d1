//! When does what was read count? A list must not come into force while somebody is still writing it.
//!
//! A writer that truncates and then writes leaves an empty file for a moment, and half a list for another. So a list
//! counts once two readings some time apart are the same: a short time for a list that looks whole, a longer one
//! for what may be a list half written. A file that never keeps still counts as it is when the patience is over.

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use tokio::time::Instant;

use super::{List, ListError};

/// How long a list that looks whole must keep still.
const SHORT: Duration = Duration::from_millis(200);
/// How long something that may be half written must keep still.
const LONG: Duration = Duration::from_secs(1);
/// How long a file that keeps changing is waited for.
const PATIENCE: Duration = Duration::from_millis(1300);

/// What one look at the file gave.
#[derive(Debug)]
pub(super) enum Reading {
    /// The bytes of the list in force.
    InForce,
    /// Another list.
    List { bytes: Vec<u8>, list: List },
    /// No list.
    Unusable(ListError),
}

/// Why the file was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// The system reported a change, or it was time to look again.
    Noticed,
    /// Somebody says that the list is ready.
    Asked,
}

/// What to do after a reading.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing: what is known stays as it is.
    Keep,
    /// Read again after this time at the latest.
    LookAgain(Duration),
    /// The list comes into force.
    Accept(List),
    /// The file cannot be used, and this has not been said yet.
    Refuse(ListError),
    /// The file cannot be used no longer holds: it is again the list in force.
    Restored,
}

/// What two readings must have in common to be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Likeness {
    Bytes(Vec<u8>),
    Error(Discriminant<ListError>),
}

/// Remembers readings until they count.
#[derive(Debug)]
pub(super) struct Settle {
    in_force: Vec<u8>,
    /// How many backends the list in force has.
    servers: usize,
    /// The reason why the file cannot be used, once it has been said.
    refused: Option<Discriminant<ListError>>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    likeness: Likeness,
    /// When it was read first.
    since: Instant,
    /// When the file was first seen to be something new.
    unrest_since: Instant,
}

impl Settle {
    pub(super) fn new(in_force: Vec<u8>, servers: usize) -> Self {
        Self { in_force, servers, refused: None, pending: None }
    }

    /// Whether these are the bytes of the list in force.
    pub(super) fn is_in_force(&self, bytes: &[u8]) -> bool {
        self.in_force == bytes
    }

    pub(super) fn observe(&mut self, reading: Reading, now: Instant, trigger: Trigger) -> Decision {
        let likeness = match &reading {
            Reading::InForce => {
                self.pending = None;
                return if self.refused.take().is_some() { Decision::Restored } else { Decision::Keep };
            }
            Reading::List { bytes, .. } => Likeness::Bytes(bytes.clone()),
            Reading::Unusable(error) if self.refused == Some(discriminant(error)) => {
                self.pending = None;
                return Decision::Keep;
            }
            Reading::Unusable(error) => Likeness::Error(discriminant(error)),
        };
        let (since, unrest_since) = match &self.pending {
            Some(pending) if pending.likeness == likeness => (pending.since, pending.unrest_since),
            Some(pending) => (now, pending.unrest_since),
            None => (now, now),
        };
        let ready_at = (since + self.settling_time(&reading)).min(unrest_since + PATIENCE);
        if now < ready_at && trigger == Trigger::Noticed {
            self.pending = Some(Pending { likeness, since, unrest_since });
            return Decision::LookAgain(ready_at - now);
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
mod tests {
    use super::*;
    use crate::balancer::backends::list;

    struct Story {
        settle: Settle,
        now: Instant,
    }

    impl Story {
        fn new(in_force: &str) -> Self {
            let servers = list::parse(in_force.as_bytes()).backends.len();
            Self { settle: Settle::new(in_force.into(), servers), now: Instant::now() }
        }

        fn later(&mut self, milliseconds: u64) -> &mut Self {
            self.now += Duration::from_millis(milliseconds);
            self
        }

        fn read(&mut self, text: &str) -> String {
            self.look(text, Trigger::Noticed)
        }

        fn look(&mut self, text: &str, trigger: Trigger) -> String {
            let reading = match text {
                text if self.settle.is_in_force(text.as_bytes()) => Reading::InForce,
                "deleted" => {
                    let source = std::io::ErrorKind::NotFound.into();
                    Reading::Unusable(ListError::Unreadable { path: "list".into(), source })
                }
                text => Reading::List { bytes: text.into(), list: list::parse(text.as_bytes()) },
            };
            match self.settle.observe(reading, self.now, trigger) {
                Decision::Keep => "keep".to_owned(),
                Decision::LookAgain(wait) => format!("again in {} ms", wait.as_millis()),
                Decision::Accept(list) => format!("accept {}", list.backends.len()),
                Decision::Refuse(_) => "refuse".to_owned(),
                Decision::Restored => "restored".to_owned(),
            }
        }
    }

    #[test]
    fn a_whole_list_counts_after_a_short_time() {
        let mut story = Story::new("a:1\n");
        assert_eq!(story.read("a:1\n"), "keep");
        assert_eq!(story.read("a:1\nb:1\n"), "again in 200 ms");
        assert_eq!(story.later(150).read("a:1\nb:1\n"), "again in 50 ms");
        assert_eq!(story.later(50).read("a:1\nb:1\n"), "accept 2");
        assert_eq!(story.later(50).read("a:1\nb:1\n"), "keep");
    }

    #[test]
    fn a_list_being_rewritten_in_place_is_never_seen_half() {
        let mut story = Story::new("a:1\nb:1\nc:1\n");
        assert_eq!(story.read(""), "again in 1000 ms");
        assert_eq!(story.later(300).read("a:1\nb:"), "again in 1000 ms");
        assert_eq!(story.later(300).read("a:1\nb:1\n"), "again in 700 ms");
        assert_eq!(story.later(300).read("a:1\nb:1\nd:1\n"), "again in 200 ms");
        assert_eq!(story.later(200).read("a:1\nb:1\nd:1\n"), "accept 3");
    }

    #[test]
    fn an_emptied_list_counts_once_it_has_stayed_empty() {
        let mut story = Story::new("a:1\n");
        assert_eq!(story.read(""), "again in 1000 ms");
        assert_eq!(story.later(1000).read(""), "accept 0");
    }

    #[test]
    fn a_list_without_its_last_newline_counts_a_little_later() {
        let mut story = Story::new("a:1\n");
        assert_eq!(story.read("b:1"), "again in 1000 ms");
        assert_eq!(story.later(1000).read("b:1"), "accept 1");
    }

    #[test]
    fn a_file_that_never_keeps_still_counts_when_the_patience_is_over() {
        let mut story = Story::new("a:1\n");
        for number in 0..13 {
            assert!(story.read(&format!("a:1\nb:{}\n", number + 1)).starts_with("again"), "{number}");
            story.later(100);
        }
        assert_eq!(story.read("a:1\nb:99\nc:1\n"), "accept 3");
    }

    #[test]
    fn an_unusable_file_is_refused_once_and_its_return_is_noticed() {
        let mut story = Story::new("a:1\n");
        assert_eq!(story.read("deleted"), "again in 1000 ms");
        assert_eq!(story.later(1000).read("deleted"), "refuse");
        assert_eq!(story.later(1000).read("deleted"), "keep");
        assert_eq!(story.later(1000).read("a:1\n"), "restored");
        assert_eq!(story.later(1000).read("a:1\n"), "keep");
    }

    #[test]
    fn a_file_that_is_gone_for_a_moment_is_no_news() {
        let mut story = Story::new("a:1\n");
        assert_eq!(story.read("deleted"), "again in 1000 ms");
        assert_eq!(story.later(100).read("a:1\n"), "keep");
    }

    #[test]
    fn somebody_who_asks_is_not_made_to_wait() {
        let mut story = Story::new("a:1\n");
        assert_eq!(story.look("", Trigger::Asked), "accept 0");
        assert_eq!(story.look("deleted", Trigger::Asked), "refuse");
        assert_eq!(story.look("", Trigger::Asked), "restored");
    }
}
