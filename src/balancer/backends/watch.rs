//! Follows the list file while the balancer runs. Every edit takes effect within two seconds. If the file becomes
//! unusable, the last good list stays active.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Backend;
use super::list::{self, List, ListProblem};
use crate::folder::folder_of;
use debounce::{Debouncer, Decision, Reading, Trigger};

mod debounce;

/// The largest list file, in bytes.
pub(crate) const MAX_LIST_BYTES: u64 = 16 << 20;
/// The file is read at this interval even without a reported change: network file systems may not report any.
const REREAD_INTERVAL: Duration = Duration::from_millis(500);
/// The delay after a reported change, so that a series of changes causes one reading.
const GATHERING_TIME: Duration = Duration::from_millis(50);
/// The largest number of logged problems of one list. The others are only counted.
const LOGGED_PROBLEMS: usize = 20;

/// The reason why a file is not usable as the list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The file does not exist or cannot be read.
    #[error("cannot read the list of servers {}: check that it exists and is readable, or name another one with --servers", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The path is a folder, a pipe or a device. These cannot be read repeatedly, so they cannot be followed.
    #[error("cannot use {} as the list of servers: it is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than [`MAX_LIST_BYTES`].
    #[error("cannot use {} as the list of servers: it is larger than {} MiB", path.display(), MAX_LIST_BYTES >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file has lines with content, and each of them is invalid.
    #[error("no line of {} is a server; first problem: {first}", path.display())]
    Garbage {
        /// The file.
        path: PathBuf,
        /// The first problem.
        first: ListProblem,
    },
}

/// Reads the bytes of a list. Refuses all but regular files; does not wait for the writer of a pipe.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ListError> {
    let unreadable = |source| ListError::Unreadable { path: path.to_owned(), source };
    let file = open_without_waiting(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(ListError::NotAFile { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read, so the reader enforces the limit.
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

/// Parses the bytes of `path`. Refuses a text without any valid line.
fn parse(path: &Path, bytes: &[u8]) -> Result<List, ListError> {
    let list = list::parse(bytes);
    match list.problems.first() {
        Some(first) if list.is_garbage() => {
            Err(ListError::Garbage { path: path.to_owned(), first: first.clone() })
        }
        _ => Ok(list),
    }
}

/// Follows a list file and reports changes of its backends.
///
/// - After an edit in place or a rename over the file, the new list becomes active once the file is stable, and in any
///   case within two seconds. The new list may be empty.
/// - If the file is deleted, unreadable, too large or garbage, the last good list stays active, and one warning is
///   logged.
/// - A request reads the file at once; see [`reload_at`](Self::reload_at).
///
/// When a list becomes active, each of its problems is logged with file, line and reason.
pub(crate) struct Follower {
    path: PathBuf,
    backends: Arc<[Backend]>,
    debouncer: Debouncer,
    file_changed: Arc<Notify>,
    /// Requests to read the file at once.
    reloads: Option<watch::Receiver<()>>,
    /// Reports changes of the folder until it is dropped; `None` if the system cannot watch the folder.
    _watcher: Option<RecommendedWatcher>,
}

impl Follower {
    /// Reads the list for the first time. An unusable file is an error, because there is no earlier list.
    pub(crate) fn open(path: PathBuf) -> Result<Self, ListError> {
        // Watching starts first: a change during the first reading must not be missed.
        let file_changed = Arc::new(Notify::new());
        let watcher = watch_folder(&path, Arc::clone(&file_changed));
        let bytes = read(&path)?;
        let list = parse(&path, &bytes)?;
        log_problems(&path, &list);
        info!(file = %path.display(), servers = list.backends.len(), "list of servers read");
        let debouncer = Debouncer::new(bytes, list.backends.len());
        Ok(Self {
            path,
            backends: list.backends.into(),
            debouncer,
            file_changed,
            reloads: None,
            _watcher: watcher,
        })
    }

    /// The backends of the active list.
    pub(crate) fn backends(&self) -> Arc<[Backend]> {
        Arc::clone(&self.backends)
    }

    /// At each change of `reloads`, [`changed`](Self::changed) reads the file at once.
    pub(crate) fn reload_at(&mut self, reloads: watch::Receiver<()>) {
        self.reloads = Some(reloads);
    }

    /// Waits until another list is active, and returns its backends.
    ///
    /// Requires a tokio runtime with time, signals and blocking threads. Cancel safe: the next call continues with the same
    /// state.
    pub(crate) async fn changed(&mut self) -> Arc<[Backend]> {
        let mut trigger = Trigger::Noticed;
        loop {
            let reading = self.reading().await;
            let wait = match self.debouncer.observe(reading, Instant::now(), trigger) {
                Decision::Keep => REREAD_INTERVAL,
                Decision::ReadAgain(wait) => wait.min(REREAD_INTERVAL),
                Decision::Restored => {
                    info!(file = %self.path.display(), "the list of servers is usable again and unchanged");
                    REREAD_INTERVAL
                }
                Decision::Refuse(error) => {
                    let reason = crate::telemetry::chain(&error);
                    warn!(
                        reason,
                        servers = self.backends.len(),
                        "the last good list of servers stays active"
                    );
                    REREAD_INTERVAL
                }
                Decision::Accept(list) => {
                    log_problems(&self.path, &list);
                    let backends: Arc<[Backend]> = list.backends.into();
                    log_change(&self.path, &self.backends, &backends);
                    // An edit of comments does not change the backends.
                    if self.backends != backends {
                        self.backends = Arc::clone(&backends);
                        return backends;
                    }
                    REREAD_INTERVAL
                }
            };
            trigger = tokio::select! {
                () = tokio::time::sleep(wait) => Trigger::Noticed,
                () = self.file_changed.notified() => {
                    tokio::time::sleep(GATHERING_TIME).await;
                    Trigger::Noticed
                }
                () = requested(self.reloads.as_mut()) => {
                    info!(file = %self.path.display(), "reading the list of servers on request");
                    Trigger::Requested
                }
            };
        }
    }

    /// Reads the file on a blocking thread, because the disk may be slow.
    async fn reading(&self) -> Reading {
        let path = self.path.clone();
        // tokio panics if the system cannot start the first thread of the pool. The active list then stays.
        let spawned = std::panic::catch_unwind(|| tokio::task::spawn_blocking(move || read(&path)));
        let Ok(task) = spawned else {
            let source = io::Error::other("the system cannot start a thread");
            return Reading::Unusable(ListError::Unreadable { path: self.path.clone(), source });
        };
        match task.await {
            Ok(Ok(bytes)) if self.debouncer.is_in_force(&bytes) => Reading::InForce,
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

/// Notifies `file_changed` of every change in the folder of `path`. A watch on the file itself would end with a rename over
/// the file. The list may be a symbolic link, so any change in the folder may affect it.
fn watch_folder(path: &Path, file_changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let folder = folder_of(path);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Without this condition, each reading of the list would trigger the next one.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            file_changed.notify_one();
        }
    })
    .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    watcher
        .inspect_err(|error| {
            warn!(folder = %folder.display(), %error, "cannot watch the folder of the list; the list is still read every 500 ms");
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

/// Waits for a request to read the file.
async fn requested(reloads: Option<&mut watch::Receiver<()>>) {
    if let Some(reloads) = reloads
        && reloads.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests;
