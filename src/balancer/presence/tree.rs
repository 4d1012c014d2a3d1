//! The catalogue of a folder of this machine: all files with their digests.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::source::{CatalogueSourceError, FileVersion, ReadList};
use crate::balancer::catalogue::{self, CatalogueContent, PieceDigests};

/// A file that changed within this time may still be written.
const RECENT: Duration = Duration::from_secs(2);

/// The bytes of one read.
const BUFFER: usize = 1 << 20;

/// The shortest piece with a digest of its own, in bytes: the digests of 10 TB then need at most 80 MB.
const SHORTEST_PIECE: u64 = 4 << 20;

/// The largest number of pieces of a file.
const MOST_PIECES: u64 = 1024;

/// The deepest folder that is read.
const DEEPEST: usize = 64;

/// The digests of the files of a folder, by path below it, as long as the files do not change.
#[derive(Debug, Clone, Default)]
pub(super) struct TreeDigests(HashMap<Vec<u8>, TreeFile>);

#[derive(Debug, Clone)]
struct TreeFile {
    version: FileVersion,
    size: u64,
    sha256: [u8; 32],
    pieces: Option<Arc<PieceDigests>>,
}

/// Reads all files below `root`, and computes the digests of those that are not known. Links, names that start with a dot, and
/// files that are still written are left out; a changed file keeps its earlier digest until it is complete.
pub(super) fn scan(
    root: &Path,
    known: &TreeDigests,
    now: SystemTime,
) -> Result<(ReadList, TreeDigests), CatalogueSourceError> {
    let mut found = TreeDigests::default();
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let path = root.join(&folder);
        let unreadable = |source| CatalogueSourceError::Unreadable { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = folder.join(entry.file_name());
            if entry.file_name().as_bytes().starts_with(b".") {
                continue;
            }
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() && depth < DEEPEST {
                folders.push((name, depth + 1));
            } else if kind.is_file() {
                let earlier = known.0.get(name.as_os_str().as_bytes()).cloned();
                match examine(&root.join(&name), earlier, now) {
                    Ok(Some(file)) => drop(found.0.insert(name.into_os_string().into_encoded_bytes(), file)),
                    Ok(None) => {}
                    // It was removed since the folder was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => {
                        return Err(CatalogueSourceError::Unreadable { path: root.join(&name), source });
                    }
                }
            }
        }
    }
    let of = |file: &TreeFile| CatalogueContent { size: Some(file.size), sha256: Some(file.sha256) };
    let files = found.0.iter();
    let mut files: Vec<(&[u8], CatalogueContent, _)> =
        files.map(|(path, file)| (&**path, of(file), file.pieces.clone())).collect();
    files.sort_unstable_by_key(|(path, ..)| *path);
    let mut digest = Sha256::new();
    for (path, content, _) in &files {
        digest.update((path.len() as u64).to_le_bytes());
        digest.update(path);
        digest.update(content.sha256.unwrap_or_default());
    }
    let invalid = |source| CatalogueSourceError::Invalid { place: root.display().to_string(), source };
    let catalogue = Arc::new(catalogue::of_files(files.into_iter()).map_err(invalid)?);
    Ok((ReadList { catalogue, digest: digest.finalize().into() }, found))
}

/// The current digest of a file, or the earlier one as long as the file is written; `None` without either.
fn examine(path: &Path, earlier: Option<TreeFile>, now: SystemTime) -> io::Result<Option<TreeFile>> {
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    let version = FileVersion::of(&before);
    if earlier.as_ref().is_some_and(|known| known.version == version) {
        return Ok(earlier);
    }
    // After the clock was set back, a file of the future counts as complete.
    if now.duration_since(before.modified()?).is_ok_and(|age| age < RECENT) {
        return Ok(earlier);
    }
    let size = before.len();
    let mut hasher = PieceHasher::of(size);
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                let bytes = buffer.get(..read).unwrap_or_default();
                digest.update(bytes);
                if let Some(hasher) = &mut hasher {
                    hasher.update(bytes);
                }
            }
        }
    }
    if FileVersion::of(&file.metadata()?) != version {
        return Ok(earlier);
    }
    let pieces = hasher.map(|hasher| Arc::new(hasher.finish()));
    Ok(Some(TreeFile { version, size, sha256: digest.finalize().into(), pieces }))
}

/// Computes the digests of the pieces of a file.
struct PieceHasher {
    length: u64,
    current: Sha256,
    /// The bytes that the current piece lacks.
    left: u64,
    digests: Vec<[u8; 32]>,
}

impl PieceHasher {
    /// `None` for a file of one piece.
    fn of(size: u64) -> Option<Self> {
        let length = SHORTEST_PIECE.max(size.div_ceil(MOST_PIECES).next_power_of_two());
        let new = || Self { length, current: Sha256::new(), left: length, digests: Vec::new() };
        (size > length).then(new)
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while let Some((now, rest)) = bytes.split_at_checked(bytes.len().min(self.left as usize))
            && !now.is_empty()
        {
            self.current.update(now);
            self.left -= now.len() as u64;
            if self.left == 0 {
                self.digests.push(self.current.finalize_reset().into());
                self.left = self.length;
            }
            bytes = rest;
        }
    }

    fn finish(mut self) -> PieceDigests {
        if self.left < self.length {
            self.digests.push(self.current.finalize().into());
        }
        PieceDigests { length: self.length, digests: self.digests.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_a_catalogue_of_its_complete_files() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(root.path().join(name), content).unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        write("a/b/c d", "content");
        write("x", "first");
        write(".hidden", "");
        std::os::unix::fs::symlink("x", root.path().join("link")).unwrap();
        let now = SystemTime::now();
        let later = now + Duration::from_mins(1);
        assert!(scan(root.path(), &TreeDigests::default(), now).is_err(), "no file is complete");

        let (list, known) = scan(root.path(), &TreeDigests::default(), later).unwrap();
        assert_eq!(list.catalogue.files(), 2);
        let content = list.catalogue.find(b"/a/b/c d").unwrap().content;
        assert_eq!((content.size, content.sha256), (Some(7), Some(Sha256::digest(b"content").into())));

        write("x", "another");
        let (same, known) = scan(root.path(), &known, SystemTime::now()).unwrap();
        assert_eq!(same.digest, list.digest);
        let (changed, known) = scan(root.path(), &known, later).unwrap();
        assert_ne!(changed.digest, list.digest);
        assert_eq!(changed.catalogue.find(b"/x").unwrap().content.size, Some(7));
        fs::remove_file(root.path().join("x")).unwrap();
        assert_eq!(scan(root.path(), &known, later).unwrap().0.catalogue.files(), 1);
    }
    #[test]
    fn only_large_files_have_pieces() {
        assert!(PieceHasher::of(SHORTEST_PIECE).is_none());
        for (size, length) in
            [(SHORTEST_PIECE + 1, SHORTEST_PIECE), (SHORTEST_PIECE * 1025, SHORTEST_PIECE * 2)]
        {
            assert_eq!(PieceHasher::of(size).unwrap().length, length);
        }
        let bytes: Vec<u8> = (0..SHORTEST_PIECE * 2 + 5).map(|at| at as u8).collect();
        let mut hasher = PieceHasher::of(bytes.len() as u64).unwrap();
        bytes.chunks(777_777).for_each(|part| hasher.update(part));
        let expected: Vec<[u8; 32]> =
            bytes.chunks(SHORTEST_PIECE as usize).map(|piece| Sha256::digest(piece).into()).collect();
        assert_eq!(*hasher.finish().digests, *expected);
    }
}
