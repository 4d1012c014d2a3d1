//! The thread that reads files and computes their digests.
//!
//! Files that clients request take precedence over those found by a walk, and a large file is read in turns with
//! others.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::super::file_state::{FileState, OpenError, Time};
use super::super::root::{BlockingIo, Root};
use super::background_read::{self, ReadPace};
use super::digest_file::DigestFile;
use super::walk::{Walk, WalkStep};
use super::{MAX_REQUESTS, MOST_DIGESTS, Table};

/// Size of one read, in bytes.
const CHUNK: usize = 256 << 10;

/// Bytes of one file that are read before other files get a turn, so that a small file does not wait for a large one.
const TURN: u64 = 16 << 20;

/// Maximum number of files that are read in turns.
const MOST_OPEN: usize = 16;

/// A look at a file counts as this many bytes for the rate limit.
const LOOK: u64 = 4 << 10;

/// A file is read once its last change is this old. The clocks of file systems do not reliably distinguish shorter
/// times, and the writer may not have finished.
const SETTLED: Duration = Duration::from_secs(2);

/// Pause between two walks. A requested file does not wait for the next walk.
const WALK_EVERY: Duration = Duration::from_hours(1);

/// Shorter waits are accumulated.
const SHORTEST_REST: Duration = Duration::from_millis(1);

pub(super) struct DigestThread {
    root: Arc<Root>,
    table: Arc<Table>,
    asked: Receiver<Box<[u8]>>,
    pace: ReadPace,
    buffer: Vec<u8>,
    /// Requested files that are not open yet.
    waiting: VecDeque<Box<[u8]>>,
    /// Recently changed files, and the time of the next look at each.
    too_recent: VecDeque<(Instant, Box<[u8]>)>,
    open: VecDeque<HashJob>,
    /// The paths of all files in `waiting`, `too_recent` and `open`.
    in_progress: HashSet<Box<[u8]>>,
    walk: Option<Walk>,
    next_walk: Instant,
    /// Whether a file or folder could not be opened during the current walk, so that the walk may have missed files.
    is_walk_partial: bool,
    is_unsaved: bool,
    is_full: bool,
}

/// A file that is being read.
struct HashJob {
    path: Box<[u8]>,
    file: File,
    identity: FileState,
    at: u64,
    hash: Sha256,
}

impl DigestThread {
    pub(super) fn new(
        root: Arc<Root>,
        table: Arc<Table>,
        asked: Receiver<Box<[u8]>>,
        rate: Option<NonZeroU64>,
    ) -> Self {
        let now = Instant::now();
        Self {
            root,
            table,
            asked,
            pace: ReadPace::new(rate, now),
            buffer: vec![0; CHUNK],
            waiting: VecDeque::new(),
            too_recent: VecDeque::new(),
            open: VecDeque::new(),
            in_progress: HashSet::new(),
            walk: None,
            next_walk: now,
            is_walk_partial: false,
            is_unsaved: false,
            is_full: false,
        }
    }

    /// Computes digests until the table requests a stop.
    pub(super) fn run(mut self, mut digest_file: Option<DigestFile>) {
        background_read::lower_priority();
        if let Some(digest_file) = &mut digest_file {
            digest_file.load(&self.table);
        }
        while !self.is_stopping() {
            self.admit();
            let is_busy = self.work();
            let now = Instant::now();
            let save_at = digest_file.as_ref().filter(|_| self.is_unsaved).map(DigestFile::due);
            if let Some(digest_file) = digest_file.as_mut().filter(|_| save_at.is_some_and(|due| due <= now))
            {
                self.is_unsaved = !digest_file.save(&self.table);
            } else if !is_busy {
                self.sleep_until(self.next_work(save_at));
            }
            self.table.pending.store(self.in_progress.len(), Relaxed);
        }
        if let Some(digest_file) = digest_file.as_mut().filter(|_| self.is_unsaved) {
            digest_file.save(&self.table);
        }
    }

    fn is_stopping(&self) -> bool {
        self.table.is_stopping.load(Relaxed)
    }

    /// The time of the next work, if there is no work now.
    fn next_work(&self, save_at: Option<Instant>) -> Instant {
        let too_recent = self.too_recent.front().map(|(due, _)| *due);
        let walk = (!self.is_queue_full()).then_some(self.next_walk);
        let next = [too_recent, walk, save_at].into_iter().flatten().min();
        next.unwrap_or_else(|| Instant::now() + SETTLED)
    }

    /// Whether the queue is full, so that the walk must pause until recently changed files are old enough to read.
    fn is_queue_full(&self) -> bool {
        self.in_progress.len() > MAX_REQUESTS / 2
    }

    /// Does the most urgent piece of work. Returns false if there is no work.
    fn work(&mut self) -> bool {
        if let Some(job) = self.open.pop_front() {
            self.read_turn(job);
        } else if self.is_queue_full() {
            return false;
        } else if self.walk.is_some() || self.next_walk <= Instant::now() {
            self.step();
        } else {
            return false;
        }
        true
    }

    /// Accepts requests, and recently changed files that are old enough now.
    fn admit(&mut self) {
        while let Ok(path) = self.asked.try_recv() {
            self.accept(path);
        }
        let now = Instant::now();
        while self.too_recent.front().is_some_and(|(due, _)| *due <= now) {
            self.waiting.extend(self.too_recent.pop_front().map(|(_, path)| path));
        }
        while self.open.len() < MOST_OPEN {
            let Some(path) = self.waiting.pop_front() else {
                return;
            };
            self.in_progress.remove(&path);
            self.look(path);
        }
    }

