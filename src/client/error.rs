//! Why a download failed, and the exit code of each reason.

use std::path::PathBuf;

use super::checksum::Checksum;
use super::exit_code::GetCode;
use super::redirect::RedirectError;
use super::sink::SinkError;
use crate::http::client::{BodyError, TransportError};

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DownloadError {
    /// The address has no scheme, host or file. `url` has no user name and password.
    #[error("invalid URL {url:?}: {reason}")]
    InvalidUrl { url: String, reason: &'static str },
    /// The scheme is neither http nor https. `url` has no user name and password.
    #[error("{url}: unsupported scheme {scheme:?}: only http and https are supported")]
    Scheme { url: String, scheme: String },
    /// A redirect was not followed.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// The server answered with an error.
    #[error("{url} answered {status}")]
    Refused { url: String, status: u16 },
    /// The exchange with a server failed.
    #[error("{url}")]
    Transport { url: String, source: TransportError },
    /// A server answered with a range that was not requested.
    #[error("{url} sent an impossible part: Content-Range {value:?}")]
    BadRange { url: String, value: String },
    /// A source sent nothing for too long.
    #[error("{url} sent nothing for {}", humantime::format_duration(*.after))]
    Silent { url: String, after: std::time::Duration },
    /// The whole download took too long.
    #[error("not complete within {}", humantime::format_duration(*.0))]
    TooLong(std::time::Duration),
    /// The file is complete, but its digest is wrong. `unasked` sources were skipped because of the download limit.
    #[error("{name} has the digest {found} instead of {promised}{}", other_sources(*.unasked))]
    WrongChecksum { name: String, found: Box<Checksum>, promised: Box<Checksum>, unasked: usize },
    /// A server announces another digest than the expected one.
    #[error("{url} has a file with the digest {found} instead of {promised}")]
    OtherDigest { url: String, found: Box<Checksum>, promised: Box<Checksum> },
    /// No server has the file.
    #[error("{}", missing(*servers, name))]
    Missing { name: String, servers: usize },
    /// Pieces have wrong digests.
    #[error("pieces with a wrong digest on every source: {pieces}")]
    WrongPieces { pieces: usize },
    /// The sources have different versions of the file, and it changed repeatedly.
    #[error("the file changed repeatedly during the download")]
    KeepsChanging,
    /// A source has another version of the file.
    #[error("{url} has another version of the file")]
    OtherVersion { url: String },
    /// An answer without validators, which cannot replace a proven version.
    #[error(
        "{url} answered without ETag, Last-Modified and digest, so a new version is not proven; the part file is kept: run the \
         command again, or start over with --no-resume"
    )]
    Unproven { url: String },
    /// No source is left to ask.
    #[error("no server is left")]
    NoSource,
    /// The user interrupted the download.
    #[error("interrupted; run the same command again to resume")]
    Interrupted,
    /// A Metalink is invalid.
    #[error(transparent)]
    Metalink(#[from] super::metalink::MetalinkError),
    /// The name chosen by a server exists already.
    #[error("{} exists already, and a name chosen by the server replaces no file: choose a name with -o", path.display())]
    NameTaken { path: PathBuf },
    /// Invalid flags, alone or in combination.
    #[error("{0}")]
    Usage(String),
    /// The file cannot be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl DownloadError {
    /// Exit code of the process.
    pub(super) fn code(&self) -> GetCode {
        match self {
            Self::InvalidUrl { .. } => GetCode::InvalidUrl,
            Self::Scheme { .. } => GetCode::UnsupportedProtocol,
            Self::Redirect(error) => match error {
                RedirectError::NoLocation { .. } => GetCode::HttpError,
                RedirectError::Scheme { .. } | RedirectError::Downgrade { .. } => {
                    GetCode::UnsupportedProtocol
                }
                RedirectError::Circle { .. } | RedirectError::TooMany { .. } => GetCode::TooManyRedirects,
            },
            Self::Refused { .. } | Self::Missing { .. } => GetCode::HttpError,
            Self::Transport { source, .. } => transport_code(source),
            Self::BadRange { .. } => GetCode::BadRange,
            Self::Silent { .. } | Self::TooLong(_) => GetCode::Timeout,
            Self::WrongChecksum { .. } | Self::OtherDigest { .. } | Self::WrongPieces { .. } => {
                GetCode::WrongChecksum
            }
            Self::KeepsChanging | Self::OtherVersion { .. } | Self::Unproven { .. } => GetCode::CannotResume,
            Self::NoSource => GetCode::CannotConnect,
            Self::Interrupted => GetCode::Interrupted,
            Self::Usage(_) => GetCode::Usage,
            Self::Metalink(_) => GetCode::BadMetalink,
            Self::NameTaken { .. } => GetCode::WriteError,
            Self::Sink(error) => error.code(),
        }
    }
}

fn other_sources(unasked: usize) -> String {
    match unasked {
        0 => ", and no other source has the right file".to_owned(),
        _ => format!(
            " after trying every allowed source; {unasked} sources were skipped because the download limit (5 times the \
             size of the file) was reached"
        ),
    }
}

fn missing(servers: usize, name: &str) -> String {
    match servers {
        1 => format!("the only server does not have {name}: it answered 404 or 410"),
        _ => format!("none of {servers} servers has {name}: each answered 404 or 410"),
    }
}

fn transport_code(error: &TransportError) -> GetCode {
    match error {
        TransportError::Scheme { .. } => GetCode::UnsupportedProtocol,
        TransportError::NoHost(_) | TransportError::Request(_) => GetCode::InvalidUrl,
        TransportError::Resolve { .. } => GetCode::UnresolvedHost,
        TransportError::Proxy(_) | TransportError::ResolveProxy { .. } => GetCode::UnresolvedProxy,
        TransportError::Connect { .. } | TransportError::Shortage { .. } => GetCode::CannotConnect,
        TransportError::ConnectTimeout { .. } => GetCode::Timeout,
        TransportError::Tls { .. } => GetCode::TlsHandshake,
        TransportError::Certificate { .. } => GetCode::Certificate,
        TransportError::TrustAnchors(_) => GetCode::CertificateFile,
        TransportError::EmptyReply => GetCode::EmptyReply,
        TransportError::Body(BodyError::Short { .. }) => GetCode::PartialFile,
        _ => GetCode::ReceiveError,
    }
}
