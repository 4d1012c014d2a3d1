//! The list file while the balancer runs: every edit takes effect within two seconds, and nothing that happens to the
//! file takes away what is known.
//!
//! ```no_run
//! # async fn example() -> Result<(), fingerpost::balancer::backends::watch::ListError> {
//! use fingerpost::balancer::backends::watch::Follower;
//!
//! let mut follower = Follower::open("balancer_server_list.txt".into())?;
//! let mut backends = follower.backends();
//! loop {
//!     // ... hand `backends` to whom it concerns ...
//!     backends = follower.changed().await;
//! }
//! # }
//! ```

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Backend;
use super::list::{self, List, Problem};
use settle::{Decision, Reading, Settle, Trigger};

mod settle;

/// A larger file is refused as a whole: it is no list that a person or script meant to write.
pub const MAX_LIST_BYTES: u64 = 16 << 20;
/// The file is read this often even if the system reports no change, as on network file systems.
const REREAD_INTERVAL: Duration = Duration::from_millis(500);
/// Changes that come together are looked at once.
const GATHERING_TIME: Duration = Duration::from_millis(50);
/// Problems of one list beyond this number are logged as a count.
const LOGGED_PROBLEMS: usize = 20;

/// Why a file is not used as the list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It is not there, or must not be read.
    #[error("cannot read the list of servers {}: check that it exists and is readable, or name another one with --servers", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a folder, a pipe or a device. What cannot be read again cannot be followed.
    #[error("cannot use {} as the list of servers: it is not a regular file", path.display())]
    NotAFile {
        /// What is there instead.
        path: PathBuf,
    },
    /// It is larger than [`MAX_LIST_BYTES`].
    #[error("cannot use {} as the list of servers: it is larger than {} MiB", path.display(), MAX_LIST_BYTES >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It has lines, and not one of them is right.
    #[error("no line of {} is a server; the first: {first}", path.display())]
    Garbage {
        /// The file.
        path: PathBuf,
        /// What is wrong first.
        first: Problem,
    },
}

