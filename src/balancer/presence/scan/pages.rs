//! Scans of the indexes that an HTTP server makes of its folders.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use url::Url;

use super::found::FoundFiles;
use super::listing::{self, ListingError, is_same_server};
use super::{MOST_ENTRIES, ScanError};
use crate::balancer::presence::generation::Generation;
use crate::balancer::presence::requests::{USER_AGENT, url_of};
use crate::http::client::{HttpClient, Request};
use crate::telemetry::chain;

/// The largest page in bytes.
const LARGEST_PAGE: usize = 16 << 20;

/// The largest number of pages of a scan.
const MOST_PAGES: usize = 100_000;

/// The time between the starts of two requests of a scan.
const PAUSE: Duration = Duration::from_millis(50);

/// The time limit of one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The redirects that a request follows.
const MOST_HOPS: usize = 3;

/// The header line of `fingerpost server` if a folder has more entries than its index.
const LISTING_LIMIT: &str = "listing-limit";

/// Reads the pages of all folders of the catalogue below `root`. Other folders are never requested, so neither a cycle of links
/// nor an endless tree matters.
pub(super) async fn walk(
    client: &HttpClient,
    root: &Url,
    generation: Arc<Generation>,
) -> Result<FoundFiles, ScanError> {
    let mut found = FoundFiles::new(generation);
    let (mut folders, mut pages, mut entries) = (vec![Vec::new()], 0, 0);
    let mut starts = interval(PAUSE);
    starts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while let Some(folder) = folders.pop() {
        starts.tick().await;
        pages += 1;
        let url = url_of(root.as_str().trim_end_matches('/'), &folder) + "/";
        if pages > MOST_PAGES || entries > MOST_ENTRIES {
            return Err(ScanError::TooManyEntries);
        }
        let fail = |reason| ScanError::Page { url: url.clone(), reason };
        let page = timeout(PAGE_TIMEOUT, fetch(client, &url, root)).await;
        let page = page.unwrap_or_else(|_| Err("no complete answer within 30s".to_owned())).map_err(fail)?;
        let Some((base, page)) = page else {
            if folder.is_empty() {
                return Err(ScanError::Page { url, reason: "the server does not have it".to_owned() });
            }
            // It was removed since its parent was read, or is a dangling link.
            continue;
        };
        // A large page would delay the probes on this thread.
        let job = move || {
            let result = listing::index(&page, &base, &mut |name, entry| {
                entries += 1;
                let path = [folder.as_slice(), b"/", name].concat();
                if found.add(&path, entry) {
                    folders.push(path);
                }
            });
            (result, found, folders, entries)
        };
        let result: Result<(), ListingError>;
        (result, found, folders, entries) =
            actix_rt::task::spawn_blocking(job).await.map_err(|_| ScanError::Interrupted)?;
        result.map_err(|error| fail(error.to_string()))?;
    }
    Ok(found)
}

/// Requests a page below `root`. Returns its address and bytes; `None` if the server does not have it.
async fn fetch(client: &HttpClient, url: &str, root: &Url) -> Result<Option<(Url, Vec<u8>)>, String> {
    let mut url = Url::parse(url).map_err(|error| error.to_string())?;
    for _ in 0..=MOST_HOPS {
        let request = Request::get(url.clone())
            .with("User-Agent", USER_AGENT)
            .with("Accept", "application/json, text/html;q=0.9");
        let mut answer = client.send(&request).await.map_err(|error| chain(&error))?;
        match answer.head.status {
            200 => {}
            404 | 410 => return Ok(None),
            301 | 302 | 303 | 307 | 308 => {
                let target = answer.head.header("location").and_then(|location| url.join(location).ok());
                let target = target.ok_or("a redirect without a usable Location")?;
                if !is_same_server(&target, root) || !target.path().starts_with(root.path()) {
                    return Err(format!(
                        "a redirect to another place, {target}; if it is right, write it to scan="
                    ));
                }
                url = target;
                continue;
            }
            status => return Err(format!("the status {status} instead of 200")),
        }
        if answer.head.header(LISTING_LIMIT).is_some() {
            return Err("the index has only a part of the entries of the folder".to_owned());
        }
        let mut page = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(|error| chain(&error))? {
            if page.len() + bytes.len() > LARGEST_PAGE {
                return Err(format!("the page has more than {} MiB", LARGEST_PAGE >> 20));
            }
            page.extend_from_slice(&bytes);
        }
        if !url.path().ends_with('/') {
            return Err(format!("a redirect to {url}, which is no folder"));
        }
        return Ok(Some((url, page)));
    }
    Err(format!("more than {MOST_HOPS} redirects"))
}
