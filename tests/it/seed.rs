//! Compatibility with the seed system: its server behind this balancer, its client in front of these programs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::support::fleet::{Balancer, Fleet};
use super::support::misbehaving::{BODY, Script};
use super::support::wait_until;

#[test]
fn a_server_with_one_connection_at_a_time_and_unannounced_closes_has_no_failed_probe() {
    let seed = Script::seed_server().start();
    let balancer = Balancer::start_with(&seed.authority(), &["--probe-interval", "400ms"]);
    balancer.wait_for_state(&seed.authority(), "up");
    let probes = seed.requests().len();
    wait_until("twenty more probes", || {
        balancer.redirects(5);
        seed.requests().len() > probes + 20
    });
    assert_eq!(balancer.state(&seed.authority()).as_deref(), Some("up"));
    let stderr = balancer.program().stderr();
    assert_eq!(stderr.matches("backend changed").count(), 1, "only from unknown to up:\n{stderr}");
    // A client of the seed system downloads the file from it.
    let page = SeedClient::get(balancer.address(), "/files/plshelp.txt");
    assert_eq!(page.body, BODY);
}

#[test]
fn the_seed_client_downloads_through_balancer_and_file_server() {
    let fleet = Fleet::start(2);
    let expected = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/files/plshelp.txt")).unwrap();
    for target in ["/files/plshelp.txt", "/plshelp.txt"] {
        assert_eq!(SeedClient::get(fleet.balancer().address(), target).body, expected);
    }
}

/// The client of the seed system: searches for exactly `Location: ` and `Content-Length: `, reads exactly this number of
/// bytes, and opens a connection for each request.
struct SeedClient {
    status_line: String,
    location: Option<String>,
    body: Vec<u8>,
}

impl SeedClient {
    /// Sends a request, follows one redirect, and returns the answer of the server.
    fn get(balancer: SocketAddr, target: &str) -> Self {
        let redirect = Self::request(balancer, target);
        assert_eq!(redirect.status_line, "HTTP/1.1 301 Moved Permanently");
        assert!(!redirect.body.is_empty(), "the page of the redirect");
        let location = redirect.location.expect("a header that starts with `Location: `");
        let rest = location.strip_prefix("http://").expect("an address that starts with http://");
        let (authority, file) = rest.split_once('/').expect("an address with a file");
        let answer = Self::request(authority.parse().expect("host:port"), &format!("/{file}"));
        assert_eq!(answer.status_line, "HTTP/1.1 200 OK");
        answer
    }

    fn request(address: SocketAddr, target: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(super::support::DEADLINE)).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.strip_suffix("\r\n").expect("a line").to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let length = value("Content-Length: ").expect("a header that starts with `Content-Length: `");
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        Self { status_line: lines[0].clone(), location: value("Location: "), body }
    }
}
