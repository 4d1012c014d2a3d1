//! Scans of mirrors: their schedule, and the use of their results.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use rand::RngExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;
use url::Url;

use super::PresenceActor;
use crate::balancer::catalogue;
use crate::balancer::presence::checks::{Check, Lack};
use crate::balancer::presence::generation::{FileLocation, Generation, Location};
use crate::balancer::presence::scan::{self, CompleteScan, Finding, FoundFiles, ScanError};
use crate::balancer::presence::snapshot::SeenScan;
use crate::balancer::presence::{ScanState, ScanTime};

/// The scans that run at the same time.
const MOST_SCANS: usize = 4;

/// The paths of a scan that are compared with the index in one round.
const SLICE: u32 = 2048;

/// The pause after the first error is this part of the interval. It doubles with each further error ...
const FIRST_PAUSE: u32 = 8;

/// ... up to this number of intervals.
const LONGEST_PAUSE: u32 = 8;

/// The longest delay of the first scan of a mirror, so that the scans of many mirrors do not start at once.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// The scans of a mirror.
pub(super) struct MirrorScan {
    address: Arc<Url>,
    /// The latest good one.
    seen: Option<SeenScan>,
    /// The reason why the latest one failed.
    error: Option<String>,
    /// The number of errors since the latest good one.
    failures: u32,
    /// The end of the latest one.
    ended: Option<Instant>,
    due: Instant,
    /// Exists while a scan runs, which ends if this is dropped.
    running: Option<oneshot::Sender<()>>,
    /// The files that were checked since the start of the latest scan. These results are newer.
    checked: HashSet<u64>,
    /// A result that the index does not have yet.
    pending: Option<PendingScan>,
}

/// A result that is compared with the index, path by path.
struct PendingScan {
    found: FoundFiles,
    /// The generation to which `next` belongs.
    generation: u64,
    /// The next rank.
    next: u32,
}

impl MirrorScan {
    /// The scans of `address`. `seen` is the latest good one of the earlier run.
    pub(super) fn new(address: &Arc<Url>, seen: Option<SeenScan>, interval: Duration) -> Self {
        let delay = FIRST_DELAY.min(interval).mul_f64(rand::rng().random());
        let since = seen.map(|seen| SystemTime::now().duration_since(seen.at).unwrap_or_default());
        let due = Instant::now() + since.map_or(delay, |since| delay.max(interval.saturating_sub(since)));
        Self {
            address: Arc::clone(address),
            seen,
            error: None,
            failures: 0,
            ended: None,
            due,
            running: None,
            checked: HashSet::new(),
            pending: None,
        }
    }

    /// The address of the listing.
    pub(super) fn address(&self) -> &Arc<Url> {
        &self.address
    }

    /// The latest good scan.
    pub(super) fn seen(&self) -> Option<SeenScan> {
        self.seen
    }

    /// Notes a file that was checked.
    pub(super) fn note_check(&mut self, key: u64) {
        if self.running.is_some() || self.pending.is_some() {
            self.checked.insert(key);
        }
    }

    /// The mirror has changed, so a listing that is read now may be older than its proof.
    pub(super) fn interrupt(&mut self) {
        if self.running.take().is_some() || self.pending.take().is_some() {
            self.due = Instant::now();
        }
    }

    /// No scan runs any more, after a restart of the actor.
    pub(super) fn restart(&mut self) {
        self.running = None;
    }

    fn host(&self) -> String {
        self.address.host_str().unwrap_or_default().to_owned()
    }

    fn has_ended(&mut self, interval: Duration, is_good: bool) {
        let now = Instant::now();
        (self.running, self.ended) = (None, Some(now));
        let pause = if is_good {
            self.failures = 0;
            interval
        } else {
            let pause = interval.saturating_mul(1 << self.failures.min(10)) / FIRST_PAUSE;
            self.failures += 1;
            pause.min(interval.saturating_mul(LONGEST_PAUSE))
        };
        // The jitter separates mirrors that failed at the same time.
        self.due = now + pause.mul_f64(1.0 + 0.2 * rand::rng().random::<f64>());
    }
}

