//! The limits that depend on time and on the redirects so far.
//!
//! A server that has reached a limit is *suspended*: no client is sent there. A server without a load report that has got
//! more than its allotment of the redirects is *busy*: near clients are sent to the next band if that has a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use super::{ClientView, Exclusion, Reach};
use crate::balancer::backends::rules::BackendRules;
use crate::balancer::policy::{MirrorSet, PolicyName, ServerFilter, SetLine, Timestamp};
use crate::balancer::ranking::selection::Eligibility;
use crate::balancer::ranking::table::BackendEntry;

/// The shortest time in which `max_redirects` are counted. The next table after it starts a new count.
const SECOND: u64 = Duration::from_secs(1).as_nanos() as u64;

/// The redirects that a server may get at once beyond its allotment.
const BURST: u64 = 16;

/// Fractions of a redirect in the clock of allotments.
const PARTS: u64 = 256;

/// A set of these numbers.
pub(super) fn set(lines: usize, numbers: impl Iterator<Item = u32>) -> Box<[SetLine]> {
    let lines: Box<[SetLine]> = (0..lines).map(|_| SetLine::default()).collect();
    numbers.for_each(|number| MirrorSet::new(&lines).insert(number));
    lines
}

/// The use of a server with a limit. All tables share it as long as the server is in the list.
#[derive(Debug)]
pub(crate) struct ServerUsage {
    /// The number of the month of `bytes`.
    month: AtomicU32,
    /// The bytes of all downloads in this month.
    bytes: AtomicU64,
    /// The start of the count of redirects; `u64::MAX` before the first one.
    counted_from: AtomicU64,
    /// The number of redirects at that time.
    redirects_before: AtomicU64,
}

impl Default for ServerUsage {
    fn default() -> Self {
        Self {
            month: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            counted_from: AtomicU64::new(u64::MAX),
            redirects_before: AtomicU64::new(0),
        }
    }
}

