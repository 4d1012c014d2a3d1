//! The HTTP/1.1 client of downloads, probes and `fingerpost status`: one exchange at a time over awc.
//!
//! ```text
//! HttpClient::send -> awc::Client -> awc's pool -> Dialer: names, addresses, proxy, TLS -> Wire -> socket
//! ```
//!
//! awc writes requests, pools connections and decodes bodies. Below awc, a [`wire`] limits and normalises the bytes
//! of servers; its documentation has the reasons. This module is a library: it prints nothing and has no concept of
//! files, mirrors or retries.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use awc::http::{Method as HttpMethod, Uri, header};
use awc::{Client, Connector};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::{Position, Url};

mod answer;
mod dial;
mod error;
mod exchange;
pub(crate) mod head;
pub(crate) mod proxy;
mod resolve;
#[cfg(test)]
mod tests;
mod wire;

pub use crate::http::tls::{TlsError, Trust, Verification};
pub use answer::Answer;
use answer::Busy;
use dial::{Dialer, HttpOrigin, Security};
pub use error::{BodyError, TransportError};
pub use head::{Head, HeadError};
pub use proxy::ProxyRules;

use exchange::{Exchange, Reuse};
use proxy::Route;
pub use resolve::ResolveError;
pub(crate) use resolve::Resolver;

/// Maximum number of idle connections. If there are more, all are closed before the next request.
const MAX_IDLE: usize = 256;

/// Maximum length of an address in awc's type.
const MAX_TARGET_BYTES: usize = 65_534;

/// Characters that are encoded in the key of a pool.
const NOT_IN_KEYS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-');

/// awc's own time limits are disabled, because their errors do not name the slow step.
const NEVER: Duration = Duration::from_hours(365 * 24);

/// Which address families are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Both families; the first connection that succeeds is used.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Settings of all exchanges.
#[derive(Debug, Clone)]
pub struct TransportSettings {
    /// Maximum time for connecting, including name, TLS and proxy.
    pub connect_timeout: Duration,
    /// Which address families are used.
    pub family: Family,
    /// Selects the proxy of a request.
    pub proxies: ProxyRules,
    /// The trusted certificates.
    pub trust: Trust,
    /// Time for which an idle connection is kept.
    pub idle_timeout: Duration,
    /// Maximum number of bytes in one read of a body.
    pub read_size: usize,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            family: Family::Any,
            proxies: ProxyRules::none(),
            trust: Trust::default(),
            // Less than the 5 s after which actix and other servers close.
            idle_timeout: Duration::from_secs(4),
            read_size: 256 * 1024,
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    /// GET, HEAD or POST.
    pub method: Method,
    /// The address. Its fragment is not sent; its user name and password are sent as `Authorization`.
    pub url: Url,
    /// Header lines in addition to `Host`, `Connection` and `Accept-Encoding`.
    pub headers: Vec<(String, String)>,
    /// Whether an existing connection may be used, and the connection may be kept.
    pub connection: ConnectionUse,
    /// The body of a POST.
    pub body: Bytes,
}

/// The methods of clients of files, of the admin pages and of webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Requests head and body.
    Get,
    /// Requests the head only.
    Head,
    /// Sends a body.
    Post,
}

/// Whether connections are kept between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionUse {
    /// Connections are kept for `idle_timeout`.
    Kept,
    /// Each request has a new connection, and asks the server to close it.
    Single,
}

impl Request {
    /// A GET without additional header lines.
    #[must_use]
    pub fn get(url: Url) -> Self {
        let (headers, body) = (Vec::new(), Bytes::new());
        Self { method: Method::Get, url, headers, connection: ConnectionUse::Kept, body }
    }

    /// A POST of JSON on a new connection, so that it is sent once.
    #[must_use]
    pub fn post_json(url: Url, body: impl Into<Bytes>) -> Self {
        let (connection, body) = (ConnectionUse::Single, body.into());
        let request = Self { method: Method::Post, connection, body, ..Self::get(url) };
        request.with("Content-Type", "application/json")
    }

