//! The thread that reads files and makes their digests.
//!
//! Files that clients request come before those that a walk finds, and a large file is read in turns with others.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::super::root::{Identity, OpenError, Patience, Root, Time};
use super::gentle::{self, Pace};
use super::kept::KeptFile;
use super::walk::{Step, Walk};
use super::{MOST_ASKED, MOST_DIGESTS, Table};

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Bytes of one file after which another has its turn: a small file never waits for the whole of a large one.
const TURN: u64 = 16 << 20;

/// Files that are being read, in turns.
const MOST_OPEN: usize = 16;

/// Looking at a file counts as reading so many bytes.
const LOOK: u64 = 4 << 10;

/// A file is read once it has kept still for this long: the clocks of file systems tell no shorter times apart with
/// certainty, and whoever changed it may not be done.
const SETTLED: Duration = Duration::from_secs(2);

/// From the end of one walk to the begin of the next. A file that is asked for does not wait for it.
const WALK_EVERY: Duration = Duration::from_hours(1);

/// A wait shorter than this is saved up.
const SHORTEST_REST: Duration = Duration::from_millis(1);

pub(super) struct Hasher {
    root: Arc<Root>,
    table: Arc<Table>,
    asked: Receiver<Box<[u8]>>,
    pace: Pace,
    buffer: Vec<u8>,
    /// Files that were asked for and are not open yet.
    waiting: VecDeque<Box<[u8]>>,
    /// Files that were changed a moment ago, and when they are looked at again.
    young: VecDeque<(Instant, Box<[u8]>)>,
    open: VecDeque<Job>,
    /// The paths of all of these.
    in_hand: HashSet<Box<[u8]>>,
    walk: Option<Walk>,
    next_walk: Instant,
    /// Whether a file or folder could not be opened since the walk began, so that it may have missed files.
    is_walk_partial: bool,
    is_unsaved: bool,
    is_full: bool,
}

/// A file that is being read.
struct Job {
    path: Box<[u8]>,
    file: File,
    identity: Identity,
    at: u64,
    hash: Sha256,
}

