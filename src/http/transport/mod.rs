//! The HTTP/1 server under both programs: one loop for each connection over the codec of actix-http.
//!
//! ```text
//!   accept --+--> wait for a head --> whole head --> fast path --> send --+
//!   (limits) |      |    ^   |                          | declined        |
//!            |      |    |   +-- malformed, late        v                 |
//!            |      |    |   |   or too large        service --> send ----+--> last answer?
//!            |      |    +---|-----------------------------------------------  no |   | yes
//!            |      |        v                                                    |   v
//!            +------|--> page of 400, 408, 414, 431, 503, 505 --------------------|-> linger
//!              503  |                                                             |   |
//!                   +-- idle, drained, closed by the client ----------------------+-> close
//! ```
//!
//! - Each worker is a thread with an arbiter of actix. It accepts connections by itself and serves them to their end. A
//!   request that has arrived with its connection is answered before the event loop knows the socket.
//! - Every request head has a limit ([`HeadLimits`]) and a deadline, the first as well as any later one. Refused heads get
//!   their page: 400, 408, 414, 431, and 505 for a major version other than 1.
//! - The body of a request is never read. A request with a body is the last one of its connection.
//! - Requests that are sent ahead wait in the kernel, and are answered in order.
//! - A connection whose client reads more slowly than [`Limits::minimum_rate`] is closed.
//! - Connections beyond the limits get the 503 page.
//! - A close waits until the client has received the end of the last answer, if it could be lost.
//! - Header names are in Camel-Case, and `TCP_NODELAY` is on.
//! - A stop lets answers under way finish, and closes idle connections at once.
//! - A connection that waits for a request has no buffer and no timer: it reads into a buffer of its worker, and a sweep
//!   over all connections of the worker finds those that are late (`deadlines`).
//!
//! A service knows nothing of its connection. The extensions of its response may hold a [`DirectBody`] and an [`OnEnd`].
//!
//! # How to use it
//!
//! The factory runs once for each worker, on the thread of the worker, and again if the worker is replaced. It makes a plain
//! service of `actix_http`, which may hold values that are not `Send`. [`pages`](crate::http::pages) has the answers to errors.
//!
//! An actix-web application is such a service, too: `map_config(App::new().., |_| AppConfig::default())`.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

mod accept;
mod admission;
mod connection;
mod control;
mod deadlines;
#[cfg(any(test, fuzzing))]
#[expect(unreachable_pub, reason = "only the fuzz target uses it from outside")]
pub mod driver;
mod ending;
mod exchange;
mod fast_path;
pub(crate) mod head;
mod pace;
mod plain_request;
mod queue;
mod refusal;
mod response;
mod sending;
mod serving;
mod stall;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod worker;

pub(crate) use admission::{Connections, REFUSED_AT_ONCE};
pub(crate) use control::ServingControl;
pub(crate) use exchange::OverTls;
pub(crate) use fast_path::{FastAnswer, FastPath, Offer, Peer};
pub(crate) use plain_request::{DateLine, NO_LINES, PlainRequest};
pub(crate) use refusal::{Refusal, RefusalLog};
pub(crate) use response::{AnswerEnd, Completion, DirectBody, FileGuard, OnEnd, Passage, Segment};
pub(crate) use serving::Serving;

use self::head::HeadLimits;
use super::pages::Pages;
use super::stop::{Phase, StopHandle};

/// The limits of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections in total; further ones get the 503 page.
    pub connections: usize,
    /// Connections from one IPv4 address or IPv6 /64 network; further ones get the 503 page.
    pub connections_per_address: u32,
    /// The size of a request head.
    pub head: HeadLimits,
    /// The time for a request head from its first byte, and for the first byte of a connection.
    pub head_timeout: Duration,
    /// The time after which a connection without a request closes; it may take up to twice this time.
    pub keep_alive: Duration,
    /// The window in which a client must receive the bytes of [`Limits::minimum_rate`], at least one byte. Bytes count once the
    /// client has acknowledged them, if the system reports that.
    pub write_timeout: Duration,
    /// The bytes per second that a client must receive on average over one [`Limits::write_timeout`].
    pub minimum_rate: u64,
    /// The bytes per second of all connections together, including heads.
    pub rate: Option<NonZeroU64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 1_000,
            head: HeadLimits { line: 8 << 10, total: 64 << 10 },
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(10),
            write_timeout: Duration::from_mins(2),
            minimum_rate: 0,
            rate: None,
        }
    }
}

/// The settings of a server.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    /// The name in log lines.
    pub name: &'static str,
    /// The number of worker threads; at least 1.
    pub workers: usize,
    /// The number of threads for blocking calls of each worker.
    pub blocking_threads: usize,
    /// The limits of clients.
    pub limits: Limits,
    /// The pages of refusals.
    pub pages: Pages,
    /// Called for every request that the connection refuses by itself.
    pub refusals: Option<Arc<dyn RefusalLog>>,
    /// Stops the server. Servers that share a handle stop together.
    pub stop: StopHandle,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            name: "http",
            workers: 1,
            blocking_threads: 1,
            limits: Limits::default(),
            pages: Pages::built_in(),
            refusals: None,
            stop: StopHandle::default(),
        }
    }
}