    fn accept(&mut self, path: Box<[u8]>) {
        if path.is_empty() || self.in_progress.contains(&path) {
            return;
        }
        if self.in_progress.len() >= MAX_REQUESTS {
            self.leave_out();
            return;
        }
        self.in_progress.insert(path.clone());
        self.waiting.push_back(path);
    }

    fn leave_out(&self) {
        self.table.left_out.fetch_add(1, Relaxed);
    }

    /// Advances the walk by one entry.
    fn step(&mut self) {
        if self.walk.is_none() {
            self.is_walk_partial = false;
        }
        let walk = self.walk.get_or_insert_with(Walk::new);
        match walk.step(&self.root) {
            WalkStep::File(path) => self.look(path.into()),
            WalkStep::Passed => {}
            WalkStep::Failed => self.is_walk_partial = true,
            WalkStep::LeftOut => self.leave_out(),
            WalkStep::End => {
                self.walk = None;
                self.next_walk = Instant::now() + WALK_EVERY;
                self.table.walks.fetch_add(1, Relaxed);
                // A file system that failed during the walk may work again before the files of the next walk are
                // read.
                if !self.is_walk_partial {
                    self.is_unsaved |= self.table.retire_unseen() > 0;
                }
            }
        }
    }

    /// Opens a file that is not in progress, and begins to read it if its digest is not known.
    fn look(&mut self, path: Box<[u8]>) {
        if self.in_progress.contains(&path) {
            return;
        }
        self.pause(LOOK);
        let (file, identity) = match self.root.file(&path, BlockingIo::Allowed) {
            Ok(found) => found,
            Err(OpenError::Missing | OpenError::Folder) => return,
            Err(OpenError::Exhausted(_) | OpenError::WouldBlock) => {
                return self.wait_for(path, SETTLED);
            }
            Err(OpenError::RootGone) => {
                self.is_walk_partial = true;
                return;
            }
            Err(OpenError::Failed(_)) => {
                self.is_walk_partial = true;
                return self.fail(&path);
            }
            Err(OpenError::Forbidden) => return self.fail(&path),
        };
        let is_being_read = self.open.iter().any(|job| job.identity.file() == identity.file());
        if is_being_read || self.table.find(&identity).is_some() {
            return;
        }
        if !self.table.has_room_for(&identity.file()) {
            self.leave_out();
            if !std::mem::replace(&mut self.is_full, true) {
                tracing::warn!(limit = MOST_DIGESTS, "there are more files than the limit of digests");
            }
            return;
        }
        let settles = settles_in(identity.stamp().changed, SystemTime::now());
        if !settles.is_zero() {
            return self.wait_for(path, settles);
        }
        background_read::do_not_read_ahead(&file);
        self.in_progress.insert(path.clone());
        self.open.push_front(HashJob { path, file, identity, at: 0, hash: Sha256::new() });
    }

    fn wait_for(&mut self, path: Box<[u8]>, time: Duration) {
        if self.in_progress.len() >= MAX_REQUESTS {
            self.leave_out();
            return;
        }
        self.in_progress.insert(path.clone());
        self.too_recent.push_back((Instant::now() + time, path));
    }

    fn fail(&mut self, path: &[u8]) {
        self.in_progress.remove(path);
        self.table.failures.fetch_add(1, Relaxed);
    }

    /// Reads up to one turn of a file.
    fn read_turn(&mut self, mut job: HashJob) {
        let length = job.identity.length;
        let end = length.min(job.at + TURN);
        while job.at < end {
            if self.is_stopping() {
                return;
            }
            let wanted = usize::try_from(end - job.at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = self.buffer.get_mut(..wanted).unwrap_or_default();
            let read = match background_read::read(&job.file, chunk, job.at) {
                // The file has become shorter.
                Ok(0) => break,
                Ok(read) => read,
                Err(_) => return self.fail(&job.path),
            };
            job.hash.update(self.buffer.get(..read).unwrap_or_default());
            job.at += read as u64;
            self.table.bytes.fetch_add(read as u64, Relaxed);
            self.pause(read as u64);
        }
        if job.at == end && end < length {
            self.open.push_back(job);
        } else {
            self.finish(job);
        }
    }

    /// Stores the digest of a file that was read to its end, if the file is unchanged.
    fn finish(&mut self, job: HashJob) {
        let HashJob { path, file, identity, at, hash } = job;
        self.in_progress.remove(&path);
        let stamp = identity.stamp();
        if at != stamp.length || FileState::of(&file).map(|now| now.stamp()) != Ok(stamp) {
            return self.wait_for(path, SETTLED);
        }
        self.table.insert(&identity, hash.finalize().into());
        self.is_unsaved = true;
    }

    /// Waits as the rate limit demands after a read of this size.
    fn pause(&mut self, bytes: u64) {
        let now = Instant::now();
        let free_at = self.pace.spend(bytes, now);
        if free_at > now + SHORTEST_REST {
            self.sleep_until(free_at);
        }
    }

    /// Receives requests until the time `then` or a stop.
    fn sleep_until(&mut self, then: Instant) {
        while !self.is_stopping() {
            let left = then.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match self.asked.recv_timeout(left) {
                Ok(path) => {
                    self.accept(path);
                    // A thread without work must begin with the first request.
                    if self.open.is_empty() && self.waiting.len() == 1 {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => self.table.is_stopping.store(true, Relaxed),
            }
        }
    }
}

/// Time until the change of a file is old enough. For a change in the future, after the clock was set back or on
/// another machine, this is zero.
fn settles_in(changed: Time, now: SystemTime) -> Duration {
    let (seconds, nanos) = changed;
    let since_epoch = Duration::new(u64::try_from(seconds).unwrap_or(0), nanos.min(999_999_999));
    let age = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().abs_diff(since_epoch);
    SETTLED.saturating_sub(age)
}

#[cfg(test)]
mod tests;
