//! An open file that an answer is sent from, and the state that it must keep meanwhile.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::load::InFlight;
use super::metrics::WorkerCounters;
use super::root::Identity;
use crate::http::transport::FileGuard;

/// An open file, and the state it was in when the answer was begun.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub file: Arc<File>,
    /// Its state.
    pub identity: Identity,
}

impl Source {
    /// Whether the file is still in its state.
    pub fn look(&self) -> io::Result<()> {
        if Identity::of(&self.file) == Ok(self.identity) {
            return Ok(());
        }
        Err(io::Error::other("the file changed while it was sent"))
    }
}

/// Watches a file while an answer is sent from it, and counts the bytes that were sent.
pub(super) struct Guard {
    pub(super) source: Source,
    pub(super) in_flight: Rc<RefCell<Option<InFlight>>>,
    pub(super) counters: Arc<WorkerCounters>,
}

impl FileGuard for Guard {
    fn check(&self) -> io::Result<()> {
        self.source.look()
    }

    fn sent(&self, bytes: u64) {
        if let Some(in_flight) = self.in_flight.borrow_mut().as_mut() {
            in_flight.sent(bytes);
        }
    }

    fn read_cold(&self) {
        self.counters.cold_reads.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(bytes: &[u8]) -> (tempfile::NamedTempFile, Source) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let open = file.reopen().unwrap();
        let identity = Identity::of(&open).unwrap();
        (file, Source { file: Arc::new(open), identity })
    }

    #[test]
    fn a_file_that_changed_is_no_longer_what_was_begun() {
        let (file, source) = source(b"0123456789");
        source.look().unwrap();
        file.as_file().set_len(5).unwrap();
        assert!(source.look().is_err());
    }
}
