//! End of a download after its last network transfer: writes the last bytes, syncs the file and gives it its
//! name.

use std::time::SystemTime;

use tokio::time::Instant;

use super::super::error::DownloadError;
use super::super::event::{Event, Observer};
use super::super::sink::{Durability, Writer};
use super::complete::within;
use super::target_state::TargetState;
use super::{Context, DownloadReport, DownloadSuccess};

/// A complete, verified file that still lacks its final name.
#[derive(Debug)]
pub(super) struct PendingRename {
    pub(super) writer: Writer,
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
    pub(super) target_state: TargetState,
    pub(super) durability: Durability,
}

impl PendingRename {
    async fn name(mut self, context: &Context, started: Instant) -> Result<(), DownloadError> {
        let (writer, size) = (&mut self.writer, self.size);
        let finishing = writer.finish(size, self.modified, self.target_state.existing(), self.durability);
        if self.target_state == TargetState::Sequential {
            // The reader of a pipe may never read, so this must be interruptible. A file on the disk must not
            // be left half renamed.
            return Ok(within(context, started, finishing).await??);
        }
        if let Err(error) = finishing.await {
            // A complete file is kept even without its name, and so are bytes recorded in a journal.
            if !writer.holds(size) && !writer.has_journal() {
                // The first failure is reported, not that of the cleanup.
                let _ = writer.discard().await;
            }
            return Err(error.into());
        }
        Ok(())
    }
}

/// A download that no longer needs the network. It is not done before [`finish`](Self::finish); meanwhile,
/// other downloads may use the network.
#[derive(Debug)]
pub(crate) struct FinishedTransfer {
    pub(super) report: DownloadReport,
    pub(super) unnamed: Option<PendingRename>,
    pub(super) started: Instant,
}

impl FinishedTransfer {
    /// The outcome so far; `finish` may still fail.
    pub(crate) fn outcome(&self) -> &Result<DownloadSuccess, DownloadError> {
        &self.report.outcome
    }

    /// Waits for the disk, and gives a verified file its name.
    pub(crate) async fn finish(self, context: &Context, observer: &dyn Observer) -> DownloadReport {
        let Self { mut report, unnamed, started } = self;
        if let Some(unnamed) = unnamed {
            let size = unnamed.size;
            match unnamed.name(context, started).await {
                Ok(()) => observer.notice(&Event::Finished { target: report.target.as_deref(), size }),
                Err(error) => report.outcome = Err(error),
            }
        }
        report.elapsed = started.elapsed();
        report
    }
}