impl ServerUsage {
    /// The month and its bytes, for the next run.
    #[must_use]
    pub(crate) fn remember(&self) -> (u32, u64) {
        (self.month.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// Continues an earlier run.
    pub(crate) fn restore(&self, (month, bytes): (u32, u64)) {
        self.month.store(month, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }

    /// Starts a new month or second if the time has come.
    fn advance(&self, redirects: u64, now: Timestamp, time: UtcTime) {
        if self.month.swap(time.month, Relaxed) != time.month {
            self.bytes.store(0, Relaxed);
        }
        let from = self.counted_from.load(Relaxed);
        if from == u64::MAX || now.0.saturating_sub(from) >= SECOND {
            self.counted_from.store(now.0, Relaxed);
            self.redirects_before.store(redirects, Relaxed);
        }
    }

    fn redirects(&self, redirects: u64) -> u64 {
        redirects.saturating_sub(self.redirects_before.load(Relaxed))
    }
}

/// The hour of the day, and the number of the month, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UtcTime {
    pub(super) hour: u8,
    pub(super) month: u32,
}

impl UtcTime {
    /// The parts of a time. Months begin as in the Gregorian calendar, and are counted from a March.
    pub(super) fn of(wall: SystemTime) -> Self {
        let seconds = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        // Days since the 1st of March of the year 0, after which leap days are the last days of their year.
        let day = seconds / 86_400 + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (era * 400 + year) * 12 + (5 * day + 2) / 153;
        Self { hour: (seconds / 3_600 % 24) as u8, month: month as u32 }
    }
}

/// The limit that a server has reached.
fn suspension(
    rules: &BackendRules,
    usage: Option<&ServerUsage>,
    redirects: u64,
    hour: u8,
) -> Option<Exclusion> {
    if rules.hours.is_some_and(|hours| !hours.contains(hour)) {
        return Some(Exclusion::Hours);
    }
    let usage = usage?;
    let is_reached = |most: &u64| usage.redirects(redirects) >= *most;
    if let Some(most) = rules.max_redirects.filter(is_reached) {
        return Some(Exclusion::Redirects(most));
    }
    let most = rules.monthly_bytes.filter(|most| usage.bytes.load(Relaxed) >= *most);
    most.map(Exclusion::MonthlyBytes)
}

/// The part of the redirects that a server may get as a near one: an interval of redirects of all servers for each of its
/// own (a leaky bucket, whose clock is the number of redirects).
#[derive(Debug, Default)]
pub(super) struct Allotment {
    /// The time of the clock up to which its redirects last.
    until: AtomicU64,
}

/// The reach of the servers in one table.
#[derive(Debug)]
pub(crate) struct TableReach {
    reach: Arc<Reach>,
    /// The servers that have reached a limit.
    suspended: Box<[SetLine]>,
    /// The interval of the allotment of each server by its number, in parts of a redirect; 0 for no limit.
    intervals: Box<[u32]>,
}

impl TableReach {
    /// The reach of the candidates among `entries`. Must be made for each table, at least once a second.
    #[must_use]
    pub(crate) fn new(
        reach: Arc<Reach>,
        entries: &[BackendEntry],
        policy: PolicyName,
        now: Timestamp,
        wall: SystemTime,
    ) -> Self {
        let time = UtcTime::of(wall);
        let is_suspended = |entry: &&BackendEntry| {
            let Some(rules) = entry.backend.rules() else { return false };
            let redirects = entry.load.redirects();
            if let Some(usage) = &entry.usage {
                usage.advance(redirects, now, time);
            }
            suspension(rules, entry.usage.as_deref(), redirects, time.hour).is_some()
        };
        let suspended = entries.iter().filter(is_suspended).map(|entry| entry.load.number());
        let intervals =
            if reach.has_geography() { intervals(&reach, entries, policy) } else { Box::default() };
        Self { suspended: set(reach.lines, suspended), intervals, reach }
    }

    /// The rules of the list.
    #[must_use]
    pub(crate) fn reach(&self) -> &Arc<Reach> {
        &self.reach
    }

    /// The servers that clients with this view may get for a file of this size, if it is known.
    #[must_use]
    pub(crate) fn admitted<'a>(&'a self, view: &'a ClientView, file_size: Option<u64>) -> Admitted<'a> {
        let file_size = file_size.filter(|_| !self.reach.file_sizes.is_empty());
        Admitted { table: self, within: view.allowed(), file_size, refuses_busy: false }
    }

    /// The multiple of the time on an idle server, or of the fair share, from which a near server is busy.
    #[must_use]
    pub(crate) fn spill_factor(&self) -> f32 {
        self.reach.spill_factor as f32
    }

    /// The limit of an entry that excludes it now.
    #[must_use]
    pub(crate) fn suspension(entry: &BackendEntry, wall: SystemTime) -> Option<Exclusion> {
        let (rules, redirects) = (entry.backend.rules()?, entry.load.redirects());
        suspension(rules, entry.usage.as_deref(), redirects, UtcTime::of(wall).hour)
    }

    /// The limit for the sizes of files that excludes an entry.
    #[must_use]
    pub(crate) fn size_exclusion(entry: &BackendEntry, file_size: Option<u64>) -> Option<Exclusion> {
        let (rules, size) = (entry.backend.rules()?, file_size?);
        let (min, max) = (rules.min_file_size.unwrap_or(0), rules.max_file_size.unwrap_or(u64::MAX));
        (!(min..=max).contains(&size)).then_some(Exclusion::FileSize { size, min, max })
    }

    /// Counts a redirect to an entry, for a download of `bytes` bytes.
    pub(crate) fn redirected(&self, entry: &BackendEntry, bytes: f32) {
        let number = entry.load.number();
        if !self.intervals.is_empty() {
            let clock = self.reach.redirects.fetch_add(1, Relaxed) * PARTS;
            if let Some((interval, allotment)) = self.allotment(number) {
                let until = allotment.until.load(Relaxed).max(clock) + interval;
                // A server that got clients of all bands is near again soon.
                allotment.until.store(until.min(clock + 2 * BURST * interval), Relaxed);
            }
        }
        if let (Some(usage), Some(rules)) = (&entry.usage, entry.backend.rules()) {
            usage.bytes.fetch_add(bytes as u64, Relaxed);
            if rules.max_redirects.is_some_and(|most| usage.redirects(entry.load.redirects()) >= most) {
                MirrorSet::new(&self.suspended).insert(number);
            }
        }
    }

    /// The interval and the allotment of a server that has one.
    fn allotment(&self, number: u32) -> Option<(u64, &Allotment)> {
        let interval = self.intervals.get(number as usize).filter(|interval| **interval > 0)?;
        Some((u64::from(*interval), self.reach.allotments.get(number as usize)?))
    }

    fn is_busy(&self, number: u32) -> bool {
        let clock = self.reach.redirects.load(Relaxed) * PARTS;
        let is_busy = |(interval, allotment): (u64, &Allotment)| {
            allotment.until.load(Relaxed) > clock + BURST * interval
        };
        self.allotment(number).is_some_and(is_busy)
    }
}

/// The intervals of the candidates. Servers with load reports are judged by these under `adaptive`.
fn intervals(reach: &Reach, entries: &[BackendEntry], policy: PolicyName) -> Box<[u32]> {
    let weight = |entry: &BackendEntry| match entry.eligibility {
        Eligibility::Chosen(share) => f64::from(entry.weight()) * share,
        _ => 0.0,
    };
    let all: f64 = entries.iter().map(weight).sum();
    let mut intervals = vec![0; reach.allotments.len()];
    for entry in entries {
        let is_judged_by_reports = policy == PolicyName::Adaptive && entry.had_usable_report;
        let weight = weight(entry);
        if let Some(interval) = intervals.get_mut(entry.load.number() as usize)
            && weight > 0.0
            && !is_judged_by_reports
        {
            let fair = all / weight;
            *interval = (fair * PARTS as f64 / f64::from(reach.spill_factor)).max(1.0) as u32;
        }
    }
    intervals.into()
}

/// The servers that a request may get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admitted<'a> {
    table: &'a TableReach,
    within: MirrorSet<'a>,
    file_size: Option<u64>,
    refuses_busy: bool,
}

impl<'a> Admitted<'a> {
    /// The servers of a set of near ones, without busy ones.
    #[must_use]
    pub(crate) fn near(self, within: MirrorSet<'a>) -> Self {
        Self { within, refuses_busy: true, ..self }
    }
}

impl ServerFilter for Admitted<'_> {
    fn admits(&self, number: u32) -> bool {
        let fits = |size: &u64| {
            let sizes = self.table.reach.file_sizes.get(number as usize);
            sizes.is_none_or(|sizes| sizes.contains(size))
        };
        self.within.contains(number)
            && !MirrorSet::new(&self.table.suspended).contains(number)
            && self.file_size.as_ref().is_none_or(fits)
            && !(self.refuses_busy && self.table.is_busy(number))
    }
}
