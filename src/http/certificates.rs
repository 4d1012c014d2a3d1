//! The certificates of the TLS listeners: read from PEM files, chosen by the name that a client asks for, and followed
//! while the program runs.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, ServerConfig};
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};

use super::tls::provider;

mod error;
mod follower;

pub(crate) use error::CertificatePairError;
use follower::{CertificateFollower, ReloadTrigger};

/// The limit of certificates of one program. A handshake looks at each of them.
const MOST_PAIRS: usize = 100;

/// The largest file of a certificate or key, in bytes.
const LARGEST: u64 = 1 << 20;

/// TLS 1.2 sessions that are kept for clients that do not take tickets. Later versions keep their sessions in tickets.
const SESSIONS: usize = 4096;

/// The files are read at this interval. A change takes effect once two readings in a row are equal, because a program may
/// still be writing the files.
const REREAD_INTERVAL: Duration = Duration::from_millis(500);

/// A certificate is reported this long before its end.
pub(crate) const EXPIRY_NOTICE: Duration = Duration::from_hours(14 * 24);

/// The files of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CertificatePair {
    /// The certificate of the server, and those of the authorities between it and a root.
    certificate: PathBuf,
    key: PathBuf,
}

impl fmt::Display for CertificatePair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.certificate.display().fmt(formatter)
    }
}

/// The content of both files.
#[derive(Clone, PartialEq, Eq)]
struct PairContent {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl CertificatePair {
    /// The pairs of two lists with a comma between paths. Without keys, each file of a certificate has its key too.
    pub(crate) fn parse(certificates: &str, keys: &str) -> Result<Vec<Self>, CertificatePairError> {
        let certificates = paths(certificates);
        let keys = if keys.trim().is_empty() { certificates.clone() } else { paths(keys) };
        match (certificates.len(), keys.len()) {
            (count, _) if count > MOST_PAIRS => Err(CertificatePairError::TooMany(count)),
            (certificates, keys) if certificates != keys => {
                Err(CertificatePairError::Count { certificates, keys })
            }
            _ => {
                let pairs = certificates.into_iter().zip(keys);
                Ok(pairs.map(|(certificate, key)| Self { certificate, key }).collect())
            }
        }
    }

    /// Reads the files and checks that they can be used together.
    fn load(&self) -> Result<Certificate, CertificatePairError> {
        self.certificate_of(self.read()?)
    }

    /// The same, with the end of the certificate, which is an error within the next 14 days.
    pub(crate) fn check(&self) -> Result<(), CertificatePairError> {
        match self.load()?.expiry_notice(SystemTime::now()) {
            Some(end) => Err(CertificatePairError::Expiry { path: self.certificate.clone(), end }),
            None => Ok(()),
        }
    }

    fn read(&self) -> Result<PairContent, CertificatePairError> {
        Ok(PairContent { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    fn certificate_of(&self, content: PairContent) -> Result<Certificate, CertificatePairError> {
        let unusable =
            |path: &Path, reason: String| CertificatePairError::Unusable { path: path.to_owned(), reason };
        let not_pem =
            |error: &dyn fmt::Display| unusable(&self.certificate, format!("it is not a PEM file ({error})"));
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&content.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| not_pem(&error))?;
        let Some(first) = chain.first() else {
            let reason = "it has no certificate; it must be a PEM file with BEGIN CERTIFICATE";
            return Err(unusable(&self.certificate, reason.to_owned()));
        };
        let parsed = EndEntityCert::try_from(first).map_err(|error| {
            unusable(&self.certificate, format!("its first certificate is damaged ({error})"))
        })?;
        let names = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let end = end_of(&parsed);
        let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|error| {
            let is_encrypted = memchr::memmem::find(&content.key, b"ENCRYPTED").is_some();
            let reason = match error {
                _ if is_encrypted => {
                    "its key has a passphrase; remove it with `openssl pkey -in FILE -out FILE`".to_owned()
                }
                PemError::NoItemsFound => {
                    "it has no private key; it must be a PEM file with BEGIN PRIVATE KEY, \
                     BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY"
                        .to_owned()
                }
                error => format!("it is not a PEM file ({error})"),
            };
            unusable(&self.key, reason)
        })?;
        let certified =
            CertifiedKey::from_der(chain.clone(), key, &provider()).map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => CertificatePairError::Mismatch {
                    certificate: self.certificate.clone(),
                    key: self.key.clone(),
                },
                error => unusable(
                    &self.key,
                    format!("its key is not an RSA, ECDSA or Ed25519 key that can be used ({error})"),
                ),
            })?;
        let pair = self.clone();
        Ok(Certificate { pair, certified: Arc::new(certified), names, end, content })
    }
}

