//! The thread that writes the access log, and the file it writes to.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::WAITING;

/// From one look whether the log was renamed to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A line to write.
    Line(String),
    /// To answer once all lines before are written, or lost.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: BufWriter<File>,
    inode: u64,
    looked: Option<Instant>,
    /// Whether the log was told that a rotation could not be followed.
    is_warned: bool,
    /// Whether nobody can read any more what is written.
    is_removed: bool,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let inode = file.metadata()?.ino();
        let (looked, is_warned, is_removed) = (None, false, false);
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), inode, looked, is_warned, is_removed })
    }

    /// Looks now and then whether the log was renamed. Where it cannot be opened anew, the old file goes on.
    fn follow_rotation(&mut self, now: Instant) {
        if self.looked.is_some_and(|then| now.duration_since(then) <= LOOK_EVERY) {
            return;
        }
        match self.reopen_if_moved() {
            Ok(()) => (self.is_warned, self.is_removed) = (false, false),
            Err(error) => {
                self.is_removed = self.file.get_ref().metadata().is_ok_and(|metadata| metadata.nlink() == 0);
                if !std::mem::replace(&mut self.is_warned, true) {
                    let path = self.path.display();
                    tracing::warn!(%error, %path, "the access log cannot be opened anew; the old file goes on");
                }
            }
        }
        self.looked = Some(now);
    }

    /// Follows a rotation: the file that has our name now is another one, or none.
    fn reopen_if_moved(&mut self) -> io::Result<()> {
        if std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            return Ok(());
        }
        *self = Self::open(&self.path)?;
        Ok(())
    }
}

/// Writes lines until nobody is left to send any.
pub(super) fn write_lines(messages: &Receiver<Message>, log: &mut LogFile, lost: &AtomicU64) {
    while let Ok(first) = messages.recv() {
        log.follow_rotation(Instant::now());
        let mut written: u64 = 0;
        let mut waiting = Vec::new();
        let write = || {
            for message in std::iter::once(first).chain(messages.try_iter().take(WAITING)) {
                match message {
                    Message::Line(line) => {
                        written += 1;
                        log.file.write_all(line.as_bytes())?;
                    }
                    Message::Flush(done) => waiting.push(done),
                }
            }
            log.file.flush()
        };
        let result: io::Result<()> = write();
        if let Err(error) = &result {
            // One line for a batch: a full disk must not fill another with messages.
            tracing::warn!(%error, path = %log.path.display(), "the access log cannot be written");
        }
        if result.is_err() || log.is_removed {
            lost.fetch_add(written, Ordering::Relaxed);
        }
        for done in waiting {
            // Who has waited too long is gone.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    /// Writes these lines as the thread does, and gives the number of those that were lost.
    fn write(log: &mut LogFile, lines: &[&str]) -> u64 {
        let (sender, messages) = sync_channel(WAITING);
        let lost = AtomicU64::new(0);
        for line in lines {
            sender.send(Message::Line((*line).to_owned())).unwrap();
        }
        let (done, mut is_done) = oneshot::channel();
        sender.send(Message::Flush(done)).unwrap();
        drop(sender);
        log.looked = None;
        write_lines(&messages, log, &lost);
        assert_eq!(is_done.try_recv(), Ok(()));
        lost.into_inner()
    }

    #[test]
    fn a_renamed_log_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(write(&mut log, &["old\n"]), 0);
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        assert_eq!(write(&mut log, &["new\n"]), 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
    }

    #[test]
    fn a_log_that_cannot_be_opened_anew_goes_on_in_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let [before, after] = ["before", "after"].map(|name| folder.path().join(name));
        std::fs::create_dir(&before).unwrap();
        let mut log = LogFile::open(&before.join("access.log")).unwrap();
        std::fs::rename(&before, &after).unwrap();
        assert_eq!(write(&mut log, &["a\n", "b\n"]), 0);
        assert_eq!(std::fs::read_to_string(after.join("access.log")).unwrap(), "a\nb\n");
        std::fs::create_dir(&before).unwrap();
        assert_eq!(write(&mut log, &["c\n"]), 0);
        assert_eq!(std::fs::read_to_string(before.join("access.log")).unwrap(), "c\n");
    }

    #[test]
    fn lines_that_nobody_can_read_any_more_are_counted_as_lost() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("logs");
        std::fs::create_dir(&place).unwrap();
        let mut log = LogFile::open(&place.join("access.log")).unwrap();
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!(write(&mut log, &["a\n", "b\n"]), 2);
        std::fs::create_dir(&place).unwrap();
        assert_eq!(write(&mut log, &["c\n"]), 0);
    }
}
