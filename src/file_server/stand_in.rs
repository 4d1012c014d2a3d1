//! A file that replaces a cached file when actix-files evaluates a request.
//!
//! [`NamedFile`](actix_files::NamedFile) reads length and modification time from an open file. Cached files have no
//! descriptor, because the process may hold far more of them than descriptors. An empty memfd gets their length and
//! time instead, so `NamedFile` evaluates exactly the cached state, without a disk.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io;
use std::time::SystemTime;

use super::memfd_copy;

/// The stand-in of one worker.
#[derive(Debug, Default)]
pub(super) struct StandIn {
    file: OnceCell<File>,
    /// The current length and modification time.
    shown: Cell<Option<(u64, SystemTime)>>,
}

impl StandIn {
    /// An open file of this length and modification time. Its bytes are meaningless, and the next call changes it.
    pub(super) fn show(&self, length: u64, modified: SystemTime) -> io::Result<File> {
        let file = if let Some(file) = self.file.get() {
            file
        } else {
            let made = memfd_copy::create().map(File::from).or_else(|_| tempfile::tempfile())?;
            self.file.get_or_init(|| made)
        };
        let wanted = (length, modified);
        if self.shown.get() != Some(wanted) {
            self.shown.set(None);
            file.set_len(length)?;
            file.set_modified(modified)?;
            self.shown.set(Some(wanted));
        }
        file.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_takes_the_length_and_the_time_of_each_file() {
        let stand_in = StandIn::default();
        for (length, seconds) in [(10, 0x2ebc_98a1), (10, 0), (128 << 10, 0), (0, 1)] {
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let metadata = stand_in.show(length, modified).unwrap().metadata().unwrap();
            assert_eq!((metadata.len(), metadata.modified().unwrap()), (length, modified));
        }
    }
}
