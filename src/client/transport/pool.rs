//! Connections kept for the next request.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::TransportError;
use super::connect::Connection;
use super::proxy::Route;

/// The most idle connections to one server.
const MAX_PER_SERVER: usize = 32;

/// The most servers with idle connections.
const MAX_SERVERS: usize = 64;

/// The server at the other end of a request, and whether TLS is spoken with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) host: url::Host<String>,
    pub(super) port: u16,
    pub(super) security: Security,
}

/// Whether TLS is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Security {
    Plain,
    Tls,
}

/// What a connection must have in common with a request to carry it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) origin: Origin,
    route: Route,
}

impl Key {
    pub(super) fn new(url: &Url, route: &Route) -> Result<Self, TransportError> {
        let security = match url.scheme() {
            "http" => Security::Plain,
            "https" => Security::Tls,
            scheme => return Err(TransportError::Scheme { scheme: scheme.to_owned() }),
        };
        match (url.host(), url.port_or_known_default()) {
            (Some(host), Some(port)) => {
                Ok(Self { origin: Origin { host: host.to_owned(), port, security }, route: route.clone() })
            }
            _ => Err(TransportError::NoHost(url.to_string())),
        }
    }
}

/// Idle connections, newest last.
#[derive(Debug)]
pub(super) struct Pool {
    idle_timeout: Duration,
    idle: HashMap<Key, Vec<(Connection, Instant)>>,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self { idle_timeout, idle: HashMap::new() }
    }

    /// The connection that was idle for the shortest time. Those that waited too long are closed, and those on which something
    /// came meanwhile.
    pub(super) fn take(&mut self, key: &Key, now: Instant) -> Option<Connection> {
        let list = self.idle.get_mut(key)?;
        list.retain(|(_, since)| now.duration_since(*since) < self.idle_timeout);
        let mut connection = None;
        while let (None, Some((mut newest, _))) = (&connection, list.pop()) {
            connection = newest.is_quiet().then_some(newest);
        }
        if list.is_empty() {
            self.idle.remove(key);
        }
        connection
    }

    /// Keeps a connection, or closes it where there are enough.
    pub(super) fn put(&mut self, key: Key, connection: Connection, now: Instant) {
        if self.idle.len() >= MAX_SERVERS && !self.idle.contains_key(&key) {
            let timeout = self.idle_timeout;
            self.idle.retain(|_, list| {
                list.retain(|(_, since)| now.duration_since(*since) < timeout);
                !list.is_empty()
            });
            if self.idle.len() >= MAX_SERVERS {
                return;
            }
        }
        let list = self.idle.entry(key).or_default();
        if list.len() < MAX_PER_SERVER {
            list.push((connection, now));
        }
    }
}
