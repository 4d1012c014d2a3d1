//! The schedule of checks: which mirror is asked for which file, and the consequences of an answer. Pure.
//!
//! A redirect is a sample of the files of its folder. One missing file excludes the mirror from this file; the other files of
//! the folder are checked, too, and if the mirror has not proven its generation, they are excluded until their own check.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::OfferCause;

/// The files that mirrors lack, by key and mirror.
pub(super) type Exceptions = papaya::HashMap<(u64, u32), Lack>;

/// The largest number of exceptions. Further missing files stay in use.
pub(super) const MOST_EXCEPTIONS: usize = 1_000_000;

/// The largest number of checks of one mirror that may wait.
const MOST_WAITING: usize = 100_000;

/// The largest number of samples that may wait.
const MOST_SAMPLES: usize = 4096;

/// The largest number of remembered folders.
const MOST_FOLDERS: usize = 100_000;

/// The unfinished checks of one mirror.
const MOST_IN_FLIGHT: usize = 4;

/// The samples of all mirrors that start in one round, which takes 10 ms.
const SAMPLES_OF_ROUND: usize = 4;

/// A folder of a mirror is sampled after this number of redirects ...
const SAMPLED_REDIRECTS: u32 = 2;

/// ... or with the first redirect after this time.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// The time between two checks of one mirror, except for samples.
const CHECK_PAUSE: Duration = Duration::from_millis(20);

/// The time until a missing file is checked again. It doubles with each failure.
const FIRST_RETRY: Duration = Duration::from_mins(1);

/// The longest time until a missing file is checked again.
const LAST_RETRY: Duration = Duration::from_hours(1);

/// The reason why a mirror gets no request for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// It answered with this status.
    Status(u16),
    /// Its file has this size instead of the one of the catalogue.
    OtherSize { found: u64, expected: u64 },
    /// A scan found this size instead of the one of the catalogue. A listing may round it.
    ListedSize { found: u64, expected: u64 },
    /// Another file of the folder is missing, and this one has not been checked since.
    Suspended,
}

impl fmt::Display for Lack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "it answered {status} for this file"),
            Self::OtherSize { found, expected } => {
                write!(formatter, "its file has {found} bytes instead of {expected}")
            }
            Self::ListedSize { found, expected } => {
                write!(formatter, "the scan found {found} bytes instead of {expected}")
            }
            Self::Suspended => formatter
                .write_str("it lacks another file of this folder, and this file has not been checked since"),
        }
    }
}

impl Lack {
    /// Whether a request for the file has shown it.
    pub(super) fn is_checked(self) -> bool {
        matches!(self, Self::Status(_) | Self::OtherSize { .. })
    }
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckResult {
    /// The mirror has the file.
    Has,
    /// It lacks the file.
    Lacks(Lack),
    /// No answer, or one that does not show it.
    Unknown,
}

/// A check to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) mirror: u32,
    pub(super) key: u64,
    /// Whether a client was redirected to the mirror for this file.
    pub(super) is_sample: bool,
}

/// All checks that wait.
#[derive(Debug, Default)]
pub(super) struct Checks {
    mirrors: BTreeMap<u32, MirrorChecks>,
    /// The mirrors, files and folders of samples that wait; at most one of each mirror and folder, so no folder delays others.
    samples: VecDeque<(u32, u64, u64)>,
    /// The latest samples by mirror and folder.
    sampled: HashMap<(u32, u64), FolderSample>,
    retries: BinaryHeap<Reverse<(Instant, u32, u64)>>,
    /// The number of failed checks of missing files.
    failures: HashMap<(u32, u64), u8>,
}

/// The latest sample of a folder.
#[derive(Debug)]
struct FolderSample {
    at: Instant,
    /// The redirects since then.
    redirects: u32,
    is_waiting: bool,
}

#[derive(Debug, Default)]
struct MirrorChecks {
    waiting: VecDeque<u64>,
    in_flight: usize,
    /// The time of the latest check.
    at: Option<Instant>,
}

