//! Checks of files to which clients were redirected, and their consequences.

use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use tokio::time::Instant;

use super::PresenceActor;
use crate::balancer::catalogue;
use crate::balancer::presence::checks::{Check, CheckResult, Lack, MOST_EXCEPTIONS};
use crate::balancer::presence::generation::Location;
use crate::balancer::presence::requests::{look, url_of};
use crate::balancer::presence::{CheckOffer, ProofState};

/// The least time between two rebuilds of an index without room.
const REBUILD_INTERVAL: Duration = Duration::from_mins(10);

/// The files of a folder that are checked after the first missing one of a proven mirror.
const NEIGHBOURS: usize = 8;

/// The missing files of a folder after which a proven mirror is suspected to lack the whole folder.
const MOST_MISSING: u32 = 2;

/// The largest number of folders with missing files.
const MOST_FOLDERS: usize = 100_000;

impl PresenceActor {
    pub(super) fn round(&mut self, ctx: &mut Context<Self>) {
        self.apply_scans(ctx);
        let Some(generation) = self.current() else { return };
        let now = Instant::now();
        while let Ok(CheckOffer { key, mirror, cause }) = self.plan.offers.try_recv() {
            if let Some(Location::File(file)) = generation.at(key) {
                let folder = catalogue::key(catalogue::parent(file.path));
                self.checks.sample(mirror, key, folder, cause, now);
            }
        }
        for check in self.checks.next(now) {
            let Check { mirror, key, .. } = check;
            let known = self.mirrors.get(&mirror).filter(|mirror| !mirror.is_origin);
            let (Some(known), Some(Location::File(file))) = (known, generation.at(key)) else {
                self.checks.end(mirror);
                continue;
            };
            let url = url_of(known.id.as_str(), file.path);
            let (content, id, client) = (file.content, known.id.clone(), self.client());
            let checking = async move { look(&client, &url, content).await };
            ctx.spawn(checking.into_actor(self).map(move |result, actor, ctx| {
                actor.checks.end(mirror);
                // Another backend may have the number by now.
                if actor.mirrors.get(&mirror).is_some_and(|known| known.id == id) {
                    actor.checked(check, result, ctx);
                }
            }));
        }
    }

    pub(super) fn checked(&mut self, check: Check, result: CheckResult, ctx: &mut Context<Self>) {
        let Check { mirror, key, is_sample } = check;
        let known = self.plan.presence.exceptions.pin().get(&(key, mirror)).copied();
        let scan = self.mirrors.get_mut(&mirror).and_then(|mirror| mirror.scan.as_mut());
        if let Some(scan) = scan.filter(|_| result != CheckResult::Unknown) {
            scan.note_check(key);
        }
        match result {
            CheckResult::Has => {
                self.plan.metrics.checked("has");
                self.checks.forget(mirror, key);
                if known.is_some() || self.current().is_some_and(|current| current.lacks(key, mirror)) {
                    self.set(key, mirror, None, ctx);
                }
            }
            CheckResult::Lacks(lack) => {
                self.plan.metrics.checked("lacks");
                if is_sample && known.is_none() {
                    self.plan.metrics.missing_redirects.inc();
                }
                self.checks.retry_later(mirror, key, Instant::now());
                let is_set = self.set(key, mirror, Some(lack), ctx);
                if is_set && known.is_none_or(|known| known == Lack::Suspended) {
                    self.lost(key, mirror, lack, ctx);
                }
            }
            CheckResult::Unknown => {
                self.plan.metrics.checked("failed");
                if known.is_some() {
                    self.checks.retry_later(mirror, key, Instant::now());
                }
            }
        }
    }

    /// Checks the folder of a missing file, or excludes the mirror from all its files until they are checked.
    fn lost(&mut self, key: u64, mirror: u32, lack: Lack, ctx: &mut Context<Self>) {
        let Some(generation) = self.current() else { return };
        let (Some(Location::File(file)), Some(known)) = (generation.at(key), self.mirrors.get(&mirror))
        else {
            return;
        };
        let folder = catalogue::parent(file.path);
        let path = String::from_utf8_lossy(file.path);
        let is_proven =
            matches!(known.judge(&self.history, generation.number).state, ProofState::Proven { .. })
                || known.scan.as_ref().is_some_and(|scan| scan.seen().is_some());
        if self.missing.len() >= MOST_FOLDERS {
            self.missing.clear();
        }
        let missing = self.missing.entry((mirror, catalogue::key(folder))).or_default();
        *missing += 1;
        let is_first = *missing == 1;
        let suspends = *missing == if is_proven { MOST_MISSING } else { 1 };
        if is_first {
            tracing::info!(mirror = %known.id, %path, reason = %lack, "a mirror lacks a file; its folder is checked");
        } else {
            tracing::debug!(mirror = %known.id, %path, reason = %lack, "a mirror lacks a file");
        }
        if !is_first && !suspends {
            return;
        }
        let others = generation.catalogue.files_of(folder).map(|entry| catalogue::key(entry.path));
        let others = others
            .filter(|other| *other != key)
            .filter(|other| self.plan.presence.exceptions.pin().get(&(*other, mirror)).is_none());
        if suspends {
            let others: Vec<u64> = others.collect();
            for other in others {
                if !self.checks.queue(mirror, other) || !self.set(other, mirror, Some(Lack::Suspended), ctx) {
                    break;
                }
            }
        } else {
            let others: Vec<u64> = others.take(NEIGHBOURS).collect();
            for other in others {
                self.checks.queue_first(mirror, other);
            }
        }
    }

    /// Records that a mirror lacks a file, or has it; `false` without room.
    pub(super) fn set(&mut self, key: u64, mirror: u32, lack: Option<Lack>, ctx: &mut Context<Self>) -> bool {
        {
            let exceptions = self.plan.presence.exceptions.pin();
            match lack {
                Some(_) if exceptions.len() >= MOST_EXCEPTIONS => {
                    self.plan.metrics.exceptions_dropped.inc();
                    return false;
                }
                Some(lack) => drop(exceptions.insert((key, mirror), lack)),
                None => drop(exceptions.remove(&(key, mirror))),
            }
        }
        let is_set = self.set_bit(key, mirror, lack.is_some(), ctx);
        self.count();
        is_set
    }

    /// Records in the index that a mirror lacks a file, or has it; `false` without room.
    pub(super) fn set_bit(&mut self, key: u64, mirror: u32, lacks: bool, ctx: &mut Context<Self>) -> bool {
        let (Some(generation), Some(interner)) = (self.current(), &mut self.interner) else { return false };
        self.saving.is_changed = true;
        if self.list.is_busy {
            self.changes.push((key, mirror, lacks));
        }
        match interner.set(&generation.index, key, mirror, lacks) {
            Ok(is_set) => is_set,
            Err(error) => {
                tracing::warn!(%error, "a missing file stays in use");
                self.plan.metrics.exceptions_dropped.inc();
                self.plan.presence.exceptions.pin().remove(&(key, mirror));
                let now = Instant::now();
                if self.rebuilt_at.is_none_or(|at| now.saturating_duration_since(at) > REBUILD_INTERVAL) {
                    self.rebuilt_at = Some(now);
                    self.rebuild(ctx);
                }
                false
            }
        }
    }
}
