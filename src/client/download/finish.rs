//! End of a download after its last network transfer: writes the last bytes, syncs the file and gives it its
//! name.

use std::path::PathBuf;

use tokio::time::Instant;
use url::Url;

use super::complete::within;
use super::fetch::Response;
use super::{Context, DownloadReport, DownloadSuccess};
use crate::client::byte_map::ByteMap;
use crate::client::error::DownloadError;
use crate::client::event::{Event, Observer};
use crate::client::sink::{FileCompletion, Writer};

/// The end of the network transfer.
pub(super) enum Ending {
    /// The file is complete and verified, and only lacks its name.
    Complete,
    /// The address leads to a Metalink instead of the file.
    Metalink(Url, Box<dyn Response>),
    /// The name chosen by the server exists already.
    NameTaken(PathBuf),
}

/// A complete, verified file that still lacks its final name.
#[derive(Debug)]
pub(super) struct PendingRename {
    pub(super) writer: Writer,
    pub(super) bytes: ByteMap,
    pub(super) completion: FileCompletion,
    pub(super) is_sequential: bool,
}

impl PendingRename {
    async fn name(mut self, context: &Context, started: Instant) -> Result<(), DownloadError> {
        let finishing = self.writer.finish(self.completion, &mut self.bytes);
        if self.is_sequential {
            // The reader of a pipe may never read, so this must be interruptible. A file on the disk must not
            // be left half renamed.
            return Ok(within(context, started, finishing).await??);
        }
        if let Err(error) = finishing.await {
            // A complete file is kept even without its name, and so are bytes recorded in a journal.
            if !self.bytes.is_written() && !self.writer.has_journal(&self.bytes) {
                // The first failure is reported, not that of the cleanup.
                let _ = self.writer.discard(&mut self.bytes).await;
            }
            return Err(error.into());
        }
        Ok(())
    }
}

/// What a download resulted in, before the disk work.
#[derive(Debug)]
pub(super) enum Transferred {
    Complete(Box<PendingRename>),
    AlreadyThere,
    /// The text of a Metalink at the address.
    Metalink(String),
}

/// A download that no longer needs the network. It is not done before [`finish`](Self::finish); meanwhile,
/// other downloads may use the network.
#[derive(Debug)]
pub(crate) struct FinishedTransfer {
    pub(super) report: DownloadReport,
    pub(super) result: Result<Transferred, DownloadError>,
    pub(super) started: Instant,
}

impl FinishedTransfer {
    /// Whether the address leads to a Metalink instead of a file.
    pub(crate) fn is_metalink(&self) -> bool {
        matches!(self.result, Ok(Transferred::Metalink(_)))
    }

    /// Waits for the disk, and gives a verified file its name.
    pub(crate) async fn finish(self, context: &Context, observer: &dyn Observer) -> DownloadReport {
        let Self { mut report, result, started } = self;
        report.outcome = match result {
            Ok(Transferred::Complete(pending)) => {
                let size = pending.completion.size;
                let named = pending.name(context, started).await;
                if named.is_ok() {
                    observer.notice(&Event::Finished { target: report.target.as_deref(), size });
                }
                named.map(|()| DownloadSuccess::Downloaded)
            }
            Ok(Transferred::AlreadyThere) => Ok(DownloadSuccess::AlreadyThere),
            Ok(Transferred::Metalink(text)) => Ok(DownloadSuccess::Metalink(text)),
            Err(error) => Err(error),
        };
        report.elapsed = started.elapsed();
        report
    }
}
