//! Addresses that take a connection's first packet, or all of it, and say nothing.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// A port that answers no packet: its queue of connections is full and nobody takes any off it.
pub struct BlackHole {
    listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    pub fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        // How many the queue takes is the system's affair; the first that gets no answer says that it is full.
        while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(connection);
            assert!(waiting.len() < 10_000, "the queue never fills up");
        }
        Self { listener, _waiting: waiting }
    }

    /// The address of a file in it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener.local_addr().unwrap().as_socket().unwrap())
    }
}

/// A port whose connections are made by the system, and that no program ever looks at.
pub struct AcceptsOnly {
    listener: TcpListener,
}

impl AcceptsOnly {
    pub fn start() -> Self {
        Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap() }
    }

    /// The address of a file on it.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener.local_addr().unwrap())
    }
}
