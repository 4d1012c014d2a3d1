//! Requests to mirrors: for the digest of a proof, and for the head of a file.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use url::Url;

use super::checks::{CheckResult, Lack};
use crate::balancer::catalogue::CatalogueContent;
use crate::http::client::{HttpClient, Method, Request, TransportError};
use crate::telemetry::chain;

/// The value of `User-Agent`.
pub(super) const USER_AGENT: &str = concat!("fingerpost/", env!("CARGO_PKG_VERSION"));

/// The time limit of a check.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The redirects of a mirror that a check follows.
const MOST_HOPS: usize = 3;

/// The time limit of a proof.
const PROOF_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest proof in bytes.
const LARGEST_PROOF: usize = 16 << 20;

/// Bytes of a path that a URL must encode.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// The address of a decoded path below `base`, which has no slash at its end.
pub(super) fn url_of(base: &str, path: &[u8]) -> String {
    format!("{base}{}", percent_encode(path, NOT_IN_PATHS))
}

/// Requests a file and computes its digest; zeros if the server does not have the file.
pub(super) async fn digest_of(client: &HttpClient, url: &str) -> Result<[u8; 32], String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let request = Request::get(url).with("User-Agent", USER_AGENT);
    let asking = async {
        let mut answer = client.send(&request).await.map_err(|error| chain(&error))?;
        match answer.head.status {
            200 => {}
            404 | 410 => return Ok([0; 32]),
            status => return Err(format!("status {status}")),
        }
        let (mut digest, mut read) = (Sha256::new(), 0_usize);
        while let Some(bytes) = answer.chunk().await.map_err(|error| chain(&error))? {
            read = read.saturating_add(bytes.len());
            if read > LARGEST_PROOF {
                return Err(format!("more than {LARGEST_PROOF} bytes"));
            }
            digest.update(&bytes);
        }
        Ok(digest.finalize().into())
    };
    timeout(PROOF_TIMEOUT, asking).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// Requests the head of a file, also after a few redirects.
pub(super) async fn look(client: &HttpClient, url: &str, content: CatalogueContent) -> CheckResult {
    let Ok(mut url) = Url::parse(url) else { return CheckResult::Unknown };
    let looking = async {
        for _ in 0..=MOST_HOPS {
            let request =
                Request { method: Method::Head, ..Request::get(url.clone()) }.with("User-Agent", USER_AGENT);
            let answer = client.send(&request).await?;
            let length = answer.head.header("content-length").and_then(|length| length.parse().ok());
            match answer.head.status {
                200 => {
                    return Ok(match (content.size, length) {
                        (Some(expected), Some(found)) if expected != found => {
                            CheckResult::Lacks(Lack::OtherSize { found, expected })
                        }
                        _ => CheckResult::Has,
                    });
                }
                status @ (404 | 410) => return Ok(CheckResult::Lacks(Lack::Status(status))),
                301 | 302 | 303 | 307 | 308 => {
                    match answer.head.header("location").and_then(|location| url.join(location).ok()) {
                        Some(target) => url = target,
                        None => return Ok(CheckResult::Unknown),
                    }
                }
                _ => return Ok(CheckResult::Unknown),
            }
        }
        Ok::<_, TransportError>(CheckResult::Unknown)
    };
    match timeout(CHECK_TIMEOUT, looking).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => CheckResult::Unknown,
    }
}
