//! The client: follows the 301 and downloads, or shows why it cannot.
//!
//! - [`transport`]: one HTTP exchange; a library that prints nothing.
//! - [`redirect`]: where a redirect leads, and when it is refused.
//! - [`naming`]: the file's name where the user gave none.
//! - [`sink`]: the part file.
//! - [`download`]: one file from address to final name.
//! - [`event`], [`progress`]: what a person sees of it.
//! - [`error`], [`exit_code`]: what a script sees of it.

pub mod download;
pub mod error;
pub mod event;
pub mod exit_code;
pub mod naming;
pub mod progress;
pub mod redirect;
pub mod sink;
pub mod transport;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use url::Url;

use crate::cli::GetArguments;
use crate::telemetry;
use download::{Job, Output};
use error::DownloadError;
use exit_code::GetCode;
use progress::{Display, TextStream};
use transport::proxy::ProxyRules;
use transport::{Transport, TransportSettings};

/// What the client calls itself.
pub(crate) const USER_AGENT: &str = concat!("fingerpost/", env!("CARGO_PKG_VERSION"));

/// Runs `fingerpost get` and gives its exit code.
#[must_use]
pub fn command(arguments: &GetArguments) -> ExitCode {
    match run(arguments) {
        Ok(_) => GetCode::Complete.into(),
        Err(error) => {
            eprintln!("Error: {}", telemetry::chain(&error));
            error.code().into()
        }
    }
}

fn run(arguments: &GetArguments) -> Result<u64, DownloadError> {
    let url = parse_url(&arguments.url)?;
    let output = match &arguments.output {
        Some(path) if path == Path::new("-") => Output::StandardOutput,
        Some(path) => Output::File(path.clone()),
        None => Output::File(PathBuf::from(naming::from_url(&url))),
    };
    // Where standard output carries the file, nothing else may be mixed in.
    let text = match output {
        Output::StandardOutput => TextStream::Error,
        Output::File(_) => TextStream::Output,
    };
    let job = Job { url, output, max_redirects: redirect::DEFAULT_MAX_REDIRECTS };
    let settings = TransportSettings {
        proxies: ProxyRules::from_variables(|name| std::env::var(name).ok()),
        ..TransportSettings::default()
    };
    actix_rt::System::new()
        .block_on(async { download::run(&Transport::new(settings), &job, &Display::new(text)).await })
}

/// An address with a scheme, a host and a file.
fn parse_url(text: &str) -> Result<Url, DownloadError> {
    let url = Url::parse(text).map_err(|_| DownloadError::InvalidUrl)?;
    match url.scheme() {
        "http" | "https" if url.has_host() && !url.path().ends_with('/') => Ok(url),
        "http" | "https" => Err(DownloadError::InvalidUrl),
        // `host:8080/file` reads as the scheme `host`.
        _ if url.cannot_be_a_base() || !url.has_host() => Err(DownloadError::InvalidUrl),
        scheme => Err(redirect::RedirectError::Scheme { scheme: scheme.to_owned() }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_scheme_host_and_file() {
        for bad in
            ["127.0.0.1:80/f", "host:80/f", "h/f", "http://", "http://host", "http://host/", "", "file"]
        {
            assert!(matches!(parse_url(bad), Err(DownloadError::InvalidUrl)), "{bad}");
        }
        assert_eq!(parse_url("ftp://host/f").unwrap_err().code(), GetCode::UnsupportedProtocol);
        parse_url("http://host:80/f").unwrap();
    }
}
