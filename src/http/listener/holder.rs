//! Finds the process that uses a busy port or Unix socket, for the error message.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// Maximum time of the search. A machine with a million descriptors must not delay the error.
const SEARCH_LIMIT: Duration = Duration::from_secs(1);

/// The state `TCP_LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process that listens on a port or Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortHolder {
    /// The process id.
    pub pid: u32,
    /// The name, with control characters escaped; empty if the system does not show it.
    pub name: String,
}

/// The process that listens on `address` or on all addresses of its port.
///
/// `None` if the system has no `/proc`, or if the process belongs to another user.
pub(super) fn find(address: SocketAddr) -> Option<PortHolder> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, address))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let sockets: Vec<PathBuf> =
        inodes.into_iter().map(|inode| PathBuf::from(format!("socket:[{inode}]"))).collect();
    let deadline = Instant::now() + SEARCH_LIMIT;
    std::fs::read_dir("/proc").ok()?.flatten().take_while(|_| Instant::now() < deadline).find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        holds_one(&entry.path().join("fd"), &sockets, deadline).then(|| PortHolder::of(pid))
    })
}

/// The process that listens on the Unix socket of this connection.
pub(super) fn find_peer(connection: &UnixStream) -> Option<PortHolder> {
    let peer = rustix::net::sockopt::socket_peercred(connection).ok()?;
    u32::try_from(peer.pid.as_raw_nonzero().get()).ok().map(PortHolder::of)
}

impl PortHolder {
    fn of(pid: u32) -> Self {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        Self { pid, name: name.map(|name| name.trim_end().escape_debug().to_string()).unwrap_or_default() }
    }
}

fn holds_one(descriptors: &Path, sockets: &[PathBuf], deadline: Instant) -> bool {
    let Ok(descriptors) = std::fs::read_dir(descriptors) else { return false };
    descriptors
        .flatten()
        .take_while(|_| Instant::now() < deadline)
        .any(|descriptor| std::fs::read_link(descriptor.path()).is_ok_and(|target| sockets.contains(&target)))
}

/// The inodes of the sockets whose address conflicts with `address`, from the text of `/proc/net/tcp` or `tcp6`.
fn listening_inodes(table: &str, address: SocketAddr) -> Vec<String> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (local, state) = (fields.nth(1)?, fields.nth(1)?);
            let inode = fields.nth(5)?;
            let (host, port) = local.split_once(':')?;
            let is_same_port = u16::from_str_radix(port, 16).ok()? == address.port();
            (state == LISTEN && is_same_port && conflicts(parse_host(host)?, address.ip()))
                .then(|| inode.to_owned())
        })
        .collect()
}

/// Whether two sockets on the same port conflict: their addresses are equal, or one of them is the unspecified
/// address.
fn conflicts(held: IpAddr, wanted: IpAddr) -> bool {
    let (held, wanted) = (held.to_canonical(), wanted.to_canonical());
    held == wanted || held.is_unspecified() || wanted.is_unspecified()
}

/// Parses an address of the table: 32-bit words in the byte order of the machine, as hexadecimal digits.
fn parse_host(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(digits.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match digits.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
