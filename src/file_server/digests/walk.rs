//! Finds the files below a folder, one at a time.

use rustix::fs::{AtFlags, Dir, FileType, statat};

use super::super::path::is_served_name;
use super::super::root::{OpenError, Root};

/// Folders within folders that are gone into; one descriptor each.
const DEEPEST: usize = 64;

/// A walk through all folders that are served. Folders are read as they are reached, so that it takes no more memory
/// than the way to where it is.
///
/// It follows no links: they may lead in circles. A file behind one is found by the requests for it.
#[derive(Debug)]
pub(super) struct Walk {
    way: Vec<Folder>,
    is_begun: bool,
}

#[derive(Debug)]
struct Folder {
    path: Vec<u8>,
    entries: Dir,
}

/// What the next entry of a folder is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Perhaps a file, at this path.
    File(Vec<u8>),
    /// Nothing that is served, or a folder that was entered.
    Passed,
    /// A folder that cannot be read to its end. The walk misses the files in it.
    Failed,
    /// A folder too deep to go into.
    LeftOut,
    /// There is no other entry.
    End,
}

impl Walk {
    pub(super) fn new() -> Self {
        Self { way: Vec::new(), is_begun: false }
    }

    /// Looks at one more entry.
    pub(super) fn step(&mut self, root: &Root) -> Step {
        if !self.is_begun {
            self.is_begun = true;
            return self.enter(root, Vec::new());
        }
        let Some(folder) = self.way.last_mut() else {
            return Step::End;
        };
        let entry = match folder.entries.read() {
            Some(Ok(entry)) => entry,
            end => {
                self.way.pop();
                return if end.is_none() { Step::Passed } else { Step::Failed };
            }
        };
        let name = entry.file_name().to_bytes();
        if !is_served_name(name) {
            return Step::Passed;
        }
        let path = match folder.path.as_slice() {
            [] => name.to_owned(),
            folder => [folder, b"/", name].concat(),
        };
        let kind = match entry.file_type() {
            // Some file systems do not say.
            FileType::Unknown => folder
                .entries
                .fd()
                .and_then(|fd| statat(fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW))
                .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
            kind => kind,
        };
        match kind {
            FileType::RegularFile | FileType::Symlink => Step::File(path),
            FileType::Directory if self.way.len() >= DEEPEST => Step::LeftOut,
            FileType::Directory => self.enter(root, path),
            _ => Step::Passed,
        }
    }

    fn enter(&mut self, root: &Root, path: Vec<u8>) -> Step {
        match root.folder(&path) {
            Ok(entries) => {
                self.way.push(Folder { path, entries });
                Step::Passed
            }
            Err(OpenError::Missing | OpenError::Forbidden) => Step::Passed,
            Err(_) => Step::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn files(root: &Root) -> Vec<String> {
        let mut walk = Walk::new();
        let mut files = Vec::new();
        loop {
            match walk.step(root) {
                Step::File(path) => files.push(String::from_utf8(path).unwrap()),
                Step::Passed | Step::Failed | Step::LeftOut => {}
                Step::End => break,
            }
        }
        files.sort();
        files
    }

    #[test]
    fn every_served_file_is_found_once() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a", "sub/b", "sub/deep/c", ".hidden", ".git/config", "sub/.part"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        symlink(".", folder.path().join("sub/loop")).unwrap();
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        assert_eq!(files(&root), ["a", "sub/b", "sub/deep/c", "sub/loop"]);
    }

    #[test]
    fn it_goes_only_so_deep() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join(vec!["d"; DEEPEST + 3].join("/"));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), "x").unwrap();
        std::fs::write(folder.path().join("d/file"), "x").unwrap();
        assert_eq!(files(&Root::open(folder.path()).unwrap()), ["d/file"]);
    }
}
