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
use crate::balancer::catalogue::{self, CatalogueContent};

/// A file that changed within this time may still be written.
const RECENT: Duration = Duration::from_secs(2);

/// The bytes of one read.
const BUFFER: usize = 1 << 20;

/// The deepest folder that is read.
const DEEPEST: usize = 64;

/// The digests of the files of a folder, by path below it, as long as the files do not change.
#[derive(Debug, Clone, Default)]
pub(super) struct TreeDigests(HashMap<Vec<u8>, TreeFile>);

#[derive(Debug, Clone, Copy)]
struct TreeFile {
    version: FileVersion,
    size: u64,
    sha256: [u8; 32],
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
                let earlier = known.0.get(name.as_os_str().as_bytes()).copied();
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
    let mut files: Vec<(&[u8], CatalogueContent)> = found
        .0
        .iter()
        .map(|(path, file)| (&**path, CatalogueContent { size: Some(file.size), sha256: Some(file.sha256) }))
        .collect();
    files.sort_unstable_by_key(|(path, _)| *path);
    let mut digest = Sha256::new();
    for (path, content) in &files {
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
    if let Some(known) = earlier.filter(|known| known.version == version) {
        return Ok(Some(known));
    }
    // After the clock was set back, a file of the future counts as complete.
    if now.duration_since(before.modified()?).is_ok_and(|age| age < RECENT) {
        return Ok(earlier);
    }
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => digest.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    if FileVersion::of(&file.metadata()?) != version {
        return Ok(earlier);
    }
    Ok(Some(TreeFile { version, size: before.len(), sha256: digest.finalize().into() }))
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
}
