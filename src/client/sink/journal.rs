//! The journal beside the part file: the identity of the file, and the bytes of it that are on the disk.
//!
//! One JSON object per line: the first describes the file, each further one a range of bytes. A journal is written to a
//! new file, synced, and renamed, so that it is whole and true after a crash.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::part::{is_named, sync_folder};
use super::{SinkError, beside};
use crate::client::identity::ContentIdentity;
use crate::client::range::{ByteRange, RangeSet};

/// Maximum size of a journal in bytes; a longer one is not ours.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstLine {
    /// The version of this format.
    fingerpost: u32,
    file: ContentIdentity,
}

#[derive(Debug, Serialize, Deserialize)]
struct DoneLine {
    start: u64,
    end: u64,
}

const VERSION: u32 = 1;

/// State left by an earlier run.
#[derive(Debug, Clone)]
pub(crate) struct ResumeState {
    /// The identity of the file.
    pub identity: ContentIdentity,
    /// Its bytes on the disk.
    pub done: RangeSet,
}

/// Reads the journal at `path`; `None` if it is missing or invalid.
pub(super) fn read(path: &Path) -> Option<ResumeState> {
    let file = File::open(path).ok().filter(|file| {
        file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_JOURNAL_BYTES)
    })?;
    let mut lines = BufReader::new(file.take(MAX_JOURNAL_BYTES)).lines().map_while(Result::ok);
    let first: FirstLine = serde_json::from_str(&lines.next()?).ok()?;
    let size = first.file.size.filter(|_| first.fingerpost == VERSION)?;
    let mut done = RangeSet::new();
    for line in lines {
        // Bytes after a broken line were not written by a journal.
        let Ok(line) = serde_json::from_str::<DoneLine>(&line) else { break };
        if line.start > line.end || line.end > size {
            return None;
        }
        done.insert(ByteRange::new(line.start, line.end));
    }
    Some(ResumeState { identity: first.file, done })
}

/// Replaces the journal of `target` by one that lists the bytes `done`, which are synced already. Returns its handle, by
/// which [`remove_own`] recognises it.
pub(super) fn write(target: &Path, identity: &ContentIdentity, done: &RangeSet) -> io::Result<File> {
    let path = journal_path(target);
    // No longer than the path of the journal, so it fits if the journal does.
    let fresh = path.with_extension("new");
    let mut text = line(&FirstLine { fingerpost: VERSION, file: identity.clone() })?;
    for range in done.iter() {
        text.push_str(&line(&DoneLine { start: range.start, end: range.end })?);
    }
    // The file must be new: a planted link must not lead the writes elsewhere.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().append(true).create_new(true).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    if !done.is_empty() {
        file.sync_data()?;
    }
    std::fs::rename(fresh, path)?;
    Ok(file)
}

fn line(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// Marks the part file of `target` as ours with a journal that lists no bytes, and replaces any other
/// journal.
///
/// Otherwise, a run that is killed before its first checkpoint would leave a part file that looks like that
/// of another program.
pub(super) fn claim(target: &Path) -> Result<File, SinkError> {
    let path = journal_path(target);
    let is_old = path.symlink_metadata().is_ok();
    let journal = write(target, &ContentIdentity::default(), &RangeSet::new())
        .map_err(|source| SinkError::Io { action: "create", path, source })?;
    if is_old {
        // The old journal may list bytes that are overwritten next: it must be removed durably first.
        sync_folder(target)?;
    }
    Ok(journal)
}

/// Path of the journal of `target`.
pub(super) fn journal_path(target: &Path) -> PathBuf {
    beside(target, ".part.journal")
}

/// Removes the journal of `target`, and a new one that a killed run left. A journal without part file is ignored, so a
/// failure is harmless.
pub(super) fn remove(target: &Path) {
    let path = journal_path(target);
    let _ = std::fs::remove_file(path.with_extension("new"));
    let _ = std::fs::remove_file(path);
}

/// Removes the journal of `target` if it is `own`. Its part file is gone, and it must not describe another
/// one. The journal of another client stays, because it is true.
pub(super) fn remove_own(target: &Path, own: Option<&File>) {
    let path = journal_path(target);
    if own.is_some_and(|own| is_named(own, &path)) {
        // There is no fallback if this fails.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests;
