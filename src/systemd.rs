//! Socket activation (`sd_listen_fds(3)`) and notification of the service manager (`sd_notify(3)`).

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::http::listener::{Listener, names};

/// The largest accepted value of `LISTEN_FDS`.
const MOST_SOCKETS: usize = 64;

/// The number of the first passed socket.
pub(crate) const FIRST_SOCKET: i32 = 3;

/// The name (`FileDescriptorName=` in its unit) of the socket for the admin pages.
pub(crate) const ADMIN: &str = "admin";

/// The name of the stream to the process that hands over to this one.
pub(crate) const OLD_PROCESS: &str = "old-process";

/// The variable with the number of the process that passed the sockets, in place of `LISTEN_PID`. It must be the parent.
pub(crate) const PREDECESSOR: &str = "FINGERPOST_PREDECESSOR";

/// The time limit for sending one notification.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Sockets that the service manager, or the process before this one, opened for this process.
#[derive(Debug, Default)]
pub(crate) struct PassedSockets {
    /// The listeners for clients; empty if the settings name the address.
    pub clients: Vec<Listener>,
    /// The listeners for clients that use TLS; empty if the settings name the port.
    pub tls: Vec<TcpListener>,
    /// Whether the process before this one created the file of the Unix socket.
    pub has_own_file: bool,
    /// The stream to the process that hands over to this one.
    pub old_process: Option<UnixStream>,
    /// The listener of the admin pages; `None` if the settings name the address.
    pub admin: Option<TcpListener>,
}

/// An error in the sockets that the service manager passed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassedError {
    /// An environment variable has an invalid value.
    #[error("cannot take the sockets that were passed: {name}={value}: {reason}")]
    Variable { name: &'static str, value: String, reason: &'static str },
    /// A descriptor is not a listening stream socket.
    #[error(
        "cannot take socket {number} ({name}) that was passed: it must be a stream socket that listens; \
         a .socket unit needs ListenStream= and Accept=no"
    )]
    Socket { number: usize, name: String, source: io::Error },
    /// Several sockets are named `admin`, or a socket that must be TCP is a Unix socket.
    #[error(
        "cannot take the sockets that were passed: only one may be named {ADMIN}, and those named {ADMIN} and {} must be TCP",
        names::TLS
    )]
    Named,
}

impl PassedSockets {
    /// Takes the sockets that were passed to this process. Without such sockets, or if they belong to another process,
    /// the result is empty.
    ///
    /// Removes `LISTEN_PID` and `LISTEN_FDS` from the environment. Call it once, before the program starts threads or
    /// opens files.
    pub(crate) fn take() -> Result<Self, PassedError> {
        let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let variables = ListenVariables {
            pid: variable("LISTEN_PID"),
            predecessor: variable(PREDECESSOR),
            count: variable("LISTEN_FDS"),
            names: variable("LISTEN_FDNAMES"),
        };
        let mut passed = Self::default();
        let Some(names) =
            variables.names_of_sockets(std::process::id(), std::os::unix::process::parent_id())?
        else {
            return Ok(passed);
        };
        let mut sockets = ListenFd::from_env();
        for (number, name) in names.into_iter().enumerate() {
            if name == OLD_PROCESS {
                // The stream has the type of a listener only here.
                let stream = sockets.take_unix_listener(number).ok().flatten().map(OwnedFd::from);
                passed.old_process = stream.map(UnixStream::from);
                continue;
            }
            let listener = take_listener(&mut sockets, number).map_err(|source| PassedError::Socket {
                number,
                name: name.clone(),
                source,
            })?;
            match listener {
                Listener::Tcp(listener) if name == ADMIN && passed.admin.is_none() => {
                    passed.admin = Some(listener);
                }
                Listener::Tcp(listener) if name == names::TLS => passed.tls.push(listener),
                _ if name == ADMIN || name == names::TLS => return Err(PassedError::Named),
                Listener::Unix(listener) if name == names::OWN_FILE => {
                    passed.has_own_file = true;
                    passed.clients.push(Listener::Unix(listener));
                }
                listener => passed.clients.push(listener),
            }
        }
        Ok(passed)
    }
}

