//! `fingerpost get` over TLS: which certificates it trusts, and that it never falls back to plain HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::support::downloads::Downloads;
use super::support::misbehaving::Script;

const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls/certificate.pem");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/tls/key.pem");

/// Answers every connection with these bytes until the tests end, under a self-signed certificate for
/// localhost. Counts the connections.
fn tls_server(answer: String) -> (SocketAddr, Arc<AtomicUsize>) {
    serve("127.0.0.1:0", config(), answer.into_bytes())
}

/// The same with the given certificate and key, as PEM files.
pub(super) fn server_with(certificate: &Path, key: &Path, answer: Vec<u8>) -> SocketAddr {
    serve("127.0.0.1:0", config_of(certificate, key), answer).0
}

pub(super) fn serve(at: &str, config: Arc<ServerConfig>, answer: Vec<u8>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(at).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    thread::spawn(move || {
        while let Ok((tcp, _)) = listener.accept() {
            counter.fetch_add(1, Ordering::SeqCst);
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, tcp);
            // A client that does not trust the certificate closes the connection here.
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok() && stream.write_all(&answer).is_ok() {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                // Closing a socket with unread bytes would reset the connection and discard the answer.
                let _ = stream.sock.read(&mut request);
            }
        }
    });
    (address, connections)
}

/// TLS settings of a server with the certificate above.
pub(super) fn config() -> Arc<ServerConfig> {
    config_of(Path::new(CERTIFICATE), Path::new(KEY))
}

pub(super) fn config_of(certificate: &Path, key: &Path) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

/// Makes a self-signed certificate with these extensions and its key in `folder`; `None` without openssl.
pub(super) fn self_signed(folder: &Path, extensions: &[&str]) -> Option<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=case";
    let openssl = Command::new("openssl")
        .args(arguments.split(' '))
        .args(extensions.iter().flat_map(|extension| ["-addext", extension]))
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        // The system configuration may add an extension, too.
        .env("OPENSSL_CONF", "/dev/null")
        .output();
    if openssl.is_ok_and(|output| output.status.success()) {
        return Some((certificate, key));
    }
    println!("left out: openssl cannot make certificates here");
    None
}

#[test]
fn a_certificate_is_trusted_only_if_its_signer_is() {
    let body = "I am a file.";
    let answer =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (address, connections) = tls_server(answer);
    let url = format!("https://{address}/f");
    let downloads = Downloads::new();
    downloads.get(&[&url]).ended_with(60);
    assert_eq!(downloads.names(), [""; 0]);
    downloads.get(&[&url, "--cacert", CERTIFICATE]).ended_with(0);
    assert_eq!(downloads.read("f"), body.as_bytes());
    downloads.get(&[&url, "-k", "-o", "g"]).ended_with(0);
    downloads
        .get(&[&url.replace("127.0.0.1", "localhost"), "-4", "--cacert", CERTIFICATE, "-o", "h"])
        .ended_with(0);
    assert_eq!(connections.load(Ordering::SeqCst), 4, "one for each download");
    // Without a trusted authority, `get` does not connect, neither to compare the existing file nor to fetch
    // it.
    downloads.get(&[&url, "--cacert", "/dev/null"]).ended_with(77);
    assert_eq!(connections.load(Ordering::SeqCst), 4);
}

#[test]
fn a_redirect_from_https_to_http_is_refused() {
    let open = Script::of(b"I am a file.").start();
    let answer = format!(
        "HTTP/1.1 301 Moved\r\nConnection: close\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
        open.url("/f")
    );
    let (address, _) = tls_server(answer);
    Downloads::new().get(&[&format!("https://{address}/f"), "-k"]).ended_with(1);
    assert_eq!(open.exchanges().len(), 0);
}
