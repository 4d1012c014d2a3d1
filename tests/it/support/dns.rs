//! A DNS server with scripted answers, over UDP and TCP.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// The answer to queries of one type.
#[derive(Clone, Default)]
pub struct Reply {
    /// 0 is success, 2 SERVFAIL, 3 NXDOMAIN.
    pub code: u8,
    /// The data of each record, in the form of the protocol.
    pub records: Vec<Vec<u8>>,
    /// Whether every answer has the sign that it is truncated, over TCP too.
    pub is_truncated: bool,
    /// No answer at all.
    pub is_silent: bool,
}

impl Reply {
    /// These IPv4 addresses.
    pub fn addresses(addresses: &[Ipv4Addr]) -> Self {
        Self {
            records: addresses.iter().map(|address| address.octets().to_vec()).collect(),
            ..Self::default()
        }
    }

    /// Services with priority, weight, port and target.
    pub fn services(services: &[(u16, u16, u16, &str)]) -> Self {
        let record = |(priority, weight, port, target): &(u16, u16, u16, &str)| {
            let mut data: Vec<u8> =
                [priority, weight, port].iter().flat_map(|number| number.to_be_bytes()).collect();
            for label in target.split('.') {
                data.push(label.len().try_into().unwrap());
                data.extend(label.as_bytes());
            }
            data.push(0);
            data
        };
        Self { records: services.iter().map(record).collect(), ..Self::default() }
    }

    /// An error with this code.
    pub fn error(code: u8) -> Self {
        Self { code, ..Self::default() }
    }
}

/// The type of A records.
pub const A: u16 = 1;
/// The type of SRV records.
pub const SRV: u16 = 33;

/// Time to live of every record, in seconds.
const TTL: u32 = 0;

/// A running server. Types without a reply have no records.
pub struct Dns {
    address: SocketAddr,
    replies: Arc<Mutex<HashMap<u16, Reply>>>,
}

impl Dns {
    /// Starts a server on a free port. It answers until the tests end.
    pub fn start() -> Self {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let replies = Arc::<Mutex<HashMap<u16, Reply>>>::default();
        let of_udp = Arc::clone(&replies);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                if let Some(answer) = answer(&buffer[..length], &of_udp.lock().unwrap()) {
                    let _ = udp.send_to(&answer, peer);
                }
            }
        });
        let of_tcp = Arc::clone(&replies);
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let (Ok(mut stream), replies) = (stream, Arc::clone(&of_tcp)) else { continue };
                thread::spawn(move || {
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut query = vec![0; u16::from_be_bytes(length).into()];
                        if stream.read_exact(&mut query).is_err() {
                            return;
                        }
                        let Some(answer) = answer(&query, &replies.lock().unwrap()) else { continue };
                        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                        let _ = stream.write_all(&length).and_then(|()| stream.write_all(&answer));
                    }
                });
            }
        });
        Self { address, replies }
    }

    /// The value of `dns_server`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Sets the reply to queries of one type.
    pub fn set(&self, kind: u16, reply: Reply) {
        self.replies.lock().unwrap().insert(kind, reply);
    }
}

fn answer(query: &[u8], replies: &HashMap<u16, Reply>) -> Option<Vec<u8>> {
    let labels_end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(12..labels_end + 5)?;
    let kind = u16::from_be_bytes(query.get(labels_end + 1..labels_end + 3)?.try_into().ok()?);
    let reply = replies.get(&kind).cloned().unwrap_or_default();
    if reply.is_silent {
        return None;
    }
    let mut answer = query.get(..2)?.to_vec();
    // An answer, authoritative, with the recursion that was desired.
    answer.extend([0x85 | if reply.is_truncated { 2 } else { 0 }, 0x80 | reply.code]);
    answer.extend([0, 1, 0, reply.records.len().try_into().unwrap(), 0, 0, 0, 0]);
    answer.extend(question);
    for data in &reply.records {
        // The name is that of the question.
        answer.extend([0xC0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(TTL.to_be_bytes());
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}
