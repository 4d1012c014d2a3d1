//! What can go wrong in one exchange.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::body::BodyError;
use super::head::HeadError;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The address is neither http nor https.
    #[error("cannot use {scheme}: only http and https addresses are downloaded")]
    Scheme {
        /// The scheme of the address.
        scheme: String,
    },
    /// The address names no host.
    #[error("the address {0} names no server")]
    NoHost(String),
    /// The host's name has no address.
    #[error("cannot resolve {host}: check the name, or the network")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// A proxy's name has no address.
    #[error("cannot resolve the proxy {host}: check http_proxy, https_proxy and all_proxy, or the network")]
    ResolveProxy {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// A proxy's address, here without name and password, makes no sense.
    #[error("cannot use the proxy {0:?}: expected http://host:port")]
    Proxy(String),
    /// A proxy would not connect us to the server.
    #[error("the proxy {proxy} answered {status} instead of connecting to the server")]
    ProxyRefused {
        /// The proxy.
        proxy: String,
        /// Its answer's status.
        status: u16,
    },
    /// None of the host's addresses took the connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address that was tried last.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Connecting took too long.
    #[error("no connection to {host} within {}", humantime::format_duration(*.after))]
    ConnectTimeout {
        /// The host.
        host: String,
        /// The limit.
        after: Duration,
    },
    /// The certificates to believe cannot be read.
    #[error("cannot read the certificates to trust: {0}")]
    Roots(String),
    /// The server's certificate is not to be believed.
    #[error("the certificate of {host} cannot be trusted (-k accepts it)")]
    Certificate {
        /// The host.
        host: String,
        /// What rustls said.
        source: io::Error,
    },
    /// The TLS handshake failed otherwise.
    #[error("no TLS connection to {host}")]
    Tls {
        /// The host.
        host: String,
        /// What rustls said.
        source: io::Error,
    },
    /// The request could not be sent.
    #[error("the connection broke while the request was sent")]
    Send(#[source] io::Error),
    /// The connection was closed without an answer.
    #[error("the server closed the connection without an answer")]
    EmptyReply,
    /// The connection was closed within the head of the answer.
    #[error("the server closed the connection within the head of its answer")]
    HalfHead,
    /// Interim answers came without end.
    #[error("the server sends interim answers without end")]
    EndlessInterim,
    /// The connection broke.
    #[error("the connection broke")]
    Receive(#[source] io::Error),
    /// The head of the answer is unusable.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The body is unusable.
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl TransportError {
    /// Whether a kept connection on which nothing of an answer came failed the way one does that the server closed while it
    /// was idle. TLS servers often close without a word.
    pub(super) fn means_stale_connection(&self) -> bool {
        match self {
            Self::EmptyReply | Self::Send(_) => true,
            Self::Receive(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
            ),
            _ => false,
        }
    }
}