fn paths(text: &str) -> Vec<PathBuf> {
    text.split(',').map(str::trim).filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, CertificatePairError> {
    let unreadable = |source| CertificatePairError::Unreadable { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        let reason = "it is not a regular file".to_owned();
        return Err(CertificatePairError::Unusable { path: path.to_owned(), reason });
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        let reason = format!("it is larger than {} MiB", LARGEST >> 20);
        return Err(CertificatePairError::Unusable { path: path.to_owned(), reason });
    }
    Ok(bytes)
}

/// The time after which a certificate is not valid; `None` for a certificate with a time that cannot be read.
fn end_of(certificate: &EndEntityCert<'_>) -> Option<Duration> {
    let always = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    // webpki states the end of a certificate only in this error, and checks the time first.
    match certificate.verify_for_usage(&[], &[], &[], always, KeyUsage::server_auth(), None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(Duration::from_secs(not_after.as_secs())),
        _ => None,
    }
}

/// A certificate with its key, ready for use.
struct Certificate {
    pair: CertificatePair,
    certified: Arc<CertifiedKey>,
    /// Names of hosts in lower case, some with `*` as their first label.
    names: Vec<String>,
    /// The time after which it is not valid, since the Unix epoch.
    end: Option<Duration>,
    content: PairContent,
}

impl fmt::Debug for Certificate {
    /// The content is secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Certificate {
    /// The end of its validity, if that is near or has passed.
    fn expiry_notice(&self, now: SystemTime) -> Option<SystemTime> {
        self.end().filter(|end| *end < now + EXPIRY_NOTICE)
    }

    fn end(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(self.end?)
    }

    fn is_for(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// Whether it is for every host of the domain of this name.
    fn is_for_siblings_of(&self, name: &str) -> bool {
        let domain = name.split_once('.').map(|(_, domain)| domain);
        domain.is_some_and(|domain| self.names.iter().any(|own| own.strip_prefix("*.") == Some(domain)))
    }
}

/// Certificates that were read and can be used.
#[derive(Debug)]
pub(crate) struct LoadedCertificates(Vec<Arc<Certificate>>);

impl LoadedCertificates {
    /// Reads the certificates of these pairs.
    pub(crate) fn read(pairs: &[CertificatePair]) -> Result<Self, CertificatePairError> {
        Ok(Self(pairs.iter().map(|pair| pair.load().map(Arc::new)).collect::<Result<_, _>>()?))
    }
}

/// The certificates of a program.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// The first is for clients that ask for none of the names.
    in_use: ArcSwap<Vec<Arc<Certificate>>>,
    /// Changes that took effect.
    pub(crate) reloads: AtomicU64,
    /// Changes that were refused.
    pub(crate) refused: AtomicU64,
}

impl Certificates {
    /// Uses these certificates.
    pub(crate) fn new(LoadedCertificates(certificates): LoadedCertificates) -> Self {
        Self {
            in_use: ArcSwap::from_pointee(certificates),
            reloads: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Uses these certificates in place of the others from now on.
    pub(crate) fn replace(&self, LoadedCertificates(certificates): LoadedCertificates) {
        self.in_use.store(Arc::new(certificates));
        self.reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// The configuration of a server with these certificates, in their latest state.
    pub(crate) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, Error> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let resolver = Arc::clone(self);
        let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = Ticketer::new()?;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        // Each connection gives the client the ticket of the next one.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }

    /// The file of each certificate, and the time at which the certificate ends.
    pub(crate) fn ends(&self) -> Vec<(String, SystemTime)> {
        let in_use = self.in_use.load();
        let end = |own: &Arc<Certificate>| Some((own.pair.to_string(), own.end()?));
        in_use.iter().filter_map(end).collect()
    }

    /// Follows the files on a thread of its own, as long as the program runs. A change takes effect within two seconds, and
    /// at each of `reloads` at once. A pair that cannot be used leaves the last good one in use.
    pub(crate) fn follow(self: &Arc<Self>, mut reloads: watch::Receiver<()>) -> io::Result<()> {
        let (sender, requests) = sync_channel(1);
        let mut follower = CertificateFollower::new(Arc::clone(self));
        std::thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            loop {
                follower.remind(SystemTime::now());
                match requests.recv_timeout(REREAD_INTERVAL) {
                    Ok(()) => follower.look(ReloadTrigger::Requested),
                    Err(RecvTimeoutError::Timeout) => follower.look(ReloadTrigger::Timer),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        actix_rt::spawn(async move {
            while reloads.changed().await.is_ok() {
                // If the queue is full, the files are read in a moment.
                let _ = sender.try_send(());
            }
        });
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let in_use = self.in_use.load();
        let fits =
            |own: &&Arc<Certificate>| own.certified.key.choose_scheme(hello.signature_schemes()).is_some();
        let fitting = || in_use.iter().filter(fits);
        let named = hello.server_name().and_then(|name| {
            let exact = fitting().find(|own| own.is_for(name));
            exact.or_else(|| fitting().find(|own| own.is_for_siblings_of(name)))
        });
        let chosen = named.or_else(|| fitting().next()).or_else(|| in_use.first())?;
        Some(Arc::clone(&chosen.certified))
    }
}