/// Reads the bytes of a list. A file that is no regular one is refused without waiting for a writer.
pub fn read(path: &Path) -> Result<Vec<u8>, ListError> {
    let unreadable = |source| ListError::Unreadable { path: path.to_owned(), source };
    let file = open_without_waiting(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(ListError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    // The length may grow while it is read, so the limit is the reader's.
    file.take(MAX_LIST_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_LIST_BYTES {
        return Err(ListError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path)
}

/// Takes the bytes of `path` for a list; refuses one of which no line is right.
fn parse(path: &Path, bytes: &[u8]) -> Result<List, ListError> {
    let list = list::parse(bytes);
    match list.problems.first() {
        Some(first) if list.is_garbage() => {
            Err(ListError::Garbage { path: path.to_owned(), first: first.clone() })
        }
        _ => Ok(list),
    }
}

/// Follows a list file and says when its backends change.
///
/// - Edited in place, replaced by a rename, emptied: the new list counts once the file has kept still for a
///   moment, and in any case within two seconds.
/// - Deleted, unreadable, too large, full of garbage: the last good list stays in force, and one warning says so.
/// - SIGHUP reads the file at once, from [`heed_hangup`](Self::heed_hangup) on; until then it ends the process.
///
/// Every problem of a list is logged when the list comes into force, with file, line and reason.
pub struct Follower {
    path: PathBuf,
    backends: Arc<[Backend]>,
    settle: Settle,
    touched: Arc<Notify>,
    /// SIGHUP, if it is taken over.
    asked: Option<Asked>,
    /// Reports changes of the folder until it is dropped; `None` where the system cannot.
    _watcher: Option<RecommendedWatcher>,
}

impl Follower {
    /// Reads the list for the first time. Without a list there is nothing to keep, so here a file that cannot be
    /// used is an error.
    pub fn open(path: PathBuf) -> Result<Self, ListError> {
        // Watching starts first: a change during the first reading must not be missed.
        let touched = Arc::new(Notify::new());
        let watcher = watch_folder(&path, Arc::clone(&touched));
        let bytes = read(&path)?;
        let list = parse(&path, &bytes)?;
        log_problems(&path, &list);
        info!(file = %path.display(), servers = list.backends.len(), "list of servers read");
        let settle = Settle::new(bytes, list.backends.len());
        Ok(Self { path, backends: list.backends.into(), settle, touched, asked: None, _watcher: watcher })
    }

    /// The backends of the list in force.
    #[must_use]
    pub fn backends(&self) -> Arc<[Backend]> {
        Arc::clone(&self.backends)
    }

    /// Takes SIGHUP over: from now on it asks for a reading, which [`changed`](Self::changed) does, and no longer ends
    /// the process. To be called on a tokio runtime, before the program announces that it is ready.
    pub fn heed_hangup(&mut self) {
        self.asked.get_or_insert_with(Asked::new);
    }

    /// Waits until another list is in force, and gives its backends.
    ///
    /// Runs on a tokio runtime with time, signals and blocking threads. Dropping the future loses nothing: the next
    /// call goes on where this one was.
    pub async fn changed(&mut self) -> Arc<[Backend]> {
        let mut trigger = Trigger::Noticed;
        loop {
            let reading = self.reading().await;
            let wait = match self.settle.observe(reading, Instant::now(), trigger) {
                Decision::Keep => REREAD_INTERVAL,
                Decision::LookAgain(wait) => wait.min(REREAD_INTERVAL),
                Decision::Restored => {
                    info!(file = %self.path.display(), "the list of servers is back as it was");
                    REREAD_INTERVAL
                }
                Decision::Refuse(error) => {
                    let reason = crate::telemetry::chain(&error);
                    warn!(
                        reason,
                        servers = self.backends.len(),
                        "the last good list of servers stays in force"
                    );
                    REREAD_INTERVAL
                }
                Decision::Accept(list) => {
                    log_problems(&self.path, &list);
                    let backends: Arc<[Backend]> = list.backends.into();
                    log_change(&self.path, &self.backends, &backends);
                    // An edit of comments alone concerns nobody else.
                    if self.backends != backends {
                        self.backends = Arc::clone(&backends);
                        return backends;
                    }
                    REREAD_INTERVAL
                }
            };
            trigger = tokio::select! {
                () = tokio::time::sleep(wait) => Trigger::Noticed,
                () = self.touched.notified() => {
                    tokio::time::sleep(GATHERING_TIME).await;
                    Trigger::Noticed
                }
                () = Asked::received(self.asked.as_mut()) => {
                    info!(file = %self.path.display(), "asked to read the list of servers again");
                    Trigger::Asked
                }
            };
        }
    }

    /// Reads the file on a thread that may wait for a slow disk.
    async fn reading(&self) -> Reading {
        let path = self.path.clone();
        // tokio panics if the system has no thread for the first call of a pool. The list in force stays then.
        let spawned = std::panic::catch_unwind(|| tokio::task::spawn_blocking(move || read(&path)));
        let Ok(task) = spawned else {
            let source = io::Error::other("the system has no thread left");
            return Reading::Unusable(ListError::Unreadable { path: self.path.clone(), source });
        };
        match task.await {
            Ok(Ok(bytes)) if self.settle.is_in_force(&bytes) => Reading::InForce,
            Ok(Ok(bytes)) => match parse(&self.path, &bytes) {
                Ok(list) => Reading::List { bytes, list },
                Err(error) => Reading::Unusable(error),
            },
            Ok(Err(error)) => Reading::Unusable(error),
            Err(failed) => {
                Reading::Unusable(ListError::Unreadable { path: self.path.clone(), source: failed.into() })
            }
        }
    }
}

/// Notifies `touched` of every change in the folder of `path`. The folder is watched, not the file, because a rename
/// puts another file in its place. The list may be a symbolic link, so any change in the folder may concern it.
fn watch_folder(path: &Path, touched: Arc<Notify>) -> Option<RecommendedWatcher> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is a change to nothing; without this, each of our own readings would ask for the next.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            touched.notify_one();
        }
    })
    .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    watcher
        .inspect_err(|error| {
            warn!(folder = %folder.display(), %error, "cannot watch for changes; the list is read on a timer alone");
        })
        .ok()
}

fn log_problems(path: &Path, list: &List) {
    for problem in list.problems.iter().take(LOGGED_PROBLEMS) {
        warn!(file = %path.display(), line = problem.line, reason = %problem.reason, "problem in the list of servers");
    }
    let rest = list.problems.len().saturating_sub(LOGGED_PROBLEMS) + list.unlisted_problems;
    if rest > 0 {
        warn!(file = %path.display(), problems = rest, "more problems in the list of servers; see fingerpost check");
    }
}

fn log_change(path: &Path, old: &[Backend], new: &[Backend]) {
    let old_ids: HashSet<_> = old.iter().map(Backend::id).collect();
    let new_ids: HashSet<_> = new.iter().map(Backend::id).collect();
    info!(
        file = %path.display(),
        servers = new.len(),
        added = new_ids.difference(&old_ids).count(),
        removed = old_ids.difference(&new_ids).count(),
        "list of servers changed"
    );
}

/// SIGHUP, where it can be had.
struct Asked {
    signal: Option<Signal>,
}

impl Asked {
    fn new() -> Self {
        let signal = signal(SignalKind::hangup())
            .inspect_err(|error| warn!(%error, "SIGHUP will not read the list again"))
            .ok();
        Self { signal }
    }

    /// Waits for the next signal; for ever without a signal handler.
    async fn received(asked: Option<&mut Self>) {
        if let Some(signal) = asked.and_then(|asked| asked.signal.as_mut())
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
