//! Addresses that accept the first packet of a connection or the whole connection, and never answer.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// A port that answers no packet, because its queue of connections is full and never emptied.
pub struct BlackHole {
    listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    pub fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
    }

    /// The same at a certain address, which may be in use or not exist.
    pub fn start_at(address: SocketAddr) -> std::io::Result<Self> {
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        listener.bind(&SockAddr::from(address))?;
        listener.listen(0)?;
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut waiting = Vec::new();
        // The system determines the size of the queue. The first connection without an answer shows that it is full.
        while let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(connection);
            assert!(waiting.len() < 10_000, "the queue never fills up");
        }
        Ok(Self { listener, _waiting: waiting })
    }

    /// The URL of a file on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener.local_addr().unwrap().as_socket().unwrap())
    }
}

/// A port whose connections are established by the system and never accepted by a program.
pub struct AcceptsOnly {
    listener: TcpListener,
}

impl AcceptsOnly {
    pub fn start() -> Self {
        Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap() }
    }

    /// The URL of a file on this server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener.local_addr().unwrap())
    }
}
