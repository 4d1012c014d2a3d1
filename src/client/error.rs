//! Why a download failed, and the exit code of each reason.

use std::path::PathBuf;

use super::checksum::Checksum;
use super::exit_code::GetCode;
use super::redirect::RedirectError;
use super::sink::SinkError;
use crate::http::client::{BodyError, TransportError};

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The address has no scheme, host or file.
    #[error("invalid URL {url:?}: {reason}")]
    InvalidUrl {
        /// The address as it was given, without user name and password.
        url: String,
        /// What it lacks.
        reason: &'static str,
    },
    /// The address has another scheme than http and https.
    #[error("{url}: unsupported scheme {scheme:?}: only http and https are supported")]
    Scheme {
        /// The address as it was given, without user name and password.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A redirect is not followed.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// The server answered with an error.
    #[error("{url} answered {status}")]
    Refused {
        /// The address that was asked.
        url: String,
        /// The status of its answer.
        status: u16,
    },
    /// The exchange with a server failed.
    #[error("{url}")]
    Transport {
        /// The address that was asked.
        url: String,
        /// What failed.
        source: TransportError,
    },
    /// A server answered with a part that was not asked for.
    #[error("{url} sent an impossible part: Content-Range {value:?}")]
    BadRange {
        /// The address that was asked.
        url: String,
        /// The `Content-Range` of its answer.
        value: String,
    },
    /// A source was silent for too long.
    #[error("{url} was silent for {}", humantime::format_duration(*.after))]
    Silent {
        /// The address that was asked.
        url: String,
        /// The limit.
        after: std::time::Duration,
    },
    /// The whole download took too long.
    #[error("not complete within {}", humantime::format_duration(*.0))]
    TooLong(std::time::Duration),
    /// The file is complete but not the one that was promised.
    #[error("{name} has the digest {found} instead of {promised}{}", others(*.unasked))]
    WrongChecksum {
        /// What was downloaded.
        name: String,
        /// The digest of what came.
        found: Box<Checksum>,
        /// The digest it should have had.
        promised: Box<Checksum>,
        /// How many sources were not asked for all of it any more, since it had been fetched too often.
        unasked: usize,
    },
    /// A server has a file with another digest than the one that was promised.
    #[error("{url} has a file with the digest {found} instead of {promised}")]
    OtherDigest {
        /// The address that was asked.
        url: String,
        /// The digest that the server announces.
        found: Box<Checksum>,
        /// The digest that the file should have.
        promised: Box<Checksum>,
    },
    /// No server has the file.
    #[error("none of {servers} servers has {name}: each answered 404 or 410")]
    Missing {
        /// The file.
        name: String,
        /// How many servers were asked.
        servers: usize,
    },
    /// Pieces of the file are not those that were promised.
    #[error("pieces with a wrong digest: {pieces}; no other source brought the right ones")]
    WrongPieces {
        /// How many.
        pieces: usize,
    },
    /// Sources have different versions of the file, and it kept changing.
    #[error("the file changed again and again while it was downloaded")]
    KeepsChanging,
    /// A source has another version of the file.
    #[error("{url} has another version of the file")]
    OtherVersion {
        /// The address that was asked.
        url: String,
    },
    /// An answer that cannot take the place of a version that is proven.
    #[error(
        "{url} answered without ETag, Last-Modified and digest, which proves no new version; the part file is kept: run it again, \
         or begin again with --no-resume"
    )]
    Unproven {
        /// The address that was asked.
        url: String,
    },
    /// Nobody is left to ask.
    #[error("no source is left")]
    NoSource,
    /// The user stopped it.
    #[error("interrupted; run the same command again to go on")]
    Interrupted,
    /// A Metalink cannot be used.
    #[error(transparent)]
    Metalink(#[from] super::metalink::MetalinkError),
    /// The address leads to a Metalink instead of the file.
    #[error("{url} is a Metalink")]
    IsMetalink {
        /// The address that sent it.
        url: String,
        /// What it says, as far as it was read.
        text: String,
    },
    /// The name that a server chose is taken.
    #[error("{} is there already; a name that the server chose replaces nothing: choose one with -o", path.display())]
    NameTaken {
        /// What is there.
        path: PathBuf,
    },
    /// Flags that make no sense, alone or together.
    #[error("{0}")]
    Usage(String),
    /// The file could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl DownloadError {
    /// The code that the process ends with.
    #[must_use]
    pub fn code(&self) -> GetCode {
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
            Self::Metalink(_) | Self::IsMetalink { .. } => GetCode::BadMetalink,
            Self::NameTaken { .. } => GetCode::WriteError,
            Self::Sink(error) => error.code(),
        }
    }
}

fn others(unasked: usize) -> String {
    match unasked {
        0 => ", and no other source brought the right one".to_owned(),
        _ => format!(
            " after trying every allowed source; {unasked} sources were skipped because the download limit (5 times the \
             size of the file) was reached"
        ),
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
        TransportError::ProxyRefused { .. }
        | TransportError::Send(_)
        | TransportError::HalfHead
        | TransportError::EndlessInterim
        | TransportError::Receive(_)
        | TransportError::Head(_)
        | TransportError::Body(BodyError::Chunk) => GetCode::ReceiveError,
    }
}
