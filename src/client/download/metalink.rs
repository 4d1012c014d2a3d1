//! An address that leads to a Metalink instead of a file.

use std::time::Duration;

use super::super::error::DownloadError;
use super::super::metalink::{MAX_BYTES, MetalinkError};
use crate::http::client::Answer;

/// Timeout for the body of a Metalink.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Reads the text of the Metalink from `answer`, sent by the server at `url`.
pub(super) async fn read(url: &str, mut answer: Answer) -> Result<String, DownloadError> {
    let reading = async {
        let mut text = Vec::new();
        loop {
            let chunk = answer.chunk().await;
            let chunk = chunk.map_err(|source| DownloadError::Transport { url: url.to_owned(), source })?;
            let Some(bytes) = chunk else { break };
            text.extend_from_slice(&bytes);
            if text.len() > MAX_BYTES {
                return Err(MetalinkError::TooLarge.into());
            }
        }
        answer.finish();
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    tokio::time::timeout(TIMEOUT, reading).await.unwrap_or(Err(DownloadError::TooLong(TIMEOUT)))
}
