//! `--json`: one object per line with the result of each file.

use serde::Serialize;

use super::checksum::Algorithm;
use super::download::DownloadReport;
use super::exit_code::GetCode;

/// The result of one file. `seconds` and `ttfb` are in seconds.
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
    /// Received bytes that were kept.
    bytes: u64,
    ttfb: Option<f64>,
    errors: &'a [String],
}

/// The JSON line for one file, without line break.
pub(super) fn line(report: &DownloadReport) -> String {
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
    // The fields always serialise.
    serde_json::to_string(&object).unwrap_or_default()
}