impl Hasher {
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
            pace: Pace::new(rate, now),
            buffer: vec![0; CHUNK],
            waiting: VecDeque::new(),
            young: VecDeque::new(),
            open: VecDeque::new(),
            in_hand: HashSet::new(),
            walk: None,
            next_walk: now,
            is_walk_partial: false,
            is_unsaved: false,
            is_full: false,
        }
    }

    /// Makes digests until the table says stop.
    pub(super) fn run(mut self, mut kept: Option<KeptFile>) {
        gentle::lower_priority();
        if let Some(kept) = &mut kept {
            kept.load(&self.table);
        }
        while !self.is_stopping() {
            self.admit();
            let is_busy = self.work();
            let now = Instant::now();
            let save_at = kept.as_ref().filter(|_| self.is_unsaved).map(KeptFile::due);
            if let Some(kept) = kept.as_mut().filter(|_| save_at.is_some_and(|due| due <= now)) {
                self.is_unsaved = !kept.save(&self.table);
            } else if !is_busy {
                self.rest_until(self.next_look(save_at));
            }
            self.table.pending.store(self.in_hand.len(), Relaxed);
        }
        if let Some(kept) = kept.as_mut().filter(|_| self.is_unsaved) {
            kept.save(&self.table);
        }
    }

    fn is_stopping(&self) -> bool {
        self.table.is_stopping.load(Relaxed)
    }

    /// When there is something to do again, where there is nothing now.
    fn next_look(&self, save_at: Option<Instant>) -> Instant {
        let young = self.young.front().map(|(due, _)| *due);
        let walk = (!self.is_crowded()).then_some(self.next_walk);
        let next = [young, walk, save_at].into_iter().flatten().min();
        next.unwrap_or_else(|| Instant::now() + SETTLED)
    }

    /// Whether many files wait, so that the walk must pause until those changed a moment ago are old enough to read.
    fn is_crowded(&self) -> bool {
        self.in_hand.len() > MOST_ASKED / 2
    }

    /// One piece of work, the most urgent first; `false` where there is none.
    fn work(&mut self) -> bool {
        if let Some(job) = self.open.pop_front() {
            self.read_turn(job);
        } else if self.is_crowded() {
            return false;
        } else if self.walk.is_some() || self.next_walk <= Instant::now() {
            self.step();
        } else {
            return false;
        }
        true
    }

    /// Takes in what was asked for, and what has settled since.
    fn admit(&mut self) {
        while let Ok(path) = self.asked.try_recv() {
            self.accept(path);
        }
        let now = Instant::now();
        while self.young.front().is_some_and(|(due, _)| *due <= now) {
            self.waiting.extend(self.young.pop_front().map(|(_, path)| path));
        }
        while self.open.len() < MOST_OPEN {
            let Some(path) = self.waiting.pop_front() else {
                return;
            };
            self.in_hand.remove(&path);
            self.look(path);
        }
    }

    fn accept(&mut self, path: Box<[u8]>) {
        if path.is_empty() || self.in_hand.contains(&path) {
            return;
        }
        if self.in_hand.len() >= MOST_ASKED {
            self.leave_out();
            return;
        }
        self.in_hand.insert(path.clone());
        self.waiting.push_back(path);
    }

    fn leave_out(&self) {
        self.table.left_out.fetch_add(1, Relaxed);
    }

    /// One entry of the walk.
    fn step(&mut self) {
        if self.walk.is_none() {
            self.is_walk_partial = false;
        }
        let walk = self.walk.get_or_insert_with(Walk::new);
        match walk.step(&self.root) {
            Step::File(path) => self.look(path.into()),
            Step::Passed => {}
            Step::Failed => self.is_walk_partial = true,
            Step::LeftOut => self.leave_out(),
            Step::End => {
                self.walk = None;
                self.next_walk = Instant::now() + WALK_EVERY;
                self.table.walks.fetch_add(1, Relaxed);
                // A disk that failed meanwhile may be back before its files are read again.
                if !self.is_walk_partial {
                    self.is_unsaved |= self.table.retire_unseen() > 0;
                }
            }
        }
    }

    /// Opens a file that is not in hand, and begins to read it if its digest is not known.
    fn look(&mut self, path: Box<[u8]>) {
        if self.in_hand.contains(&path) {
            return;
        }
        self.pause(LOOK);
        let (file, identity) = match self.root.file(&path, Patience::Disk) {
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
                tracing::warn!(limit = MOST_DIGESTS, "there are more files than digests are kept for");
            }
            return;
        }
        let settles = settles_in(identity.stamp().changed, SystemTime::now());
        if !settles.is_zero() {
            return self.wait_for(path, settles);
        }
        gentle::do_not_read_ahead(&file);
        self.in_hand.insert(path.clone());
        self.open.push_front(Job { path, file, identity, at: 0, hash: Sha256::new() });
    }

    fn wait_for(&mut self, path: Box<[u8]>, time: Duration) {
        if self.in_hand.len() >= MOST_ASKED {
            self.leave_out();
            return;
        }
        self.in_hand.insert(path.clone());
        self.young.push_back((Instant::now() + time, path));
    }

    fn fail(&mut self, path: &[u8]) {
        self.in_hand.remove(path);
        self.table.failures.fetch_add(1, Relaxed);
    }

    /// Reads of a file what one turn allows.
    fn read_turn(&mut self, mut job: Job) {
        let length = job.identity.length;
        let end = length.min(job.at + TURN);
        while job.at < end {
            if self.is_stopping() {
                return;
            }
            let wanted = usize::try_from(end - job.at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = self.buffer.get_mut(..wanted).unwrap_or_default();
            let read = match gentle::read(&job.file, chunk, job.at) {
                // It is shorter than it was.
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

    /// A file has been read; what was read counts if the file is as it was.
    fn finish(&mut self, job: Job) {
        let Job { path, file, identity, at, hash } = job;
        self.in_hand.remove(&path);
        let stamp = identity.stamp();
        if at != stamp.length || Identity::of(&file).map(|now| now.stamp()) != Ok(stamp) {
            return self.wait_for(path, SETTLED);
        }
        self.table.insert(&identity, hash.finalize().into());
        self.is_unsaved = true;
    }

    /// Waits as the pace demands after so many bytes.
    fn pause(&mut self, bytes: u64) {
        let now = Instant::now();
        let free_at = self.pace.spend(bytes, now);
        if free_at > now + SHORTEST_REST {
            self.rest_until(free_at);
        }
    }

    /// Takes requests until then, or until it is to stop.
    fn rest_until(&mut self, then: Instant) {
        while !self.is_stopping() {
            let left = then.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match self.asked.recv_timeout(left) {
                Ok(path) => {
                    self.accept(path);
                    // One that waits for nothing in particular has something to do now.
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

/// The time until a file that was changed then has kept still long enough. A time ahead of the clock, which was set back
/// or is that of another machine, keeps nobody waiting.
fn settles_in(changed: Time, now: SystemTime) -> Duration {
    let (seconds, nanos) = changed;
    let since_epoch = Duration::new(u64::try_from(seconds).unwrap_or(0), nanos.min(999_999_999));
    let age = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().abs_diff(since_epoch);
    SETTLED.saturating_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_too_many_files_are_young_the_thread_rests() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        let root = Arc::new(Root::open(folder.path()).unwrap());
        let (_asked, receiver) = std::sync::mpsc::sync_channel(1);
        let mut hasher = Hasher::new(root, Arc::default(), receiver, None);
        for number in 0..=MOST_ASKED / 2 {
            hasher.wait_for(number.to_string().into_bytes().into(), SETTLED);
        }
        let young = hasher.young.front().unwrap().0;
        for walk in [None, Some(Walk::new())] {
            hasher.walk = walk;
            assert!(!hasher.work());
            assert_eq!(hasher.next_look(None), young);
            assert_eq!(hasher.next_look(Some(young - SETTLED)), young - SETTLED);
        }
        hasher.young.clear();
        assert!(hasher.next_look(None) > Instant::now());
    }

    #[test]
    fn a_file_settles_two_seconds_after_its_change() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (changed, millis) in [
            ((1000, 0), 2000),
            ((999, 500_000_000), 1500),
            ((998, 0), 0),
            ((0, 0), 0),
            ((-5, 0), 0),
            ((1001, 0), 1000),
            ((1002, 0), 0),
            ((i64::MAX, u32::MAX), 0),
        ] {
            assert_eq!(settles_in(changed, now), Duration::from_millis(millis), "{changed:?}");
        }
    }
}
