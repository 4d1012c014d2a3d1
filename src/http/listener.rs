//! Listening sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel holds ready for us; more than actix's 1024 so that a burst is not refused.
const BACKLOG: i32 = 4096;

/// Why no socket could be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The host is neither an address nor a name that resolves to one.
    #[error("cannot listen on {host}: it is no address of this machine")]
    Host {
        /// The host as it was given.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The system refused the address.
    #[error("cannot listen on {address}: choose another port, or 0 for a free one")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening, non-blocking socket on `host`; port 0 asks for a free one.
///
/// `"::"` means every address, IPv4 and IPv6, or IPv4 alone on a machine without IPv6.
pub fn listen(host: &str, port: u16) -> Result<TcpListener, ListenError> {
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    let address = (bare, port)
        .to_socket_addrs()
        .and_then(|mut found| found.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
        .map_err(|source| ListenError::Host { host: host.to_owned(), source })?;
    match open(address) {
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && is_without_ipv6(&error) => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            open(address).map_err(|source| ListenError::Bind { address, source })
        }
        result => result.map_err(|source| ListenError::Bind { address, source }),
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    // A restart must not wait for the last run's connections to leave TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(97)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn every_address_answers_ipv4() {
        let listener = listen("::", 0).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn a_busy_port_is_named() {
        let first = listen("127.0.0.1", 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let message = listen("127.0.0.1", port).unwrap_err().to_string();
        assert!(message.contains(&port.to_string()), "{message}");
    }
}
