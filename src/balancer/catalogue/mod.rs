//! The catalogue: all files of a mirror network, with sizes and digests.
//!
//! [`parse`] reads the two formats of a list. Pure.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::balancer::policy::digest;

mod checksums;
mod encoded;
mod json;
#[cfg(test)]
mod tests;

pub(crate) use encoded::ByteReader;

/// The largest number of files and folders.
pub(crate) const MOST_FILES: usize = 20_000_000;

/// The longest path in bytes.
const LONGEST_PATH: usize = 4096;

/// The longest part of an invalid name in a message, in characters.
const SHOWN_CHARACTERS: usize = 60;

/// The files and folders of a mirror network, in the order of the keys of their paths.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    /// All paths, one after the other.
    paths: Box<[u8]>,
    records: Box<[Record]>,
    /// The ranks of all records, in the order of their paths.
    by_path: Box<[u32]>,
    files: usize,
    /// The ranks of the files with digests of their pieces, in order.
    pieces: Box<[(u32, Arc<PieceDigests>)]>,
}

/// The digests of the pieces of a file. The last piece may be shorter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PieceDigests {
    /// The length of a piece in bytes.
    pub(crate) length: u64,
    /// The SHA-256 digests.
    pub(crate) digests: Box<[[u8; 32]]>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    start: u32,
    length: u16,
    kind: RecordKind,
    has_digest: bool,
    /// [`UNKNOWN`] if it is not known.
    size: u64,
    sha256: [u8; 32],
}

const UNKNOWN: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecordKind {
    File,
    Folder,
}

/// A file, or a folder of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CatalogueEntry<'a> {
    /// The decoded path, with a slash at its start. The path of the root is empty.
    pub(crate) path: &'a [u8],
    /// Whether it is a folder.
    pub(crate) is_folder: bool,
    /// The content, as far as the list describes it.
    pub(crate) content: CatalogueContent,
}

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CatalogueContent {
    /// The size in bytes, if it is known.
    pub(crate) size: Option<u64>,
    /// The SHA-256 digest, if it is known.
    pub(crate) sha256: Option<[u8; 32]>,
}

impl CatalogueContent {
    /// Whether both may describe one content: no known property differs.
    #[must_use]
    pub(crate) fn may_equal(&self, other: &Self) -> bool {
        let differs = |one: bool, other: bool, equal: bool| one && other && !equal;
        !differs(self.size.is_some(), other.size.is_some(), self.size == other.size)
            && !differs(self.sha256.is_some(), other.sha256.is_some(), self.sha256 == other.sha256)
    }
}

/// A list that is not a catalogue. Nothing of it is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub(crate) struct CatalogueError {
    /// The wrong part of the list.
    pub(crate) place: ListPlace,
    /// The reason.
    pub(crate) reason: EntryError,
}

/// A part of a list. The first has the number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListPlace {
    /// A line.
    Line(usize),
    /// An entry of a JSON array.
    Entry(usize),
}

impl fmt::Display for ListPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(formatter, "line {number}"),
            Self::Entry(number) => write!(formatter, "entry {number}"),
        }
    }
}

/// The reason why a list is not a catalogue. Messages quote names of the list and escape all but visible text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("{line}: write a SHA-256 digest of 64 hexadecimal digits and a path, as sha256sum does")]
    NotAChecksum { line: String },
    #[error("{digits} hexadecimal digits are not a SHA-256 digest, which has 64; use sha256sum")]
    OtherDigest { digits: usize },
    #[error(
        "{path}: a path must have no empty, '.' or '..' segment, no NUL, and at most {LONGEST_PATH} bytes"
    )]
    Path { path: String },
    #[error("{path} is listed twice with different sizes or digests; remove one of them")]
    Contradiction { path: String },
    #[error("{path} is a file here, and a folder in another line")]
    FileAndFolder { path: String },
    #[error("{path} has the same 64-bit key as {other}; rename one of them")]
    EqualKeys { path: String, other: String },
    #[error("the list has more than {MOST_FILES} files and folders, or their paths have more than 4 GiB")]
    TooLarge,
    #[error("the list has no file; an empty list would make every path unknown")]
    Empty,
    #[error("the list is not valid JSON: {0}")]
    Json(String),
    #[error("an entry has neither \"path\", \"url\" nor \"name\"")]
    NoName,
    #[error(
        "{path}: \"pieces\" must have a \"length\" in bytes and, in \"sha256\", a digest for each piece of \"size\""
    )]
    Pieces { path: String },
}

/// Parses a list: lines of `sha256sum`, or JSON if the first character is `[` or `{`.
pub(crate) fn parse(text: &[u8]) -> Result<Catalogue, CatalogueError> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    match text.trim_ascii_start().first() {
        Some(b'[' | b'{') => json::parse(text),
        _ => checksums::parse(text),
    }
}

/// The catalogue of these files. Their paths have no slash at their start.
pub(crate) fn of_files<'a>(
    files: impl Iterator<Item = (&'a [u8], CatalogueContent, Option<Arc<PieceDigests>>)>,
) -> Result<Catalogue, CatalogueError> {
    let mut builder = CatalogueBuilder::new(ListPlace::Entry);
    for (number, (path, content, pieces)) in (1..).zip(files) {
        let start = builder.add(number, path, content)?;
        builder.pieces.extend(pieces.map(|pieces| (start, pieces)));
    }
    builder.finish()
}

