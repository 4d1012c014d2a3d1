//! Connects to servers: addresses of both families in parallel (RFC 8305), proxies, TLS.

use std::cell::{Cell, OnceCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_service::Service;
use actix_tls::connect::{ConnectError, ConnectInfo, Connection};
use awc::http::Uri;
use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use url::Host;

use super::error::TransportError;
use super::exchange::Exchange;
use super::head::Head;
use super::proxy::{Proxy, Route};
use super::resolve::{ResolveError, Resolver};
use super::wire::{Io, Wire};
use super::{Family, TransportSettings};
use crate::http::tls::{self, Trust};

/// Delay before the next address is tried while an attempt is pending (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Maximum number of addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// The server of a request, and whether TLS is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpOrigin {
    pub(super) host: Host<String>,
    pub(super) port: u16,
    pub(super) security: Security,
}

/// Whether TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    Plain,
    Tls,
}

/// Opens connections for awc's pool.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    shared: Rc<DialerState>,
}

#[derive(Debug)]
struct DialerState {
    timeout: Duration,
    family: Family,
    resolver: Resolver,
    trust: Trust,
    /// The trust anchors are read for the first connection that needs them.
    tls: OnceCell<Arc<ClientConfig>>,
    /// The number of open connections.
    open: Rc<Cell<usize>>,
}

impl Dialer {
    pub(super) fn new(settings: TransportSettings, resolver: Resolver) -> Self {
        let shared = DialerState {
            timeout: settings.connect_timeout,
            family: settings.family,
            resolver,
            trust: settings.trust,
            tls: OnceCell::new(),
            open: Rc::default(),
        };
        Self { shared: Rc::new(shared) }
    }

    /// The number of open connections, idle ones included.
    pub(super) fn open(&self) -> usize {
        self.shared.open.get()
    }

    /// Opens a connection for `exchange`.
    async fn connect(&self, exchange: &Exchange) -> Result<Wire, TransportError> {
        let (origin, timeout) = (&exchange.origin, self.shared.timeout);
        let began = Instant::now();
        let io =
            tokio::time::timeout(timeout, self.connect_unlimited(origin, &exchange.route)).await.map_err(
                |_| TransportError::ConnectTimeout { host: origin.host.to_string(), after: timeout },
            )??;
        exchange.connecting.set(Some(began.elapsed()));
        Ok(Wire::new(io, Rc::clone(&self.shared.open)))
    }

    async fn connect_unlimited(
        &self,
        origin: &HttpOrigin,
        route: &Route,
    ) -> Result<Box<dyn Io>, TransportError> {
        // Without trust anchors the handshake would fail, so the connection is not attempted.
        let tls = match (origin.security, route) {
            // The proxy makes its own connection to the server, with TLS if needed; this connection ends at the
            // proxy.
            (Security::Plain, _) | (_, Route::Forward(_)) => None,
            (Security::Tls, _) => Some(self.tls()?),
        };
        let tcp = match route {
            Route::Direct => self.dial(&origin.host, origin.port).await?,
            Route::Forward(proxy) => self.dial_proxy(proxy).await?,
            Route::Tunnel(proxy) => tunnel(self.dial_proxy(proxy).await?, proxy, origin).await?,
        };
        match tls {
            None => Ok(Box::new(tcp)),
            Some(config) => handshake(config, &origin.host, tcp).await,
        }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, TransportError> {
        if let Some(config) = self.shared.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = tls::client_config(&self.shared.trust)?;
        Ok(Arc::clone(self.shared.tls.get_or_init(|| config)))
    }

    async fn dial_proxy(&self, proxy: &Proxy) -> Result<TcpStream, TransportError> {
        self.dial(&proxy.host, proxy.port).await.map_err(|error| match error {
            TransportError::Resolve { host, source } => TransportError::ResolveProxy { host, source },
            error => error,
        })
    }

    async fn dial(&self, host: &Host<String>, port: u16) -> Result<TcpStream, TransportError> {
        let found = match host {
            Host::Ipv4(ip) => [IpAddr::V4(*ip)].into(),
            Host::Ipv6(ip) => [IpAddr::V6(*ip)].into(),
            Host::Domain(name) => {
                self.shared.resolver.resolve(name).await.map_err(|source| match source {
                    ResolveError::Shortage { what, detail } => {
                        TransportError::Shortage { what, source: io::Error::other(detail) }
                    }
                    source => TransportError::Resolve { host: name.clone(), source },
                })?
            }
        };
        let addresses = in_order(&found, self.shared.family);
        if addresses.is_empty() {
            let source = ResolveError::NoSuchName("no address of the wanted family".to_owned());
            return Err(TransportError::Resolve { host: host.to_string(), source });
        }
        race(addresses.into_iter().map(|ip| SocketAddr::new(ip, port))).await
    }
}

/// The order in which addresses are tried: the families alternate, beginning with that of the first address of the
/// resolver (RFC 8305, section 4).
fn in_order(found: &[IpAddr], family: Family) -> Vec<IpAddr> {
    let first_is_v6 = found.first().is_some_and(IpAddr::is_ipv6);
    let wanted = found.iter().copied().filter(|address| match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    });
    let (leading, other): (Vec<_>, Vec<_>) = wanted.partition(|address| address.is_ipv6() == first_is_v6);
    let (mut leading, mut other) = (leading.into_iter(), other.into_iter());
    let mut ordered = Vec::new();
    loop {
        let (one, two) = (leading.next(), other.next());
        if one.is_none() && two.is_none() {
            break;
        }
        ordered.extend(one.into_iter().chain(two));
    }
    ordered.truncate(MAX_ADDRESSES);
    ordered
}

