//! The reasons why a certificate and its key cannot be used.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::MOST_PAIRS;

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificatePairError {
    /// A file cannot be read.
    #[error("cannot read {}: check that it exists and that this program may read it", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The content of a file is not usable.
    #[error("cannot use {}: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    /// The key is that of another certificate.
    #[error(
        "the key {} does not belong to the certificate {}: name the key with which the certificate was requested, and put \
         the certificate of the server before those of authorities",
        key.display(),
        certificate.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    /// The certificate is not valid for long, or not at all any more.
    #[error("the certificate {} ends at {}: renew it", path.display(), httpdate::fmt_http_date(*end))]
    Expiry { path: PathBuf, end: SystemTime },
    /// The number of certificates and keys differs.
    #[error(
        "{certificates} certificates and {keys} keys: give one key for each certificate, in the same order"
    )]
    Count { certificates: usize, keys: usize },
    /// There are more than [`MOST_PAIRS`].
    #[error("{0} certificates: at most {MOST_PAIRS} are possible; one certificate can have several names")]
    TooMany(usize),
}
