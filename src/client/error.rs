//! Why a download failed, and the exit code of each reason.

use super::exit_code::GetCode;
use super::redirect::RedirectError;
use super::sink::SinkError;
use super::transport::TransportError;
use super::transport::body::BodyError;

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The address has no scheme, host or file.
    #[error("invalid URL, expected http://host:port/file")]
    InvalidUrl,
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
    /// The file could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl DownloadError {
    /// The code that the process ends with.
    #[must_use]
    pub fn code(&self) -> GetCode {
        match self {
            Self::InvalidUrl => GetCode::InvalidUrl,
            Self::Redirect(error) => match error {
                RedirectError::NoLocation { .. } => GetCode::HttpError,
                RedirectError::Scheme { .. } | RedirectError::Downgrade { .. } => {
                    GetCode::UnsupportedProtocol
                }
                RedirectError::Circle { .. } | RedirectError::TooMany { .. } => GetCode::TooManyRedirects,
            },
            Self::Refused { .. } => GetCode::HttpError,
            Self::Transport { source, .. } => transport_code(source),
            Self::Sink(error) => error.code(),
        }
    }
}

fn transport_code(error: &TransportError) -> GetCode {
    match error {
        TransportError::Scheme { .. } => GetCode::UnsupportedProtocol,
        TransportError::NoHost(_) => GetCode::InvalidUrl,
        TransportError::Resolve { .. } => GetCode::UnresolvedHost,
        TransportError::Proxy(_) => GetCode::UnresolvedProxy,
        TransportError::Connect { .. } => GetCode::CannotConnect,
        TransportError::ConnectTimeout { .. } => GetCode::Timeout,
        TransportError::Tls { .. } => GetCode::TlsHandshake,
        TransportError::Certificate { .. } => GetCode::Certificate,
        TransportError::Roots(_) => GetCode::CertificateFile,
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
