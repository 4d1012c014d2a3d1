//! Who fetches which bytes: failover, hedging, several sources with work stealing. Pure: it is told what happened and
//! when, and says what to do.
//!
//! Bytes that are missing and that no run under way will bring are *free*. A ready source takes free bytes first; where
//! none are left and it pays, it takes the tail of the run that would last longest, in proportion to the two
//! rates. Near the end, where a run is too short to split, it is fetched twice and the first to bring a byte
//! wins it.
//!
//! Invariants: every missing byte is free or within a run; a byte is accepted once; a source carries at most
//! one run; the end of a run only ever moves down.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

mod asking;
mod deciding;
mod range;
mod run;
mod settings;
mod sharing;
#[cfg(test)]
mod simulation;
mod source;

use asking::Asking;
use run::{Attention, Phase, Race, Rival, Run};

pub use range::{ByteRange, RangeSet};
pub use settings::PlanSettings;
pub use source::{Availability, Failure, Ranges, Source};

/// A source's number, in the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub usize);

/// A run's number; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask `source` for `range`. Where `range` begins at 0 and is all that is known of the file, a plain request will do.
    Start {
        /// The new run.
        run: RunId,
        /// Who is asked.
        source: SourceId,
        /// For what; the end is `u64::MAX` while the size is unknown.
        range: ByteRange,
    },
    /// The run ends at `end` now, before what it asked for.
    Shorten {
        /// The run.
        run: RunId,
        /// The byte before which it stops.
        end: u64,
    },
    /// The run is of no more use.
    Stop {
        /// The run.
        run: RunId,
    },
    /// The run was silent for too long; the failure of its source is noted.
    Drop {
        /// The run.
        run: RunId,
        /// How long it was silent.
        silence: Duration,
    },
    /// Ask the balancer for other sources; answered by [`Plan::asked`].
    Ask,
}

/// Where the download stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Something is under way, or will be at [`Plan::next_wake`].
    Working,
    /// No byte is missing.
    Complete,
    /// Nobody is left who could bring what is missing.
    Stuck,
}

/// Whether there is a balancer that could name other sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balancer {
    /// There is.
    Present,
    /// The address leads straight to a server.
    Absent,
}

/// Whether the file may be asked for in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// A changed file would be noticed.
    Allowed,
    /// It would not: only a whole answer of one source is safe.
    Forbidden,
}

/// The plan of one download.
#[derive(Debug)]
pub struct Plan {
    settings: PlanSettings,
    sources: Vec<Source>,
    runs: BTreeMap<RunId, Run>,
    next_run: u64,
    size: Option<u64>,
    missing: RangeSet,
    parts: Parts,
    balancer: Balancer,
    asking: Asking,
    /// Whether a second source was found worth it; from then on idle ones go on helping.
    is_shared: bool,
}

impl Plan {
    /// A plan for a file of which `done` is there already. Its size may come later.
    #[must_use]
    pub fn new(settings: PlanSettings, size: Option<u64>, done: &RangeSet, balancer: Balancer) -> Self {
        let mut missing = RangeSet::of(ByteRange::new(0, size.unwrap_or(u64::MAX)));
        for range in done.iter() {
            missing.remove(range);
        }
        Self {
            settings,
            sources: Vec::new(),
            runs: BTreeMap::new(),
            next_run: 0,
            size,
            missing,
            parts: Parts::Forbidden,
            balancer,
            asking: Asking::default(),
            is_shared: false,
        }
    }

    /// Adds a source that may be asked at once.
    pub fn add_source(&mut self) -> SourceId {
        self.sources.push(Source::new());
        SourceId(self.sources.len().saturating_sub(1))
    }

    /// What is known of a source.
    #[must_use]
    pub fn source(&self, source: SourceId) -> Option<&Source> {
        self.sources.get(source.0)
    }

    /// The bytes that are not there yet.
    #[must_use]
    pub fn missing(&self) -> &RangeSet {
        &self.missing
    }

    /// The size, once known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Whether parts may be asked for.
    pub fn allow_parts(&mut self, parts: Parts) {
        self.parts = parts;
    }

    /// The file turned out to have `size` bytes.
    pub fn size_is(&mut self, size: u64) {
        self.size = Some(size);
        self.missing.remove(ByteRange::new(size, u64::MAX));
        for run in self.runs.values_mut() {
            run.end = run.end.min(size);
        }
    }

    /// Nothing is there, and what was known of the size was said of another version.
    pub fn forget_size(&mut self) {
        let Some(size) = self.size.take() else { return };
        self.missing = RangeSet::of(ByteRange::new(0, u64::MAX));
        for run in self.runs.values_mut().filter(|run| run.end == size) {
            run.end = u64::MAX;
        }
    }

