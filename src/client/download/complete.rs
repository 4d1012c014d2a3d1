//! Whether a file that exists already is the file to be downloaded.

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::fetch::Fetcher;
use super::{Clobber, Context, DownloadJob, DownloadReport, FileOrigin, Resume};
use crate::client::checksum::{Algorithm, Checksum};
use crate::client::error::DownloadError;
use crate::client::identity::{ContentIdentity, Verdict};
use crate::client::observed::Observed;
use crate::client::redirect::RedirectChain;
use crate::client::sink::digest;

/// Runs `work`; fails if the user interrupts the download or `--max-time` is over first.
pub(super) async fn within<T>(
    context: &Context,
    started: Instant,
    work: impl Future<Output = T>,
) -> Result<T, DownloadError> {
    let limit = context.options.max_time;
    let deadline = limit.and_then(|time| started.checked_add(time));
    let mut stop = context.stop.clone();
    tokio::select! {
        result = work => Ok(result),
        _ = stop.wait_for(|is_wanted| *is_wanted) => Err(DownloadError::Interrupted),
        () = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        } => Err(DownloadError::TooLong(limit.unwrap_or_default())),
    }
}

/// Whether the file at `path` is the file to be downloaded, or must not be replaced.
pub(super) async fn is_complete(
    context: &Context,
    job: &DownloadJob,
    fetcher: &Fetcher,
    path: &Path,
    report: &mut DownloadReport,
) -> bool {
    if context.options.clobber == Clobber::Never {
        return true;
    }
    let Ok(metadata) = path.metadata() else { return false };
    report.size = Some(metadata.len());
    let given = match &job.origin {
        FileOrigin::Mirrors { identity, .. } => identity.digest.map(|(digest, _)| digest),
        FileOrigin::Address(_) => None,
    };
    if let Some(promised) = job.checksum.or(given) {
        report.digest = digest_of(path, promised.algorithm()).await;
        return report.digest == Some(promised);
    }
    let FileOrigin::Address(url) = &job.origin else { return false };
    if context.options.resume == Resume::No {
        return false;
    }
    let chain = RedirectChain::new(url.clone(), context.options.max_redirects);
    let timeout = context.options.plan.drop_after;
    let Ok(Some(observed)) = tokio::time::timeout(timeout, fetcher.inspect(chain)).await else {
        return false;
    };
    is_what_was_observed(path, &observed, report).await
}

/// Like [`is_complete`], for a name chosen by a server that has also sent all that `identity` knows.
pub(super) async fn is_identical(
    context: &Context,
    identity: &ContentIdentity,
    path: &Path,
    report: &mut DownloadReport,
) -> bool {
    if context.options.clobber == Clobber::Never {
        return true;
    }
    let observed = Observed {
        size: identity.size,
        etag: None,
        last_modified: identity.last_modified.clone(),
        digest: identity.digest.map(|(digest, _)| digest),
        ..Observed::default()
    };
    context.options.resume == Resume::Yes && is_what_was_observed(path, &observed, report).await
}

async fn is_what_was_observed(path: &Path, observed: &Observed, report: &mut DownloadReport) -> bool {
    let Ok(metadata) = path.metadata() else { return false };
    if !metadata.is_file() || observed.size != Some(metadata.len()) {
        return false;
    }
    if let Some(promised) = observed.digest {
        report.digest = digest_of(path, promised.algorithm()).await;
        return report.digest == Some(promised);
    }
    // A finished file gets the server's modification time: a later write to it changes the time.
    let modified = metadata.modified().ok().map(httpdate::fmt_http_date);
    let own =
        ContentIdentity { size: Some(metadata.len()), last_modified: modified, ..ContentIdentity::default() };
    observed.last_modified.is_some() && own.compare(observed, None) == Verdict::Same
}

/// Computes the digest of the file at `path`. Dropping the future stops the computation.
async fn digest_of(path: &Path, algorithm: Algorithm) -> Option<Checksum> {
    let path = path.to_owned();
    let waiting = Arc::new(());
    let is_awaited = Arc::downgrade(&waiting);
    let hashing = tokio::task::spawn_blocking(move || {
        digest::of_file(&path, algorithm, || is_awaited.strong_count() > 0).ok()
    });
    let digest = hashing.await.ok().flatten();
    drop(waiting);
    digest
}
