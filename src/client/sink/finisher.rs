//! Small files, finished many at a time.
//!
//! What is whole in memory needs no part file, no lock and no journal. It is written to a file without a name, which is then linked to
//! its own: a name that is taken is never taken over, one operation on the folder makes the file visible as a whole, and
//! of a process that is killed nothing is left. What comes while one group is on its way to the disk makes up the next, so
//! many files share one wait for the disk, as the transactions of a database do.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Durability, SinkError, folder_of};

/// From so many files on, one call that writes the whole file system costs less than one for each of them. Below, it may wait
/// long for what others have written there.
const SYNC_TOGETHER_FROM: usize = 4;

/// A file that is whole in memory.
#[derive(Debug)]
pub(super) struct WholeFile {
    pub(super) target: PathBuf,
    /// All of it, with the place of each part.
    pub(super) parts: Vec<(u64, Bytes)>,
    pub(super) modified: Option<SystemTime>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// It has its name.
    Named,
    /// It cannot go this way, and nothing of it is on the disk: there is a file of this name, or the file system has no
    /// files without one. By way of a part file it may go, or fail with a reason.
    Declined,
}

/// Gives files that are whole their names, on a thread of its own. Clones share their groups.
#[derive(Debug, Clone)]
pub struct Finisher {
    durability: Durability,
    /// The most files that are open for one group.
    max_group: usize,
    /// Leads to the thread, once there is one. As many files are on the way as there are downloads, at most.
    sender: Rc<OnceCell<mpsc::Sender<Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    file: WholeFile,
    /// Dropped without an answer, it declines.
    answer: oneshot::Sender<Result<Finish, SinkError>>,
}

impl Finisher {
    /// One whose files survive as `durability` defines, and that has at most `max_group` of them open.
    #[must_use]
    pub fn new(durability: Durability, max_group: usize) -> Self {
        Self { durability, max_group: max_group.max(1), sender: Rc::default() }
    }

    /// Writes the file and gives it its name, unless there is one of this name.
    pub(super) async fn finish(&self, file: WholeFile) -> Result<Finish, SinkError> {
        let (answer, answered) = oneshot::channel();
        let sender = self.sender.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            let (durability, max_group) = (self.durability, self.max_group);
            // Where there can be no thread the receiver is gone, and every file is declined.
            let _ = std::thread::Builder::new()
                .name("finisher".to_owned())
                .spawn(move || work(&receiver, durability, max_group));
            sender
        });
        let _ = sender.send(Waiting { file, answer });
        answered.await.unwrap_or(Ok(Finish::Declined))
    }
}

/// Finishes group after group, until nobody could send any more.
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

/// Finishes files of one folder. Whoever is dropped on the way is declined.
fn finish_group(path: &Path, group: Vec<Waiting>, durability: Durability) {
    // Opened before anything is written: what the file system cannot write from here on, it tells this handle.
    let Ok(folder) = File::open(path) else { return };
    let written: Vec<(Waiting, File)> = group
        .into_iter()
        .filter_map(|waiting| {
            let file = write(&folder, &waiting.file).ok()?;
            Some((waiting, file))
        })
        .collect();
    // Names come after bytes: a crash in between leaves nothing, never half a file.
    if durability == Durability::Synced && sync(&folder, &written).is_err() {
        return;
    }
    let named: Vec<Waiting> = written
        .into_iter()
        .filter_map(|(waiting, file)| {
            unnamed::link(&file, &folder, &waiting.file.target).ok().map(|()| waiting)
        })
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
        // Nobody waits where the download was given up meanwhile.
        let _ = waiting.answer.send(result);
    }
}

fn write(folder: &File, whole: &WholeFile) -> io::Result<File> {
    let file = unnamed::create(folder)?;
    for (offset, bytes) in &whole.parts {
        file.write_all_at(bytes, *offset)?;
    }
    if let Some(modified) = whole.modified {
        // As with a part file: a failure of that is no failure of the download.
        let _ = file.set_modified(modified);
    }
    Ok(file)
}

fn sync(folder: &File, written: &[(Waiting, File)]) -> io::Result<()> {
    if written.len() >= SYNC_TOGETHER_FROM {
        return unnamed::sync_file_system(folder);
    }
    written.iter().try_for_each(|(_, file)| file.sync_data())
}

/// Files without a name, where the system has them.
#[cfg(target_os = "linux")]
mod unnamed {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, syncfs};

    /// A new file in `folder`.
    pub(super) fn create(folder: &File) -> io::Result<File> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        // As `File::create` has it: what the user's mask leaves of it.
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        Ok(openat(folder, ".", flags, mode)?.into())
    }

    /// Gives `file` the name of `target` in `folder`, unless that is taken.
    pub(super) fn link(file: &File, folder: &File, target: &Path) -> io::Result<()> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        // Linking a descriptor itself takes a privilege; linking what /proc shows of it takes none.
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(CWD, own, folder, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    /// Waits until everything on the file system of `folder` is on the disk.
    pub(super) fn sync_file_system(folder: &File) -> io::Result<()> {
        Ok(syncfs(folder)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod unnamed {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub(super) fn create(_: &File) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn link(_: &File, _: &File, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn sync_file_system(_: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(target: PathBuf, text: &'static str) -> WholeFile {
        let (front, back) = text.split_at(text.len() / 2);
        let parts = vec![
            (front.len() as u64, Bytes::from_static(back.as_bytes())),
            (0, Bytes::from_static(front.as_bytes())),
        ];
        WholeFile { target, parts, modified: Some(SystemTime::UNIX_EPOCH) }
    }

    #[tokio::test]
    async fn many_files_of_several_folders_get_their_names() {
        for durability in [Durability::Synced, Durability::Cached] {
            let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let finisher = Finisher::new(durability, 256);
            let files = (0..600).map(|index| {
                let target = folders[index % 2].path().join(format!("f{index}"));
                finisher.finish(whole(target, "I am a file."))
            });
            for result in futures_util::future::join_all(files).await {
                assert_eq!(result.unwrap(), Finish::Named);
            }
            for index in 0..600 {
                let path = folders[index % 2].path().join(format!("f{index}"));
                assert_eq!(std::fs::read(&path).unwrap(), b"I am a file.");
                assert_eq!(path.metadata().unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
            }
        }
    }

    #[tokio::test]
    async fn a_name_that_is_taken_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let finisher = Finisher::new(Durability::Synced, 256);
        std::fs::write(folder.path().join("f"), "other").unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join("link")).unwrap();
        for name in ["f", "link"] {
            let result = finisher.finish(whole(folder.path().join(name), "new")).await;
            assert_eq!(result.unwrap(), Finish::Declined);
        }
        assert_eq!(std::fs::read(folder.path().join("f")).unwrap(), b"other");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let missing = finisher.finish(whole(folder.path().join("missing/f"), "new")).await;
        assert_eq!(missing.unwrap(), Finish::Declined);
    }
}
