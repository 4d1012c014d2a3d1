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
pub struct Claims {
    names: Rc<RefCell<HashSet<PathBuf>>>,
}

impl Claims {
    /// Reserves `name` and the paths of the part file and the journal beside it. Fails if one of them is
    /// reserved.
    pub fn claim(&self, name: &Path) -> Result<(), DownloadError> {
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
    #[must_use]
    pub fn has(&self, name: &Path) -> bool {
        self.names.borrow().contains(name)
    }

    /// Releases `name`, to which nothing will be written.
    pub fn release(&self, name: &Path) {
        self.names.borrow_mut().remove(name);
    }
}

/// `name` without `suffix`; `None` if it does not end with it.
fn without<'a>(name: &'a Path, suffix: &str) -> Option<&'a Path> {
    let front = name.as_os_str().as_bytes().strip_suffix(suffix.as_bytes())?;
    Some(Path::new(std::ffi::OsStr::from_bytes(front)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All paths that a download to `name` writes to.
    fn all(name: &str) -> HashSet<PathBuf> {
        let name = Path::new(name);
        BESIDE.iter().map(|suffix| beside(name, suffix)).chain([name.to_owned()]).collect()
    }

    proptest! {
        #[test]
        fn what_is_claimed_is_written_to_by_one(
            names in prop::collection::vec("f{1,2}(\\.part|\\.journal|\\.new){0,3}", 1..6),
        ) {
            let claims = Claims::default();
            let mut written = HashSet::new();
            for name in &names {
                let wanted = all(name);
                let is_free = written.is_disjoint(&wanted);
                prop_assert_eq!(claims.claim(Path::new(name)).is_ok(), is_free, "{} of {:?}", name, names);
                if is_free {
                    written.extend(wanted);
                }
            }
        }
    }

    #[test]
    fn what_was_released_is_free() {
        let claims = Claims::default();
        claims.claim(Path::new("f")).unwrap();
        claims.release(Path::new("f"));
        claims.claim(Path::new("f.part")).unwrap();
    }
}
