//! System calls on listening sockets for which no crate in use has a safe function.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Listener;

/// Registers a listening socket with the event loop of this thread.
pub(in super::super) fn watch(listener: Arc<Listener>) -> io::Result<AsyncFd<Arc<Listener>>> {
    // SAFETY: a `Listener` owns its descriptor, returns the same one each time, and closes it only when it is dropped. The
    // returned value keeps it alive.
    #[allow(unsafe_code, reason = "the safe functions of tokio are deprecated")]
    let watched = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    Ok(watched?)
}

/// Seconds after which the kernel reports a connection without a request, so that limits and deadlines apply to it
/// too.
static SECONDS: libc::c_int = 1;

/// Sets `TCP_DEFER_ACCEPT` on a listening socket.
pub(super) fn defer_accept(listener: impl AsFd) -> io::Result<()> {
    let length = std::mem::size_of_val(&SECONDS) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes, which is the size of `SECONDS`, and keeps no pointer. The descriptor is open
    // while it is borrowed.
    #[allow(unsafe_code, reason = "no crate in use has a safe call for it")]
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const SECONDS).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
