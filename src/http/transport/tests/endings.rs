//! What arrives when a connection closes while its client still sends.

use std::sync::atomic::Ordering;

use super::*;

/// Reads at a pace that leaves the kernel on the other side with much to send, and says something once `after` bytes came.
fn read_slowly(stream: &mut TcpStream, after: usize, then: &[u8]) -> std::io::Result<String> {
    let (mut said, mut then) = (Vec::new(), Some(then));
    let mut space = vec![0; 128 << 10];
    loop {
        if said.len() > after
            && let Some(bytes) = then.take()
        {
            stream.write_all(bytes)?;
        }
        match stream.read(&mut space)? {
            0 => return Ok(String::from_utf8(said).unwrap()),
            read => said.extend_from_slice(&space[..read]),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_end_of_a_last_answer_arrives_although_more_was_asked_for() {
    let server = Server::start(Limits::default());
    let last = "GET /some HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let old = "GET /some HTTP/1.0\r\n\r\n";
    for request in [last, old] {
        // At once, in the middle, and when the kernel has all of it.
        for after in [0, SOME / 4, SOME - (1 << 20)] {
            let mut stream = server.connect_slow();
            stream.write_all(request.as_bytes()).unwrap();
            let said = read_slowly(&mut stream, after, GET.as_bytes()).unwrap();
            assert_eq!(said.matches('x').count(), SOME, "more was asked for after {after} bytes");
        }
    }
    assert_eq!(server.connections.stalled.load(Ordering::Relaxed), 0);
}

#[test]
fn the_end_of_an_answer_arrives_although_a_long_body_is_sent() {
    let server = Server::start(Limits::default());
    let length = 3 << 20;
    let mut stream = server.connect_slow();
    let head = format!("GET /some HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let body = std::thread::spawn(move || sender.write_all(&vec![b'b'; length]));
    let said = read_slowly(&mut stream, 0, b"").unwrap();
    assert_eq!(said.matches('x').count(), SOME);
    body.join().unwrap().unwrap();
}

#[test]
fn the_end_of_an_answer_arrives_before_the_page_for_what_follows_it() {
    let server = Server::start(Limits::default());
    let mut stream = server.connect_slow();
    stream.write_all(b"GET /some HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n").unwrap();
    // Nothing is taken for longer than a page is waited for.
    std::thread::sleep(Duration::from_millis(1500));
    let said = read_slowly(&mut stream, 0, b"").unwrap();
    let (answer, page) = said.split_at(said.rfind("HTTP/1.1 400 ").unwrap());
    assert_eq!(answer.matches('x').count(), SOME);
    assert!(page.contains("<title>400 "), "{page}");
}

#[test]
fn a_stop_lets_the_end_of_an_answer_arrive_although_more_is_asked_for() {
    let mut server = Server::start(Limits::default());
    let mut stream = server.connect_slow();
    stream.write_all(b"GET /some HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0; 15]).unwrap();
    server.stop.stop(PATIENCE);
    let said = read_slowly(&mut stream, SOME - (1 << 20), GET.as_bytes()).unwrap();
    assert_eq!(said.matches('x').count(), SOME);
    drop(stream);
    server.thread.take().unwrap().join().unwrap();
}

#[test]
fn a_client_that_sends_for_ever_and_takes_nothing_is_let_go() {
    let server = Server::start(short());
    let mut stream = server.connect_slow();
    stream.write_all(b"GET /some HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n").unwrap();
    let mut sender = stream.try_clone().unwrap();
    let body = std::thread::spawn(move || while sender.write_all(&[b'b'; 1 << 14]).is_ok() {});
    body.join().unwrap();
    assert_eq!(server.connections.stalled.load(Ordering::Relaxed), 1);
}
