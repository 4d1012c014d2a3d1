//! `--json`: how each file ended, as one object a line.

use serde::Serialize;

use super::checksum::Algorithm;
use super::download::Report;
use super::exit_code::GetCode;

/// The object. `seconds` and `ttfb` are in seconds.
#[derive(Debug, Serialize)]
struct FileReport<'a> {
    url: &'a str,
    file: Option<String>,
    size: Option<u64>,
    sha256: Option<String>,
    seconds: f64,
    exit: u8,
    error: Option<String>,
    servers: Vec<ServerReport<'a>>,
}

#[derive(Debug, Serialize)]
struct ServerReport<'a> {
    url: &'a str,
    /// Bytes that were kept.
    bytes: u64,
    ttfb: Option<f64>,
    errors: &'a [String],
}

/// The line for one file.
#[must_use]
pub fn line(report: &Report) -> String {
    let error = report.outcome.as_ref().err();
    let object = FileReport {
        url: &report.address,
        file: report.target.as_ref().map(|path| path.display().to_string()),
        size: report.size,
        sha256: report
            .digest
            .filter(|digest| digest.algorithm() == Algorithm::Sha256)
            .map(|digest| digest.hex()),
        seconds: report.elapsed.as_secs_f64(),
        exit: error.map_or(GetCode::Complete, super::error::DownloadError::code).number(),
        error: error.map(|error| crate::telemetry::chain(error)),
        servers: report
            .sources
            .iter()
            .map(|source| ServerReport {
                url: source.url.as_str(),
                bytes: source.bytes,
                ttfb: source.first_byte.map(|time| time.as_secs_f64()),
                errors: &source.errors,
            })
            .collect(),
    };
    // Nothing in it can fail to be written as JSON.
    serde_json::to_string(&object).unwrap_or_default()
}