impl PresenceActor {
    /// Starts the scans that are due: one of each host.
    pub(super) fn start_scans(&mut self, ctx: &mut Context<Self>) {
        self.take_scan_requests();
        let Some(generation) = self.current() else { return };
        let now = Instant::now();
        let scans = self.mirrors.iter().filter_map(|(number, mirror)| Some((*number, mirror.scan.as_ref()?)));
        let running = scans.clone().filter(|(_, scan)| scan.running.is_some());
        let mut hosts: Vec<String> = running.map(|(_, scan)| scan.host()).collect();
        let is_due = |(number, scan): &(u32, &MirrorScan)| {
            scan.due <= now
                && scan.running.is_none()
                && scan.pending.is_none()
                && (*number as usize) < generation.capacity()
        };
        let mut due: Vec<_> =
            scans.filter(is_due).map(|(number, scan)| (scan.due, number, scan.host())).collect();
        due.sort_unstable();
        for (_, number, host) in due {
            if hosts.len() < MOST_SCANS && !hosts.contains(&host) {
                hosts.push(host);
                self.start_scan(number, Arc::clone(&generation), ctx);
            }
        }
    }

    fn take_scan_requests(&mut self) {
        let presence = Arc::clone(&self.plan.presence);
        let requests = presence.scan_requests.pin();
        for (number, time) in &requests {
            requests.remove(number);
            let mirror = self.mirrors.get_mut(number);
            if let Some(scan) = mirror.and_then(|mirror| mirror.scan.as_mut()) {
                let now = Instant::now();
                let soonest = scan.ended.map_or(now, |ended| ended + self.plan.scan_interval);
                scan.due = scan.due.min(if *time == ScanTime::Now { now } else { soonest });
                scan.failures = 0;
                self.show_scan(*number);
            }
        }
    }

    fn start_scan(&mut self, number: u32, generation: Arc<Generation>, ctx: &mut Context<Self>) {
        let client = self.client();
        let Some(mirror) = self.mirrors.get_mut(&number).filter(|mirror| !mirror.is_origin) else { return };
        let id = mirror.id.to_string();
        let Some(scan) = &mut mirror.scan else { return };
        let (sender, cancelled) = oneshot::channel::<()>();
        scan.running = Some(sender);
        scan.checked.clear();
        let (started, start) = (SystemTime::now(), rand::rng().random());
        let scanning = scan::scan(client, Arc::clone(&scan.address), id, generation, start);
        let job = async move {
            tokio::select! {
                biased;
                _ = cancelled => None,
                result = scanning => Some(result),
            }
        };
        ctx.spawn(job.into_actor(self).map(move |result, actor, ctx| {
            if let Some(result) = result {
                actor.scanned(number, started, result, ctx);
            }
        }));
        self.show_scan(number);
    }

    fn scanned(
        &mut self,
        number: u32,
        started: SystemTime,
        result: Result<CompleteScan, ScanError>,
        ctx: &mut Context<Self>,
    ) {
        let (interval, metrics) = (self.plan.scan_interval, self.plan.metrics.clone());
        let Some(mirror) = self.mirrors.get_mut(&number) else { return };
        let (id, Some(scan)) = (mirror.id.clone(), &mut mirror.scan) else { return };
        scan.has_ended(interval, result.is_ok());
        // The series of all mirrors could be too many.
        let shows = (number as usize) < self.plan.metrics_backends;
        match result {
            Ok(CompleteScan { found, checked }) => {
                let (generation, files) = (found.generation().number, found.files());
                let all = found.generation().catalogue.files();
                scan.seen = Some(SeenScan { at: started, generation, files: files as u64 });
                scan.error = None;
                scan.pending = Some(PendingScan { found, generation, next: 0 });
                tracing::info!(mirror = %id, files, of = all, "a mirror was scanned");
                if shows {
                    metrics.scanned(id.as_str(), "used", Some((started, files as f64 / all.max(1) as f64)));
                }
                self.saving.is_changed = true;
                for (key, result) in checked {
                    self.checked(Check { mirror: number, key, is_sample: false }, result, ctx);
                }
            }
            Err(error) => {
                let is_refused =
                    matches!(error, ScanError::Disagreement { .. } | ScanError::Unconfirmed { .. });
                tracing::warn!(mirror = %id, %error, "a scan is not used; the last good one stays in force");
                if shows {
                    metrics.scanned(id.as_str(), if is_refused { "refused" } else { "failed" }, None);
                }
                scan.error = Some(error.to_string());
            }
        }
        self.show_scan(number);
    }