/// Connects to the first address that accepts. The next attempt starts after [`ATTEMPT_DELAY`], or at once after a
/// failure.
async fn race(addresses: impl ExactSizeIterator<Item = SocketAddr>) -> Result<TcpStream, TransportError> {
    let mut waiting = addresses;
    let mut attempts = FuturesUnordered::new();
    let mut worst: Option<TransportError> = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        } else if attempts.is_empty() {
            break;
        }
        let outcome = if waiting.len() > 0 {
            tokio::time::timeout(ATTEMPT_DELAY, attempts.next()).await.ok().flatten()
        } else {
            attempts.next().await
        };
        match outcome {
            Some((_, Ok(stream))) => {
                // A request is one small write that should be sent at once. A failure only makes it slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some((address, Err(source))) => {
                let error = TransportError::shortage(source)
                    .unwrap_or_else(|source| TransportError::Connect { address, source });
                if worst.as_ref().is_none_or(|worst| weight(&error) >= weight(worst)) {
                    worst = Some(error);
                }
            }
            None => {}
        }
    }
    Err(worst.unwrap_or(TransportError::EmptyReply))
}

/// The rank of an error among those of several addresses; the largest is reported. A lack of descriptors or memory
/// affects all addresses. "No local address" may also be the error of a machine without IPv6.
fn weight(error: &TransportError) -> u8 {
    match error {
        TransportError::Shortage { what: "local ports", .. } => 0,
        TransportError::Shortage { .. } => 2,
        _ => 1,
    }
}

/// Requests a tunnel to `origin` from a proxy (RFC 9110, section 9.3.6).
async fn tunnel(mut tcp: TcpStream, proxy: &Proxy, origin: &HttpOrigin) -> Result<TcpStream, TransportError> {
    let target = format!("{}:{}", origin.host, origin.port);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(credentials) = &proxy.authorization {
        request.push_str("Proxy-Authorization: ");
        request.push_str(credentials);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    tcp.write_all(request.as_bytes()).await.map_err(TransportError::Send)?;
    let mut buffer = BytesMut::new();
    loop {
        // Bytes after the head would be from the server, which sends nothing before the first request.
        if let Some(head) = Head::take(&mut buffer)? {
            return match head.status {
                100..=199 => continue,
                200..=299 if buffer.is_empty() => Ok(tcp),
                status => Err(TransportError::ProxyRefused { proxy: proxy.to_string(), status }),
            };
        }
        if tcp.read_buf(&mut buffer).await.map_err(TransportError::Receive)? == 0 {
            return Err(TransportError::EmptyReply);
        }
    }
}

async fn handshake(
    config: Arc<ClientConfig>,
    host: &Host<String>,
    tcp: TcpStream,
) -> Result<Box<dyn Io>, TransportError> {
    let name = match host {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            ServerName::try_from(name.to_owned()).map_err(|_| TransportError::NoHost(name.to_owned()))?
        }
        Host::Ipv4(ip) => ServerName::from(IpAddr::V4(*ip)),
        Host::Ipv6(ip) => ServerName::from(IpAddr::V6(*ip)),
    };
    match tokio_rustls::TlsConnector::from(config).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(source) if is_about_the_certificate(&source) => {
            Err(TransportError::Certificate { host: host.to_string(), source })
        }
        Err(source) => Err(TransportError::Tls { host: host.to_string(), source }),
    }
}

fn is_about_the_certificate(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)))
}

impl Service<ConnectInfo<Uri>> for Dialer {
    type Response = Connection<Uri, Wire>;
    type Error = ConnectError;
    type Future = LocalBoxFuture<'static, Result<Self::Response, ConnectError>>;

    actix_service::always_ready!();

    fn call(&self, info: ConnectInfo<Uri>) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            // awc's own error is not shown: the exchange has the real one.
            let exchange = Exchange::current().ok_or(ConnectError::Unresolved)?;
            match dialer.connect(&exchange).await {
                Ok(wire) => Ok(Connection::new(info.request().clone(), wire)),
                Err(error) => {
                    exchange.fail(error);
                    Err(ConnectError::NoRecords)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
