//! One HTTP/1.1 exchange at a time: connect, ask, read the head, stream the body.
//!
//! This is a library: it prints nothing and knows nothing of files, mirrors or retries. It stands on httparse and
//! tokio and not on awc, because a download needs what awc hides: the head as it was received, the
//! difference between a body that ended and a connection that did, interim answers, more than 96 header lines, large
//! reads straight into the buffer that is written to the file, addresses of both families tried side by side,
//! and proxies.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fingerpost::client::transport::{Request, Transport, TransportSettings};
//!
//! let transport = Transport::new(TransportSettings::default());
//! let mut answer = transport.send(&Request::get("http://127.0.0.1:8080/plshelp.txt".parse()?)).await?;
//! println!("{}", answer.head.status);
//! while let Some(bytes) = answer.chunk().await? {
//!     println!("{} bytes", bytes.len());
//! }
//! # Ok(())
//! # }
//! ```

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use url::Url;

pub mod body;
mod connect;
mod error;
pub mod head;
mod pool;
pub mod proxy;
mod tls;

use body::{AnswerTo, BodyDecoder, Decoded};
use connect::{Connection, Connector};
pub use error::TransportError;
use head::Head;
use pool::Pool;
use proxy::{ProxyRules, Route};
pub use tls::{Trust, Verification};

/// Room for one read of a head, or of a short body.
const SMALL_READ_BYTES: usize = 16 * 1024;

/// The most interim answers (100 to 199) that are skipped before one that counts.
const MAX_INTERIM_ANSWERS: usize = 8;

/// Which address families are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Both, the first to connect wins.
    #[default]
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// What is the same for every exchange.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// How long connecting may take, TLS and proxy included.
    pub connect_timeout: Duration,
    /// Which address families are used.
    pub family: Family,
    /// Which requests go through which proxy.
    pub proxies: ProxyRules,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// How long an idle connection is kept for the next request.
    pub idle_timeout: Duration,
    /// The most bytes of a body that are read at once.
    pub read_size: usize,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            family: Family::Any,
            proxies: ProxyRules::none(),
            trust: Trust::default(),
            // Below the 5 s after which actix and others close.
            idle_timeout: Duration::from_secs(4),
            read_size: 256 * 1024,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET or HEAD.
    pub method: Method,
    /// Where; the fragment is not sent, a user name and password become `Authorization`.
    pub url: Url,
    /// Header lines besides `Host`, `Connection` and `Accept-Encoding`, written as they stand.
    pub headers: Vec<(String, String)>,
}

/// The methods a download needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Head and body.
    Get,
    /// The head alone.
    Head,
}

impl Request {
    /// A GET without further header lines.
    #[must_use]
    pub fn get(url: Url) -> Self {
        Self { method: Method::Get, url, headers: Vec::new() }
    }

    /// The same with one more header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn write(&self, route: &Route) -> Vec<u8> {
        use std::fmt::Write as _;