    /// The same request with one more header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn origin(&self) -> Result<HttpOrigin, TransportError> {
        let security = match self.url.scheme() {
            "http" => Security::Plain,
            "https" => Security::Tls,
            scheme => return Err(TransportError::Scheme { scheme: scheme.to_owned() }),
        };
        match (self.url.host(), self.url.port_or_known_default()) {
            (Some(host), Some(port)) => Ok(HttpOrigin { host: host.to_owned(), port, security }),
            _ => Err(TransportError::NoHost(without_credentials(&self.url))),
        }
    }
}

fn without_credentials(url: &Url) -> String {
    let mut url = url.clone();
    // The call fails for an address that cannot have credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// Sends requests and keeps connections for later requests. Clones share their connections.
///
/// It requires a thread of an `actix_rt` system, because awc starts local tasks.
#[derive(Clone)]
pub struct HttpClient {
    shared: Rc<TransportState>,
}

struct TransportState {
    proxies: ProxyRules,
    idle_timeout: Duration,
    read_size: usize,
    dialer: Dialer,
    client: RefCell<Client>,
    /// The number of current exchanges.
    busy: Rc<Cell<usize>>,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("HttpClient").field("dialer", &self.shared.dialer).finish_non_exhaustive()
    }
}

impl HttpClient {
    /// A transport without connections and with its own resolver.
    #[must_use]
    pub fn new(settings: TransportSettings) -> Self {
        Self::with_resolver(settings, Resolver::default())
    }

    /// A transport without connections that shares the cache of `resolver`.
    pub(crate) fn with_resolver(settings: TransportSettings, resolver: Resolver) -> Self {
        let (proxies, idle_timeout) = (settings.proxies.clone(), settings.idle_timeout);
        let read_size = settings.read_size.max(1);
        let dialer = Dialer::new(settings, resolver);
        let client = RefCell::new(client(&dialer, idle_timeout));
        let shared = TransportState { proxies, idle_timeout, read_size, dialer, client, busy: Rc::default() };
        Self { shared: Rc::new(shared) }
    }

    /// Sends `request` and waits for the final head of the answer.
    ///
    /// If a kept connection turns out to be closed, or to contain bytes other than an answer, the request is sent
    /// once more on a new connection. Only connecting has a time limit: to limit the rest, the caller drops the
    /// future.
    pub async fn send(&self, request: &Request) -> Result<Answer, TransportError> {
        let route = self.shared.proxies.route(&request.url)?;
        let origin = request.origin()?;
        self.close_idle_beyond(MAX_IDLE);
        let reuse = match request.connection {
            ConnectionUse::Kept => Reuse::Allowed,
            ConnectionUse::Single => Reuse::Refused,
        };
        let exchange = |reuse| {
            let is_head_request = request.method == Method::Head;
            let (origin, route) = (origin.clone(), route.clone());
            Rc::new(Exchange::new(origin, route, reuse, is_head_request, self.shared.read_size))
        };
        let first = exchange(reuse);
        match self.exchange(request, &first).await {
            Err(error) if first.is_kept.get() && error.may_be_stale(first.first_byte.get().is_some()) => {}
            // The server closed the idle connection before it received the request (RFC 9110, section 15.5.9).
            Ok(answer) if first.is_kept.get() && answer.head.status == 408 && !answer.head.keeps_alive() => {}
            // Idle connections use descriptors that this request needs.
            Err(TransportError::Shortage { .. }) if self.close_idle_beyond(0) => {}
            result => return result,
        }
        self.exchange(request, &exchange(Reuse::Refused)).await
    }

