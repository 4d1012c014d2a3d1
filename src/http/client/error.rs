//! Errors of one exchange.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::head::HeadError;
use super::resolve::ResolveError;
use crate::http::tls::TlsError;

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
    /// The request cannot be written: its address or a header line is too long.
    #[error("cannot send the request: {0}")]
    Request(String),
    /// The name of the host has no address.
    #[error("cannot resolve {host}: check the name, or the network")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's error.
        source: ResolveError,
    },
    /// The name of a proxy has no address.
    #[error("cannot resolve the proxy {host}: check http_proxy, https_proxy and all_proxy, or the network")]
    ResolveProxy {
        /// The name.
        host: String,
        /// The resolver's error.
        source: ResolveError,
    },
    /// The address of a proxy, shown without name and password, is invalid.
    #[error("cannot use the proxy {0:?}: expected http://host:port")]
    Proxy(String),
    /// A proxy refused to connect to the server.
    #[error("the proxy {proxy} answered {status} instead of connecting to the server")]
    ProxyRefused {
        /// The proxy.
        proxy: String,
        /// The status of its answer.
        status: u16,
    },
    /// No address of the host accepted the connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// The last address that was tried.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// This process or machine lacks descriptors, threads, ports or memory. This is not a fault of the server.
    #[error("this machine is short of {what}")]
    Shortage {
        /// The missing resource.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The time limit for connecting was reached.
    #[error("no connection to {host} within {}", humantime::format_duration(*.after))]
    ConnectTimeout {
        /// The host.
        host: String,
        /// The limit.
        after: Duration,
    },
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    TrustAnchors(#[from] TlsError),
    /// The certificate of the server is not trusted.
    #[error("the certificate of {host} cannot be trusted (-k accepts it)")]
    Certificate {
        /// The host.
        host: String,
        /// The reason given by rustls.
        source: io::Error,
    },
    /// The TLS handshake failed for another reason.
    #[error("no TLS connection to {host}")]
    Tls {
        /// The host.
        host: String,
        /// The reason given by rustls.
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
    /// The server sent more interim answers than the limit.
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

/// Why the rest of a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection was closed before the end of the body.
    #[error("the body ended early{}", .missing.map(|bytes| format!(", {bytes} bytes are missing")).unwrap_or_default())]
    Short {
        /// The number of missing bytes, if a length was announced.
        missing: Option<u64>,
    },
    /// The chunks do not follow RFC 9112, section 7.1.
    #[error("the body's chunks are malformed")]
    Chunk,
}

impl TransportError {
    /// Whether a kept connection may have failed only because the server had closed it, or had left bytes of an
    /// earlier answer on it. The request may then be sent again on a new connection. TLS servers often close without
    /// notice.
    pub(super) fn may_be_stale(&self, is_answered: bool) -> bool {
        match self {
            // A bad head may be left over from the previous answer. A new connection shows whether the server always
            // sends it.
            Self::EmptyReply | Self::Send(_) | Self::Head(_) => true,
            Self::Receive(error) => !is_answered && is_broken_connection(error),
            _ => false,
        }
    }

    /// Converts an error of a system call that failed because this machine or process has run out of a resource.
    /// Returns other errors unchanged.
    pub(super) fn shortage(source: io::Error) -> Result<Self, io::Error> {
        use rustix::io::Errno;

        let what = match Errno::from_io_error(&source) {
            Some(Errno::MFILE | Errno::NFILE) => "file descriptors",
            Some(Errno::NOMEM | Errno::NOBUFS) => "memory",
            Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => "local ports",
            _ => return Err(source),
        };
        Ok(Self::Shortage { what, source })
    }
}

pub(super) fn is_broken_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}
