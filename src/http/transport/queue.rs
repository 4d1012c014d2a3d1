//! The number of sent bytes that the other end of a TCP connection has not acknowledged.
//!
//! The kernel accepts bytes in large steps, each time a third of its buffer is free. Over a few seconds, only acknowledged bytes
//! therefore show the speed of a client.

use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// The bytes in the send queue of a TCP socket; the end of sending counts as one byte. `None` if the system does not report it.
pub(super) fn unacknowledged(socket: impl AsFd) -> Option<u64> {
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ for a socket, writes one `int` (tcp(7)), whatever the descriptor is, and touches no
    // other memory. `Getter` hands it room for exactly that and reads it only after success.
    #[allow(unsafe_code, reason = "no crate in use has a safe call for it")]
    let answer = unsafe { ioctl(socket, Getter::<{ libc::TIOCOUTQ as Opcode }, std::ffi::c_int>::new()) };
    answer.ok().and_then(|bytes| u64::try_from(bytes).ok())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn what_the_other_end_has_not_taken_is_in_the_queue_and_then_is_not() {
        let (mut near, mut far) = pair();
        assert_eq!(unacknowledged(&near), Some(0));
        near.set_nonblocking(true).unwrap();
        let mut sent = 0_u64;
        while let Ok(written) = near.write(&[1; 1 << 14]) {
            sent += written as u64;
        }
        let queued = unacknowledged(&near).unwrap();
        assert!(queued > 0 && queued < sent, "{queued} of {sent}");
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(far.read_to_end(&mut Vec::new()).unwrap() as u64, sent);
        while unacknowledged(&near) != Some(0) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_no_socket_has_no_queue() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(unacknowledged(&file), None);
    }
}
