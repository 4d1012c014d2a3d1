//! Scans: a mirror lists its files, and the listing decides which files of the catalogue it has.
//!
//! A scan reads the listing of a rsync server ([`rsync`]) or the indexes of an HTTP server ([`pages`]). Only a complete listing
//! counts, and only if requests for a few of its files agree with it.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use super::checks::{CheckResult, Lack};
use super::generation::{Generation, Location};
use super::requests::{look, url_of};
use crate::balancer::catalogue;
use crate::http::client::HttpClient;

mod found;
pub(crate) mod listing;
mod pages;
mod rsync;

pub(super) use found::{Finding, FoundFiles};

/// The largest number of entries of a scan, of the catalogue or not.
const MOST_ENTRIES: usize = 50_000_000;

/// The time limit of a scan.
const SCAN_TIMEOUT: Duration = Duration::from_hours(1);

/// The number of listed files that are verified, and the number of files that are not listed.
const SAMPLES: usize = 4;

/// The number of paths among which samples are searched.
const SAMPLED_PATHS: usize = 4096;

/// A scan that failed. The last good one stays in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    /// The program rsync does not exist.
    #[error("the program rsync is not installed; install it, or use an http:// address in scan=")]
    NoRsync,
    /// The child process cannot be used.
    #[error("rsync cannot be used: {0}")]
    Child(io::Error),
    /// rsync failed.
    #[error("rsync failed ({status}): {message}")]
    Rsync { status: ExitStatus, message: String },
    /// A page cannot be used.
    #[error("{url}: {reason}")]
    Page { url: String, reason: String },
    /// The listing cannot be used.
    #[error("the listing is not usable: {0}")]
    Listing(listing::ListingError),
    /// The listing has no end.
    #[error("the listing has more than {MOST_ENTRIES} entries, or too many pages")]
    TooManyEntries,
    /// The listing does not end.
    #[error("the scan did not end within 1h")]
    Timeout,
    /// The program ends, or a fault of this program interrupted the scan.
    #[error("the scan was interrupted")]
    Interrupted,
    /// The server has other files than its listing.
    #[error(
        "the listing and the server disagree about {disagreements} of {answers} files, such as {path}; \
         check that scan= is the address of the same folder as the server"
    )]
    Disagreement { disagreements: usize, answers: usize, path: String },
    /// Most files would be lacking, and no request confirms it.
    #[error(
        "the listing has only {found} of {files} files, and the server did not confirm that it lacks the others, so the listing is \
         not used"
    )]
    Unconfirmed { found: usize, files: usize },
}

/// A complete scan.
pub(super) struct CompleteScan {
    pub(super) found: FoundFiles,
    /// The results of requests for a few files that it listed, or that it should have listed.
    pub(super) checked: Vec<(u64, CheckResult)>,
}

/// Reads the listing at `root`, and verifies it at the mirror with the address `mirror`. `start` selects the verified files.
pub(super) async fn scan(
    client: HttpClient,
    root: Arc<Url>,
    mirror: String,
    generation: Arc<Generation>,
    start: u32,
) -> Result<CompleteScan, ScanError> {
    let scanning = async {
        let found = match root.scheme() {
            "rsync" => rsync::list(&root, generation).await?,
            _ => pages::walk(&client, &root, generation).await?,
        };
        // Both take a while for a large catalogue.
        let job = move || {
            let found = found.finish();
            let samples = samples(&found, start);
            (found, samples)
        };
        let (found, samples) =
            actix_rt::task::spawn_blocking(job).await.map_err(|_| ScanError::Interrupted)?;
        let checked = verify(&client, &mirror, &found, &samples).await?;
        Ok(CompleteScan { found, checked })
    };
    timeout(SCAN_TIMEOUT, scanning).await.unwrap_or(Err(ScanError::Timeout))
}

/// The keys of a few listed files, and of a few others.
fn samples(found: &FoundFiles, start: u32) -> [Vec<u64>; 2] {
    let (catalogue, mut samples) = (&found.generation().catalogue, [Vec::new(), Vec::new()]);
    let paths = found.generation().index.paths();
    // The order of the keys is random.
    for rank in (0..paths.min(SAMPLED_PATHS)).map(|step| (start as usize + step) % paths) {
        let Some(entry) = catalogue.entry(rank as u32).filter(|entry| !entry.is_folder) else { continue };
        let key = catalogue::key(entry.path);
        let [listed, others] = &mut samples;
        let group = if found.finding(key, &entry) == Finding::Listed { listed } else { others };
        if group.len() < SAMPLES {
            group.push(key);
        }
    }
    samples
}

/// Compares the listing with the answers of the mirror for a few files.
async fn verify(
    client: &HttpClient,
    mirror: &str,
    found: &FoundFiles,
    samples: &[Vec<u64>; 2],
) -> Result<Vec<(u64, CheckResult)>, ScanError> {
    let (mut checked, mut has_confirmed) = (Vec::new(), false);
    for (group, is_listed) in samples.iter().zip([true, false]) {
        let (mut answers, mut disagreements, mut example) = (0, 0, String::new());
        for key in group {
            let Some(Location::File(file)) = found.generation().at(*key) else { continue };
            let result = look(client, &url_of(mirror, file.path), file.content).await;
            let disagrees = match result {
                CheckResult::Unknown => continue,
                CheckResult::Has => !is_listed,
                // A listing without sizes cannot know it.
                CheckResult::Lacks(Lack::OtherSize { .. }) => false,
                CheckResult::Lacks(_) => is_listed,
            };
            // The scan knows the others.
            if is_listed || result == CheckResult::Has {
                checked.push((*key, result));
            }
            answers += 1;
            if disagrees {
                disagreements += 1;
                example = String::from_utf8_lossy(file.path).into_owned();
            }
        }
        if disagreements > 0 && disagreements * 2 >= answers {
            return Err(ScanError::Disagreement { disagreements, answers, path: example });
        }
        has_confirmed |= !is_listed && answers > 0 && disagreements == 0;
    }
    let (files, found) = (found.generation().catalogue.files(), found.files());
    // An empty folder instead of a mounted disk, or a page instead of an index.
    if found * 2 < files && !has_confirmed {
        return Err(ScanError::Unconfirmed { found, files });
    }
    Ok(checked)
}
