//! TLS of outgoing connections.

use std::sync::{Arc, LazyLock};

use rustls::{ClientConfig, RootCertStore};

/// TLS cannot be used in this process.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS")]
pub struct TlsError(#[from] rustls::Error);

/// TLS that trusts the certificate authorities of this machine and speaks HTTP/1.1.
///
/// They are read once, when TLS is first used. On a machine without any, each connection fails with the reason.
pub fn client_config() -> Result<Arc<ClientConfig>, &'static TlsError> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, TlsError>> = LazyLock::new(build);
    CONFIG.as_ref().map(Arc::clone)
}

fn build() -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(system_roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificate authorities of this machine. A store often holds some that rustls does not take; the others serve.
#[must_use]
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let (trusted, unusable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    tracing::debug!(trusted, unusable, "certificate authorities of this machine read");
    roots
}
