//! Counts the connections of a server in total and for each address, and refuses those beyond the limits.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counters in each row of the sketch. Both rows take 128 KiB for any number of addresses.
const SLOTS: usize = 1 << 14;

/// The number of refused connections that may be open at the same time. Each has a second to send its request, and a second to
/// receive the 503 page. Others get the page at once and are closed.
pub(crate) const REFUSED_AT_ONCE: usize = 256;

/// The connections of one server over all its workers, and counters of their outcomes, which only grow.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    limit: AtomicUsize,
    address_limit: AtomicU32,
    live: AtomicUsize,
    /// Connections that are being refused. They do not count against the limits.
    refusing: AtomicUsize,
    lingering: AtomicUsize,
    /// Workers that still accept connections on a listener.
    accepting: AtomicUsize,
    emptied: Notify,
    rows: [Row; 2],
    /// Accepted connections, including refused ones.
    pub accepted: AtomicU64,
    /// Connections refused beyond a limit. They get the 503 page, unless too many are being refused at the same time.
    pub refused: AtomicU64,
    /// Request heads that exceeded the time limit.
    pub late_heads: AtomicU64,
    /// Requests refused before they reached a handler: malformed, too large, or of an unsupported version.
    pub bad_heads: AtomicU64,
    /// TLS handshakes that were completed, and those of them that resumed an earlier session.
    pub handshakes: AtomicU64,
    /// See [`Connections::handshakes`].
    pub handshakes_resumed: AtomicU64,
    /// TLS handshakes that were started and not completed.
    pub handshakes_failed: AtomicU64,
    /// Connections closed because the client read too slowly.
    pub stalled: AtomicU64,
    /// Bytes written to connections that have ended, heads included.
    pub sent: AtomicU64,
    /// Attempts to accept a connection that failed for lack of descriptors or memory.
    pub not_accepted: AtomicU64,
    /// Workers that ended unexpectedly and were replaced.
    pub workers_replaced: AtomicU64,
}

/// One row of a count-min sketch (Cormode and Muthukrishnan, 2005): an address counts in the slot of its hash, together with
/// the addresses that collide with it. The smallest count over the rows is never too low. It is too high only if the address
/// collides in every row. The hashes are seeded, so a client cannot choose an address that collides with another one.
#[derive(Debug)]
struct Row {
    hash: RandomState,
    slots: Box<[AtomicU32]>,
}

impl Default for Row {
    fn default() -> Self {
        Self { hash: RandomState::new(), slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect() }
    }
}

impl Row {
    fn slot(&self, address: Origin) -> Option<&AtomicU32> {
        self.slots.get(self.hash.hash_one(address) as usize % SLOTS)
    }
}

/// The unit for which connections are counted: an IPv4 address, or the /64 network of an IPv6 address, because one customer
/// usually has a whole /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin(u64);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        })
    }
}

impl Connections {
    /// Allows `limit` connections in total and `address_limit` connections of one address.
    pub(super) fn new(limit: usize, address_limit: u32) -> Self {
        Self { limit: limit.into(), address_limit: address_limit.into(), ..Self::default() }
    }

    /// Changes both limits. Connections beyond a lower limit stay open.
    pub(super) fn set_limits(&self, limit: usize, address_limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
        self.address_limit.store(address_limit, Ordering::Relaxed);
    }

    /// The number of connections that are being served.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// The number of connections that are closed except for the last bytes of their last answer.
    pub(crate) fn lingering(&self) -> usize {
        self.lingering.load(Ordering::Relaxed)
    }

    /// Counts a connection among [`Connections::lingering`] until the returned value is dropped.
    pub(super) fn linger(self: &Arc<Self>) -> Lingering {
        self.lingering.fetch_add(1, Ordering::Relaxed);
        Lingering(Arc::clone(self))
    }

    /// Counts a connection until the returned place is dropped, and decides whether it is served.
    pub(super) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> (Place, Admission) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let origin = address.map(Origin::from);
        let from_there =
            self.slots(origin).map(|slot| slot.fetch_add(1, Ordering::Relaxed)).min().unwrap_or(0);
        let limit = self.limit.load(Ordering::Relaxed);
        let one_more = |live: usize| (live < limit).then_some(live + 1);
        let (kind, admission) = if from_there < self.address_limit.load(Ordering::Relaxed)
            && self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
        {
            (Kind::Served(origin), Admission::Granted)
        } else {
            // A refused connection does not count against later connections.
            self.leave(origin);
            self.refused.fetch_add(1, Ordering::Relaxed);
            let refusing = self.refusing.fetch_add(1, Ordering::Relaxed);
            let admission =
                if refusing < REFUSED_AT_ONCE { Admission::TooMany } else { Admission::FarTooMany };
            (Kind::Refused, admission)
        };
        (Place { connections: Arc::clone(self), kind }, admission)
    }

    fn slots(&self, origin: Option<Origin>) -> impl Iterator<Item = &AtomicU32> {
        origin.into_iter().flat_map(|origin| self.rows.iter().filter_map(move |row| row.slot(origin)))
    }

    fn leave(&self, origin: Option<Origin>) {
        for slot in self.slots(origin) {
            slot.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts a worker that accepts connections until the returned value is dropped.
    pub(super) fn accept(self: &Arc<Self>) -> Accepting {
        self.accepting.fetch_add(1, Ordering::Relaxed);
        Accepting(Arc::clone(self))
    }

    /// Resolves once no connection is open and no more are accepted.
    pub(super) async fn emptied(&self) {
        let open =
            || [&self.accepting, &self.live, &self.refusing].map(|count| count.load(Ordering::Relaxed));
        while open() != [0, 0, 0] {
            self.emptied.notified().await;
        }
    }
}

/// The decision about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// The connection is served.
    Granted,
    /// The connection gets the 503 page.
    TooMany,
    /// The connection gets the 503 page without a wait for its request, and is closed.
    FarTooMany,
}

/// A closed connection whose last bytes are still being sent.
#[derive(Debug)]
pub(super) struct Lingering(Arc<Connections>);

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A worker that accepts connections.
#[derive(Debug)]
pub(super) struct Accepting(Arc<Connections>);

impl Drop for Accepting {
    fn drop(&mut self) {
        if self.0.accepting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.emptied.notify_one();
        }
    }
}

/// A counted connection.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Served(Option<Origin>),
    Refused,
}

impl Drop for Place {
    fn drop(&mut self) {
        let connections = &self.connections;
        let before = match self.kind {
            Kind::Served(origin) => {
                connections.leave(origin);
                connections.live.fetch_sub(1, Ordering::Relaxed)
            }
            Kind::Refused => connections.refusing.fetch_sub(1, Ordering::Relaxed),
        };
        if before == 1 {
            connections.emptied.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
