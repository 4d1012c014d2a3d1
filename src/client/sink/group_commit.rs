//! Finishes small files in groups.
//!
//! A file that is complete in memory needs no part file, lock or journal. It is written to a file without a
//! name (`O_TMPFILE`), which is then linked to its name: an existing file is never replaced, the file appears
//! as a whole, and a killed process leaves nothing behind. Files that arrive while one group is synced form
//! the next group, so that many files share one sync, like the group commit of a database.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, syncfs};
use tokio::sync::oneshot;

use super::{Durability, SinkError};
use crate::folder::folder_of;

/// From this number of files on, one `syncfs` is cheaper than one `fdatasync` for each file. Below, it may
/// wait long for writes of other programs to the same file system.
const SYNC_TOGETHER_FROM: usize = 4;

/// A file that is complete in memory.
#[derive(Debug)]
pub(crate) struct WholeFile {
    pub(crate) target: PathBuf,
    /// All bytes, as parts with their positions.
    pub(crate) parts: Vec<(u64, Bytes)>,
    pub(crate) modified: Option<SystemTime>,
}

/// Result for one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The file has its final name.
    Named,
    /// Nothing of the file is on the disk: a file of this name exists, or the file system does not support
    /// files without names. The caller must use a part file.
    Declined,
}

/// Names complete files, on a separate thread. Clones share the thread and the groups.
#[derive(Debug, Clone)]
pub(crate) struct GroupCommit {
    durability: Durability,
    /// Maximum number of open files in one group.
    max_group: usize,
    /// Channel to the thread, which starts with the first file. The queue holds at most one file for each
    /// active download.
    sender: Rc<OnceCell<mpsc::Sender<Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    file: WholeFile,
    /// If this is dropped without an answer, the file is declined.
    answer: oneshot::Sender<Result<Finish, SinkError>>,
}

impl GroupCommit {
    /// A handle that syncs files as `durability` requires, with at most `max_group` open files.
    pub(crate) fn new(durability: Durability, max_group: usize) -> Self {
        Self { durability, max_group: max_group.max(1), sender: Rc::default() }
    }

    /// Writes the file and links its name, unless that name exists.
    pub(crate) async fn finish(&self, file: WholeFile) -> Result<Finish, SinkError> {
        let (answer, answered) = oneshot::channel();
        let sender = self.sender.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            let (durability, max_group) = (self.durability, self.max_group);
            // If no thread can be started, the receiver is dropped, and every file is declined.
            let _ = std::thread::Builder::new()
                .name("finisher".to_owned())
                .spawn(move || work(&receiver, durability, max_group));
            sender
        });
        let _ = sender.send(Waiting { file, answer });
        answered.await.unwrap_or(Ok(Finish::Declined))
    }
}

/// Finishes groups until all senders are dropped.
fn work(receiver: &mpsc::Receiver<Waiting>, durability: Durability, max_group: usize) {
    while let Ok(first) = receiver.recv() {
        let mut group: Vec<Waiting> =
            std::iter::once(first).chain(receiver.try_iter()).take(max_group).collect();
        while let Some(first) = group.first() {
            let folder = folder_of(&first.file.target).to_owned();
            let (here, elsewhere) =
                group.into_iter().partition(|waiting| folder_of(&waiting.file.target) == folder);
            finish_group(&folder, here, durability);
            group = elsewhere;
        }
    }
}

/// Finishes files of one folder. Files that fail on the way are declined by dropping them.
fn finish_group(path: &Path, group: Vec<Waiting>, durability: Durability) {
    // Opened before the first write: `syncfs` reports write errors since the opening of its handle.
    let Ok(folder) = File::open(path) else { return };
    let written: Vec<(Waiting, File)> = group
        .into_iter()
        .filter_map(|waiting| {
            let file = write(&folder, &waiting.file).ok()?;
            Some((waiting, file))
        })
        .collect();
    // Names are linked after the bytes are synced: a crash in between leaves nothing, never a partial file.
    if durability == Durability::Synced && sync(&folder, &written).is_err() {
        return;
    }
    let named: Vec<Waiting> = written
        .into_iter()
        .filter_map(|(waiting, file)| link(&file, &folder, &waiting.file.target).ok().map(|()| waiting))
        .collect();
    let synced = match durability {
        Durability::Synced if !named.is_empty() => folder.sync_all(),
        _ => Ok(()),
    };
    for waiting in named {
        let result = match &synced {
            Ok(()) => Ok(Finish::Named),
            Err(error) => Err(SinkError::Io {
                action: "sync the folder",
                path: path.to_owned(),
                source: error
                    .raw_os_error()
                    .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error),
            }),
        };
        // The receiver is gone if the download was given up meanwhile.
        let _ = waiting.answer.send(result);
    }
}

fn write(folder: &File, whole: &WholeFile) -> io::Result<File> {
    let file = create_nameless(folder)?;
    for (offset, bytes) in &whole.parts {
        file.write_all_at(bytes, *offset)?;
    }
    if let Some(modified) = whole.modified {
        // As for a part file, the download does not fail if the time cannot be set.
        let _ = file.set_modified(modified);
    }
    Ok(file)
}

fn sync(folder: &File, written: &[(Waiting, File)]) -> io::Result<()> {
    if written.len() >= SYNC_TOGETHER_FROM {
        return Ok(syncfs(folder)?);
    }
    written.iter().try_for_each(|(_, file)| file.sync_data())
}

/// Creates a file without a name in `folder`, if the file system supports that.
fn create_nameless(folder: &File) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    // The mode of `File::create`, reduced by the umask.
    Ok(openat(folder, ".", flags, Mode::from_raw_mode(0o666))?.into())
}

/// Links `file` to the name of `target` in `folder`; fails if that exists.
fn link(file: &File, folder: &File, target: &Path) -> io::Result<()> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    // Linking a descriptor directly requires a privilege; linking its path in /proc does not.
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, own, folder, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(test)]
mod tests;