    /// Compares the next paths of a finished scan with the index. Each path is evidence of its own, so a part of a scan is never
    /// wrong.
    pub(super) fn apply_scans(&mut self, ctx: &mut Context<Self>) {
        // The next generation must not miss changes.
        let Some(generation) = self.current().filter(|_| !self.list.is_busy) else { return };
        let with_pending = self.mirrors.iter_mut().find_map(|(number, mirror)| {
            let has_proof = mirror.proof.is_some();
            Some((*number, has_proof, mirror.scan.as_mut()?.pending.take()?))
        });
        let Some((number, has_proof, mut pending)) = with_pending else { return };
        if pending.generation != generation.number {
            (pending.generation, pending.next) = (generation.number, 0);
        }
        let paths = generation.index.paths() as u32;
        let end = pending.next.saturating_add(SLICE).min(paths);
        for rank in pending.next..end {
            self.apply(number, &pending.found, &generation, rank, has_proof, ctx);
        }
        pending.next = end;
        if let Some(scan) = self.mirrors.get_mut(&number).and_then(|mirror| mirror.scan.as_mut()) {
            if end < paths {
                scan.pending = Some(pending);
            } else {
                scan.checked.clear();
            }
        }
        self.count();
    }

    fn apply(
        &mut self,
        mirror: u32,
        found: &FoundFiles,
        generation: &Generation,
        rank: u32,
        has_proof: bool,
        ctx: &mut Context<Self>,
    ) {
        let Some(file) = generation.catalogue.entry(rank).filter(|entry| !entry.is_folder) else { return };
        let key = catalogue::key(file.path);
        let scan = self.mirrors.get(&mirror).and_then(|mirror| mirror.scan.as_ref());
        if scan.is_none_or(|scan| scan.checked.contains(&key)) {
            return;
        }
        let Some(Location::File(FileLocation { holders, .. })) = generation.at(key) else { return };
        if has_proof && holders.unproven.contains(mirror) {
            // The next proof decides: the mirror may receive the file now.
            return;
        }
        let exception = self.plan.presence.exceptions.pin().get(&(key, mirror)).copied();
        let is_checked = exception.is_some_and(Lack::is_checked);
        let lacks = holders.lacking.contains(mirror);
        match found.finding(key, &file) {
            // A request has shown that it was missing, so only a request shows that it is back.
            Finding::Listed if is_checked => {
                self.checks.queue(mirror, key);
            }
            Finding::Listed if lacks => {
                self.set(key, mirror, None, ctx);
            }
            Finding::OtherSize(size) if !is_checked => {
                let lack = Lack::ListedSize { found: size, expected: file.content.size.unwrap_or_default() };
                if exception != Some(lack) {
                    self.set(key, mirror, Some(lack), ctx);
                    self.checks.queue(mirror, key);
                }
            }
            Finding::Unlisted if !is_checked => {
                self.plan.presence.exceptions.pin().remove(&(key, mirror));
                if !lacks {
                    self.set_bit(key, mirror, true, ctx);
                }
            }
            // The proof of a mirror includes files that are newer than the scan.
            Finding::Newer if !has_proof && !lacks => {
                self.set_bit(key, mirror, true, ctx);
            }
            _ => {}
        }
    }

    /// Shows the scans of a mirror to the API.
    pub(super) fn show_scan(&self, number: u32) {
        let Some(scan) = self.mirrors.get(&number).and_then(|mirror| mirror.scan.as_ref()) else { return };
        let state = ScanState {
            address: Arc::clone(&scan.address),
            is_running: scan.running.is_some(),
            seen: scan.seen,
            error: scan.error.clone(),
            due: SystemTime::now() + scan.due.saturating_duration_since(Instant::now()),
        };
        self.plan.presence.scans.pin().insert(number, state);
    }
}
