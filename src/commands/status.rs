//! `fingerpost status`: requests the table of a running balancer and prints it.

use std::time::Duration;

use url::Url;

use crate::balancer::admin::status::StatusReport;
use crate::cli::StatusArguments;
use crate::configuration;
use crate::http::client::{HttpClient, Request, TransportError, TransportSettings};
use crate::settings::SettingsError;
use crate::telemetry::{self, OutputError};

/// The largest answer that is read, in bytes. The table of 100 000 backends has about 40 MB.
const LARGEST_ANSWER: usize = 256 << 20;

/// The time limit of the whole request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An error of `fingerpost status`.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    /// A setting is invalid.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The admin address is not known: the key has port 0.
    #[error(
        "balancer.admin has no fixed port: give the address that the balancer printed at its start, as in fingerpost status http://127.0.0.1:9100/"
    )]
    NoAddress,
    /// The request failed.
    #[error(
        "cannot query the balancer at {url}: {reason}; check that it runs and that this is its admin address"
    )]
    Unreachable {
        /// The requested URL.
        url: String,
        /// The cause.
        reason: String,
    },
    /// The answer is not the table of a balancer of this version.
    #[error(
        "the server at {url} is not a fingerpost balancer of this version: {reason}; give the admin address, not the address for clients"
    )]
    NotATable {
        /// The requested URL.
        url: String,
        /// The difference.
        reason: String,
    },
    /// The table cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Runs `fingerpost status`.
pub(super) fn command(arguments: &StatusArguments) -> Result<(), QueryError> {
    let admin = match &arguments.admin {
        Some(given) => given.clone(),
        None => configuration::load(arguments.config.config.as_deref(), Vec::new())?.balancer.admin,
    };
    if admin.ends_with(":0") {
        return Err(QueryError::NoAddress);
    }
    let scheme = if admin.contains("://") { "" } else { "http://" };
    let url = format!("{scheme}{}/api/v1/backends", admin.trim_end_matches('/'));
    let body = actix::System::new().block_on(fetch(&url))?;
    let report: StatusReport = serde_json::from_slice(&body)
        .map_err(|error| QueryError::NotATable { url, reason: error.to_string() })?;
    let text = if arguments.json { [&body[..], b"\n"].concat() } else { report.text(columns()).into_bytes() };
    Ok(telemetry::print(&text)?)
}

/// The width of the terminal; `None` if standard output is not a terminal.
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col.into()).filter(|columns| *columns > 0)
}

async fn fetch(url: &str) -> Result<Vec<u8>, QueryError> {
    let unreachable = |reason: String| QueryError::Unreachable { url: url.to_owned(), reason };
    let reading = async {
        let address = Url::parse(url).map_err(|error| unreachable(error.to_string()))?;
        let transport =
            HttpClient::new(TransportSettings { connect_timeout: TIMEOUT, ..TransportSettings::default() });
        let broken = |error: TransportError| unreachable(telemetry::chain(&error));
        let mut answer = transport.send(&Request::get(address)).await.map_err(broken)?;
        if !(200..300).contains(&answer.head.status) {
            let reason = format!("it answered with status {}", answer.head.status);
            return Err(QueryError::NotATable { url: url.to_owned(), reason });
        }
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(broken)? {
            body.extend_from_slice(&bytes);
            if body.len() > LARGEST_ANSWER {
                return Err(unreachable("the answer is too long".to_owned()));
            }
        }
        Ok(body)
    };
    match tokio::time::timeout(TIMEOUT, reading).await {
        Ok(body) => body,
        Err(_) => {
            Err(unreachable(format!("no complete answer within {}", humantime::format_duration(TIMEOUT))))
        }
    }
}