impl Checks {
    /// Adds a redirect for a file of `folder`, unless a sample of the folder waits or was made a few redirects ago.
    pub(super) fn sample(&mut self, mirror: u32, key: u64, folder: u64, cause: OfferCause, now: Instant) {
        let is_old = |sample: &FolderSample| now.saturating_duration_since(sample.at) >= SAMPLE_INTERVAL;
        if let Some(latest) = self.sampled.get_mut(&(mirror, folder)) {
            latest.redirects += 1;
            let is_early = latest.redirects < SAMPLED_REDIRECTS && !is_old(latest);
            if cause == OfferCause::Sample && (latest.is_waiting || is_early) {
                return;
            }
        } else if self.sampled.len() >= MOST_FOLDERS {
            self.sampled.retain(|_, sample| sample.is_waiting || !is_old(sample));
        }
        let sample = (mirror, key, folder);
        if self.samples.len() < MOST_SAMPLES
            && (cause == OfferCause::Sample || !self.samples.contains(&sample))
        {
            self.sampled.insert((mirror, folder), FolderSample { at: now, redirects: 0, is_waiting: true });
            self.samples.push_back(sample);
        }
    }

    /// Adds a check of low priority; `false` if too many wait.
    pub(super) fn queue(&mut self, mirror: u32, key: u64) -> bool {
        let waiting = &mut self.mirrors.entry(mirror).or_default().waiting;
        let has_room = waiting.len() < MOST_WAITING;
        if has_room {
            waiting.push_back(key);
        }
        has_room
    }

    /// Adds a check before others that wait.
    pub(super) fn queue_first(&mut self, mirror: u32, key: u64) {
        let waiting = &mut self.mirrors.entry(mirror).or_default().waiting;
        waiting.push_front(key);
        waiting.truncate(MOST_WAITING);
    }

    /// Checks a missing file again later.
    pub(super) fn retry_later(&mut self, mirror: u32, key: u64, now: Instant) {
        let failures = self.failures.entry((mirror, key)).or_default();
        let pause = FIRST_RETRY.saturating_mul(1 << (*failures).min(10)).min(LAST_RETRY);
        *failures = failures.saturating_add(1);
        self.retries.push(Reverse((now + pause, mirror, key)));
    }

    /// The mirror has the file.
    pub(super) fn forget(&mut self, mirror: u32, key: u64) {
        self.failures.remove(&(mirror, key));
    }

    /// The checks to start in this round: a few samples, and of each mirror at most one other check, and at most 50 per second.
    pub(super) fn next(&mut self, now: Instant) -> Vec<Check> {
        while let Some(Reverse((at, mirror, key))) = self.retries.peek().copied() {
            if at > now || !self.queue(mirror, key) {
                break;
            }
            self.retries.pop();
        }
        let mut next = Vec::new();
        for _ in 0..self.samples.len().min(SAMPLES_OF_ROUND) {
            let Some((mirror, key, folder)) = self.samples.pop_front() else { break };
            let checks = self.mirrors.entry(mirror).or_default();
            if checks.in_flight >= MOST_IN_FLIGHT {
                // The samples of other mirrors precede it.
                self.samples.push_back((mirror, key, folder));
                continue;
            }
            checks.in_flight += 1;
            if let Some(sample) = self.sampled.get_mut(&(mirror, folder)) {
                *sample = FolderSample { at: now, redirects: 0, is_waiting: false };
            }
            next.push(Check { mirror, key, is_sample: true });
        }
        for (mirror, checks) in &mut self.mirrors {
            let is_early = checks.at.is_some_and(|at| now.saturating_duration_since(at) < CHECK_PAUSE);
            if checks.in_flight >= MOST_IN_FLIGHT || is_early {
                continue;
            }
            if let Some(key) = checks.waiting.pop_front() {
                checks.in_flight += 1;
                checks.at = Some(now);
                next.push(Check { mirror: *mirror, key, is_sample: false });
            }
        }
        next
    }