/// The key of a path in the form of [`Entry::path`].
#[must_use]
pub(crate) fn key(path: &[u8]) -> u64 {
    digest(path).max(1)
}

impl Catalogue {
    /// The number of files, without folders.
    #[must_use]
    pub(crate) fn files(&self) -> usize {
        self.files
    }

    /// The sorted keys of all files and folders.
    #[must_use]
    pub(crate) fn keys(&self) -> Vec<u64> {
        self.records.iter().map(|record| key(self.path(record))).collect()
    }

    /// The entry at `rank` in the order of the keys.
    #[must_use]
    pub(crate) fn entry(&self, rank: u32) -> Option<CatalogueEntry<'_>> {
        let record = self.records.get(rank as usize)?;
        let content = CatalogueContent {
            size: (record.size != UNKNOWN).then_some(record.size),
            sha256: record.has_digest.then_some(record.sha256),
        };
        Some(CatalogueEntry {
            path: self.path(record),
            is_folder: record.kind == RecordKind::Folder,
            content,
        })
    }

    /// The digests of the pieces of the file at `rank`, if the list has them.
    #[must_use]
    pub(crate) fn pieces(&self, rank: u32) -> Option<&PieceDigests> {
        let place = self.pieces.binary_search_by_key(&rank, |(rank, _)| *rank).ok()?;
        self.pieces.get(place).map(|(_, pieces)| &**pieces)
    }

    /// All entries in the order of their keys.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> impl Iterator<Item = CatalogueEntry<'_>> {
        (0..self.records.len() as u32).filter_map(|rank| self.entry(rank))
    }

    /// The entry with this path.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn find(&self, path: &[u8]) -> Option<CatalogueEntry<'_>> {
        let place = self.by_path.partition_point(|rank| self.path_at(*rank) < path);
        let entry = self.entry(*self.by_path.get(place)?)?;
        (entry.path == path).then_some(entry)
    }

    /// The files of a folder, without those of its folders.
    pub(crate) fn files_of<'a>(&'a self, folder: &'a [u8]) -> impl Iterator<Item = CatalogueEntry<'a>> {
        let start = self.by_path.partition_point(|rank| self.path_at(*rank) <= folder);
        let after = self.by_path.get(start..).unwrap_or_default();
        let entries = after.iter().filter_map(|rank| self.entry(*rank));
        entries
            .take_while(move |entry| entry.path.starts_with(folder))
            .filter(move |entry| !entry.is_folder && parent(entry.path) == folder)
    }

    /// At most `most` files of a folder and of its folders, spread over all of them.
    pub(crate) fn some_files_below(
        &self,
        folder: &[u8],
        most: usize,
    ) -> impl Iterator<Item = CatalogueEntry<'_>> {
        let prefix = [folder, b"/"].concat();
        let start = self.by_path.partition_point(|rank| self.path_at(*rank) < prefix.as_slice());
        let after = self.by_path.get(start..).unwrap_or_default();
        let count = after.partition_point(|rank| self.path_at(*rank).starts_with(&prefix));
        let below = after.get(..count).unwrap_or_default();
        let places = (0..count).step_by(count.div_ceil(most).max(1));
        // At the place of a folder, its first file is taken.
        places.filter_map(|place| {
            let mut entries = below.get(place..)?.iter().filter_map(|rank| self.entry(*rank));
            entries.find(|entry| !entry.is_folder)
        })
    }

    fn path(&self, record: &Record) -> &[u8] {
        let start = record.start as usize;
        self.paths.get(start..start + usize::from(record.length)).unwrap_or_default()
    }

    fn path_at(&self, rank: u32) -> &[u8] {
        self.records.get(rank as usize).map(|record| self.path(record)).unwrap_or_default()
    }
}

/// The path of the folder that contains `path`.
#[must_use]
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    memchr::memrchr(b'/', path).and_then(|slash| path.get(..slash)).unwrap_or_default()
}

/// Collects the entries of a list.
#[derive(Debug)]
struct CatalogueBuilder {
    paths: Vec<u8>,
    records: Vec<(u64, u32, Record)>,
    place: fn(usize) -> ListPlace,
    /// The folder of the latest file.
    folder: Vec<u8>,
    /// By the starts of the paths.
    pieces: HashMap<u32, Arc<PieceDigests>>,
}

impl CatalogueBuilder {
    /// A builder that names the parts of the list with `place`.
    fn new(place: fn(usize) -> ListPlace) -> Self {
        Self { paths: Vec::new(), records: Vec::new(), place, folder: Vec::new(), pieces: HashMap::new() }
    }