    /// The runs whose answers have begun.
    pub fn answered(&self) -> impl Iterator<Item = RunId> + '_ {
        self.runs.iter().filter(|(_, run)| run.phase == Phase::Streaming).map(|(id, _)| *id)
    }

    /// These bytes are not there after all: they were wrong.
    pub fn discard(&mut self, range: ByteRange) {
        self.missing.insert(range.intersection(&ByteRange::new(0, self.size.unwrap_or(u64::MAX))));
    }

    /// The source is not to be asked again.
    pub fn exclude(&mut self, source: SourceId) {
        if let Some(source) = self.sources.get_mut(source.0) {
            source.availability = Availability::Out;
        }
    }

    /// Whether the source is not to be asked again.
    #[must_use]
    pub fn is_excluded(&self, source: SourceId) -> bool {
        self.source(source).is_none_or(|source| source.availability == Availability::Out)
    }

    /// The source may be asked after all.
    pub fn readmit(&mut self, source: SourceId) {
        if let Some(source) = self.sources.get_mut(source.0) {
            source.availability = Availability::Ready;
            source.failures = 0;
        }
    }

    /// Takes in a run that is under way already: the balancer's address itself answered.
    pub fn adopt(&mut self, source: SourceId, range: ByteRange, now: Instant) -> RunId {
        self.begin(source, range, None, now)
    }

    /// The head of the run's answer came, and its bytes follow from `start` on.
    pub fn head_came(&mut self, id: RunId, start: u64, now: Instant) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.next = start;
        run.phase = Phase::Streaming;
        let latency = now.duration_since(run.started);
        run.heard = now;
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.head_came(latency, now);
        }
    }

    /// The answer to the run announces no byte from `end` on: what it does not bring is asked for in another run.
    pub fn announced(&mut self, id: RunId, end: u64) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.end = run.end.min(end);
        }
    }

    /// The least that the file has, going by what is there: its size, where that is known.
    #[must_use]
    pub fn least_size(&self) -> u64 {
        self.size.unwrap_or_else(|| self.missing.iter().last().map_or(0, |rest| rest.start))
    }

    /// From now on nobody listens to the run: what the client itself waits for is not the source's silence.
    pub fn turned_away(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.attention = Attention::Elsewhere;
        }
    }

    /// From now on the run is listened to.
    pub fn listened(&mut self, id: RunId, now: Instant) {
        if let Some(run) = self.runs.get_mut(&id)
            && run.attention == Attention::Elsewhere
        {
            run.attention = Attention::Listening;
            run.heard = now;
        }
    }

    /// The process did not run for a while, such as between SIGSTOP and SIGCONT: the silence of that time does not count.
    pub fn was_suspended(&mut self, now: Instant) {
        for run in self.runs.values_mut() {
            run.heard = now;
            if run.phase == Phase::Waiting {
                run.started = now;
            }
        }
    }

    /// `count` bytes came on the run; those of them that were still missing, which are to be kept.
    ///
    /// The run is over once its last byte came; [`finished`](Self::finished) need not be called then.
    pub fn received(&mut self, id: RunId, count: u64, now: Instant) -> Vec<ByteRange> {
        let Some(run) = self.runs.get_mut(&id) else { return Vec::new() };
        let came = ByteRange::new(run.next, run.next.saturating_add(count));
        run.next = came.end;
        run.heard = now;
        run.received = run.received.saturating_add(count);
        let wanted = came.intersection(&ByteRange::new(came.start, run.end));
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.bytes_came(count, now);
        }
        let is_over = run.next >= run.end;
        let fresh = self.missing.within(wanted);
        self.missing.remove(wanted);
        run.kept = run.kept.saturating_add(fresh.iter().map(ByteRange::len).sum());
        if !fresh.is_empty() {
            self.asking.fruitless = 0;
        }
        if is_over {
            self.finished(id, now);
        }
        fresh
    }

    /// The run brought what it announced. That the file ends there, it does not say.
    pub fn finished(&mut self, id: RunId, now: Instant) {
        let Some(run) = self.runs.remove(&id) else { return };
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.failures = 0;
            source.run_ended(now);
        }
    }

    /// The run is over before it brought anything, without blame: its source is asked again in other words.
    pub fn withdraw(&mut self, id: RunId, now: Instant) {
        let Some(run) = self.runs.remove(&id) else { return };
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.run_ended(now);
        }
    }

    /// The run failed; `jitter` is a random number in 0..1.
    pub fn failed(&mut self, id: RunId, failure: Failure, jitter: f64, now: Instant) {
        let Some(run) = self.runs.remove(&id) else { return };
        if let Some(source) = self.sources.get_mut(run.source.0) {
            source.run_ended(now);
            source.failed(failure, run.kept, &self.settings, jitter, now);
        }
    }

    /// The numbers it goes by.
    #[must_use]
    pub fn settings(&self) -> &PlanSettings {
        &self.settings
    }

    /// Whether a source is ready, or at work without having failed.
    #[must_use]
    pub fn is_trusted(&self, source: SourceId) -> bool {
        let is_silent = self.runs.values().any(|run| run.source == source && run.phase == Phase::Waiting);
        !is_silent
            && self
                .source(source)
                .is_some_and(|source| source.failures == 0 && source.availability == Availability::Ready)
    }

    /// The source says that it sends no parts.
    pub fn refuses_ranges(&mut self, source: SourceId) {
        if let Some(source) = self.sources.get_mut(source.0) {
            source.ranges = Ranges::Refused;
        }
    }

    /// Whether any byte came.
    #[must_use]
    pub fn has_received(&self) -> bool {
        self.missing != RangeSet::of(ByteRange::new(0, self.size.unwrap_or(u64::MAX)))
    }

    /// Whether the run is still under way.
    #[must_use]
    pub fn is_running(&self, id: RunId) -> bool {
        self.runs.contains_key(&id)
    }

    /// Whether every source is out, and none has anything under way.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.runs.is_empty() && self.sources.iter().all(|source| source.availability == Availability::Out)
    }

    /// No more retries: whoever is resting or failing now is out.
    pub fn lose_patience(&mut self) {
        self.settings.max_failures = 0;
        self.balancer = Balancer::Absent;
        for source in &mut self.sources {
            if matches!(source.availability, Availability::Resting(_)) {
                source.availability = Availability::Out;
            }
        }
    }

    /// Where the download stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let anybody = self.sources.iter().any(|source| source.availability != Availability::Out)
            || !self.runs.is_empty();
        if self.size.is_some() && self.missing.is_empty() {
            Standing::Complete
        } else if anybody || self.may_ask() || self.asking.under_way {
            Standing::Working
        } else {
            Standing::Stuck
        }
    }
}
