//! What systemd hands to a service it starts, and what it hears of it: `sd_listen_fds(3)`, `sd_notify(3)`.

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::http::listener::Listener;

/// More sockets than any unit has a use for.
const MOST_SOCKETS: usize = 64;

/// A socket of this name (`FileDescriptorName=` in its unit) is for the admin pages.
const ADMIN: &str = "admin";

/// The time the service manager has to take a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sockets that the service manager opened for this process.
#[derive(Debug, Default)]
pub struct PassedSockets {
    /// Where clients connect; none where the settings decide.
    pub clients: Vec<Listener>,
    /// Where the admin pages are; none where the settings decide.
    pub admin: Option<TcpListener>,
}

/// Why the sockets that were passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// The environment contradicts itself.
    #[error("cannot take the sockets that were passed: {name}={value}: {reason}")]
    Variable {
        /// The environment variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A descriptor is something else.
    #[error(
        "cannot take socket {number} ({name}) that was passed: it must be a stream socket that listens; \
         a .socket unit needs ListenStream= and Accept=no"
    )]
    Socket {
        /// Its place, the first being 0.
        number: usize,
        /// Its name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The admin pages have one listener, on an address.
    #[error("cannot take the sockets that were passed: only one may be named {ADMIN}, and it must be TCP")]
    Admin,
}

impl PassedSockets {
    /// Takes what was passed to this process; nothing where nothing was, or where it was meant for another process.
    ///
    /// `LISTEN_PID` and `LISTEN_FDS` are gone from the environment afterwards. To be called once, before the program
    /// has threads or opens files of its own.
    pub fn take() -> Result<Self, PassedError> {
        let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let offer = Offer {
            pid: variable("LISTEN_PID"),
            count: variable("LISTEN_FDS"),
            names: variable("LISTEN_FDNAMES"),
        };
        let mut passed = Self::default();
        let Some(names) = offer.names_of_sockets(std::process::id())? else { return Ok(passed) };
        let mut sockets = ListenFd::from_env();
        for (number, name) in names.into_iter().enumerate() {
            let listener = take_listener(&mut sockets, number).map_err(|source| PassedError::Socket {
                number,
                name: name.clone(),
                source,
            })?;
            match listener {
                Listener::Tcp(listener) if name == ADMIN && passed.admin.is_none() => {
                    passed.admin = Some(listener);
                }
                _ if name == ADMIN => return Err(PassedError::Admin),
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
        // It may be of the other family; what it is not is said of that one.
        Err(_) => Listener::Tcp(sockets.take_tcp_listener(number)?.ok_or_else(missing)?),
    };
    let socket = match &listener {
        Listener::Tcp(listener) => SockRef::from(listener),
        Listener::Unix(listener) => SockRef::from(listener),
    };
    // A connection, as with Accept=yes, is a stream socket too.
    if !socket.is_listener()? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    socket.set_nonblocking(true)?;
    Ok(listener)
}

/// The words of the environment.
#[derive(Debug, Default)]
struct Offer {
    pid: Option<String>,
    count: Option<String>,
    names: Option<String>,
}

impl Offer {
    /// The name of each socket; none where nothing was passed to this process.
    fn names_of_sockets(self, own_pid: u32) -> Result<Option<Vec<String>>, PassedError> {
        let wrong =
            |name, value: &str, reason| PassedError::Variable { name, value: value.to_owned(), reason };
        let (Some(pid), Some(count)) = (self.pid, self.count) else { return Ok(None) };
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
            // What systemd calls a socket without a name.
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

/// What a service manager wants to know of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// It accepts connections.
    Ready,
    /// It was told to stop, and does.
    Stopping,
}

/// Tells the service manager that started this process, where it asked to be told (`Type=notify`).
pub fn notify(state: ServiceState) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let word: &[u8] = match state {
        ServiceState::Ready => b"READY=1\n",
        ServiceState::Stopping => b"STOPPING=1\n",
    };
    if let Err(error) = send(&address, word) {
        tracing::warn!(%error, socket = %address.to_string_lossy(), "cannot tell the service manager");
    }
}

fn send(address: &OsStr, word: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_addr(&socket_address(address)?)?;
    socket.send(word).map(drop)
}

/// A path, or with an at sign a name in the namespace that Linux has beside the files.
fn socket_address(address: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = address.as_encoded_bytes().strip_prefix(b"@") {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(pid: &str, count: &str, names: Option<&str>) -> Result<Option<Vec<String>>, PassedError> {
        let text = |text: &str| Some(text.to_owned());
        Offer { pid: text(pid), count: text(count), names: names.map(str::to_owned) }.names_of_sockets(7)
    }

    #[test]
    fn sockets_are_taken_by_the_process_they_were_passed_to() {
        assert_eq!(offer("7", "2", Some("clients:admin")).unwrap().unwrap(), ["clients", "admin"]);
        assert_eq!(offer("7", "2", None).unwrap().unwrap(), ["unknown", "unknown"]);
        assert_eq!(offer("8", "2", None).unwrap(), None);
        assert_eq!(Offer::default().names_of_sockets(7).unwrap(), None);
    }

    #[test]
    fn words_that_make_no_sense_are_named() {
        for (pid, count, names, named) in [
            ("me", "1", None, "LISTEN_PID=me"),
            ("7", "many", None, "LISTEN_FDS=many"),
            ("7", "-1", None, "LISTEN_FDS=-1"),
            ("7", "65", None, "LISTEN_FDS=65"),
            ("7", "2", Some("clients"), "LISTEN_FDNAMES=clients"),
        ] {
            let message = offer(pid, count, names).unwrap_err().to_string();
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn a_word_reaches_a_path_and_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), b"READY=1\n").unwrap();
        let mut space = [0; 16];
        let length = manager.recv(&mut space).unwrap();
        assert_eq!(&space[..length], b"READY=1\n");
        assert!(send(folder.path().join("nobody").as_os_str(), b"READY=1\n").is_err());

        #[cfg(target_os = "linux")]
        {
            let name = format!("@fingerpost-test-{}", std::process::id());
            let manager = UnixDatagram::bind_addr(&socket_address(OsStr::new(&name)).unwrap()).unwrap();
            send(OsStr::new(&name), b"STOPPING=1\n").unwrap();
            assert_eq!(manager.recv(&mut space).unwrap(), 11);
        }
    }
}
