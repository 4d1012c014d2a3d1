//! A balancer with one server, which is up.

use super::fleet::Balancer;
use super::http::{self, Answer};
use super::misbehaving::{FileServer, Script};

/// A balancer and its only server.
pub struct Lone {
    /// The server.
    pub peer: FileServer,
    /// The balancer, which has marked the server as up.
    pub balancer: Balancer,
}

impl Lone {
    /// Starts both.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with additional flags.
    pub fn start_with(flags: &[&str]) -> Self {
        let peer = Script::prompt().start();
        let balancer = Balancer::start_with(&peer.authority(), flags);
        balancer.wait_for_state(&peer.authority(), "up");
        Self { peer, balancer }
    }

    /// Sends one request, exactly these bytes, on a new connection.
    pub fn request(&self, bytes: impl AsRef<[u8]>) -> Answer {
        http::request(self.balancer.address(), bytes)
    }

    /// The `Location` of this target on the only server.
    pub fn location(&self, target: &str) -> String {
        format!("http://{}{target}", self.peer.authority())
    }
}

/// Checks that the answer is a page of our own: HTML that names the status.
#[track_caller]
pub fn assert_page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"), "{answer:?}");
    assert!(answer.text().starts_with("<!DOCTYPE html>"), "{answer:?}");
    assert!(answer.text().contains(&status.to_string()), "{answer:?}");
}
