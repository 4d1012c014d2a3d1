//! Connecting: names, addresses of both families side by side (RFC 8305), proxies, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use url::Host;

use super::head::Head;
use super::pool::{Origin, Security};
use super::proxy::{Proxy, Route};
use super::tls::TlsConnector;
use super::{Family, TransportError, TransportSettings};

/// How long the next address waits for the one before it (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// A connection, ready for a request.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) peer: SocketAddr,
    /// Room for the next answer; empty between two.
    pub(super) buffer: BytesMut,
}

impl Connection {
    fn new(stream: Stream, peer: SocketAddr) -> Self {
        Self { stream, peer, buffer: BytesMut::new() }
    }

    /// Whether an idle connection is open and nothing came on it: neither an end nor an answer to no request.
    pub(super) fn is_quiet(&mut self) -> bool {
        let tcp = match &mut self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(stream) => {
                let (tcp, session) = stream.get_mut();
                let state = session.process_new_packets();
                if !state.is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed())
                {
                    return false;
                }
                tcp
            }
        };
        tcp.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The bytes of a connection, with TLS taken off.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    timeout: Duration,
    family: Family,
    tls: TlsConnector,
}

impl Connector {
    pub(super) fn new(settings: TransportSettings) -> Self {
        Self {
            timeout: settings.connect_timeout,
            family: settings.family,
            tls: TlsConnector::new(settings.trust),
        }
    }

    /// A new connection to `origin` over `route`.
    pub(super) async fn connect(&self, origin: &Origin, route: &Route) -> Result<Connection, TransportError> {
        tokio::time::timeout(self.timeout, self.connect_unlimited(origin, route)).await.unwrap_or_else(|_| {
            Err(TransportError::ConnectTimeout { host: origin.host.to_string(), after: self.timeout })
        })
    }

    async fn connect_unlimited(&self, origin: &Origin, route: &Route) -> Result<Connection, TransportError> {
        if origin.security == Security::Tls && !matches!(route, Route::Forward(_)) {
            self.tls.prepare()?;
        }
        let (tcp, peer) = match route {
            Route::Direct => self.dial(&origin.host, origin.port).await?,
            Route::Forward(proxy) => {
                // The proxy speaks to the server, TLS included: this connection ends at the proxy.
                let (tcp, peer) = self.dial_proxy(proxy).await?;
                return Ok(Connection::new(Stream::Plain(tcp), peer));
            }
            Route::Tunnel(proxy) => {
                let (tcp, peer) = self.dial_proxy(proxy).await?;
                (tunnel(tcp, proxy, origin).await?, peer)
            }
        };
        let stream = match origin.security {
            Security::Plain => Stream::Plain(tcp),
            Security::Tls => Stream::Tls(Box::new(self.tls.handshake(&origin.host, tcp).await?)),
        };
        Ok(Connection::new(stream, peer))
    }

    async fn dial_proxy(&self, proxy: &Proxy) -> Result<(TcpStream, SocketAddr), TransportError> {
        self.dial(&proxy.host, proxy.port).await.map_err(|error| match error {
            TransportError::Resolve { host, source } => TransportError::ResolveProxy { host, source },
            error => error,
        })
    }

    async fn dial(&self, host: &Host<String>, port: u16) -> Result<(TcpStream, SocketAddr), TransportError> {
        let found: Vec<SocketAddr> = match host {
            Host::Ipv4(ip) => vec![SocketAddr::new(IpAddr::V4(*ip), port)],
            Host::Ipv6(ip) => vec![SocketAddr::new(IpAddr::V6(*ip), port)],
            Host::Domain(name) => tokio::net::lookup_host((name.as_str(), port))
                .await
                .map_err(|source| TransportError::Resolve { host: name.clone(), source })?
                .collect(),
        };
        let addresses = in_order(found, self.family);
        if addresses.is_empty() {
            let source = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address of the wanted family");
            return Err(TransportError::Resolve { host: host.to_string(), source });
        }
        race(addresses).await
    }
}

/// The addresses in the order in which they are tried: the families take turns, the resolver's first choice begins
/// (RFC 8305, section 4).
fn in_order(found: Vec<SocketAddr>, family: Family) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let wanted = found.into_iter().filter(|address| match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    });
    let (mut leading, mut other): (Vec<_>, Vec<_>) =
        wanted.partition(|address| address.is_ipv6() == first_is_v6);
    leading.dedup();
    other.dedup();
    let mut ordered = Vec::new();
    let (mut leading, mut other) = (leading.into_iter(), other.into_iter());
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

/// The first address to take a connection; each waits [`ATTEMPT_DELAY`] for the one before, less where that failed.
async fn race(addresses: Vec<SocketAddr>) -> Result<(TcpStream, SocketAddr), TransportError> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        } else if attempts.is_empty() {
            break;
        }
        let more_to_start = waiting.len() > 0;
        let outcome = if more_to_start {
            tokio::time::timeout(ATTEMPT_DELAY, attempts.next()).await.ok().flatten()
        } else {
            attempts.next().await
        };
        match outcome {
            Some((address, Ok(stream))) => {
                // A request is one small write that should leave at once; where that cannot be set it is only slower.
                let _ = stream.set_nodelay(true);
                return Ok((stream, address));
            }
            Some((address, Err(source))) => {
                last_error = Some(TransportError::Connect { address, source });
            }
            None => {}
        }
    }
    Err(last_error.unwrap_or(TransportError::EmptyReply))
}

/// Asks a proxy for a tunnel to `origin` (RFC 9110, section 9.3.6).
async fn tunnel(mut tcp: TcpStream, proxy: &Proxy, origin: &Origin) -> Result<TcpStream, TransportError> {
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
        // One byte at a time past the head would belong to the server; a proxy sends none before we speak.
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

// === impl Stream ===

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &[&str]) -> Vec<SocketAddr> {
        text.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_take_turns() {
        let found = list(&["[::1]:1", "[::2]:1", "1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1"]);
        let turns = list(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "1.0.0.3:1"]);
        assert_eq!(in_order(found.clone(), Family::Any), turns);
        assert_eq!(in_order(found.clone(), Family::V4).len(), 3);
        assert_eq!(in_order(found, Family::V6).len(), 2);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_hide_a_living_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let living = listener.local_addr().unwrap();
        let closed = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let (_, peer) = race(vec![closed, living]).await.unwrap();
        assert_eq!(peer, living);
    }
}
