//! The end of a download, once nothing is to come from the network any more: the disk, and the name.

use std::time::SystemTime;

use tokio::time::Instant;

use super::super::error::DownloadError;
use super::super::event::{Event, Observer};
use super::super::sink::{Durability, Writer};
use super::complete::within;
use super::place::Place;
use super::{Completion, Context, Report};

/// A file that is complete and right, and lacks its name.
#[derive(Debug)]
pub(super) struct Unnamed {
    pub(super) writer: Writer,
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
    pub(super) place: Place,
    pub(super) durability: Durability,
}

impl Unnamed {
    async fn name(mut self, context: &Context, started: Instant) -> Result<(), DownloadError> {
        let (writer, size) = (&mut self.writer, self.size);
        let finishing = writer.finish(size, self.modified, self.place.existing(), self.durability);
        if self.place == Place::InOrder {
            // Whoever reads may never do so; a file on the disk is not left half named.
            return Ok(within(context, started, finishing).await??);
        }
        if let Err(error) = finishing.await {
            // A file that is complete and lacks its name alone is kept, and so is what a journal tells of.
            if !writer.holds(size) && !writer.has_journal() {
                // The first failure is the one to tell.
                let _ = writer.discard().await;
            }
            return Err(error.into());
        }
        Ok(())
    }
}

/// A download to which nothing is to come from the network any more. It is not done before [`finish`](Self::finish): others may
/// use the network meanwhile.
#[derive(Debug)]
pub struct Landed {
    pub(super) report: Report,
    pub(super) unnamed: Option<Unnamed>,
    pub(super) started: Instant,
}

impl Landed {
    /// How it ended, where that is known already.
    pub fn outcome(&self) -> &Result<Completion, DownloadError> {
        &self.report.outcome
    }

    /// Waits for the disk, and gives a right file its name.
    pub async fn finish(self, context: &Context, observer: &dyn Observer) -> Report {
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
