//! Listening sockets: on an address, on a Unix socket, or passed by the service manager.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::settings::{self, SettingsError};
use crate::telemetry::print_line;

mod holder;
mod system;
mod unix;

pub(crate) use holder::PortHolder;
pub(super) use system::watch;
pub(crate) use unix::SocketFile;

/// Maximum number of connections that the kernel queues. It is larger than the 1024 of actix, so that a burst is not
/// refused.
const BACKLOG: i32 = 4096;

/// Why a program cannot listen on an address or path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The host is neither an address nor a name that resolves to one.
    #[error("cannot listen on {host:?}: it is not an address of this machine")]
    Host { host: String, source: io::Error },
    /// The system refused the address.
    #[error("cannot listen on {address}: {}", advice(source))]
    Bind { address: SocketAddr, source: io::Error },
    /// A process already listens there.
    #[error("cannot listen on {address}: {}", in_use(holder.as_ref()))]
    PortInUse { address: SocketAddr, holder: Option<PortHolder> },
    /// The system refused the path.
    #[error(
        "cannot listen on the Unix socket {}: check that its folder exists and is writable, and that the path \
         has at most 107 bytes",
        path.display()
    )]
    UnixSocket { path: PathBuf, source: io::Error },
    /// The system does not return the address of a socket.
    #[error("cannot find out the address of a listening socket")]
    Unknown(#[source] io::Error),
    /// Another program listens there.
    #[error(
        "cannot listen on the Unix socket {}: {} uses it; stop it, or choose another path",
        path.display(),
        program(holder.as_ref())
    )]
    UnixSocketInUse { path: PathBuf, holder: Option<PortHolder> },
    /// The path is taken by a file of another kind.
    #[error("cannot listen on {}: this file exists and is not a socket; move it, or choose another path", path.display())]
    NoSocket { path: PathBuf },
}

/// Advice for the user about an address that the system refused.
fn advice(refused: &io::Error) -> &'static str {
    match refused.kind() {
        io::ErrorKind::AddrNotAvailable => "it is not an address of this machine",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege; choose a higher port, or let systemd open this one"
        }
        _ => "choose another port, or 0 for a free one",
    }
}

/// The description of the holder of a port or socket in a message.
fn program(holder: Option<&PortHolder>) -> String {
    match holder {
        None => "another program".to_owned(),
        Some(PortHolder { pid, name }) if name.is_empty() => format!("process {pid}"),
        Some(PortHolder { pid, name }) => format!("process {pid} ({name})"),
    }
}

/// The description of the holder of a busy port, and possible remedies.
fn in_use(holder: Option<&PortHolder>) -> String {
    if holder.is_some_and(|holder| holder.pid == std::process::id()) {
        return "this process already uses this port; give each listener its own".to_owned();
    }
    format!("{} uses this port; stop it, or choose another port, or 0 for a free one", program(holder))
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    /// On a TCP address.
    Tcp(TcpListener),
    /// On a TCP address, for clients that use TLS.
    Tls(TcpListener, Arc<ServerConfig>),
    /// On a Unix socket.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Listener {
    /// Sets options that accepted sockets inherit, which saves system calls for each of them.
    pub(super) fn prepare(&self) {
        let (Self::Tcp(listener) | Self::Tls(listener, _)) = self else { return };
        let socket = SockRef::from(listener);
        // With Nagle's algorithm on, the second answer of a connection waits for a delayed acknowledgement.
        let prepared = socket.set_tcp_nodelay(true).and_then(|()| system::defer_accept(listener));
        if let Err(error) = prepared {
            tracing::debug!(%error, "cannot set the options of a listening socket");
        }
    }

    fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            Self::Tls(listener, _) => Address::Tls(listener.local_addr()?),
            Self::Unix(listener) => {
                let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
                Address::Unix(path.unwrap_or_default())
            }
        })
    }
}

/// The address of a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// An address of this machine.
    Tcp(SocketAddr),
    /// An address of this machine, for clients that use TLS.
    Tls(SocketAddr),
    /// The path of a Unix socket; empty for a socket without a path.
    Unix(PathBuf),
}

impl Address {
    /// The port, unless it is a Unix socket.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) | Self::Tls(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }

    /// Prints the ready line that scripts wait for.
    pub(crate) fn announce(&self) {
        match self {
            Self::Tcp(address) => print_line(format_args!("{READY} port {}", address.port())),
            Self::Tls(address) => {
                print_line(format_args!("Will wait for TLS client connections at port {}", address.port()));
            }
            Self::Unix(_) => print_line(format_args!("{READY} {self}")),
        }
    }
}

const READY: &str = "Will wait for client connections at";

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Tls(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// The configured listen address of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddress {
    /// A TCP address.
    Address {
        /// The host; `"::"` means all addresses.
        host: String,
        /// The port; 0 asks for a free one.
        port: u16,
    },
    /// A Unix socket.
    UnixSocket {
        /// The path.
        path: PathBuf,
        /// The mode of the file. Connecting needs write permission.
        mode: u32,
    },
}