    /// A check has ended.
    pub(super) fn end(&mut self, mirror: u32) {
        if let Some(checks) = self.mirrors.get_mut(&mirror) {
            checks.in_flight = checks.in_flight.saturating_sub(1);
        }
    }

    /// The mirror left the list.
    pub(super) fn remove(&mut self, mirror: u32) {
        self.mirrors.remove(&mirror);
        self.samples.retain(|(own, ..)| *own != mirror);
        self.sampled.retain(|(own, _), _| *own != mirror);
        self.failures.retain(|(own, _), _| *own != mirror);
        self.retries.retain(|Reverse((_, own, _))| *own != mirror);
    }

    /// No check is in flight any more, after a restart of the actor.
    pub(super) fn restart(&mut self) {
        self.mirrors.values_mut().for_each(|checks| checks.in_flight = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(checks: &mut Checks, now: Instant) -> Vec<(u32, u64, bool)> {
        checks.next(now).into_iter().map(|check| (check.mirror, check.key, check.is_sample)).collect()
    }

    #[test]
    fn a_folder_is_sampled_every_few_redirects_and_failures_always() {
        let (mut checks, mut now) = (Checks::default(), Instant::now());
        for key in 10..13 {
            checks.sample(1, key, 7, OfferCause::Sample, now);
        }
        checks.sample(2, 11, 7, OfferCause::Sample, now);
        checks.sample(1, 12, 7, OfferCause::Failure, now);
        checks.sample(1, 12, 7, OfferCause::Failure, now);
        assert_eq!(keys(&mut checks, now), [(1, 10, true), (2, 11, true), (1, 12, true)]);
        for key in 20..30 {
            checks.sample(1, key, 7, OfferCause::Sample, now);
        }
        assert_eq!(keys(&mut checks, now), [(1, 21, true)]);
        checks.sample(1, 30, 7, OfferCause::Sample, now);
        assert_eq!(keys(&mut checks, now), []);
        now += SAMPLE_INTERVAL;
        checks.sample(1, 40, 7, OfferCause::Sample, now);
        assert_eq!(keys(&mut checks, now), [(1, 40, true)]);
    }

    #[test]
    fn samples_precede_other_checks_and_the_checks_in_flight_are_limited() {
        let (mut checks, mut now) = (Checks::default(), Instant::now());
        for key in 0..10 {
            assert!(checks.queue(3, key));
        }
        checks.sample(3, 99, 7, OfferCause::Sample, now);
        assert_eq!(keys(&mut checks, now), [(3, 99, true), (3, 0, false)]);
        for key in 1..3 {
            assert_eq!(keys(&mut checks, now), []);
            now += CHECK_PAUSE;
            assert_eq!(keys(&mut checks, now), [(3, key, false)]);
        }
        now += CHECK_PAUSE;
        assert_eq!(keys(&mut checks, now), []);
        // A mirror that does not answer delays no other.
        for folder in 0..10 {
            checks.sample(3, 50 + folder, folder, OfferCause::Sample, now);
        }
        checks.sample(4, 7, 7, OfferCause::Sample, now);
        let mut all = Vec::new();
        for _ in 0..3 {
            all.extend(keys(&mut checks, now));
        }
        assert_eq!(all, [(4, 7, true)]);
        checks.end(3);
        assert_eq!(keys(&mut checks, now).len(), 1);
        checks.remove(3);
        assert_eq!(keys(&mut checks, now), []);
    }

    #[test]
    fn a_missing_file_is_checked_again_ever_less_often() {
        let (mut checks, mut now) = (Checks::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            checks.retry_later(1, 5, now);
            let start = now;
            while keys(&mut checks, now).is_empty() {
                now += Duration::from_secs(30);
            }
            pauses.push((now - start).as_secs() / 60);
            checks.end(1);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
