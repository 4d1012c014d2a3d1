//! Paths of the files of one run: no two downloads may write to the same path.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::error::DownloadError;
use super::sink::{BESIDE, beside};

/// The reserved paths. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct ReservedPaths {
    names: Rc<RefCell<HashSet<PathBuf>>>,
}

impl ReservedPaths {
    /// Reserves `name` and the paths of the part file and the journal beside it. Fails if one of them is
    /// reserved.
    pub(super) fn reserve(&self, name: &Path) -> Result<(), DownloadError> {
        let mut names = self.names.borrow_mut();
        // The files beside two paths can only coincide if one path is beside the other.
        let is_beside = BESIDE.iter().any(|suffix| {
            names.contains(&beside(name, suffix))
                || without(name, suffix).is_some_and(|front| names.contains(front))
        });
        let shown = name.display();
        if names.contains(name) {
            return Err(DownloadError::Usage(format!("two downloads would write to {shown}")));
        }
        if is_beside {
            let text = format!("two downloads would write to {shown} or to its part file");
            return Err(DownloadError::Usage(text));
        }
        names.insert(name.to_owned());
        Ok(())
    }

    /// Whether `name` is reserved.
    pub(super) fn has(&self, name: &Path) -> bool {
        self.names.borrow().contains(name)
    }

    /// Releases `name`, to which nothing will be written.
    pub(super) fn release(&self, name: &Path) {
        self.names.borrow_mut().remove(name);
    }
}

/// `name` without `suffix`; `None` if it does not end with it.
fn without<'a>(name: &'a Path, suffix: &str) -> Option<&'a Path> {
    let front = name.as_os_str().as_bytes().strip_suffix(suffix.as_bytes())?;
    Some(Path::new(std::ffi::OsStr::from_bytes(front)))
}

#[cfg(test)]
mod tests;
