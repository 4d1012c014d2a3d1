//! Exit codes of `fingerpost get`: the numbers of curl, and aria2's 32 for a wrong checksum.

use std::process::ExitCode;

/// Exit code of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum GetCode {
    /// The file is complete under its final name.
    Complete = 0,
    /// The address, or the target of a redirect, has a scheme other than http and https.
    UnsupportedProtocol = 1,
    /// Invalid flags, alone or in combination.
    Usage = 2,
    /// The address has no scheme, no host or no file.
    InvalidUrl = 3,
    /// The name of the proxy cannot be resolved.
    UnresolvedProxy = 5,
    /// The name of the server cannot be resolved.
    UnresolvedHost = 6,
    /// No connection to the server could be made.
    CannotConnect = 7,
    /// The body ended before its announced length.
    PartialFile = 18,
    /// The server answered with an error (400 or above), or with a redirect without a usable target.
    HttpError = 22,
    /// The file cannot be written.
    WriteError = 23,
    /// Connecting, the answer or the whole download took too long.
    Timeout = 28,
    /// The file is complete, but its digest is wrong.
    WrongChecksum = 32,
    /// A server answered a range request with an invalid range.
    BadRange = 33,
    /// The TLS handshake failed, for a reason other than the certificate.
    TlsHandshake = 35,
    /// Another client is downloading to the same path, or the part file cannot be resumed.
    CannotResume = 36,
    /// Too many redirects, or a redirect loop.
    TooManyRedirects = 47,
    /// The server closed the connection without an answer.
    EmptyReply = 52,
    /// The connection was lost, or the answer is not HTTP.
    ReceiveError = 56,
    /// The server's certificate cannot be trusted.
    Certificate = 60,
    /// The file of certificates to trust cannot be read.
    CertificateFile = 77,
    /// An invalid Metalink.
    BadMetalink = 82,
    /// Interrupted by Ctrl-C or SIGTERM; the received bytes are kept.
    Interrupted = 130,
}

impl GetCode {
    /// The code as a number.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

impl From<GetCode> for ExitCode {
    fn from(code: GetCode) -> Self {
        Self::from(code.number())
    }
}
