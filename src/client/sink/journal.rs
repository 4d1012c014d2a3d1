//! The journal beside the part file: the identity of the file, the bytes of it that are on the disk, and
//! their sources.
//!
//! One JSON object per line; the first describes the file. A line is added only after its bytes were synced,
//! so that every line is true after a crash. A broken last line is ignored.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::identity::ContentIdentity;
use super::super::plan::{ByteRange, RangeSet};
use super::part::{is_named, sync_folder};
use super::{SinkError, beside, part_path};

/// Maximum size of a journal in bytes; a longer one is not ours.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;

/// Number of lines after which the journal is rewritten in compact form.
const MAX_LINES: usize = 4096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstLine {
    /// The version of this format.
    fingerpost: u32,
    file: ContentIdentity,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DoneLine {
    start: u64,
    end: u64,
    /// Address of the source.
    from: String,
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

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    done: RangeSet,
}

impl Journal {
    /// Reads the journal at `path`; `None` if it is missing or invalid.
    #[must_use]
    pub(crate) fn read(path: &Path) -> Option<ResumeState> {
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

    /// Replaces the journal at `path` by a new one, which lists the bytes `done`. These are on the disk
    /// already.
    pub(crate) fn create(path: &Path, identity: &ContentIdentity, done: &RangeSet) -> io::Result<Self> {
        let journal = Self::write(path, identity, done)?;
        journal.file.sync_data()?;
        std::fs::rename(fresh_path(path), path)?;
        Ok(journal)
    }

    fn write(path: &Path, identity: &ContentIdentity, done: &RangeSet) -> io::Result<Self> {
        let fresh = fresh_path(path);
        let mut text = line(&FirstLine { fingerpost: VERSION, file: identity.clone() })?;
        for range in done.iter() {
            text.push_str(&line(&DoneLine { start: range.start, end: range.end, from: String::new() })?);
        }
        // The file must be new: a planted link must not lead the writes elsewhere.
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().append(true).create_new(true).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        let lines = done.iter().count();
        Ok(Self { path: path.to_owned(), file, lines, done: done.clone() })
    }

    /// The open file of the journal.
    pub(super) fn handle(&self) -> &File {
        &self.file
    }

    /// The bytes that the journal lists.
    pub(super) fn done(&self) -> &RangeSet {
        &self.done
    }

    /// Appends synced bytes, and syncs the journal.
    pub(crate) fn add(&mut self, identity: &ContentIdentity, runs: &[(ByteRange, String)]) -> io::Result<()> {
        let mut text = String::new();
        for (range, from) in runs {
            self.done.insert(*range);
            text.push_str(&line(&DoneLine { start: range.start, end: range.end, from: from.clone() })?);
        }
        self.lines = self.lines.saturating_add(runs.len());
        if self.lines > MAX_LINES {
            *self = Self::create(&self.path.clone(), identity, &self.done.clone())?;
            return Ok(());
        }
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()
    }
}

/// Temporary path of a new journal. It is no longer than the path of the journal, so it fits if the journal
/// does.
fn fresh_path(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Marks the part file of `target` as ours with a journal that lists no bytes, and replaces any other
/// journal.
///
/// Otherwise, a run that is killed before its first checkpoint would leave a part file that looks like that
/// of another program.
pub(super) fn claim(target: &Path) -> Result<File, SinkError> {
    let path = journal_path(target);
    let failed = |source| SinkError::Io { action: "create", path: path.clone(), source };
    if path.symlink_metadata().is_ok() {
        // The old journal may list bytes that are overwritten next: it must be removed durably first.
        let journal =
            Journal::create(&path, &ContentIdentity::default(), &RangeSet::new()).map_err(failed)?;
        sync_folder(target)?;
        return Ok(journal.file);
    }
    let journal = Journal::write(&path, &ContentIdentity::default(), &RangeSet::new()).map_err(failed)?;
    std::fs::rename(fresh_path(&path), &path).map_err(failed)?;
    Ok(journal.file)
}

/// Path of the journal of `target`.
pub(super) fn journal_path(target: &Path) -> PathBuf {
    beside(target, ".part.journal")
}

/// Removes the journal of `target` durably (fsync of the directory), before the bytes that it lists are
/// overwritten.
pub(super) fn remove_journal(target: &Path) -> Result<(), SinkError> {
    let path = journal_path(target);
    match std::fs::remove_file(&path) {
        Ok(()) => sync_folder(target),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SinkError::Io { action: "remove", path, source }),
    }
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

/// Syncs all written bytes, then records them in the journal.
pub(super) fn checkpoint(
    file: &File,
    target: &Path,
    journal: Option<Journal>,
    identity: &ContentIdentity,
    before: &RangeSet,
    runs: &[(ByteRange, String)],
) -> Result<Journal, SinkError> {
    let (path, part) = (journal_path(target), part_path(target));
    if !is_named(file, &part) {
        remove_own(target, journal.as_ref().map(Journal::handle));
        return Err(SinkError::Displaced { path: part });
    }
    let failed = |source| SinkError::Io { action: "write", path: path.clone(), source };
    file.sync_data().map_err(failed)?;
    let mut journal = match journal {
        Some(journal) => journal,
        None => Journal::create(&path, identity, before).map_err(failed)?,
    };
    journal.add(identity, runs).map_err(failed)?;
    Ok(journal)
}

fn line(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> ContentIdentity {
        ContentIdentity { size: Some(1000), etags: vec!["\"tag\"".to_owned()], ..ContentIdentity::default() }
    }

    fn run(start: u64, end: u64) -> (ByteRange, String) {
        (ByteRange::new(start, end), "http://a/f".to_owned())
    }

    #[test]
    fn a_written_journal_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path, &identity(), &RangeSet::new()).unwrap();
        journal.add(&identity(), &[run(0, 10), run(500, 600)]).unwrap();
        journal.add(&identity(), &[run(10, 20)]).unwrap();
        let remembered = Journal::read(&path).unwrap();
        assert_eq!(remembered.identity, identity());
        assert_eq!(
            remembered.done.iter().collect::<Vec<_>>(),
            [ByteRange::new(0, 20), ByteRange::new(500, 600)]
        );
    }

    #[test]
    fn a_long_journal_is_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path, &identity(), &RangeSet::new()).unwrap();
        journal.add(&identity(), &vec![run(0, 10); MAX_LINES]).unwrap();
        journal.add(&identity(), &[run(10, 20)]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert_eq!(Journal::read(&path).unwrap().done.len(), 20);
    }

    proptest! {
        /// A crash may cut the journal anywhere, and the rest of the file may hold any bytes.
        #[test]
        fn a_truncated_journal_lists_no_wrong_bytes(keep in 0_usize..300, tail in "[ -~\n]{0,20}") {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("journal");
            let mut journal = Journal::create(&path, &identity(), &RangeSet::new()).unwrap();
            journal.add(&identity(), &[run(0, 10), run(500, 600)]).unwrap();
            let mut text = std::fs::read_to_string(&path).unwrap();
            text.truncate(keep.min(text.len()));
            std::fs::write(&path, text + &tail).unwrap();
            if let Some(remembered) = Journal::read(&path) {
                let written = [ByteRange::new(0, 10), ByteRange::new(500, 600)];
                prop_assert!(remembered.done.iter().all(|range| written.contains(&range)));
            }
        }
    }
}
