//! TLS with rustls: the system's roots, a file of own ones, or no check at all.

use std::cell::OnceCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use url::Host;

use super::TransportError;

/// Whose certificates are believed.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// A PEM file of authorities to believe instead of the system's.
    pub authorities: Option<PathBuf>,
    /// Whether certificates are checked at all.
    pub verification: Verification,
}

/// Whether a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// It must lead to an authority that is believed, and name the host.
    #[default]
    Checked,
    /// Any will do: what comes may be from anybody.
    Unchecked,
}

/// Does handshakes; the roots are read at the first one.
#[derive(Debug)]
pub(super) struct TlsConnector {
    trust: Trust,
    config: OnceCell<Arc<ClientConfig>>,
}

impl TlsConnector {
    pub(super) fn new(trust: Trust) -> Self {
        Self { trust, config: OnceCell::new() }
    }

    /// Reads the roots, once: where they cannot be read, no server need be bothered.
    pub(super) fn prepare(&self) -> Result<Arc<ClientConfig>, TransportError> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(configure(&self.trust)?);
        Ok(Arc::clone(self.config.get_or_init(|| config)))
    }

    pub(super) async fn handshake(
        &self,
        host: &Host<String>,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        let config = self.prepare()?;
        let name = match host {
            Host::Domain(name) => {
                ServerName::try_from(name.clone()).map_err(|_| TransportError::NoHost(name.clone()))?
            }
            Host::Ipv4(ip) => ServerName::from(std::net::IpAddr::V4(*ip)),
            Host::Ipv6(ip) => ServerName::from(std::net::IpAddr::V6(*ip)),
        };
        tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.map_err(|source| {
            let host = host.to_string();
            if is_about_the_certificate(&source) {
                TransportError::Certificate { host, source }
            } else {
                TransportError::Tls { host, source }
            }
        })
    }
}

fn is_about_the_certificate(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)))
}

fn configure(trust: &Trust) -> Result<ClientConfig, TransportError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError::Roots(error.to_string()))?;
    if trust.verification == Verification::Unchecked {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
            .with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    if let Some(path) = &trust.authorities {
        let unreadable = |error: rustls::pki_types::pem::Error| {
            TransportError::Roots(format!("{}: {error}", path.display()))
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            roots
                .add(certificate.map_err(unreadable)?)
                .map_err(|error| TransportError::Roots(format!("{}: {error}", path.display())))?;
        }
        if roots.is_empty() {
            return Err(TransportError::Roots(format!("{} holds no certificate", path.display())));
        }
    } else {
        // A system's store often holds some that rustls does not take; the others still serve.
        let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Believes every certificate, but still checks that its holder signed the handshake.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
