//! The file that stores digests across restarts.
//!
//! It is a text with one file per line. The last line has the SHA-256 of all lines before it, which detects damage by
//! a crash, a full disk or another program. The file is always replaced as a whole. Servers that share a folder may
//! share it: each server writes all digests that it knows, and uses a stored digest only if the file is unchanged.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{FileId, Known, MOST_DIGESTS, Stamp, Table};
use crate::folder::folder_of;

const FIRST_LINE: &[u8] = b"fingerpost digests 2\n";

/// Beginning of the last line; the digest of the lines before follows.
const SEAL: &str = "all ";

/// Maximum length of a line, in bytes: a digest and seven numbers are shorter.
const LONGEST_LINE: u64 = 512;

/// Maximum size of the file, in bytes.
const LARGEST: u64 = 1 << 30;

/// Age after which a temporary file is a leftover of a process that ended.
const OLD_PART: Duration = Duration::from_mins(10);

/// Saving uses at most 1/[`PAUSE`] of the time, and the pause is at least [`SHORTEST_PAUSE`].
const PAUSE: u32 = 50;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
enum DigestFileError {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error("it is damaged, or not a file of digests")]
    Damaged,
}

/// The file of digests, and the time of its next save.
#[derive(Debug)]
pub(super) struct DigestFile {
    path: PathBuf,
    due: Instant,
    is_warned: bool,
}

impl DigestFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, due: Instant::now(), is_warned: false }
    }

    /// Loads the stored digests. If the file is unusable, this logs a warning and all digests are computed again.
    pub(super) fn load(&mut self, table: &Table) {
        remove_parts(&self.path);
        match read(&self.path) {
            Ok(entries) => {
                let known = table.known.pin();
                for (file, entry) in entries {
                    known.insert(file, entry);
                }
            }
            Err(DigestFileError::System(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "the digests of files are computed again");
            }
        }
    }

    /// The earliest time of the next save.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Saves all digests, and returns whether this succeeded. Only the first failure is logged.
    pub(super) fn save(&mut self, table: &Table) -> bool {
        let began = Instant::now();
        let written = write(&self.path, table);
        let is_saved = written.is_ok();
        match written {
            Ok(()) => self.is_warned = false,
            Err(error) if !self.is_warned => {
                self.is_warned = true;
                let file = self.path.display();
                tracing::warn!(%file, %error, "the digests of files cannot be saved; they are computed again after a restart");
            }
            Err(_) => {}
        }
        let now = Instant::now();
        self.due = now + SHORTEST_PAUSE.max(PAUSE * now.saturating_duration_since(began));
        is_saved
    }
}

/// The folder of temporary files, and the prefix of their names.
fn place_of_parts(path: &Path) -> (&Path, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (folder_of(path), format!(".{name}.part-"))
}

/// Removes temporary files of processes that were killed while they wrote.
fn remove_parts(path: &Path) {
    let (folder, prefix) = place_of_parts(path);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|data| data.modified()).map(|time| time.elapsed());
        let is_old = matches!(age, Ok(Ok(age)) if age >= OLD_PART);
        if is_old && entry.file_name().to_string_lossy().starts_with(&prefix) {
            // A file that cannot be removed does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn write(path: &Path, table: &Table) -> io::Result<()> {
    // A rename would replace a device by a regular file.
    if path.metadata().is_ok_and(|data| !data.is_file()) {
        return Err(io::Error::other("it is not a regular file"));
    }
    let (folder, prefix) = place_of_parts(path);
    // A temporary file with a unique name: a crash leaves the old file intact, and servers that share it do not
    // interfere.
    let part = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder)?;
    write_sealed(part.as_file(), table)?;
    part.as_file().sync_data()?;
    part.persist(path)?;
    Ok(())
}

fn write_sealed(file: &File, table: &Table) -> io::Result<()> {
    let mut sealed = Sealing { to: BufWriter::new(file), sum: Sha256::new() };
    sealed.line(FIRST_LINE)?;
    let known = table.known.pin();
    for ((device, inode), entry) in known.iter().take(MOST_DIGESTS) {
        let Stamp { length, modified, changed } = entry.stamp;
        let digest = STANDARD.encode(entry.digest);
        let ((modified, modified_nanos), (changed, changed_nanos)) = (modified, changed);
        let line = format!(
            "{digest} {device} {inode} {length} {modified} {modified_nanos} {changed} {changed_nanos}\n"
        );
        sealed.line(line.as_bytes())?;
    }
    let Sealing { mut to, sum } = sealed;
    to.write_all(format!("{SEAL}{}\n", STANDARD.encode(sum.finalize())).as_bytes())?;
    to.flush()
}

struct Sealing<W> {
    to: W,
    sum: Sha256,
}

impl<W: Write> Sealing<W> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.sum.update(line);
        self.to.write_all(line)
    }
}

type Entry = (FileId, Known);

fn read(path: &Path) -> Result<Vec<Entry>, DigestFileError> {
    let mut lines = BufReader::new(File::open(path)?).take(LARGEST);
    let mut entries = Vec::new();
    let mut sum = Sha256::new();
    let mut line = Vec::new();
    (&mut lines).take(FIRST_LINE.len() as u64).read_to_end(&mut line)?;
    if line != FIRST_LINE {
        return Err(DigestFileError::Damaged);
    }
    loop {
        sum.update(&line);
        line.clear();
        (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        let text = std::str::from_utf8(&line).ok().and_then(|text| text.strip_suffix('\n'));
        let text = text.ok_or(DigestFileError::Damaged)?;
        if let Some(seal) = text.strip_prefix(SEAL) {
            let is_right = seal == STANDARD.encode(sum.finalize()) && lines.read(&mut [0])? == 0;
            return if is_right { Ok(entries) } else { Err(DigestFileError::Damaged) };
        }
        entries.push(parse(text).ok_or(DigestFileError::Damaged)?);
        if entries.len() > MOST_DIGESTS {
            return Err(DigestFileError::Damaged);
        }
    }
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let digest = STANDARD.decode(words.next()?).ok()?.try_into().ok()?;
    let file = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let length = words.next()?.parse().ok()?;
    let mut time = || Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?));
    let stamp = Stamp { length, modified: time()?, changed: time()? };
    words.next().is_none().then_some((file, Known::new(stamp, digest, 0)))
}

#[cfg(test)]
mod tests;
