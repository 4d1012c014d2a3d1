//! HTTPS of a program: its settings, its certificates, its listener.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use rustls::ServerConfig;

use tokio::sync::watch;

use super::certificates::{CertificatePair, CertificatePairError, Certificates, LoadedCertificates};
use super::listener::{self, ListenError, Listener};

/// The settings of HTTPS, as they were given: each key is valid by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpsSettings {
    /// PEM files of certificates, with a comma between two; empty for a program without HTTPS.
    pub(crate) certificates: String,
    /// PEM files of their keys in the same order; empty if each is in the file of its certificate.
    pub(crate) keys: String,
    /// The host to listen on.
    pub(crate) host: String,
    /// The port to listen on; 0 asks for a free one.
    pub(crate) port: u16,
    /// Whether the admin listener uses HTTPS too.
    pub(crate) is_for_admin: bool,
}

/// Why a program cannot offer HTTPS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpsError {
    /// There are settings of HTTPS, but no certificate.
    #[error(
        "tls_key, tls_port, admin_tls and a passed socket named tls need a certificate: name it with --tls-cert or the key \
         tls_cert"
    )]
    NoCertificate,
    /// A certificate and its key cannot be used.
    #[error(transparent)]
    Pair(#[from] CertificatePairError),
    /// The port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// rustls cannot be configured.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// HTTPS of a program, ready to accept connections.
#[derive(Debug)]
pub(crate) struct Https {
    certificates: Arc<Certificates>,
    config: Arc<ServerConfig>,
    is_for_admin: bool,
}

impl HttpsSettings {
    /// Reads the certificates, and takes the sockets that were passed or opens the port; nothing without certificates.
    pub(crate) fn open(
        &self,
        passed: Vec<TcpListener>,
    ) -> Result<(Option<Https>, Vec<Listener>), HttpsError> {
        let pairs = self.pairs()?;
        if pairs.is_empty() {
            return if passed.is_empty() { Ok((None, Vec::new())) } else { Err(HttpsError::NoCertificate) };
        }
        let certificates = Arc::new(Certificates::new(LoadedCertificates::read(&pairs)?));
        let config = certificates.server_config()?;
        let sockets = if passed.is_empty() { vec![listener::listen(&self.host, self.port)?] } else { passed };
        let listeners = sockets.into_iter().map(|socket| Listener::Tls(socket, Arc::clone(&config)));
        let listeners = listeners.collect();
        Ok((Some(Https { certificates, config, is_for_admin: self.is_for_admin }), listeners))
    }

    /// Reads the certificates again, for [`Certificates::replace`].
    pub(crate) fn read(&self) -> Result<LoadedCertificates, HttpsError> {
        Ok(LoadedCertificates::read(&self.pairs()?)?)
    }

    /// The scheme of the admin listener.
    pub(crate) fn admin_scheme(&self) -> &'static str {
        if self.is_for_admin { "https" } else { "http" }
    }

    fn pairs(&self) -> Result<Vec<CertificatePair>, HttpsError> {
        let is_unused = self.keys.is_empty() && self.port == 0 && !self.is_for_admin;
        match CertificatePair::parse(&self.certificates, &self.keys) {
            _ if self.certificates.is_empty() && !is_unused => Err(HttpsError::NoCertificate),
            pairs => Ok(pairs?),
        }
    }

    /// Every error with which [`HttpsSettings::open`] would fail, and certificates that end soon.
    pub(crate) fn check(&self) -> Vec<HttpsError> {
        let pairs = match self.pairs() {
            Ok(pairs) if pairs.is_empty() => return Vec::new(),
            Ok(pairs) => pairs,
            Err(error) => return vec![error],
        };
        let unusable = pairs.iter().filter_map(|pair| pair.check().err().map(HttpsError::from));
        let busy = listener::listen(&self.host, self.port).err().map(HttpsError::from);
        unusable.chain(busy).collect()
    }
}

impl Https {
    /// The configuration of the connections of the admin listener, if it uses HTTPS.
    pub(crate) fn admin_config(&self) -> Option<Arc<ServerConfig>> {
        self.is_for_admin.then(|| Arc::clone(&self.config))
    }

    /// The certificates.
    pub(crate) fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.certificates)
    }

    /// Follows the files of the certificates from now on, and reads them at once at each of `reloads`.
    pub(crate) fn follow(&self, reloads: watch::Receiver<()>) -> io::Result<()> {
        self.certificates.follow(reloads)
    }
}
