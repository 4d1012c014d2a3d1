//! The folder with the state of a balancer: plain files, each with a checksum, and each replaced as a whole.
//!
//! A file starts with a line `fingerpost NAME VERSION SHA-256`; JSON follows. One process at a time holds the folder.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use crate::folder;
use crate::hex::hex;

/// The file with health, estimates and counters.
pub(crate) const STATE_FILE: &str = "state.json";

/// The file whose lock holds the folder.
const LOCK: &str = "lock";

/// The end of the name of a file that is being written.
const TEMPORARY: &str = ".new";

/// The longest wait for the end of a write of the old process, and the time between two attempts.
const RELEASE_TIME: Duration = Duration::from_secs(10);
const RELEASE_STEP: Duration = Duration::from_millis(10);

/// The largest file that is read, in bytes. The state of 100 000 backends has about 100 MB.
const LARGEST_FILE: u64 = 1 << 30;

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// It cannot be created, read or written.
    #[error("cannot use the state folder {}: check that it is a folder that this user can write", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    /// Another process uses it.
    #[error(
        "the state folder {} is in use by another process{}: stop it, or give each balancer its own --state",
        path.display(), pid.map_or(String::new(), |pid| format!(" (pid {pid})"))
    )]
    InUse { path: PathBuf, pid: Option<u32> },
}

/// An open state folder, which no other process uses.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    /// `None` while another process has the folder. A write holds it until its end.
    lock: ArcSwapOption<File>,
    /// The number of writes. Two writes of one file may overlap, so each has its own temporary file.
    writes: AtomicU64,
}

/// The content of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FileContent {
    Missing,
    Valid {
        version: u32,
        body: Vec<u8>,
    },
    /// For this reason, the content is not usable.
    Damaged(String),
}

impl StateFolder {
    /// Creates the folder if necessary, and locks it until the end of the process.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let unusable = |source| StateError::Unusable { path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let lock = ArcSwapOption::new(Some(hold(path)?));
        remove_temporary_files(path).map_err(unusable)?;
        Ok(Self { path: path.to_owned(), lock, writes: AtomicU64::new(0) })
    }

    /// The same after a hand-over: the old process may have to end a write.
    pub(crate) fn open_after_release(path: &Path) -> Result<Self, StateError> {
        let mut left = RELEASE_TIME;
        loop {
            match Self::open(path) {
                Err(StateError::InUse { .. }) if !left.is_zero() => {
                    std::thread::sleep(RELEASE_STEP);
                    left = left.saturating_sub(RELEASE_STEP);
                }
                result => return result,
            }
        }
    }

    /// Checks that [`StateFolder::open`] could succeed. Creates nothing.
    pub(crate) fn check(path: &Path) -> Result<(), StateError> {
        let unusable = |source| StateError::Unusable { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => Err(unusable(rustix::io::Errno::EXIST.into())),
            Ok(_) if path.join(LOCK).exists() => lock(path).map(drop),
            Ok(_) => folder::check_writable(path).map_err(unusable),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The first existing folder above must permit the creation.
                let above = path.ancestors().skip(1).find(|above| above.exists());
                folder::check_writable(above.unwrap_or(Path::new("."))).map_err(unusable)
            }
            Err(error) => Err(unusable(error)),
        }
    }

    /// Leaves the folder to another process, after the end of running writes. Later writes fail.
    pub(crate) fn release(&self) {
        self.lock.store(None);
    }

    /// Whether another process has the folder.
    pub(crate) fn is_released(&self) -> bool {
        self.lock.load().is_none()
    }

    /// Takes the folder back.
    pub(crate) fn reclaim(&self) -> Result<(), StateError> {
        self.lock.store(Some(hold(&self.path)?));
        Ok(())
    }

    /// The path of a file in the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file and checks it.
    pub(super) fn read(&self, name: &str) -> FileContent {
        let read = || {
            let mut bytes = Vec::new();
            File::open(self.file(name))?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        match read() {
            Ok(bytes) => check(name, bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => FileContent::Missing,
            Err(error) => FileContent::Damaged(error.to_string()),
        }
    }

    /// Replaces a file. After `Ok`, the new content survives a crash of the machine; after `Err`, and after a crash before the
    /// end, the file has its old content or the new one, never a part.
    pub(super) fn write(&self, name: &str, version: u32, body: &[u8]) -> io::Result<()> {
        let _lock =
            self.lock.load_full().ok_or_else(|| io::Error::other("another process has the folder"))?;
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        let new = self.file(&format!("{name}.{number}{TEMPORARY}"));
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let written = file
            .write_all(head(name, version, body).as_bytes())
            .and_then(|()| file.write_all(body))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, self.file(name)));
        if written.is_err() {
            // The next start removes it otherwise.
            let _ = fs::remove_file(&new);
        }
        written.and_then(|()| File::open(&self.path)?.sync_all())
    }

    /// Renames a file that is not usable, so that it can be examined. Replaces an earlier such file.
    pub(super) fn set_aside(&self, name: &str, reason: &str) {
        let aside = self.file(&format!("{name}.damaged"));
        let moved = fs::rename(self.file(name), &aside);
        let (file, aside) = (self.file(name), aside.display().to_string());
        match moved {
            Ok(()) => {
                tracing::error!(file = %file.display(), aside, reason, "a state file is not usable and was moved aside");
            }
            Err(error) => {
                tracing::error!(file = %file.display(), reason, %error, "a state file is not usable and cannot be moved aside");
            }
        }
    }
}

/// Locks the folder as long as the file is open.
fn lock(path: &Path) -> Result<File, StateError> {
    let unusable = |source| StateError::Unusable { path: path.to_owned(), source };
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(path.join(LOCK)).map_err(unusable)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = (&lock).take(16).read_to_string(&mut text);
            return Err(StateError::InUse { path: path.to_owned(), pid: text.trim().parse().ok() });
        }
        Err(error) => return Err(unusable(error.into())),
    }
    Ok(lock)
}

/// Locks the folder and writes the number of this process to the file, for the messages of others.
fn hold(path: &Path) -> Result<Arc<File>, StateError> {
    let mut lock = lock(path)?;
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(|source| StateError::Unusable { path: path.to_owned(), source })?;
    Ok(Arc::new(lock))
}

/// Removes the files of writes that a crash interrupted.
fn remove_temporary_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(TEMPORARY) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn head(name: &str, version: u32, body: &[u8]) -> String {
    format!("fingerpost {name} {version} {}\n", checksum(version, body))
}

fn checksum(version: u32, body: &[u8]) -> String {
    let digest = Sha256::new().chain_update(version.to_be_bytes()).chain_update(body).finalize();
    hex(&digest)
}

fn check(name: &str, mut bytes: Vec<u8>) -> FileContent {
    let end = memchr::memchr(b'\n', &bytes).unwrap_or(bytes.len());
    let body = bytes.split_off((end + 1).min(bytes.len()));
    let line = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let found = match *words.as_slice() {
        ["fingerpost", own, version, checksum] if own == name => Some((version.parse().ok(), checksum)),
        _ => None,
    };
    match found {
        Some((Some(version), own)) if own == checksum(version, &body) => FileContent::Valid { version, body },
        Some(_) => FileContent::Damaged("its checksum is wrong".to_owned()),
        None => FileContent::Damaged("its first line is not the one of such a file".to_owned()),
    }
}

#[cfg(test)]
mod tests;