impl ListenAddress {
    /// A Unix socket if `unix_socket` is not empty, otherwise the host and port. The mode is octal. An error names the key of
    /// `section`.
    pub(crate) fn new(
        section: &str,
        host: String,
        port: u16,
        unix_socket: PathBuf,
        mode: &str,
    ) -> Result<Self, SettingsError> {
        let parsed = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
        let mode = parsed.ok_or_else(|| {
            let reason = "it must be the octal mode of a file, such as 660";
            SettingsError::value(format!("{section}.unix_socket_mode"), mode, reason)
        })?;
        let path = settings::path(unix_socket);
        Ok(path.map_or(Self::Address { host, port }, |path| Self::UnixSocket { path, mode }))
    }

    /// Checks that a program could listen here, without a change to the system. A free port needs no check.
    pub(crate) fn check(&self) -> Result<(), ListenError> {
        match self {
            Self::Address { host, port } => listen(host, *port).map(drop),
            Self::UnixSocket { path, .. } => unix::check(path),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixSocket { path, .. } => write!(formatter, "unix:{}", path.display()),
            Self::Address { host, port } => {
                formatter.write_str(if host == "::" { "all addresses" } else { host })?;
                match port {
                    0 => formatter.write_str(", a free port"),
                    port => write!(formatter, ", port {port}"),
                }
            }
        }
    }
}

/// The listening sockets of a program.
#[derive(Debug)]
pub(crate) struct Listening {
    /// The sockets.
    pub listeners: Vec<Listener>,
    /// The address of each socket.
    pub addresses: Vec<Address>,
    /// The file of the Unix socket, if this process created it; it is removed when this is dropped.
    pub file: Option<SocketFile>,
    /// Whether the program created the file of the Unix socket: this process, or the one that handed over to it.
    pub has_own_file: bool,
}

impl Listening {
    /// Takes the sockets that were passed, or listens on `place`. The listeners for TLS precede them, so
    /// that scripts which wait for the last ready line wait for all of them.
    pub(crate) fn open(
        passed: Vec<Listener>,
        place: &ListenAddress,
        tls: Vec<Listener>,
    ) -> Result<Self, ListenError> {
        let (mut listeners, file) = match place {
            _ if !passed.is_empty() => (passed, None),
            ListenAddress::Address { host, port } => (vec![listen(host, *port)?.into()], None),
            ListenAddress::UnixSocket { path, mode } => {
                let (listener, file) = unix::listen(path, *mode)?;
                (vec![Listener::Unix(listener)], Some(file))
            }
        };
        listeners.splice(0..0, tls);
        let addresses = listeners.iter().map(Listener::address).collect::<io::Result<_>>();
        let addresses = addresses.map_err(ListenError::Unknown)?;
        Ok(Self { listeners, addresses, has_own_file: file.is_some(), file })
    }
}

/// The names of sockets that are passed to another process.
pub(crate) mod names {
    /// A socket for clients; any unknown name has this meaning.
    pub(crate) const CLIENTS: &str = "clients";
    /// A socket for clients that use TLS.
    pub(crate) const TLS: &str = "tls";
    /// A Unix socket whose file the program removes at its end.
    pub(crate) const OWN_FILE: &str = "own-file";
}

impl Listening {
    /// Takes over the file of a Unix socket from the process that handed over to this one.
    pub(crate) fn adopt_file(addresses: &[Address]) -> Option<SocketFile> {
        addresses.iter().find_map(|address| match address {
            Address::Unix(path) => SocketFile::adopt(path),
            _ => None,
        })
    }

    /// Duplicates of the sockets with their names.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<(&'static str, OwnedFd)>> {
        let duplicate = |listener: &Listener| {
            let name = match listener {
                Listener::Tls(..) => names::TLS,
                Listener::Unix(_) if self.has_own_file => names::OWN_FILE,
                _ => names::CLIENTS,
            };
            Ok((name, listener.as_fd().try_clone_to_owned()?))
        };
        self.listeners.iter().map(duplicate).collect()
    }
}

/// A listening, non-blocking socket on `host`; port 0 asks for a free one.
///
/// `"::"` means all addresses, IPv4 and IPv6, or IPv4 only on a machine without IPv6.
pub(crate) fn listen(host: &str, port: u16) -> Result<TcpListener, ListenError> {
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    let address = (bare, port)
        .to_socket_addrs()
        .and_then(|mut found| found.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
        .map_err(|source| ListenError::Host { host: host.to_owned(), source })?;
    match open(address) {
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && is_without_ipv6(&error) => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            open(address).map_err(|source| refused(address, source))
        }
        result => result.map_err(|source| refused(address, source)),
    }
}

fn refused(address: SocketAddr, source: io::Error) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::PortInUse { address, holder: holder::find(address) },
        _ => ListenError::Bind { address, source },
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    // A restart must not wait for the last run's connections to leave TIME_WAIT.
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
mod tests;