    async fn exchange(&self, request: &Request, exchange: &Rc<Exchange>) -> Result<Answer, TransportError> {
        let busy = Busy::new(&self.shared.busy);
        let uri = uri(&request.url, exchange)?;
        let method = match request.method {
            Method::Get => HttpMethod::GET,
            Method::Head => HttpMethod::HEAD,
            Method::Post => HttpMethod::POST,
        };
        let host = &request.url[Position::BeforeHost..Position::AfterPort];
        let mut sending = self.shared.client.borrow().request(method, uri).camel_case();
        if request.connection == ConnectionUse::Single {
            sending = sending.force_close();
        }
        if let Route::Forward(proxy) = &exchange.route
            && let Some(credentials) = &proxy.authorization
        {
            sending = sending.insert_header((header::PROXY_AUTHORIZATION, credentials.as_str()));
        }
        let is_given = |name: &str| request.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        if !is_given("authorization")
            && let Some(credentials) = proxy::basic_authorization(&request.url)
        {
            sending = sending.insert_header((header::AUTHORIZATION, credentials));
        }
        // `Expect` makes no sense for a request without a body.
        for (name, value) in request.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("expect")) {
            sending = sending.append_header((name.as_str(), value.as_str()));
        }
        let sending =
            sending.insert_header((header::HOST, host)).insert_header((header::ACCEPT_ENCODING, "identity"));
        let sending = if request.method == Method::Post {
            sending.send_body(request.body.clone())
        } else {
            sending.send_body(awc::body::None::new())
        };
        let response = exchange.scope(sending).await.map_err(|error| {
            exchange.take_error().unwrap_or_else(|| TransportError::Request(error.to_string()))
        })?;
        let Some(head) = exchange.take_head() else {
            return Err(exchange.take_error().unwrap_or(TransportError::EmptyReply));
        };
        let has_body = !exchange.is_head_request && head.framing()? != head::Framing::Length(0);
        Ok(Answer {
            head,
            connecting: exchange.connecting.get(),
            first_byte: exchange.first_byte.get().unwrap_or_default(),
            response: has_body.then_some(response),
            peeked: None,
            exchange: Rc::clone(exchange),
            _busy: busy,
        })
    }

    /// Closes the idle connections if there are more than `most`. Returns whether it closed them.
    fn close_idle_beyond(&self, most: usize) -> bool {
        let TransportState { dialer, busy, idle_timeout, client: current, .. } = &*self.shared;
        let is_beyond = dialer.open().saturating_sub(busy.get()) > most;
        if is_beyond {
            // awc's pool can only be replaced. Current exchanges hold the old pool until they end.
            current.replace(client(dialer, *idle_timeout));
        }
        is_beyond
    }
}

fn client(dialer: &Dialer, idle_timeout: Duration) -> Client {
    let connector = Connector::new()
        .connector(dialer.clone())
        .timeout(NEVER)
        .conn_keep_alive(idle_timeout)
        .conn_lifetime(NEVER)
        .limit(0);
    Client::builder().connector(connector).disable_timeout().disable_redirects().no_default_headers().finish()
}

/// The address for awc. awc's pool shares connections between equal authorities, so this authority encodes origin and
/// route; the dialer takes both from the exchange. The scheme is always http, because the dialer handles TLS.
fn uri(url: &Url, exchange: &Exchange) -> Result<Uri, TransportError> {
    let HttpOrigin { host, port, security } = &exchange.origin;
    let security = if *security == Security::Tls { "tls" } else { "tcp" };
    // awc hashes the key byte by byte for each request, so it is short.
    let key = match &exchange.route {
        Route::Direct => format!("{security}.{port}.{host}"),
        route => format!("{security}.{port}.{host} {route:?}"),
    };
    // Every character that may have a meaning in an authority is encoded, and so is the underscore.
    let authority = utf8_percent_encode(&key, NOT_IN_KEYS).to_string().replace('%', "_");
    let target = match exchange.route {
        // A proxy needs the absolute address (RFC 9112, section 3.2.2).
        Route::Forward(_) => {
            let host = &url[Position::BeforeHost..Position::AfterPort];
            let path = &url[Position::BeforePath..Position::AfterQuery];
            format!("{}://{host}{path}", url.scheme())
        }
        Route::Direct | Route::Tunnel(_) => url[Position::BeforePath..Position::AfterQuery].to_owned(),
    };
    if target.len() > MAX_TARGET_BYTES {
        return Err(TransportError::Request(format!("its address is longer than {MAX_TARGET_BYTES} bytes")));
    }
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query(target).build();
    uri.map_err(|error| TransportError::Request(error.to_string()))
}
