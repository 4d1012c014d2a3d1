//! Several sources at once: which source helps which run, with how many bytes, and which source is replaced
//! because it is too slow.

use tokio::time::Instant;

use super::{Action, ByteRange, DownloadPlan, Parts, Race, RangeSupport, RunId, RunPhase, SourceId};

/// A source below this fraction of the median rate is replaced by a source that was not tried yet.
const TOO_SLOW: f64 = 0.15;

/// A run is fetched twice if the second source needs less than this fraction of the remaining time.
const WORTH_TWICE: f64 = 0.5;

impl DownloadPlan {
    /// The part of `gap` to assign to a source: all of it while only one source is in use, then the bytes that the source
    /// sends in the lease time, or the minimum if its rate is unknown.
    pub(super) fn lease(&self, source: SourceId, gap: ByteRange) -> ByteRange {
        if !self.is_shared || self.size().is_none() {
            return gap;
        }
        ByteRange::new(gap.start, gap.end.min(gap.start.saturating_add(self.lease_bytes(source))))
    }

    fn lease_bytes(&self, source: SourceId) -> u64 {
        let rate = self.source(source).and_then(super::Source::rate).unwrap_or(0.0);
        ((rate * self.settings.lease_time.as_secs_f64()) as u64).max(self.settings.lease_min)
    }

    /// Assigns idle sources to the runs with the most time left, if it saves enough time.
    pub(super) fn share(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.parts() == Parts::Forbidden || self.size().is_none() {
            return;
        }
        self.replace_slow_run(now);
        while self.runs.len() < self.settings.max_sources && self.free().is_empty() {
            let Some(victim) = self.longest_run() else { return };
            let Some(helper) = self.helper(victim, now) else { return };
            if !self.is_shared && !self.saves_time(now) {
                return;
            }
            if !self.help(victim, helper, now, actions) {
                return;
            }
        }
    }

    fn helper(&self, victim: RunId, now: Instant) -> Option<SourceId> {
        let end = self.runs.get(&victim)?.end;
        // A helper always sends a part.
        self.idle_source(ByteRange::new(end.saturating_sub(1).max(1), end), now)
    }

    /// Whether a second source would save enough time.
    fn saves_time(&self, now: Instant) -> bool {
        let rate: f64 = self.streaming().filter_map(|(_, run)| self.source(run.source)?.rate()).sum();
        let sampled = self
            .streaming()
            .any(|(_, run)| now.duration_since(run.started) >= self.settings.sample_time && run.received > 0);
        let is_large = self.size().is_some_and(|size| size > self.settings.parallel_size);
        let least = if is_large { self.settings.parallel_time } else { self.settings.parallel_time_small };
        sampled && rate > 0.0 && self.bytes.missing().len() as f64 / rate > least.as_secs_f64()
    }

    fn streaming(&self) -> impl Iterator<Item = (RunId, &super::Run)> {
        self.runs.iter().filter(|(_, run)| run.phase == RunPhase::Streaming).map(|(&id, run)| (id, run))
    }

    /// The run with the most time left, among those with a known rate.
    fn longest_run(&self) -> Option<RunId> {
        let time_left = |run: &super::Run| {
            let rate = self.source(run.source)?.rate()?;
            Some(run.end.saturating_sub(run.next) as f64 / rate.max(1.0))
        };
        self.streaming()
            .filter(|(_, run)| run.rival.is_none())
            .filter_map(|(id, run)| Some((id, time_left(run)?)))
            .max_by(|one, two| one.1.total_cmp(&two.1))
            .map(|(id, _)| id)
    }

    /// Assigns `helper` the tail of the run `victim`, or all of it as a race. Returns whether it was
    /// worthwhile.
    fn help(&mut self, victim: RunId, helper: SourceId, now: Instant, actions: &mut Vec<Action>) -> bool {
        let Some(run) = self.runs.get(&victim) else { return false };
        let (Some(own), Some(other)) = (self.source(run.source), self.source(helper)) else { return false };
        let (next, end) = (run.next, run.end);
        let left = end.saturating_sub(next) as f64;
        let rate = own.rate().unwrap_or(1.0).max(1.0);
        let helper_rate = other.rate().unwrap_or(rate).max(1.0);
        let latency = other.latency().as_secs_f64();
        let share = (left - rate * latency).max(0.0) * helper_rate / (rate + helper_rate);
        let bytes = (share as u64).min(self.lease_bytes(helper));
        if bytes >= self.settings.split_min {
            let range = ByteRange::new(end.saturating_sub(bytes), end);
            if let Some(run) = self.runs.get_mut(&victim) {
                run.end = range.start;
            }
            self.is_shared = true;
            let id = self.begin(helper, range, None, now);
            actions.push(Action::Start { run: id, source: helper, range });
            return true;
        }
        let is_faster = latency + left / helper_rate < WORTH_TWICE * left / rate;
        if is_faster && other.rate().is_some() {
            actions.extend(self.begin_rival(victim, helper, Race::Tail, now));
            return true;
        }
        false
    }

    /// If all runs are in use, stops a source that is far slower than the others, so that an untried source
    /// can start.
    fn replace_slow_run(&mut self, now: Instant) {
        if self.runs.len() < self.settings.max_sources || self.runs.len() < 2 {
            return;
        }
        let untried = self.sources.iter().enumerate().any(|(index, source)| {
            source.rate().is_none()
                && source.is_ready(now)
                && source.ranges == RangeSupport::Likely
                && self.runs.values().all(|run| run.source != SourceId(index))
        });
        let mut rates: Vec<(f64, RunId)> = self
            .streaming()
            .filter(|(_, run)| now.duration_since(run.started) >= self.settings.parallel_time)
            .filter_map(|(id, run)| Some((self.source(run.source)?.rate()?, id)))
            .collect();
        rates.sort_by(|one, two| one.0.total_cmp(&two.0));
        let (Some(&(slowest, id)), Some(&(median, _))) = (rates.first(), rates.get(rates.len() / 2)) else {
            return;
        };
        if !untried || slowest >= TOO_SLOW * median {
            return;
        }
        let Some(source) = self.runs.get(&id).map(|run| run.source) else { return };
        self.end_run(id, now);
        if let Some(source) = self.sources.get_mut(source.0) {
            source.back_off(self.settings.cool_down, now);
        }
    }
}
