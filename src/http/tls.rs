//! TLS of outgoing connections. This module alone decides which certificates are trusted.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Why TLS cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates is unusable.
    #[error("cannot read the certificates to trust: {0}")]
    File(String),
    /// This machine has no certificate authorities.
    #[error(
        "no certificate authorities found on this machine: install ca-certificates, or set SSL_CERT_FILE"
    )]
    NoAuthorities,
    /// rustls cannot be configured.
    #[error("cannot set up TLS")]
    Setup(#[from] Error),
}

/// Which certificates are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// A PEM file of certificates that are trusted instead of the authorities of the system.
    pub authorities: Option<PathBuf>,
    /// Whether certificates are verified.
    pub verification: Verification,
}

/// Whether the certificate of a server is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// The certificate must lead to a trusted authority, or be trusted itself, and must name the host.
    #[default]
    Checked,
    /// Every certificate is accepted, so the server is not authenticated.
    Unchecked,
}

/// The TLS configuration for HTTP/1.1 that trusts the certificates of `trust`.
///
/// The authorities of the system are read once per process. On a machine without any, one log line gives the reason.
pub(crate) fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    static SYSTEM: LazyLock<Result<Arc<ClientConfig>, TlsError>> =
        LazyLock::new(|| Ok(with_anchors(Some(TrustAnchors::of_system()?))?));

    match trust {
        Trust { verification: Verification::Unchecked, .. } => Ok(with_anchors(None)?),
        Trust { authorities: None, .. } => SYSTEM.clone(),
        Trust { authorities: Some(path), .. } => Ok(with_anchors(Some(TrustAnchors::of_file(path)?))?),
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The configuration that accepts certificates of these anchors; `None` accepts every certificate.
fn with_anchors(anchors: Option<TrustAnchors>) -> Result<Arc<ClientConfig>, Error> {
    let algorithms = provider().signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { anchors, algorithms }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Reads the certificates of a PEM file: at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |reason: String| TlsError::File(format!("{}: {reason}", path.display()));
    let list = CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
    let list: Vec<_> = list.collect::<Result<_, _>>().map_err(|error| unusable(error.to_string()))?;
    if list.is_empty() {
        return Err(TlsError::File(format!("{} holds no certificate", path.display())));
    }
    Ok(list)
}

/// Whether this machine has certificate authorities. Without them, the certificate of an https server cannot be
/// verified.
pub(crate) fn has_trust_anchors() -> bool {
    let found = rustls_native_certs::load_native_certs();
    RootCertStore::empty().add_parsable_certificates(found.certs).0 > 0
}

/// The listed certificates: authorities of other certificates, and certificates of servers.
///
/// `openssl req -x509` makes a certificate that is marked as an authority. Such a certificate must not identify a
/// server, except that the user lists this very certificate, as in other TLS libraries.
#[derive(Debug)]
struct TrustAnchors {
    verifier: Arc<WebPkiServerVerifier>,
    listed: Vec<CertificateDer<'static>>,
}

impl TrustAnchors {
    fn new(roots: RootCertStore, listed: Vec<CertificateDer<'static>>) -> Result<Self, VerifierBuilderError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        Ok(Self { verifier, listed })
    }

    /// The certificates of a PEM file.
    fn of_file(path: &Path) -> Result<Self, TlsError> {
        let unusable = |error: &dyn std::fmt::Display| TlsError::File(format!("{}: {error}", path.display()));
        let listed = certificates(path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &listed {
            roots.add(certificate.clone()).map_err(|error| unusable(&error))?;
        }
        Self::new(roots, listed).map_err(|error| unusable(&error))
    }

    /// The certificate authorities of this machine: at least one. Those that rustls does not accept are skipped.
    fn of_system() -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (trusted, unusable) = roots.add_parsable_certificates(found.certs.iter().cloned());
        if trusted == 0 {
            let cause = found.errors.first().map(ToString::to_string).unwrap_or_default();
            let error = TlsError::NoAuthorities;
            tracing::warn!(unusable, cause, "https servers cannot be verified: {error}");
            return Err(error);
        }
        tracing::debug!(trusted, unusable, "certificate authorities of this machine read");
        Self::new(roots, found.certs).map_err(|error| TlsError::File(error.to_string()))
    }
}

/// Checks the certificates of servers. The holder of an accepted certificate must always have signed the handshake.
#[derive(Debug)]
struct Verifier {
    /// `None` to accept every certificate.
    anchors: Option<TrustAnchors>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(TrustAnchors { verifier, listed }) = &self.anchors else {
            return Ok(ServerCertVerified::assertion());
        };
        match verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // rustls checks the dates before the mark as an authority, and the name after it.
            Err(error) if is_authority_as_server(&error) && listed.contains(end_entity) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether the only error is that the certificate of an authority identifies a server.
fn is_authority_as_server(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}