fn take_listener(sockets: &mut ListenFd, number: usize) -> io::Result<Listener> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let listener = match sockets.take_unix_listener(number) {
        Ok(listener) => Listener::Unix(listener.ok_or_else(missing)?),
        // The socket may be a TCP socket. If it is neither, the error is the one of TCP.
        Err(_) => Listener::Tcp(sockets.take_tcp_listener(number)?.ok_or_else(missing)?),
    };
    let socket = match &listener {
        Listener::Tcp(listener) | Listener::Tls(listener, _) => SockRef::from(listener),
        Listener::Unix(listener) => SockRef::from(listener),
    };
    // A connection, which systemd passes with Accept=yes, is a stream socket too.
    if !socket.is_listener()? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    socket.set_nonblocking(true)?;
    Ok(listener)
}

/// The environment variables of socket activation.
#[derive(Debug, Default)]
struct ListenVariables {
    pid: Option<String>,
    predecessor: Option<String>,
    count: Option<String>,
    names: Option<String>,
}

impl ListenVariables {
    /// The name of each socket; `None` if no socket was passed to this process.
    fn names_of_sockets(self, own_pid: u32, parent: u32) -> Result<Option<Vec<String>>, PassedError> {
        let wrong =
            |name, value: &str, reason| PassedError::Variable { name, value: value.to_owned(), reason };
        let Some(count) = self.count else { return Ok(None) };
        // A program that this process starts inherits the variable, but has another parent.
        let is_heir = self.pid.is_none() && self.predecessor.is_some_and(|old| old == parent.to_string());
        let pid = if is_heir { Some(own_pid.to_string()) } else { self.pid };
        let Some(pid) = pid else { return Ok(None) };
        let Ok(pid_number) = pid.parse::<u32>() else {
            return Err(wrong("LISTEN_PID", &pid, "it must be the number of a process"));
        };
        if pid_number != own_pid {
            return Ok(None);
        }
        let reason = "it must be the number of sockets, at most 64";
        let number = count.parse().ok().filter(|number| *number <= MOST_SOCKETS);
        let Some(number) = number else { return Err(wrong("LISTEN_FDS", &count, reason)) };
        let names = match self.names {
            // The name that `sd_listen_fds_with_names(3)` gives to a socket without a name.
            None => vec!["unknown".to_owned(); number],
            Some(names) => {
                let split: Vec<_> = names.split(':').map(str::to_owned).collect();
                if split.len() != number {
                    let reason = "it must have one name for each of LISTEN_FDS, with colons between them";
                    return Err(wrong("LISTEN_FDNAMES", &names, reason));
                }
                split
            }
        };
        Ok(Some(names))
    }
}

/// A state that is reported to the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceState {
    /// The program accepts connections.
    Ready,
    /// The program is shutting down.
    Stopping,
    /// Another process is the main process of the service from now on.
    Successor(u32),
}

/// Notifies the service manager that started this process if its unit has `Type=notify`.
pub(crate) fn notify(state: ServiceState) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let word = match state {
        ServiceState::Ready => "READY=1\n".to_owned(),
        ServiceState::Stopping => "STOPPING=1\n".to_owned(),
        ServiceState::Successor(process) => format!("MAINPID={process}\n"),
    };
    if let Err(error) = send(&address, word.as_bytes()) {
        tracing::warn!(%error, socket = %address.to_string_lossy(), "cannot notify the service manager");
    }
}

fn send(address: &OsStr, word: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(NOTIFY_TIMEOUT))?;
    socket.connect_addr(&socket_address(address)?)?;
    socket.send(word).map(drop)
}

/// A path, or, after an at sign, a name in the abstract namespace of Linux.
fn socket_address(address: &OsStr) -> io::Result<SocketAddr> {
    if let Some(name) = address.as_encoded_bytes().strip_prefix(b"@") {
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(address)
}

#[cfg(test)]
mod tests;