        let method = match self.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
        };
        let path = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        let mut text = match route {
            // A proxy that speaks HTTP for us needs the whole address (RFC 9112, section 3.2.2).
            Route::Forward(_) => format!("{method} {}://{host}{path} HTTP/1.1\r\n", self.url.scheme()),
            Route::Direct | Route::Tunnel(_) => format!("{method} {path} HTTP/1.1\r\n"),
        };
        let _ = write!(text, "Host: {host}\r\nConnection: keep-alive\r\nAccept-Encoding: identity\r\n");
        if let Route::Forward(proxy) = route
            && let Some(credentials) = &proxy.authorization
        {
            let _ = write!(text, "Proxy-Authorization: {credentials}\r\n");
        }
        let given = |name: &str| self.headers.iter().any(|(line, _)| line.eq_ignore_ascii_case(name));
        if !given("authorization")
            && let Some(credentials) = proxy::basic_authorization(&self.url)
        {
            let _ = write!(text, "Authorization: {credentials}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// Sends requests and keeps connections for the next ones. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Transport {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    proxies: ProxyRules,
    connector: Connector,
    pool: RefCell<Pool>,
    read_size: usize,
}

impl Transport {
    /// A transport without connections.
    #[must_use]
    pub fn new(settings: TransportSettings) -> Self {
        let pool = RefCell::new(Pool::new(settings.idle_timeout));
        let proxies = settings.proxies.clone();
        let read_size = settings.read_size.max(1);
        Self { shared: Rc::new(Shared { proxies, connector: Connector::new(settings), pool, read_size }) }
    }

    /// Sends `request` and waits for the head of its answer, skipping interim ones.
    ///
    /// A kept connection that the server closed in the meantime is replaced once by a new one. There is no limit in time
    /// but that on connecting: the caller drops the future when it has waited long enough.
    pub async fn send(&self, request: &Request) -> Result<Answer, TransportError> {
        let route = self.shared.proxies.route(&request.url)?;
        let key = pool::Key::new(&request.url, &route)?;
        let bytes = request.write(&route);
        let kept = self.shared.pool.borrow_mut().take(&key, Instant::now());
        if let Some(connection) = kept {
            let mut is_heard = false;
            match self.exchange(connection, request, &bytes, key.clone(), None, &mut is_heard).await {
                Err(error) if !is_heard && error.means_stale_connection() => {}
                // The server gave the connection up before the request came (RFC 9110, section 15.5.9).
                Ok(answer) if answer.head.status == 408 && !answer.head.keeps_alive() => {}
                result => return result,
            }
        }
        let started = Instant::now();
        let connection = self.shared.connector.connect(&key.origin, &route).await?;
        self.exchange(connection, request, &bytes, key, Some(started.elapsed()), &mut false).await
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        request: &Request,
        bytes: &[u8],
        key: pool::Key,
        connecting: Option<Duration>,
        is_heard: &mut bool,
    ) -> Result<Answer, TransportError> {
        let started = Instant::now();
        connection.stream.write_all(bytes).await.map_err(TransportError::Send)?;
        connection.stream.flush().await.map_err(TransportError::Send)?;
        let mut buffer = std::mem::take(&mut connection.buffer);
        let mut interim = 0_usize;
        let head = loop {
            match Head::take(&mut buffer)? {
                Some(head) if (100..200).contains(&head.status) && head.status != 101 => {
                    interim = interim.saturating_add(1);
                    if interim > MAX_INTERIM_ANSWERS {
                        return Err(TransportError::EndlessInterim);
                    }
                }
                Some(head) => break head,
                None => {
                    buffer.reserve(SMALL_READ_BYTES);
                    let read =
                        connection.stream.read_buf(&mut buffer).await.map_err(TransportError::Receive)?;
                    *is_heard |= read > 0;
                    if read == 0 {
                        return Err(if buffer.is_empty() {
                            TransportError::EmptyReply
                        } else {
                            TransportError::HalfHead
                        });
                    }
                }
            }
        };
        let answer_to = match request.method {
            Method::Get => AnswerTo::Get,
            Method::Head => AnswerTo::Head,
        };
        let decoder = BodyDecoder::new(&head, answer_to)?;
        let length = if decoder.is_complete() { Some(0) } else { head.content_length()? };
        let reusable = head.keeps_alive() && !decoder.ends_with_connection();
        Ok(Answer {
            peer: connection.peer,
            connecting,
            waiting: started.elapsed(),
            body: Body {
                connection: Some(connection),
                buffer,
                decoder,
                left: length,
                reusable,
                key,
                shared: Rc::clone(&self.shared),
            },
            head,
        })
    }
}

/// An answer whose head is there and whose body streams.
#[derive(Debug)]
pub struct Answer {
    /// The head of the answer.
    pub head: Head,
    /// The address that answered; with a proxy, the proxy's.
    pub peer: SocketAddr,
    /// How long connecting took; `None` on a kept connection.
    pub connecting: Option<Duration>,
    /// From sending the request to the end of the head.
    pub waiting: Duration,
    body: Body,
}

impl Answer {
    /// The next bytes of the body, at least one; `None` once it is complete.
    ///
    /// A body that ends before its announced length or its last chunk is an error, never an end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, TransportError> {
        self.body.chunk().await
    }

    /// Lets the connection be used again where the body is already complete, and closes it where not.
    ///
    /// An answer to HEAD, or with no body, is complete from the start but holds its connection until this.
    pub fn finish(mut self) {
        self.body.release();
    }
}

#[derive(Debug)]
struct Body {
    /// `None` once it went back to the pool.
    connection: Option<Connection>,
    buffer: BytesMut,
    decoder: BodyDecoder,
    /// Bytes of the body still to come, where announced: the size of the next read.
    left: Option<u64>,
    reusable: bool,
    key: pool::Key,
    shared: Rc<Shared>,
}

impl Body {
    async fn chunk(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            match self.decoder.decode(&mut self.buffer)? {
                Decoded::Data(data) => {
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    if self.decoder.is_complete() {
                        self.release();
                    }
                    return Ok(Some(data));
                }
                Decoded::End => {
                    self.release();
                    return Ok(None);
                }
                Decoded::NeedMore => {
                    let Some(connection) = &mut self.connection else { return Ok(None) };
                    let wanted = usize::try_from(self.left.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
                    let most = self.shared.read_size;
                    self.buffer.reserve(wanted.max(SMALL_READ_BYTES).min(most));
                    let read = connection
                        .stream
                        .read_buf(&mut (&mut self.buffer).limit(most))
                        .await
                        .map_err(TransportError::Receive)?;
                    if read == 0 {
                        self.reusable = false;
                        self.decoder.closed()?;
                    }
                }
            }
        }
    }

    fn release(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        // Bytes beyond the body are nobody's: such a connection cannot be trusted with another answer.
        if self.reusable && self.decoder.is_complete() && self.buffer.is_empty() {
            if self.buffer.capacity() <= SMALL_READ_BYTES {
                connection.buffer = std::mem::take(&mut self.buffer);
            }
            self.shared.pool.borrow_mut().put(self.key.clone(), connection, Instant::now());
        }
    }
}