    /// Adds a file of a line or entry. `name` may start with `/` or `./`. Returns the start of the stored path.
    fn add(&mut self, line: usize, name: &[u8], content: CatalogueContent) -> Result<u32, CatalogueError> {
        let place = (self.place)(line);
        let fail = |reason| CatalogueError { place, reason };
        let mut rest = name;
        while let Some(after) = rest.strip_prefix(b"./").or_else(|| rest.strip_prefix(b"/")) {
            rest = after;
        }
        let is_valid = !rest.is_empty()
            && rest.len() < LONGEST_PATH
            && !rest.contains(&0)
            && rest.split(|byte| *byte == b'/').all(|segment| !matches!(segment, b"" | b"." | b".."));
        if !is_valid {
            return Err(fail(EntryError::Path { path: shown(name) }));
        }
        let start = self.push(line, rest, RecordKind::File, content).map_err(fail)?;
        // Lists are nearly always sorted, so most files are in the folder of the file before.
        let path = self.paths.get(start as usize..).unwrap_or_default();
        if parent(path) != self.folder.as_slice() || self.records.len() == 1 {
            self.folder = parent(path).to_vec();
            let mut folder = self.folder.clone();
            loop {
                self.push(line, &folder, RecordKind::Folder, CatalogueContent::default()).map_err(fail)?;
                if folder.is_empty() {
                    break;
                }
                folder.truncate(parent(&folder).len());
            }
        }
        Ok(start)
    }

    /// Returns the start of the stored path.
    fn push(
        &mut self,
        line: usize,
        path: &[u8],
        kind: RecordKind,
        content: CatalogueContent,
    ) -> Result<u32, EntryError> {
        let start = self.paths.len();
        if kind == RecordKind::File {
            self.paths.push(b'/');
        }
        self.paths.extend_from_slice(path);
        let stored = self.paths.get(start..).unwrap_or_default();
        let (Ok(place), true) = (u32::try_from(start), self.records.len() < 2 * MOST_FILES) else {
            return Err(EntryError::TooLarge);
        };
        let record = Record {
            start: place,
            length: stored.len() as u16,
            kind,
            has_digest: content.sha256.is_some(),
            size: content.size.unwrap_or(UNKNOWN),
            sha256: content.sha256.unwrap_or_default(),
        };
        self.records.push((key(stored), line as u32, record));
        Ok(place)
    }

    /// Sorts the entries. Equal lines count once.
    fn finish(self) -> Result<Catalogue, CatalogueError> {
        let Self { paths, mut records, place, mut pieces, .. } = self;
        let path = |record: &Record| -> &[u8] {
            paths
                .get(record.start as usize..)
                .and_then(|rest| rest.get(..record.length.into()))
                .unwrap_or_default()
        };
        records.sort_unstable_by_key(|(key, line, record)| (*key, record.kind == RecordKind::Folder, *line));
        let mut kept: Vec<(u64, u32, Record)> = Vec::with_capacity(records.len());
        for (key, line, record) in records {
            if let Some((_, _, known)) = kept.last().filter(|(known, ..)| *known == key) {
                let shown = shown(path(&record));
                let reason = if path(known) != path(&record) {
                    Some(EntryError::EqualKeys { path: shown, other: self::shown(path(known)) })
                } else if known.kind != record.kind {
                    Some(EntryError::FileAndFolder { path: shown })
                } else if (known.size, known.has_digest, known.sha256)
                    != (record.size, record.has_digest, record.sha256)
                {
                    Some(EntryError::Contradiction { path: shown })
                } else {
                    None
                };
                if let Some(reason) = reason {
                    return Err(CatalogueError { place: place(line as usize), reason });
                }
            } else {
                kept.push((key, line, record));
            }
        }
        if kept.len() > MOST_FILES {
            return Err(CatalogueError { place: place(1), reason: EntryError::TooLarge });
        }
        // In the order of the lines, which are often sorted by path: the sort then takes linear time.
        let mut by_path: Vec<u32> = (0..kept.len() as u32).collect();
        let record = |rank: &u32| kept.get(*rank as usize);
        by_path.sort_unstable_by_key(|rank| record(rank).map(|(_, _, record)| record.start));
        by_path.sort_by_key(|rank| record(rank).map(|(_, _, record)| path(record)));
        let files = kept.iter().filter(|(_, _, record)| record.kind == RecordKind::File).count();
        if files == 0 {
            return Err(CatalogueError { place: place(1), reason: EntryError::Empty });
        }
        let records: Box<[Record]> = kept.into_iter().map(|(_, _, record)| record).collect();
        let pieces =
            (0..).zip(&records).filter_map(|(rank, record)| Some((rank, pieces.remove(&record.start)?)));
        let pieces = pieces.collect();
        Ok(Catalogue { paths: paths.into(), records, by_path: by_path.into(), files, pieces })
    }
}

/// The hexadecimal digits of a digest.
#[must_use]
pub(crate) fn digits(sha256: &[u8; 32]) -> String {
    sha256.iter().fold(String::with_capacity(64), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Parses 64 hexadecimal digits.
fn sha256(digits: &[u8]) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = hex(*high)? << 4 | hex(*low)?;
    }
    Some(digest)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A part of the list for a message: truncated, and escaped for terminals and logs.
fn shown(bytes: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(bytes.get(..4 * SHOWN_CHARACTERS).unwrap_or(bytes));
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        shown.push_str("...");
    }
    shown
}
