//! Decides the next actions: hedges stalled runs, fills gaps, queries the balancer.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::error::DownloadError;

use super::{
    Action, Availability, ByteRange, DownloadPlan, Failure, Parts, Race, RangeRequest, RangeSet,
    RangeSupport, Rival, Run, RunId, RunPhase, Source, SourceId, TimeoutState,
};

impl DownloadPlan {
    /// The actions to take at `now`.
    pub(crate) fn decide(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.settle_races(now);
        self.watch_silence(now, &mut actions);
        self.clear_faultless_backoff(now);
        self.fill_gaps(now, &mut actions);
        self.share(now, &mut actions);
        self.query_if_needed(now, &mut actions);
        actions
    }

    /// Time of the next call of [`decide`](Self::decide) if no event happens before.
    pub(crate) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let timed = self.runs.values().filter(|run| run.timeouts == TimeoutState::Running);
        let silences = timed.flat_map(|run| {
            let hedge = run.last_activity.checked_add(self.hedge_limit(run)).filter(|_| run.rival.is_none());
            let drop = run.last_activity.checked_add(self.drop_limit(run));
            hedge.into_iter().chain(drop)
        });
        let back_offs = self.sources.iter().filter_map(|source| match source.availability {
            Availability::BackingOff(until) => Some(until),
            _ => None,
        });
        let ask = self.query.not_before.filter(|_| self.may_query() && !self.query.in_progress);
        // The benefit of another source changes with the rates.
        let share = now.checked_add(self.settings.sample_time).filter(|_| {
            self.parts() == Parts::Allowed
                && self.runs.values().any(|run| run.phase == RunPhase::Streaming)
                && self.sources.len() > 1
        });
        silences.chain(back_offs).chain(ask).chain(share).filter(|&at| at > now).min()
    }

    /// Pauses the timeouts of the run while the client is not reading from it.
    pub(crate) fn pause_timeouts(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.timeouts = TimeoutState::Paused;
        }
    }

    /// Resumes the timeouts of the run.
    pub(crate) fn resume_timeouts(&mut self, id: RunId, now: Instant) {
        if let Some(run) = self.runs.get_mut(&id)
            && run.timeouts == TimeoutState::Paused
        {
            run.timeouts = TimeoutState::Running;
            run.last_activity = now;
        }
    }

    /// Restarts all timeouts after the process was suspended, for example by SIGSTOP.
    pub(crate) fn restart_timeouts(&mut self, now: Instant) {
        for run in self.runs.values_mut() {
            run.last_activity = now;
            if run.phase == RunPhase::Waiting {
                run.started = now;
            }
        }
    }

    /// Missing bytes that no active run covers.
    pub(super) fn free(&self) -> RangeSet {
        let mut free = self.bytes.missing().clone();
        for run in self.runs.values() {
            free.remove(run.rest());
        }
        free
    }

    pub(super) fn begin(
        &mut self,
        source: SourceId,
        range: ByteRange,
        rival: Option<Rival>,
        now: Instant,
    ) -> RunId {
        let id = RunId(self.next_run);
        self.next_run = self.next_run.saturating_add(1);
        let entry = self.sources.get(source.0);
        let known = self.identity.validator();
        let known = known.filter(|_| entry.is_some_and(|entry| self.identity.is_of(&entry.resource)));
        let validator = entry.and_then(|entry| entry.validator.as_deref()).or(known).map(ToOwned::to_owned);
        let run = Run {
            source,
            request: RangeRequest { range, size: self.size(), validator },
            next: range.start,
            end: range.end,
            phase: RunPhase::Waiting,
            started: now,
            last_activity: now,
            timeouts: TimeoutState::Running,
            received: 0,
            kept: 0,
            rival,
        };
        self.runs.insert(id, run);
        id
    }

    /// Starts a run of `source` for the bytes of the run `beside`.
    pub(super) fn begin_rival(
        &mut self,
        beside: RunId,
        source: SourceId,
        race: Race,
        now: Instant,
    ) -> Option<Action> {
        let run = self.runs.get(&beside)?;
        let range = run.rest();
        let id = self.begin(source, range, Some(Rival { run: beside, race }), now);
        self.runs.get_mut(&beside)?.rival = Some(Rival { run: id, race });
        Some(Action::Start { run: id, source, range })
    }

    /// The best idle source: fewest failures, then fastest, then first named.
    pub(super) fn idle_source(&self, range: ByteRange, now: Instant) -> Option<SourceId> {
        let is_part = range.start > 0 || Some(range.end) != self.size().or(Some(u64::MAX));
        let mut best: Option<(SourceId, &Source)> = None;
        for (index, source) in self.sources.iter().enumerate() {
            let id = SourceId(index);
            let is_idle = source.is_ready(now) && self.runs.values().all(|run| run.source != id);
            if !is_idle || (is_part && source.ranges == RangeSupport::Refused) {
                continue;
            }
            let is_better = best.is_none_or(|(_, other)| {
                let key = |source: &Source| (source.failures, source.rate().is_none());
                let rates = (source.rate().unwrap_or(0.0), other.rate().unwrap_or(0.0));
                key(source) < key(other) || (key(source) == key(other) && rates.0 > rates.1)
            });
            if is_better {
                best = Some((id, source));
            }
        }
        best.map(|(id, _)| id)
    }

    /// Ends first-byte races that are decided, and runs with nothing left to fetch.
    fn settle_races(&mut self, now: Instant) {
        let ids: Vec<RunId> = self.runs.keys().copied().collect();
        for id in ids {
            let Some(run) = self.runs.get(&id) else { continue };
            if self.bytes.missing().within(run.rest()).is_empty() && self.size().is_some() {
                self.end_run(id, now);
                continue;
            }
            let Some(Rival { run: other, race }) = run.rival else { continue };
            let Some(rival) = self.runs.get(&other) else {
                // The rival has ended: this run may be hedged again.
                if let Some(run) = self.runs.get_mut(&id) {
                    run.rival = None;
                }
                continue;
            };
            let is_ahead = run.last_activity > rival.last_activity
                && run.phase == RunPhase::Streaming
                && run.received > 0;
            if race == Race::FirstByte && is_ahead {
                let loser = rival.source;
                self.end_run(other, now);
                if let Some(source) = self.sources.get_mut(loser.0) {
                    source.back_off(self.settings.cool_down, now);
                }
            }
        }
    }

    fn hedge_limit(&self, run: &Run) -> Duration {
        match run.phase {
            // A head without a byte of the body is not progress.
            RunPhase::Streaming if run.received > 0 => self.settings.hedge_after,
            RunPhase::Streaming | RunPhase::Waiting => self
                .source(run.source)
                .map_or(self.settings.head_after, |source| source.head_timeout(&self.settings)),
        }
    }

    /// Timeout of a silent run. It is longer for the only source if a new request would only repeat its work:
    /// before its head, and if it does not support ranges.
    fn drop_limit(&self, run: &Run) -> Duration {
        let is_other = |(index, source): (usize, &Source)| {
            SourceId(index) != run.source && source.availability != Availability::Excluded
        };
        let may_name_others = self.may_query() && self.query.since_progress == 0;
        let is_alone = !may_name_others && !self.sources.iter().enumerate().any(is_other);
        let begins_again = run.phase == RunPhase::Waiting
            || self.parts() == Parts::Forbidden
            || self.source(run.source).is_some_and(|source| source.ranges == RangeSupport::Refused);
        if is_alone && begins_again { self.settings.drop_lone_after() } else { self.settings.drop_after }
    }

    /// Starts a second source beside a stalled run, and drops runs that reached their timeout.
    fn watch_silence(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let ids: Vec<RunId> = self.runs.keys().copied().collect();
        for id in ids {
            let Some(run) = self.runs.get(&id) else { continue };
            if run.timeouts == TimeoutState::Paused {
                continue;
            }
            let silence = now.duration_since(run.last_activity);
            if silence >= self.drop_limit(run) {
                let url = self.name(run.source);
                let error =
                    DownloadError::Silent { url, after: Duration::from_secs(silence.as_secs().max(1)) };
                self.fail(id, Failure::passing(error), 1.0, now);
            } else if silence >= self.hedge_limit(run) && run.rival.is_none() {
                let range = run.rest();
                match self.idle_source(range, now) {
                    Some(source) => actions.extend(self.begin_rival(id, source, Race::FirstByte, now)),
                    None => self.query.wanted = true,
                }
            }
        }
    }

    /// Clears the back-off of sources that were stopped without a failure if no other source is usable and
    /// the balancer offers no new one.
    fn clear_faultless_backoff(&mut self, now: Instant) {
        let was_asked = self.query.since_progress > 0 || !self.may_query();
        let is_idle = self.runs.is_empty() && !self.sources.iter().any(|source| source.is_ready(now));
        if is_idle && was_asked && !self.query.in_progress {
            for source in self.sources.iter_mut().filter(|source| source.failures == 0) {
                if let Availability::BackingOff(_) = source.availability {
                    source.availability = Availability::Ready;
                }
            }
        }
    }

    /// Assigns free bytes to idle sources.
    fn fill_gaps(&mut self, now: Instant, actions: &mut Vec<Action>) {
        loop {
            let Some(gap) = self.free().iter().next() else { return };
            let is_alone = self.runs.is_empty();
            let may_share = self.parts() == Parts::Allowed && self.size().is_some();
            if !is_alone && (!may_share || self.runs.len() >= self.settings.max_sources) {
                return;
            }
            let whole = ByteRange::new(0, self.size().unwrap_or(u64::MAX));
            let chosen = match (self.idle_source(gap, now), self.parts()) {
                (Some(source), Parts::Allowed) => Some((source, self.lease(source, gap))),
                // If a change of the file could not be detected, or the source does not support ranges, the
                // download starts at the first byte.
                (Some(source), Parts::Forbidden) => Some((source, whole)),
                (None, _) if is_alone => self.idle_source(whole, now).map(|source| (source, whole)),
                (None, _) => None,
            };
            let Some((source, range)) = chosen else { return };
            let run = self.begin(source, range, None, now);
            actions.push(Action::Start { run, source, range });
        }
    }
}
