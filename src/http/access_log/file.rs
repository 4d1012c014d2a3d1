//! The thread that writes the access log, and the log file.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::WAITING;

/// Interval between two checks whether the log was renamed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A request to the writing thread.
#[derive(Debug)]
pub(super) enum Message {
    /// Write a line.
    Line(String),
    /// Reply when all lines before are written or dropped.
    Flush(oneshot::Sender<()>),
    /// Write to this file; lines before this are written to the file in use.
    Move(Box<LogFile>),
    /// Open the path again; lines after this are written to the file that has the name then.
    Reopen,
}

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: BufWriter<File>,
    /// Device and inode. `None` for a standard stream, which is never opened again.
    identity: Option<(u64, u64)>,
    checked: Option<Instant>,
    /// Whether a failed rotation was reported.
    is_warned: bool,
    /// Whether the open file was removed, so that its lines are lost.
    is_removed: bool,
}

impl LogFile {
    /// Opens the log. A FIFO is opened without waiting for a reader.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, identity) = if let Some(stream) = standard_stream(path) {
            (stream?, None)
        } else {
            let file = open_path(path)?;
            let identity = identity(&file.metadata()?);
            (file, Some(identity))
        };
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            identity,
            checked: None,
            is_warned: false,
            is_removed: false,
        })
    }

    /// Checks at most once per [`CHECK_INTERVAL`] whether the log was renamed or removed, and opens it again if it
    /// was.
    fn follow_rotation(&mut self, now: Instant) {
        if self.checked.is_some_and(|then| now.duration_since(then) <= CHECK_INTERVAL) {
            return;
        }
        self.checked = Some(now);
        let found = std::fs::metadata(&self.path).ok().map(|metadata| identity(&metadata));
        if self.identity.is_some() && found != self.identity {
            self.reopen(now);
        } else {
            (self.is_warned, self.is_removed) = (false, false);
        }
    }

    /// Opens the path again. If this fails, the old file stays in use.
    fn reopen(&mut self, now: Instant) {
        if self.identity.is_none() {
            return;
        }
        match Self::open(&self.path) {
            Ok(file) => *self = Self { checked: Some(now), ..file },
            Err(error) => {
                self.is_removed = self.file.get_ref().metadata().is_ok_and(|metadata| metadata.nlink() == 0);
                if !std::mem::replace(&mut self.is_warned, true) {
                    let path = self.path.display();
                    tracing::warn!(%error, %path, "the access log cannot be opened again; the old file stays in use");
                }
            }
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn open_path(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    if path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        // Opening a FIFO for writing only waits for a reader, and writing fails when the reader ends. Opened for
        // both, the FIFO stores lines, up to its capacity, until it has a reader.
        options.read(true).write(true);
    } else {
        options.create(true).append(true);
    }
    options.open(path)
}

/// Duplicates a standard stream of this process if `path` is one of its usual names. Opening that path again would
/// fail for a socket, as systemd passes it, and would write to a file at another offset than the process.
fn standard_stream(path: &Path) -> Option<io::Result<File>> {
    let stream = match path.to_str()? {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => io::stdout().as_fd().try_clone_to_owned(),
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => io::stderr().as_fd().try_clone_to_owned(),
        _ => return None,
    };
    Some(stream.map(File::from))
}

/// Writes lines until all senders are dropped.
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
                    Message::Move(file) => {
                        // Lines that the old file does not take must not keep the log from the new one.
                        let flushed = log.file.flush();
                        *log = *file;
                        flushed?;
                    }
                    Message::Reopen => {
                        log.file.flush()?;
                        log.reopen(Instant::now());
                    }
                }
            }
            log.file.flush()
        };
        let result: io::Result<()> = write();
        if let Err(error) = &result {
            // One warning for each batch: a full disk must not fill the log of another disk.
            tracing::warn!(%error, path = %log.path.display(), "the access log cannot be written");
        }
        if result.is_err() || log.is_removed {
            lost.fetch_add(written, Ordering::Relaxed);
        }
        for done in waiting {
            // The receiver is dropped if its time is over.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests;
