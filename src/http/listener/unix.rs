//! Listening on a Unix socket. Its file outlives a program that is killed, and is removed when a program ends
//! normally.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{BACKLOG, ListenError, holder};
use crate::folder;

/// The file of a listening socket. Dropping it removes the file, unless another file has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// The file of a socket that another process of the program has created.
    pub(super) fn adopt(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), inode: inode(path).ok()? })
    }

    /// Leaves the file to another process.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A listening, non-blocking socket at `path`. Clients need write permission by `mode` to connect.
///
/// A socket left by a program that was killed is replaced. A socket in use or a file of any other kind is not.
pub(super) fn listen(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), ListenError> {
    let failed = |source| ListenError::UnixSocket { path: path.to_owned(), source };
    let socket = match bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            bind(path).map_err(failed)?
        }
        result => result.map_err(failed)?,
    };
    let file = SocketFile { path: path.to_owned(), inode: inode(path).map_err(failed)? };
    // No client can connect before the socket listens, whatever mode the file had at its creation.
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
        .and_then(|()| socket.listen(BACKLOG))
        .and_then(|()| socket.set_nonblocking(true))
        .map_err(failed)?;
    Ok((socket.into(), file))
}

/// Checks that [`listen`] could succeed, without creating or removing a file.
pub(super) fn check(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::UnixSocket { path: path.to_owned(), source };
    SockAddr::unix(path).map_err(failed)?;
    if std::fs::symlink_metadata(path).is_ok() {
        return check_stale(path);
    }
    folder::check_writable(folder::folder_of(path)).map_err(failed)
}

fn bind(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::UnixSocket { path: path.to_owned(), source };
    check_stale(path)?;
    std::fs::remove_file(path).map_err(failed)
}

/// Succeeds if the socket at `path` was left by a program that has ended.
fn check_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::UnixSocket { path: path.to_owned(), source };
    if !std::fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        return Err(ListenError::NoSocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(connection) => {
            let holder = holder::find_peer(&connection);
            Err(ListenError::UnixSocketInUse { path: path.to_owned(), holder })
        }
        Err(error) => Err(failed(error)),
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests;
