//! Clients that take an answer slowly, or not at all.

use std::sync::atomic::Ordering;

use actix_http::body::BodyStream;
use bytes::Bytes;
use futures_util::stream;

use super::*;

/// How long [`interrupted`] pauses, in which a reader would be cut several times over.
const PAUSE: Duration = Duration::from_millis(900);

/// A body that the server itself has to wait for, after a part that the kernel cannot hold.
pub(super) fn interrupted() -> impl MessageBody {
    BodyStream::new(stream::unfold(0, |part| async move {
        match part {
            0 => {}
            1 => tokio::time::sleep(PAUSE).await,
            _ => return None,
        }
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(vec![b'x'; SOME])), part + 1))
    }))
}

#[test]
fn a_reader_that_stalls_is_cut_and_others_are_served() {
    let server = Server::start(short());
    let mut stalled = server.connect();
    stalled.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let deadline = std::time::Duration::from_millis(10);
    while server.connections.stalled.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        assert!(server.say(GET.as_bytes()).ends_with("[/a]"));
        std::thread::sleep(deadline);
    }
    let mut got = Vec::new();
    let _ = stalled.read_to_end(&mut got);
    assert!(got.len() < LARGE);
}

#[test]
fn a_reader_that_has_closed_its_side_is_cut_too() {
    let server = Server::start(short());
    let mut stalled = server.connect();
    stalled.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stalled.shutdown(Shutdown::Write).unwrap();
    let began = tokio::time::Instant::now();
    while server.connections.live() > 0 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn a_reader_that_takes_a_little_all_the_time_is_kept_however_much_the_kernel_holds() {
    let server = Server::start(Limits { write_timeout: Duration::from_millis(1500), ..Limits::default() });
    let mut slow = server.connect_slow();
    slow.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    // Longer than two windows, and less than after which the kernel takes more.
    let began = tokio::time::Instant::now();
    let mut some = vec![0; 16 << 10];
    while began.elapsed() < Duration::from_secs(4) {
        slow.read_exact(&mut some).unwrap();
        std::thread::sleep(Duration::from_millis(40));
    }
    assert_eq!(server.connections.stalled.load(Ordering::Relaxed), 0);
    assert_eq!(server.connections.live(), 1);
}

#[test]
fn a_reader_is_not_cut_for_what_the_server_waits_for() {
    let server = Server::start(short());
    let mut stream = server.connect();
    stream.write_all(b"GET /interrupted HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let said = read_to_end(&mut stream);
    assert_eq!(said.matches('x').count(), 2 * SOME);
    assert_eq!(server.connections.stalled.load(Ordering::Relaxed), 0);
}
